//! The threads that serve connections.

use crate::support::gateway::{NO_ISSUER, Setup};
use crate::support::upstream::Upstream;
use crate::support::wait::until;
use crate::support::wire::{Wire, head};

#[tokio::test]
async fn there_are_as_many_threads_as_asked_for_and_none_for_one_alone() {
    let upstream = Upstream::start().await;
    for (workers, expected) in [(1, &[][..]), (3, &["worker-0", "worker-1", "worker-2"])] {
        let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
        setup.server = format!("workers: {workers}");
        let process = setup.start_process().await;
        // A thread names itself once it runs.
        until(async || {
            let mut threads = process.threads();
            threads.retain(|name| name.starts_with("worker-"));
            threads.sort();
            threads == expected
        })
        .await;
        let mut open = Vec::new();
        for _ in 0..10 {
            let mut wire = Wire::connect(process.address).await;
            wire.send(head("GET /", "")).await;
            assert_eq!(wire.reply().await.status, 200);
            open.push(wire);
        }
        process.signal("TERM");
        for mut wire in open {
            assert!(wire.rest().await.is_empty(), "closed, whichever thread it is on");
        }
        assert_eq!(process.ended().await.0, Some(0));
    }
}
