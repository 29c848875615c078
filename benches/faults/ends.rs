//! How soon an end counts everywhere: a logout at one gateway, honoured by the other, and all sessions at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::between;
use crate::load::{INTERVAL, Load, get, log_out};
use crate::support::echo::open_tunnel;
use crate::support::redis::Redis;
use crate::support::wire::Wire;
use crate::tables::{Table, quantile, spelled};
use crate::world::{WARM_UP, World};

/// How many logouts are measured.
const LOGOUTS: usize = 100;

/// How long is watched for a storm after all sessions have ended.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// The moments of one logout at one gateway, seen from the other.
struct Logout {
    /// From the request for it, and from its answer, to the first request that is refused.
    refused: [Duration; 2],
    /// The same, to the end of a WebSocket.
    closed: [Duration; 2],
}

pub async fn measured() -> String {
    let redis = Redis::start().await;
    let world = World::start(&format!("redis: {{url: \"{}\"}}", redis.url()), Some(&redis)).await;
    let mut logouts = Vec::new();
    let load = Load::start(&world);
    sleep(WARM_UP).await;
    for _ in 0..LOGOUTS {
        logouts.push(one_logout(&world).await);
    }
    drop(load);
    let mut table = Table::new(&["what", "median", "95 of 100", "most"]);
    let mut row = |what: &str, durations: Vec<Duration>| {
        let mut durations = durations;
        durations.sort();
        let cells = [0.5, 0.95, 1.0].map(|share| milliseconds(quantile(&durations, share)));
        table.row([vec![what.to_owned()], cells.to_vec()].concat());
    };
    let of = |pick: &dyn Fn(&Logout) -> Duration| logouts.iter().map(pick).collect::<Vec<_>>();
    row("the other gateway refuses a request, after the logout was sent", of(&|logout| logout.refused[0]));
    row("the same, after the logout was answered", of(&|logout| logout.refused[1]));
    row("the other gateway closes a WebSocket, after the logout was sent", of(&|logout| logout.closed[0]));
    row("the same, after the logout was answered", of(&|logout| logout.closed[1]));
    let text = table.markdown();
    text + "\n" + &flushed(&world, &redis).await
}

/// Logs out at the first gateway, while requests go to the second without a pause.
async fn one_logout(world: &World) -> Logout {
    let [here, there] = [0, 1].map(|gateway: usize| world.gateways[gateway].address);
    let cookie = world.log_in().await;
    let mut tunnel = open_tunnel(there, "/ws", &cookie).await;
    assert_eq!(get(there, &cookie).await, 200);
    let closed = tokio::spawn(async move {
        tunnel.rest().await;
        Instant::now()
    });
    let refused = tokio::spawn(first_refused(there, cookie.clone()));
    sleep(Duration::from_millis(20)).await;
    let sent = Instant::now();
    assert_eq!(log_out(here, &cookie).await, 303);
    let answered = Instant::now();
    let (refused, closed) = (refused.await.unwrap(), closed.await.unwrap());
    Logout {
        refused: [between(sent, refused), between(answered, refused)],
        closed: [between(sent, closed), between(answered, closed)],
    }
}

/// When the first request that was refused had its answer.
async fn first_refused(gateway: SocketAddr, cookie: String) -> Instant {
    while get(gateway, &cookie).await != 401 {}
    Instant::now()
}

/// All sessions end at once, and all users go on asking with what they have.
async fn flushed(world: &World, redis: &Redis) -> String {
    let load = Load::start(world);
    sleep(WARM_UP).await;
    let mut tunnels = JoinSet::new();
    for user in &world.users {
        for gateway in &world.gateways {
            let mut tunnel: Wire = open_tunnel(gateway.address, "/ws", &user.cookie).await;
            tunnels.spawn(async move {
                tunnel.rest().await;
                Instant::now()
            });
        }
    }
    let asked = world.issuer.received().len();
    let begin = Instant::now();
    redis.command::<()>(&["FLUSHALL"]).await;
    let closed = tunnels.join_all().await;
    sleep(AFTERWARDS).await;
    let samples = load.samples();
    let last_accepted =
        samples.iter().filter(|sample| sample.status == 200).map(|sample| sample.started).max().unwrap();
    let odd = samples.iter().filter(|sample| sample.status != 200 && sample.status != 401).count();
    let refused = samples.iter().filter(|sample| sample.status == 401).count();
    let slowest = closed.iter().max().expect("tunnels");
    format!(
        "`FLUSHALL` with {} users, of whom each sends a request to each gateway every {} ms: the last request that was \
         served began {}. {refused} requests were refused with 401 from then on, {odd} had any other answer, and \
         the issuer was asked {} times in the {} s that followed. All {} WebSockets were closed within {}.\n",
        world.users.len(),
        INTERVAL.as_millis(),
        if last_accepted < begin {
            "before it".to_owned()
        } else {
            spelled(between(begin, last_accepted)) + " after it"
        },
        world.issuer.received().len() - asked,
        AFTERWARDS.as_secs(),
        closed.len(),
        spelled(between(begin, *slowest)),
    )
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
