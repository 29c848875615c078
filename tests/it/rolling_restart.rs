//! Three gateways behind a balancer, restarted one after another while users work: nobody notices. What the
//! variables of `deploy/rolling-restart` say makes it larger, and has another version of the program take turns.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::balancer::Balancer;
use crate::support::browser::Browser;
use crate::support::gateway::{GatewayProcess, SESSION_COOKIE, Setup, program, program_at};
use crate::support::issuer::Issuer;
use crate::support::port::Reserved;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::users::{Protocol, Seen, Work};
use crate::support::wait::{in_time, until};
use crate::support::websocket_echo::{Spoken, WebSocketEcho};

const GATEWAYS: usize = 3;

/// What differs between a run for each change and a large one.
struct Scale {
    rounds: usize,
    /// Each at work by all protocols.
    users: usize,
    /// Programs that take turns, round by round; the first is where it begins.
    programs: Vec<String>,
}

impl Scale {
    #[expect(clippy::disallowed_methods, reason = "a test's size is no configuration of the gateway")]
    fn read() -> Self {
        let number = |name: &str, default: usize| {
            std::env::var(name).map_or(default, |number| number.parse().expect("a number"))
        };
        let programs = std::env::var("CLOAKROOM_ROLLING_RESTART_PROGRAMS").unwrap_or_default();
        Self {
            rounds: number("CLOAKROOM_ROLLING_RESTART_ROUNDS", 1),
            users: number("CLOAKROOM_ROLLING_RESTART_USERS", 4),
            programs: programs.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect(),
        }
    }

    fn program(&self, round: usize) -> Command {
        match self.programs.len() {
            0 => program(&[]),
            count => program_at(&self.programs[round % count]),
        }
    }
}

/// All that a gateway needs, and where each of the three is.
struct World {
    issuer: Issuer,
    setups: Vec<Setup>,
    _ports: Vec<Reserved>,
    _redis: Redis,
    _upstream: Upstream,
    _echo: WebSocketEcho,
}

impl World {
    async fn start() -> Self {
        let (issuer, redis) = (Issuer::start().await, Redis::start().await);
        // So short that there is always some refresh under way, or about to be.
        issuer.behave(|behaviour| behaviour.expires_in = Some(json!(4)));
        let (upstream, echo) = (Upstream::start().await, WebSocketEcho::start(Spoken::Http1).await);
        let ports: Vec<_> = (0..2 * GATEWAYS).map(|_| Reserved::new()).collect();
        let setups = ports.chunks(2).map(|ports| {
            let mut setup = Setup::new(&issuer.url())
                .route(&format!("path: /ws, upstream: \"http://{}\", websocket: true", echo.address))
                .for_users("/api", &upstream.url())
                .for_anybody("/", &upstream.url());
            setup.listen = ports[0].address().to_string();
            setup.admin = ports[1].address().to_string();
            setup.server = "h2c: true\nshutdown_grace: 6s".to_owned();
            setup.sessions = "refresh_before_expiry: 2s".to_owned();
            setup.store_in(&redis);
            setup
        });
        let setups = setups.collect();
        Self { issuer, setups, _ports: ports, _redis: redis, _upstream: upstream, _echo: echo }
    }

