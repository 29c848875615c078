//! What a service manager such as systemd hands over to the process, and is told by it (sd_listen_fds(3), sd_notify(3)).

use std::io;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::server::HandedOver;

/// What the process needs, besides the grace time, from its first signal to its end.
const MARGIN: Duration = Duration::from_secs(10);

/// What was handed over is no socket to listen on.
#[derive(Debug, thiserror::Error)]
#[error("what was handed over in LISTEN_FDS cannot be listened on: each is to be a TCP socket")]
pub(super) struct NoSocket(#[source] io::Error);

/// The sockets that were handed over. Nobody else can take them afterwards, for the variables that tell of them are gone.
pub(super) fn sockets(environment: &dyn Fn(&str) -> Option<String>) -> Result<HandedOver, NoSocket> {
    let names = environment("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let (mut given, mut sockets) = (ListenFd::from_env(), Vec::new());
    for index in 0..given.len() {
        // The word of sd_listen_fds_with_names(3) for one that has no name.
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        if let Some(socket) = given.take_tcp_listener(index).map_err(NoSocket)? {
            sockets.push((name.to_owned(), socket));
        }
    }
    Ok(HandedOver::new(sockets))
}

/// Connections are accepted.
pub(super) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// The process ends within this grace time: it is not to be killed before, whatever the unit says.
pub(super) fn tell_stopping(grace: Duration) {
    let most = u32::try_from((grace + MARGIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(most)]);
}

/// Says nothing where nobody listens (`NOTIFY_SOCKET`).
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(event = "server.not_told", error = %error, "the service manager could not be told");
    }
}
