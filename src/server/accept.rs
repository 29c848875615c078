//! The loop that takes connections in.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Listener;
use super::workers::Workers;
use super::{ACCEPT_PAUSE, SAID_EVERY};

/// The connections there are, and the word that no further request is taken on them.
pub(super) struct Connections {
    pub(super) open: TaskTracker,
    pub(super) stopping: CancellationToken,
}

/// Takes connections in, and hands each to the worker that has the fewest; runs until it is dropped.
pub(super) async fn accept(
    socket: TcpListener,
    listener: &Arc<Listener>,
    workers: &Workers,
    connections: &Connections,
) {
    let mut said_at: Option<Instant> = None;
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) if has_gone(&error) => continue,
            Err(error) => {
                // Out of file descriptors, mostly: a pause lets connections end.
                tracing::warn!(event = "server.accept_failed", error = %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let door = listener.door();
        let Some(mut place) = listener.places.take(door.limits.connections) else {
            listener.in_force.load().gateway.metrics().count_overload("connections");
            // A flood is not to fill the disk as well.
            if said_at.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                said_at = Some(Instant::now());
                tracing::warn!(event = "server.overloaded", "there are too many connections");
            }
            let listener = Arc::clone(listener);
            tokio::spawn(async move { listener.turn_away(&door, stream).await });
            continue;
        };
        // One of its own: threads that look at the same one again and again would wait for each other.
        let (listener, stopping) = (Arc::clone(listener), connections.stopping.child_token());
        let Some((worker, load)) = workers.least_busy() else {
            connections.open.spawn(listener.serve(door, stream, peer, place, stopping));
            continue;
        };
        place.counts_for(load);
        // Out of this thread's reactor, and into the other's.
        if let Ok(stream) = stream.into_std() {
            let served = async move {
                match TcpStream::from_std(stream) {
                    Ok(stream) => listener.serve(door, stream, peer, place, stopping).await,
                    Err(error) => tracing::warn!(event = "server.accept_failed", error = %error),
                }
            };
            connections.open.spawn_on(served, &worker.runtime);
        }
    }
}

/// Whether the client has gone before it was accepted, which says nothing of the next one.
fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
