//! Opened sessions in the process: used without the store while nothing has changed, and never once
//! something has; served in an outage, and written again where the store has lost something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config;
use cloakroom::random::Random;
use cloakroom::seal::{DataKey, KeyRing};
use cloakroom::secret::Secret;
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::{Record, Store, Version};
use cloakroom::session::{Common, Session, Sessions, TokensReplaced};
use cloakroom::telemetry::metrics::Metrics;
use cloakroom::tokens::{Identity, Tokens};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::clock::clock;
use crate::support::gateway::{NO_ISSUER, Setup, environment};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::wait::{in_time, until};

const GRACE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// One store, and two processes that hold sessions of it.
struct Bench {
    clock: Arc<ManualClock>,
    store: Arc<TroubledStore>,
    here: Process,
    elsewhere: Process,
}

struct Process {
    sessions: Arc<Sessions>,
    tasks: TaskTracker,
}

impl Bench {
    fn new() -> Self {
        Self::with_grace(GRACE)
    }

    fn with_grace(grace: Duration) -> Self {
        let clock = clock();
        let store = Arc::new(TroubledStore::new(clock.clone()));
        let process = || Process::new(&store, &clock, grace);
        let (here, elsewhere) = (process(), process());
        Self { clock, store, here, elsewhere }
    }

    /// A session that this process has open.
    async fn begin(&self) -> Ticket {
        let ticket = self.here.sessions.create(tokens(&self.clock), identity()).await.unwrap().0;
        self.here.settle().await;
        assert!(self.here.load(&ticket).await.is_some());
        ticket
    }

    fn lose_the_store(&self) {
        self.store.begin(Step::Read, Trouble::Fails);
    }

    /// The record as it lies in the store.
    async fn record(&self, ticket: &Ticket) -> Option<Record> {
        self.store.memory.read(&ticket.id.record_key()).await.unwrap()
    }

    /// Puts an old record back, as a failover does.
    async fn go_back_to(&self, ticket: &Ticket, old: &Record) {
        self.store.memory.create(&ticket.id.record_key(), old).await.unwrap();
    }
}

impl Process {
    fn new(store: &Arc<TroubledStore>, clock: &Arc<ManualClock>, grace: Duration) -> Self {
        let setup = Setup::new(NO_ISSUER).for_users("/api", NO_ISSUER);
        let config = config::parse("test.yaml", &setup.yaml(), &environment).unwrap().config;
        let ring = Arc::new(KeyRing::new(&config.session_keys));
        let tasks = TaskTracker::new();
        let (random, metrics) = (Random::SYSTEM, Metrics::new());
        let store: Arc<dyn Store> = store.clone();
        let common = Common::new(ring, store, grace, clock.clone(), random, tasks.clone(), metrics);
        Self { sessions: Arc::new(Sessions::new(&config.apps[0], Arc::new(common))), tasks }
    }

    async fn load(&self, ticket: &Ticket) -> Option<Arc<Session>> {
        self.sessions.load(ticket).await.unwrap()
    }

    /// Waits for what goes on behind.
    async fn settle(&self) {
        self.tasks.close();
        in_time(self.tasks.wait()).await;
        self.tasks.reopen();
    }

    async fn renew(&self, ticket: &Ticket, access_token: &str) -> Arc<Session> {
        let session = self.sessions.load_stored(ticket).await.unwrap().unwrap();
        let tokens = Tokens { access_token: Secret::new(access_token), ..session.tokens.clone() };
        match self.sessions.replace_tokens(ticket, &session, tokens).await.unwrap() {
            TokensReplaced::Written(session) => session,
            other => panic!("{other:?}"),
        }
    }
}

fn identity() -> Identity {
    Identity {
        issuer: NO_ISSUER.to_owned(),
        subject: "alice".to_owned(),
        sid: None,
        claims: serde_json::Map::new(),
    }
}

fn tokens(clock: &ManualClock) -> Tokens {
    Tokens {
        access_token: Secret::new("first"),
        issued_at: clock.now(),
        expires_at: clock.now() + Duration::from_secs(300),
        refresh_token: Some(Secret::new("refresh")),
        id_token: None,
        scopes: Vec::new(),
        dpop_key: None,
        route_tokens: BTreeMap::new(),
    }
}

#[tokio::test]
async fn an_opened_session_is_used_without_the_store_for_twenty_seconds() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.lose_the_store();
    for (seconds, asked) in [(19, 0), (1, 1)] {
        bench.clock.advance(Duration::from_secs(seconds));
        assert!(bench.here.load(&ticket).await.is_some());
        assert_eq!(bench.store.arrived(), asked);
    }
}

