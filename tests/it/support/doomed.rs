//! A gateway that can be killed in the middle of its work, as a process can: it has a runtime of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use super::gateway::Setup;

/// A gateway that is killed when it is dropped.
pub struct Doomed {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Doomed {
    pub async fn start(setup: Arc<Setup>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let gateway = runtime.spawn(async move { setup.start().await }).await.unwrap();
        let address = gateway.address;
        // It stops when it is dropped, which is not what happens here.
        std::mem::forget(gateway);
        Self { address, runtime: Some(runtime) }
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
