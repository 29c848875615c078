//! A storm of refreshes: the tokens of many sessions are due in the same second, while their users go on.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::Plan;
use crate::client::Client;
use crate::contestants::{Running, named};
use crate::load::{IN_FLIGHT, Taken, at_rate};
use crate::request::Requests;
use crate::support::gateway::{ORIGIN, SESSION_COOKIE};
use crate::support::shop::log_in_bare;
use crate::world::{RENEWED_BEFORE, World};

/// Requests a second, of random users.
const RATE: f64 = 4_000.0;

/// How long the issuer takes for one answer.
const ISSUER_TAKES: Duration = Duration::from_millis(50);

/// How long the calm and the storm are watched, each.
const WATCHED: Duration = Duration::from_secs(5);

/// Between the last login and the calm, so that each token lives long enough: no token is renewed before the
/// last third of its life.
const WAIT: Duration = Duration::from_secs(10);

/// Between the calm and the storm; lives are told in whole seconds.
const MARGIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Storm {
    pub sessions: usize,
    pub issuer_takes: Duration,
    /// Each with the number of token requests that renewed something.
    pub calm: (Taken, usize),
    pub storm: (Taken, usize),
}

pub async fn measure(world: &World, plan: &Plan) -> Storm {
    let running = Running::start(world, named("gateway")).await;
    let count = u32::try_from(plan.storm).expect("a few thousand");
    log_in(world, &running).await;
    let begun = Instant::now();
    log_in(world, &running).await;
    // Twice as long as the second of two took: the first has to look for the issuer.
    let due = begun + 2 * begun.elapsed() * count + WATCHED + WAIT;
    let mut cookies = Vec::new();
    for _ in 0..count {
        let life = due.saturating_duration_since(Instant::now()) + RENEWED_BEFORE;
        world.issuer.behave(|behaviour| behaviour.expires_in = Some(json!(life.as_secs())));
        cookies.push(log_in(world, &running).await);
    }
    world.issuer.behave(|behaviour| {
        behaviour.expires_in = Some(json!(3600));
        behaviour.token_delay = ISSUER_TAKES;
    });
    let requests = Requests::new("/api/orders", &cookies);
    let client = Rc::new(Client::connect(running.target.clone(), requests, IN_FLIGHT).await);
    let before = world.issuer.token_requests("refresh_token");
    sleep(due.saturating_duration_since(Instant::now() + WATCHED + MARGIN + plan.warm_up)).await;
    let calm = at_rate(&client, Some(&running.process), RATE, plan.warm_up, WATCHED).await;
    let meanwhile = world.issuer.token_requests("refresh_token");
    let storm = at_rate(&client, Some(&running.process), RATE, plan.warm_up, WATCHED).await;
    let after = world.issuer.token_requests("refresh_token");
    println!("storm: {} refreshes of {count} sessions, {} failed", after - meanwhile, storm.failures);
    Storm {
        sessions: plan.storm,
        issuer_takes: ISSUER_TAKES,
        calm: (calm, meanwhile - before),
        storm: (storm, after - meanwhile),
    }
}

/// A user, and the cookie of the session.
async fn log_in(world: &World, running: &Running) -> String {
    let answer = log_in_bare(running.target.address, ORIGIN, "/bff", &world.issuer).await;
    let set = answer.set_cookies().into_iter().find(|cookie| cookie.name() == SESSION_COOKIE);
    format!("{SESSION_COOKIE}={}", set.expect("a session").value())
}