#[tokio::test]
async fn what_changes_elsewhere_is_not_used_here_any_more() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.elsewhere.renew(&ticket, "second").await;
    assert_eq!(bench.here.load(&ticket).await.unwrap().tokens.access_token.expose(), "second");
    bench.elsewhere.sessions.end(&ticket).await.unwrap().unwrap();
    assert_eq!(bench.here.load(&ticket).await, None);
}

#[tokio::test]
async fn a_break_in_the_telling_has_every_session_asked_for_again() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let changes = bench.store.changes();
    changes.disconnected();
    changes.connected();
    bench.lose_the_store();
    assert!(bench.here.load(&ticket).await.is_some());
    assert_eq!(bench.store.arrived(), 1);
    bench.store.end();
    changes.disconnected();
    assert!(bench.here.sessions.load_stored(&ticket).await.unwrap().is_some());
    bench.lose_the_store();
    assert!(bench.here.load(&ticket).await.is_some());
    assert_eq!(bench.store.arrived(), 1, "nor is what was read within the break");
}

#[tokio::test]
async fn in_an_outage_who_is_known_is_served_for_the_time_of_grace() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let stranger = bench.elsewhere.sessions.create(tokens(&bench.clock), identity()).await.unwrap().0;
    bench.store.changes().disconnected();
    bench.lose_the_store();
    bench.here.sessions.load(&stranger).await.unwrap_err();
    bench.clock.advance(GRACE - SECOND);
    assert!(bench.here.load(&ticket).await.is_some());
    bench.clock.advance(SECOND);
    bench.here.sessions.load(&ticket).await.unwrap_err();
    bench.store.end();
    assert!(bench.here.load(&ticket).await.is_some(), "and nobody was logged out");
}

/// The store tells of nothing for a while, in which the session may have ended, and later goes away.
#[tokio::test]
async fn in_an_outage_nobody_is_served_whom_the_store_has_not_vouched_for_in_the_time_of_grace() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let changes = bench.store.changes();
    changes.disconnected();
    changes.connected();
    bench.clock.advance(Duration::from_secs(1200));
    bench.lose_the_store();
    bench.here.sessions.load(&ticket).await.unwrap_err();
}

#[tokio::test]
async fn told_of_no_change_until_the_break_the_time_of_grace_begins_with_the_break() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let watch = tokio::spawn(Arc::clone(&bench.here.sessions).watch_store(false, CancellationToken::new()));
    tokio::task::yield_now().await;
    bench.clock.advance(Duration::from_secs(1200));
    bench.lose_the_store();
    bench.store.changes().disconnected();
    tokio::task::yield_now().await;
    bench.clock.advance(GRACE - SECOND);
    assert!(bench.here.load(&ticket).await.is_some());
    bench.clock.advance(SECOND);
    bench.here.sessions.load(&ticket).await.unwrap_err();
    watch.abort();
}

#[tokio::test]
async fn a_watch_whose_place_is_taken_in_an_outage_goes_on_to_its_end() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let (stop, sessions) = (CancellationToken::new(), &bench.here.sessions);
    let watch = tokio::spawn(Arc::clone(sessions).watch_store(false, stop.clone()));
    tokio::task::yield_now().await;
    bench.lose_the_store();
    bench.store.changes().disconnected();
    tokio::task::yield_now().await;
    bench.clock.advance(GRACE - SECOND);
    stop.cancel();
    let successor = tokio::spawn(Arc::clone(sessions).watch_store(true, CancellationToken::new()));
    tokio::task::yield_now().await;
    assert!(!watch.is_finished());
    assert!(bench.here.load(&ticket).await.is_some());
    bench.clock.advance(SECOND);
    sessions.load(&ticket).await.unwrap_err();
    bench.clock.advance(GRACE);
    bench.store.end();
    bench.store.changes().connected();
    in_time(watch).await.unwrap();
    assert!(sessions.had_an_outage_within(SECOND), "it ended just now");
    successor.abort();
}