    fn refreshes(&self) -> usize {
        self.issuer.token_requests("refresh_token")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_are_restarted_one_after_another_and_nobody_notices() {
    let (scale, world) = (Scale::read(), World::start().await);
    let mut gateways = Vec::new();
    for setup in &world.setups {
        gateways.push(setup.start_process_as(scale.program(0)).await);
    }
    let balancer = Balancer::start(gateways.iter().map(|gateway| (gateway.address, gateway.admin))).await;
    for number in 0..GATEWAYS {
        balancer.until_ready(number).await;
    }
    let users = Users::begin(balancer.address, scale.users).await;
    let (mut longest, before) = (Duration::ZERO, world.refreshes());
    for round in 1..=scale.rounds {
        for (number, setup) in world.setups.iter().enumerate() {
            let (next, since) = (scale.program(round), Instant::now());
            stop(&mut gateways[number]).await;
            gateways[number] = setup.start_process_as(next).await;
            longest = longest.max(since.elapsed());
            balancer.until_ready(number).await;
        }
    }
    let refreshed = world.refreshes() - before;
    let seen = users.end().await;
    report(scale.rounds * GATEWAYS, longest, &seen, refreshed);
    // Another version may end them in another way.
    let ends = if scale.programs.len() > 1 { seen.closed.keys().copied().collect() } else { vec![1001] };
    assert_unnoticed(&seen, &ends);
    assert!(refreshed > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_alone_is_restarted_on_a_socket_that_outlives_it_and_nobody_is_refused() {
    let (scale, world) = (Scale::read(), World::start().await);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = world.setups.into_iter().next().unwrap();
    setup.listen = socket.local_addr().unwrap().to_string();
    let sockets = [("public", &socket)];
    let mut gateway = setup.start_process_on(&sockets).await;
    let users = Users::begin(gateway.address, scale.users).await;
    let (mut longest, restarts) = (Duration::ZERO, 3 * scale.rounds);
    for _ in 0..restarts {
        let since = Instant::now();
        stop(&mut gateway).await;
        gateway = setup.start_process_on(&sockets).await;
        longest = longest.max(since.elapsed());
        users.until_more_are_answered().await;
    }
    let seen = users.end().await;
    report(restarts, longest, &seen, world.issuer.token_requests("refresh_token"));
    assert_unnoticed(&seen, &[1001]);
}

/// Users at work.
struct Users {
    work: Work,
    count: usize,
    running: Vec<JoinHandle<()>>,
}

impl Users {
    /// So many, each at work in three windows: one by HTTP/1.1, one by HTTP/2, one with a WebSocket.
    async fn begin(gateway: SocketAddr, count: usize) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Seen::default())));
        let work = Work { gateway, stop, number: 0, seen };
        let mut running = Vec::new();
        for number in 0..count {
            let work = Work { number, ..work.clone() };
            let mut browser = Browser::new(gateway);
            browser.log_in("/").await;
            let cookie = format!("{SESSION_COOKIE}={}", browser.session_cookie().unwrap());
            running.push(tokio::spawn(work.clone().request(Protocol::Http1, cookie.clone())));
            running.push(tokio::spawn(work.clone().request(Protocol::Http2, cookie.clone())));
            running.push(tokio::spawn(work.talk(cookie)));
        }
        let users = Self { work, count, running };
        users.until_more_are_answered().await;
        users
    }

    async fn until_more_are_answered(&self) {
        let answered = || self.work.seen.lock().unwrap().answered;
        let enough = answered() + 10 * self.count;
        until(async || answered() >= enough).await;
    }

    async fn end(self) -> Seen {
        self.work.stop.cancel();
        for user in self.running {
            in_time(user).await.unwrap();
        }
        std::mem::take(&mut *self.work.seen.lock().unwrap())
    }
}

/// Stops a gateway as a supervisor does, and waits until it has ended of itself.
async fn stop(gateway: &mut GatewayProcess) {
    gateway.signal("TERM");
    until(async || !gateway.runs()).await;
    assert!(!gateway.has_logged("server.cut_off"), "all has ended within the grace");
}

/// No request has failed, nobody was logged out, and each WebSocket that ended did so with one of these codes.
fn assert_unnoticed(seen: &Seen, ends: &[u16]) {
    assert_eq!((&seen.failed, seen.logged_out), (&Vec::new(), 0));
    assert_eq!(seen.closed.keys().copied().collect::<Vec<_>>(), ends, "{seen:?}");
    assert!(seen.messages > 0, "{seen:?}");
}

#[expect(clippy::print_stdout, reason = "what a large run is for")]
fn report(restarts: usize, longest: Duration, seen: &Seen, refreshed: usize) {
    println!("restarts                     {restarts}");
    println!("longest, in seconds          {:.1}", longest.as_secs_f64());
    println!("requests answered            {}", seen.answered);
    println!("  sent again by the browser  {}", seen.sent_again);
    println!("requests failed              {}", seen.failed.len());
    println!("logouts                      {}", seen.logged_out);
    println!("refreshes                    {refreshed}");
    println!("WebSocket messages           {}", seen.messages);
    for (code, count) in &seen.closed {
        println!("WebSockets closed with {code}  {count}");
    }
}
