//! Sockets that are handed over to the gateway, and what it tells who has started it (sd_listen_fds(3), sd_notify(3)).

use std::net::{SocketAddr, TcpListener};

use tokio::net::UnixDatagram;

use crate::support::gateway::{NO_ISSUER, Setup, handing_over, program};
use crate::support::upstream::Upstream;
use crate::support::wait::in_time;
use crate::support::wire::{Wire, ask, head};

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A gateway that is to listen here.
fn setup(upstream: &Upstream, listen: SocketAddr) -> Setup {
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.listen = listen.to_string();
    setup
}

#[tokio::test]
async fn who_comes_between_two_processes_waits_in_the_queue_of_the_socket() {
    let upstream = Upstream::start().await;
    let (socket, address) = socket();
    let setup = setup(&upstream, address);
    let first = setup.start_process_on(&[("public", &socket)]).await;
    assert_eq!(first.address, address);
    assert_eq!(ask(address, head("GET /a", "")).await.status, 200);
    first.signal("TERM");
    assert_eq!(first.ended().await.0, Some(0));

    let mut between = Wire::connect(address).await;
    between.send(head("GET /b", "")).await;
    let second = setup.start_process_on(&[("public", &socket)]).await;
    assert_eq!(between.reply().await.text(), "{\"path\":\"/b\"}");
    drop(second);
}

#[tokio::test]
async fn two_processes_share_a_socket_so_that_one_takes_over_from_the_other() {
    let upstream = Upstream::start().await;
    let (socket, address) = socket();
    let setup = setup(&upstream, address);
    let first = setup.start_process_on(&[("public", &socket)]).await;
    let _second = setup.start_process_on(&[("public", &socket)]).await;
    first.signal("TERM");
    assert_eq!(first.ended().await.0, Some(0));
    assert_eq!(ask(address, head("GET /a", "")).await.status, 200);
}

#[tokio::test]
async fn each_socket_is_taken_by_its_name_whatever_their_order() {
    let upstream = Upstream::start().await;
    let ((public, public_address), (admin, admin_address)) = (socket(), socket());
    let mut setup = setup(&upstream, public_address);
    setup.admin = admin_address.to_string();
    let process = setup.start_process_on(&[("admin", &admin), ("public", &public)]).await;
    assert_eq!((process.address, process.admin), (public_address, admin_address));
    assert_eq!(ask(admin_address, head("GET /livez", "")).await.text(), "{\"status\":\"alive\"}");
    assert_eq!(ask(public_address, head("GET /livez", "")).await.text(), "{\"path\":\"/livez\"}");
}

#[tokio::test]
async fn a_socket_that_the_configuration_does_not_mean_stops_the_start() {
    let upstream = Upstream::start().await;
    let ((given, given_address), (_elsewhere, configured)) = (socket(), socket());
    for (name, listen, said) in [
        (
            "public",
            configured,
            format!(
                "`public` that was handed over listens on {given_address}, and `server.listen` says {configured}"
            ),
        ),
        (
            "cloakroom.socket",
            given_address,
            "a socket `cloakroom.socket` was handed over and has no use".to_owned(),
        ),
        ("", given_address, "a socket `unknown` was handed over".to_owned()),
    ] {
        let mut setup = setup(&upstream, listen);
        // Where nobody listens on it, the gateway itself does: but not on an address that is taken.
        if name != "public" {
            setup.listen = "127.0.0.1:0".to_owned();
        }
        let (code, output) = setup.refused_process(handing_over(&[(name, &given)])).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(&said), "{output}");
    }
}

#[tokio::test]
async fn what_is_no_socket_stops_the_start() {
    let upstream = Upstream::start().await;
    let mut nothing = program(&[]);
    nothing.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "public");
    let (code, output) = setup(&upstream, socket().1).refused_process(nothing).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("what was handed over in LISTEN_FDS cannot be listened on"), "{output}");
}

#[tokio::test]
async fn the_service_manager_hears_when_it_is_ready_and_how_long_its_end_may_take() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut setup = Setup::new(NO_ISSUER).for_anybody("/", &upstream.url());
    setup.server = "shutdown_grace: 20s".to_owned();
    let mut command = program(&[]);
    command.env("NOTIFY_SOCKET", &path);
    let process = setup.start_process_as(command).await;
    let heard = async || {
        let mut said = [0; 256];
        let length = in_time(manager.recv(&mut said)).await.unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    };
    assert_eq!(heard().await, "READY=1\n");
    process.signal("TERM");
    assert_eq!(heard().await, "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\n");
    assert_eq!(process.ended().await.0, Some(0));
}