#[tokio::test]
async fn a_store_that_answers_others_prolongs_nobodys_grace() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.store.changes().disconnected();
    bench.lose_the_store();
    for second in 1..=30 {
        bench.clock.advance(SECOND);
        assert_eq!(bench.here.sessions.load(&ticket).await.is_ok(), second < 30, "{second}");
        // Another part of it is well.
        assert!(bench.here.sessions.claim_once(&second.to_string(), SECOND).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn r49_a_tunnel_lives_no_longer_in_an_outage_than_its_session_is_served() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let watch = tokio::spawn(Arc::clone(&bench.here.sessions).watch_store(false, CancellationToken::new()));
    let (sessions, same) = (Arc::clone(&bench.here.sessions), ticket.clone());
    let tunnel = tokio::spawn(async move { sessions.until_ended(&same).await });
    tokio::task::yield_now().await;
    bench.lose_the_store();
    bench.store.changes().disconnected();
    bench.store.until_reached().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!tunnel.is_finished());
    let over = tokio::time::Instant::now();
    bench.clock.advance(GRACE);
    in_time(tunnel).await.unwrap();
    assert!(over.elapsed() <= Duration::from_secs(1));
    watch.abort();
}

#[tokio::test]
async fn without_grace_nothing_is_served_out_of_memory() {
    let bench = Bench::with_grace(Duration::ZERO);
    let ticket = bench.begin().await;
    bench.lose_the_store();
    bench.here.sessions.load(&ticket).await.unwrap_err();
}

#[tokio::test]
async fn in_an_outage_nobody_is_served_of_whom_a_change_was_told() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.elsewhere.sessions.end(&ticket).await.unwrap().unwrap();
    bench.lose_the_store();
    bench.here.sessions.load(&ticket).await.unwrap_err();

    bench.store.end();
    let ticket = bench.begin().await;
    bench.store.changes().note_all();
    bench.lose_the_store();
    bench.here.sessions.load(&ticket).await.unwrap_err();
}

#[tokio::test]
async fn in_an_outage_no_session_outlives_its_time() {
    let bench = Bench::with_grace(Duration::from_secs(7200));
    let ticket = bench.begin().await;
    bench.lose_the_store();
    bench.clock.advance(Duration::from_secs(1799));
    assert!(bench.here.load(&ticket).await.is_some());
    bench.clock.advance(SECOND);
    bench.here.sessions.load(&ticket).await.unwrap_err();
}

#[tokio::test]
async fn what_this_process_has_written_itself_is_served_in_an_outage() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.here.renew(&ticket, "second").await;
    bench.clock.advance(Duration::from_secs(200));
    let seen = bench.here.load(&ticket).await.unwrap();
    bench.here.sessions.touch(&ticket, &seen).await.unwrap();
    bench.here.settle().await;
    bench.lose_the_store();
    let served = bench.here.load(&ticket).await.unwrap();
    assert_eq!(served.tokens.access_token.expose(), "second");
    assert!(served.idle_expires_at > seen.idle_expires_at);
}

#[tokio::test]
async fn who_wanted_to_leave_is_not_served_though_nobody_knows_whether_the_store_has_heard() {
    for trouble in [Trouble::Fails, Trouble::LosesItsAnswer] {
        let bench = Bench::new();
        let ticket = bench.begin().await;
        bench.store.begin(Step::Take, trouble);
        bench.here.sessions.end(&ticket).await.unwrap_err();
        bench.lose_the_store();
        bench.here.sessions.load(&ticket).await.unwrap_err();
    }
}

#[tokio::test]
async fn an_end_while_the_session_is_read_wins() {
    let bench = Bench::new();
    let ticket = bench.elsewhere.sessions.create(tokens(&bench.clock), identity()).await.unwrap().0;
    bench.elsewhere.settle().await;
    let record = bench.record(&ticket).await.unwrap();
    bench.store.begin(Step::Read, Trouble::Waits);
    let (sessions, same) = (Arc::clone(&bench.here.sessions), ticket.clone());
    let reading = tokio::spawn(async move { sessions.load(&same).await });
    bench.store.until_reached().await;
    bench.elsewhere.sessions.end(&ticket).await.unwrap();
    // The reader gets what lay there before, as from a slow answer.
    bench.go_back_to(&ticket, &record).await;
    bench.store.end();
    assert!(reading.await.unwrap().unwrap().is_some());
    bench.store.memory.take(&ticket.id.record_key()).await.unwrap();
    bench.lose_the_store();
    bench.here.sessions.load(&ticket).await.unwrap_err();
}

#[tokio::test]
async fn a_store_that_went_back_is_given_the_newest_again() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let old = bench.record(&ticket).await.unwrap();
    let newest = bench.here.renew(&ticket, "second").await;
    bench.here.settle().await;
    bench.go_back_to(&ticket, &old).await;
    assert_eq!(bench.here.load(&ticket).await.unwrap().tokens, newest.tokens);
    assert_eq!(bench.record(&ticket).await.unwrap().version, Version(2));
    assert_eq!(bench.elsewhere.load(&ticket).await.unwrap().tokens, newest.tokens);
}

