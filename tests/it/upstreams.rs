//! Several servers behind one route: who gets a request, and what is done where one gives no answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::net::{TcpStream, UnixListener};

use crate::support::gateway::{Gateway, NO_ISSUER, Setup};
use crate::support::port::Reserved;
use crate::support::upstream::{Upstream, full, status};
use crate::support::wait::until;
use crate::support::wire::{Reply, ask, head};

/// A gateway before servers at these addresses, with further keys of the upstream and of the route.
async fn before(addresses: &[String], upstream: &str, route: &str) -> Gateway {
    let addresses: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let addresses = addresses.join(", ");
    let upstream = format!("{{url: \"http://orders.internal\", addresses: [{addresses}]{upstream}}}");
    Setup::new(NO_ISSUER).route(&format!("path: /, upstream: {upstream}, auth: none{route}")).start().await
}

fn of(upstreams: &[&Upstream]) -> Vec<String> {
    upstreams.iter().map(|upstream| upstream.address.to_string()).collect()
}

async fn get(gateway: &Gateway) -> Reply {
    ask(gateway.address, head("GET /x", "")).await
}

async fn post(gateway: &Gateway, body: &str) -> Reply {
    let fields = format!("Content-Length: {}\r\n", body.len());
    ask(gateway.address, head("POST /x", &fields) + body).await
}

#[tokio::test]
async fn servers_share_the_load_and_know_the_url_s_host() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&of(&[&one, &other]), "", "").await;
    for _ in 0..100 {
        assert_eq!(get(&gateway).await.status, 200);
    }
    for upstream in [&one, &other] {
        assert!(upstream.arrived().len() > 20, "{}", upstream.arrived().len());
        assert_eq!(upstream.last().headers["host"], "orders.internal");
    }
}

#[tokio::test]
async fn an_answer_has_no_more_fields_than_are_let_through() {
    for (keys, most) in [("", 100), (", header_count: 20", 20), (", header_count: 250", 250)] {
        for (fields, status) in [(most, 200), (most + 1, 502)] {
            let upstream = Upstream::answering(move |_| {
                let mut response = full("");
                // `Content-Length` and `Date` are there besides.
                for number in 2..fields {
                    response.headers_mut().append("x-field", number.into());
                }
                response
            })
            .await;
            let gateway = before(&of(&[&upstream]), keys, "").await;
            let reply = get(&gateway).await;
            assert_eq!(reply.status, status, "{fields} fields{keys}");
        }
    }
}

#[tokio::test]
async fn a_server_that_dies_costs_no_request_and_returns_when_it_is_back() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&of(&[&one, &other]), "", "").await;
    for _ in 0..20 {
        assert_eq!(get(&gateway).await.status, 200);
    }
    let address = other.address;
    other.stop().await;
    let bodies: Vec<_> = (0..100).map(|number| format!("order {number} {}", "x".repeat(1000))).collect();
    for reply in join_all(bodies.iter().map(|body| post(&gateway, body))).await {
        assert_eq!(reply.status, 200);
    }
    let mut arrived: Vec<_> = one.arrived().into_iter().map(|arrived| arrived.body).collect();
    arrived.retain(|body| !body.is_empty());
    arrived.sort();
    let mut sent: Vec<_> = bodies.into_iter().map(bytes::Bytes::from).collect();
    sent.sort();
    assert_eq!(arrived, sent, "each body whole, and once");

    let back = Upstream::start_at(address).await;
    until(async || get(&gateway).await.status == 200 && !back.arrived().is_empty()).await;
}

#[tokio::test]
async fn where_no_server_is_there_the_client_hears_it_at_once() {
    let dead = [Reserved::new(), Reserved::new()];
    let addresses = dead.each_ref().map(|port| port.address().to_string());
    let gateway = before(&addresses, "", ", timeouts: {connect: 1h, response: 1h}").await;
    for _ in 0..10 {
        let reply = get(&gateway).await;
        assert_eq!((reply.status, reply.problem()), (502, "upstream-unavailable".to_owned()));
    }
    let _back = Upstream::start_at(dead[0].address()).await;
    until(async || get(&gateway).await.status == 200).await;
}

#[tokio::test]
async fn one_attempt_is_one_attempt() {
    let (there, dead) = (Upstream::start().await, Reserved::new());
    let addresses = [there.address, dead.address()].map(|address| address.to_string());
    let gateway = before(&addresses, "", ", retry: {attempts: 1}").await;
    until(async || get(&gateway).await.status == 502).await;
    // The one that is not there is left alone from now on, for a moment at least.
    assert_eq!(get(&gateway).await.status, 200);
}

