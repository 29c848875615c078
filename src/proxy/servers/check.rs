//! Asks each server whether it is well, beside what requests meet.

use std::sync::Arc;

use http::{Request, Uri, Version};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Servers;
use super::health::Server;
use crate::body;
use crate::config::Health;
use crate::proxy::transport::Transport;

/// Asks all servers at each interval, from now on. Never done.
pub(in crate::proxy) async fn watch(
    servers: Arc<Servers>,
    transport: Arc<Transport>,
    uri: Uri,
    health: Health,
) {
    let mut ticks = tokio::time::interval(health.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut checks = JoinSet::new();
        for server in servers.all().await {
            let (transport, uri, health) = (Arc::clone(&transport), uri.clone(), health.clone());
            checks.spawn(async move {
                let answers = answers_well(&server, &transport, uri);
                let is_well = tokio::time::timeout(health.timeout, answers).await.unwrap_or(false);
                (server, is_well)
            });
        }
        while let Some(Ok((server, is_well))) = checks.join_next().await {
            match server.note_check(is_well, &health, servers.now()) {
                Some(true) => tracing::info!(event = "upstream.healthy", address = %server.address),
                Some(false) => tracing::warn!(event = "upstream.unhealthy", address = %server.address),
                None => {}
            }
        }
    }
}

async fn answers_well(server: &Server, transport: &Transport, uri: Uri) -> bool {
    let mut request = Box::new(Request::new(body::full("")));
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    match transport.send(&server.address, request, None).await {
        Ok(answer) => answer.response.status().is_success(),
        Err(_) => false,
    }
}