#[tokio::test]
async fn and_unasked_once_the_store_is_heard_of_again() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let watch = tokio::spawn(Arc::clone(&bench.here.sessions).watch_store(false, CancellationToken::new()));
    let old = bench.record(&ticket).await.unwrap();
    bench.here.renew(&ticket, "second").await;
    bench.here.settle().await;
    tokio::task::yield_now().await;
    bench.store.changes().disconnected();
    tokio::task::yield_now().await;
    bench.go_back_to(&ticket, &old).await;
    bench.store.changes().connected();
    until(async || bench.record(&ticket).await.unwrap().version == Version(2)).await;
    watch.abort();
}

#[tokio::test]
async fn a_store_that_went_back_to_before_the_session_brings_nothing_back() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.here.renew(&ticket, "second").await;
    bench.store.memory.take(&ticket.id.record_key()).await.unwrap();
    assert_eq!(bench.here.load(&ticket).await, None);
    assert_eq!(bench.record(&ticket).await, None);
}

#[tokio::test]
async fn a_store_that_forgot_an_end_is_told_again_and_nobody_comes_back() {
    let bench = Bench::new();
    for by_key in [false, true] {
        let ticket = bench.begin().await;
        let record = bench.record(&ticket).await.unwrap();
        if by_key {
            bench.here.sessions.end_unseen(&ticket.id.record_key()).await.unwrap().unwrap();
        } else {
            bench.here.sessions.end(&ticket).await.unwrap().unwrap();
        }
        bench.go_back_to(&ticket, &record).await;
        assert_eq!(bench.here.load(&ticket).await, None);
        assert_eq!(bench.record(&ticket).await, None);
    }
}

#[tokio::test]
async fn and_unasked_once_it_is_heard_of_again() {
    let bench = Bench::new();
    let watch = tokio::spawn(Arc::clone(&bench.here.sessions).watch_store(false, CancellationToken::new()));
    let ticket = bench.begin().await;
    let record = bench.record(&ticket).await.unwrap();
    bench.here.sessions.end(&ticket).await.unwrap().unwrap();
    bench.store.changes().disconnected();
    tokio::task::yield_now().await;
    bench.go_back_to(&ticket, &record).await;
    bench.store.begin(Step::Take, Trouble::Fails);
    bench.store.changes().connected();
    bench.store.until_reached().await;
    bench.store.end();
    until(async || bench.record(&ticket).await.is_none()).await;
    assert_eq!(bench.elsewhere.load(&ticket).await, None);
    watch.abort();
}

#[tokio::test]
async fn of_many_uses_at_the_due_moment_one_is_written() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    bench.clock.advance(Duration::from_secs(180));
    let seen = bench.here.load(&ticket).await.unwrap();
    bench.store.begin(Step::Touch, Trouble::Waits);
    let touches = (0..10).map(|_| {
        let (sessions, ticket, seen) = (Arc::clone(&bench.here.sessions), ticket.clone(), Arc::clone(&seen));
        tokio::spawn(async move { sessions.touch(&ticket, &seen).await })
    });
    let touches: Vec<_> = touches.collect();
    bench.store.until_reached().await;
    tokio::task::yield_now().await;
    assert_eq!(bench.store.arrived(), 1);
    bench.store.end();
    for touch in touches {
        touch.await.unwrap().unwrap();
    }
    assert!(bench.here.load(&ticket).await.unwrap().idle_expires_at > seen.idle_expires_at);
}

#[tokio::test]
async fn a_damaged_record_counts_as_absent_to_those_too_who_have_the_session_open() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let record = bench.record(&ticket).await.unwrap();
    for sealed in [Vec::new(), record.sealed[1..].to_vec(), record.sealed[..40].to_vec()] {
        bench.go_back_to(&ticket, &Record { sealed, ..record.clone() }).await;
        assert_eq!(bench.here.load(&ticket).await, None);
        bench.go_back_to(&ticket, &record).await;
        assert!(bench.here.load(&ticket).await.is_some());
    }
}

#[tokio::test]
async fn an_opened_session_is_only_for_the_ticket_that_opened_it() {
    let bench = Bench::new();
    let ticket = bench.begin().await;
    let other = Ticket::new(ticket.id, DataKey::generate(Random::SYSTEM));
    assert_eq!(bench.here.load(&other).await, None);
}