#[tokio::test]
async fn what_a_server_may_have_acted_on_is_not_sent_to_another() {
    let seen = Arc::new(AtomicUsize::new(0));
    let broken = || {
        let seen = Arc::clone(&seen);
        Upstream::raw(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
            // The connection breaks off in the middle of the exchange.
            async { panic!("on purpose") }
        })
    };
    let (one, other) = (broken().await, broken().await);
    let gateway = before(&of(&[&one, &other]), "", ", retry: {attempts: 5}").await;
    assert_eq!(post(&gateway, "order").await.status, 502);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_server_that_takes_too_long_again_and_again_is_left_alone() {
    let there = Upstream::start().await;
    let silent = Upstream::raw(|_| std::future::pending()).await;
    let gateway = before(&of(&[&there, &silent]), "", ", timeouts: {response: 100ms}").await;
    let mut late = 0;
    until(async || {
        let reply = get(&gateway).await;
        late += usize::from(reply.status == 504);
        late == 3
    })
    .await;
    assert_eq!(get(&gateway).await.status, 200);
}

#[tokio::test]
async fn a_client_that_stalls_takes_no_server_out() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let gateway = before(&of(&[&one, &other]), "", ", timeouts: {response: 100ms}").await;
    let stalled = (0..20).map(|_| ask(gateway.address, head("POST /x", "Content-Length: 9\r\n") + "half"));
    assert!(join_all(stalled).await.iter().all(|reply| reply.status == 504));
    for _ in 0..60 {
        assert_eq!(get(&gateway).await.status, 200);
    }
    let asked =
        |upstream: &Upstream| upstream.arrived().iter().filter(|arrived| arrived.method == "GET").count();
    assert!(asked(&one) > 10 && asked(&other) > 10, "{} and {}", asked(&one), asked(&other));
}

#[tokio::test]
async fn a_check_takes_a_server_out_and_back_in() {
    let is_well = Arc::new(AtomicBool::new(true));
    let says = Arc::clone(&is_well);
    let checked = Upstream::answering(move |arrived| match arrived.target.as_str() {
        "/healthz" if !says.load(Ordering::Relaxed) => status(503, &[]),
        _ => full("checked"),
    })
    .await;
    let other = Upstream::answering(|_| full("other")).await;
    let health = ", health: {path: /healthz, interval: 20ms, unhealthy_after: 1, healthy_after: 1}";
    let gateway = before(&of(&[&checked, &other]), health, "").await;
    let checks = |upstream: &Upstream| {
        upstream.arrived().into_iter().filter(|arrived| arrived.target == "/healthz").count()
    };
    until(async || checks(&checked) > 1 && checks(&other) > 1).await;
    let check = checked.arrived().remove(0);
    assert_eq!((check.method.as_str(), &check.headers["host"]), ("GET", &"orders.internal".parse().unwrap()));

    is_well.store(false, Ordering::Relaxed);
    let only_other =
        async || join_all((0..20).map(|_| get(&gateway))).await.iter().all(|reply| reply.text() == "other");
    until(only_other).await;
    assert!(only_other().await, "it stays away");
    is_well.store(true, Ordering::Relaxed);
    until(async || get(&gateway).await.text() == "checked").await;
}

#[tokio::test]
async fn checks_end_with_the_gateway() {
    let upstream = Upstream::start().await;
    let gateway = before(&of(&[&upstream]), ", health: {path: /healthz, interval: 20ms}", "").await;
    until(async || upstream.arrived().len() > 2).await;
    gateway.stop().await;
    let seen = upstream.arrived().len();
    // A second gateway's checks show that time enough has passed for the first one's.
    let _second = before(&of(&[&upstream]), ", health: {path: /second, interval: 20ms}", "").await;
    until(async || upstream.arrived().len() > seen + 5).await;
    let late = upstream.arrived().into_iter().skip(seen + 1).filter(|arrived| arrived.target == "/healthz");
    assert_eq!(late.count(), 0);
}

#[tokio::test]
async fn unix_sockets_stand_beside_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("orders.sock");
    let (tcp, unix) = (Upstream::start().await, Upstream::start().await);
    let (listener, behind) = (UnixListener::bind(&socket).unwrap(), unix.address);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut server = TcpStream::connect(behind).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut server).await });
        }
    });
    let addresses = [tcp.address.to_string(), format!("unix:{}", socket.display())];
    let gateway = before(&addresses, "", "").await;
    for _ in 0..100 {
        assert_eq!(get(&gateway).await.status, 200);
    }
    assert!(tcp.arrived().len() > 20 && unix.arrived().len() > 20);
    assert_eq!(unix.last().headers["host"], "orders.internal");
}

#[tokio::test]
async fn a_name_stands_for_all_its_addresses() {
    // `localhost` has two on most machines, and a server listens on one of them.
    let upstream = Upstream::start().await;
    let gateway = before(&[format!("localhost:{}", upstream.address.port())], "", "").await;
    for _ in 0..20 {
        assert_eq!(get(&gateway).await.status, 200);
    }
}
