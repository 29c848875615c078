//! Two gateway processes over one store, and users who have logged in.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::damage::records;
use crate::support::echo::Echo;
use crate::support::gateway::{GatewayProcess, Setup};
use crate::support::issuer::Issuer;
use crate::support::redis::Redis;
use crate::support::upstream::{Upstream, full};

/// How many there are.
pub const USERS: u64 = 48;

/// How long an access token lives, in seconds. It is refreshed in the last third, which is longer than any of
/// the faults takes, as the default of a minute is with tokens of some minutes.
const TOKEN_LIFE: u64 = 45;

pub struct World {
    pub issuer: Issuer,
    pub gateways: [GatewayProcess; 2],
    pub users: Vec<User>,
    _upstream: Upstream,
    _echo: Echo,
}

#[derive(Clone)]
pub struct User {
    pub cookie: String,
    /// The record's name in a single Redis.
    pub record: String,
}

impl World {
    /// Users who have logged in over this store, and whose tokens do not expire all at once. Their records
    /// are looked for in a single Redis only.
    pub async fn start(store: &str, redis: Option<&Redis>) -> Self {
        let (issuer, echo) = (Issuer::start().await, Echo::start().await);
        let upstream = Upstream::raw(|_| async { full("{}") }).await;
        let mut setup = Setup::new(&issuer.url())
            .for_users("/api", &upstream.url())
            .route(&format!("path: /ws, upstream: \"{}\", websocket: true", echo.url))
            .for_anybody("/", &upstream.url());
        store.clone_into(&mut setup.store);
        let gateways = [setup.start_process().await, setup.start_process().await];
        let mut world = Self { issuer, gateways, users: Vec::new(), _upstream: upstream, _echo: echo };
        let mut known = BTreeSet::new();
        for number in 0..USERS {
            let life = TOKEN_LIFE / 3 + number * (TOKEN_LIFE * 2 / 3) / USERS;
            world.issuer.behave(|behaviour| behaviour.expires_in = Some(json!(life)));
            let cookie = world.log_in().await;
            let record = match redis {
                Some(redis) => {
                    let all = records(redis).await;
                    let new = all.difference(&known).next().expect("a new record").clone();
                    known = all;
                    new
                }
                None => String::new(),
            };
            world.users.push(User { cookie, record });
        }
        world.issuer.behave(|behaviour| behaviour.expires_in = Some(json!(TOKEN_LIFE)));
        world
    }

    /// Another session, and its cookie.
    pub async fn log_in(&self) -> String {
        let mut browser = Browser::new(self.gateways[0].address);
        browser.log_in("/").await;
        browser.session_cookie().expect("a session")
    }

    pub fn refreshes(&self) -> usize {
        self.issuer.token_requests("refresh_token")
    }
}

/// How long users go on before anything happens: each gateway has opened each session by then.
pub const WARM_UP: Duration = Duration::from_secs(5);
