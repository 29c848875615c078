//! The refresh step by step, over a store that fails or is slow at one of them.

use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config::{self, App};
use cloakroom::oidc::{AuthorizationRequest, Clients, Grants};
use cloakroom::random::Random;
use cloakroom::refresh::{Failure, Refresher};
use cloakroom::revocation::Revocations;
use cloakroom::seal::KeyRing;
use cloakroom::secret::Secret;
use cloakroom::session::cookie::Ticket;
use cloakroom::session::store::{LeaseOwner, Record, RecordKey, Store, Version};
use cloakroom::session::{Common, Session, Sessions, TokensReplaced};
use cloakroom::telemetry::metrics::Metrics;
use cloakroom::tokens::Tokens;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::support::clock::clock;
use crate::support::gateway::{Setup, environment};
use crate::support::issuer::{Endpoint, Fault, Issuer};
use crate::support::troubled_store::{Step, Trouble, TroubledStore};
use crate::support::wait::{in_time, until};

/// A session, and two nodes that may refresh it.
struct Bench {
    clock: Arc<ManualClock>,
    issuer: Issuer,
    store: Arc<TroubledStore>,
    one: Node,
    other: Node,
    /// It has never asked for the issuer's metadata.
    cold: Node,
    ticket: Ticket,
}

#[derive(Clone)]
struct Node {
    clients: Clients,
    sessions: Arc<Sessions>,
    refresher: Refresher,
    tasks: TaskTracker,
}

impl Bench {
    async fn start() -> Self {
        let clock = clock();
        let issuer = Issuer::start_with(clock.clone()).await;
        let setup = Setup::new(&issuer.url()).for_users("/api", "http://127.0.0.1:9");
        let loaded = config::parse("test.yaml", &setup.yaml(), &environment).unwrap();
        let ring = Arc::new(KeyRing::new(&loaded.config.session_keys));
        let store = Arc::new(TroubledStore::new(clock.clone()));
        let [app] = loaded.config.apps.as_slice() else { panic!("one app") };
        let node = || Node::new(app, &ring, &store, &clock);
        let (one, other, cold) = (node(), node(), node());
        other.clients.only().unwrap().discover().await.unwrap();
        let ticket = log_in(&one, &issuer).await;
        Self { clock, issuer, store, one, other, cold, ticket }
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn key(&self) -> RecordKey {
        self.one.sessions.record_key(&self.ticket)
    }

    fn refreshes(&self) -> usize {
        self.issuer.token_requests("refresh_token")
    }

    async fn stored(&self) -> Arc<Session> {
        self.one.sessions.load_stored(&self.ticket).await.unwrap().expect("the session is there")
    }

    /// What a request does, from the load to the token.
    async fn freshen(&self, node: &Node) -> Result<Arc<Session>, Failure> {
        let session = node.refresher.load(&self.ticket).await.map_err(Failure::Store)?;
        node.refresher.freshen(&self.ticket, session.ok_or(Failure::Gone)?).await
    }

    /// A request that goes on by itself.
    fn begin_freshen(
        &self,
        node: &Node,
        session: &Arc<Session>,
    ) -> tokio::task::JoinHandle<Result<Arc<Session>, Failure>> {
        let (refresher, ticket, session) = (node.refresher.clone(), self.ticket.clone(), session.clone());
        tokio::spawn(async move { refresher.freshen(&ticket, session).await })
    }

    /// A request that has loaded this session before gets no token of it any more, on any way.
    async fn assert_hands_nothing_out(&self, loaded: &Arc<Session>, expects: impl Fn(&Failure) -> bool) {
        let freshened = self.one.refresher.freshen(&self.ticket, loaded.clone()).await;
        assert!(freshened.as_ref().is_err_and(&expects), "{freshened:?}");
        let replaced = self.one.refresher.replace_refused(&self.ticket, loaded, None).await;
        assert!(matches!(&replaced, Some(Err(failure)) if expects(failure)), "{replaced:?}");
    }

    /// Waits for all flights to end; nothing may be left of them.
    async fn settle(&self) {
        for node in [&self.one, &self.other, &self.cold] {
            node.tasks.close();
            in_time(node.tasks.wait()).await;
            let state = format!("{:?}", node.refresher);
            assert!(state.contains("flights: {}") && state.contains("unwritten: 0"), "{state}");
        }
    }
}

impl Node {
    fn new(app: &App, ring: &Arc<KeyRing>, store: &Arc<TroubledStore>, clock: &Arc<ManualClock>) -> Self {
        let (store, clock): (Arc<dyn Store>, Arc<dyn Clock>) = (store.clone(), clock.clone());
        let clients = Clients::new(app, &clock, Random::SYSTEM, None).unwrap();
        let grants: Arc<dyn Grants> = Arc::new(clients.clone());
        let tasks = TaskTracker::new();
        let grace = Duration::from_secs(30);
        let (random, metrics) = (Random::SYSTEM, Metrics::new());
        let common = Common::new(ring.clone(), store, grace, clock.clone(), random, tasks.clone(), metrics);
        let sessions = Arc::new(Sessions::new(app, Arc::new(common)));
        let revocations = Revocations::new(app, &grants);
        let margin = app.session.refresh_before_expiry;
        let refresher =
            Refresher::new(sessions.clone(), grants, revocations, clock, random, margin, tasks.clone());
        Self { clients, sessions, refresher, tasks }
    }
}

async fn log_in(Node { clients, sessions, .. }: &Node, issuer: &Issuer) -> Ticket {
    let client = clients.only().unwrap();
    let expected = client.expect(None, None);
    let request = AuthorizationRequest {
        state: "s",
        expected: &expected,
        prompt: None,
        login_hint: None,
        ui_locales: None,
        accept_language: &[],
    };
    let url = client.authorization_url(&request).await.unwrap();
    let (_, code) = issuer.authorize(&url).into_iter().find(|(name, _)| name == "code").unwrap();
    let (tokens, identity) = client.redeem(&Secret::new(code), &expected).await.unwrap();
    sessions.create(tokens, identity).await.unwrap().0
}

/// Tokens that another node got.
fn renewed_elsewhere(session: &Session) -> Tokens {
    Tokens {
        access_token: Secret::new("of another node"),
        expires_at: session.tokens.expires_at + Duration::from_secs(300),
        ..session.tokens.clone()
    }
}

#[tokio::test]
async fn a_store_that_fails_before_the_issuer_is_asked_costs_no_token() {
    for step in [Step::Lease, Step::Read] {
        let bench = Bench::start().await;
        let before = bench.stored().await;
        bench.advance(300);
        bench.store.begin(step, Trouble::Fails);
        let refused = bench.begin_freshen(&bench.one, &before).await.unwrap();
        assert!(matches!(refused, Err(Failure::Store(_))), "{step:?} {refused:?}");
        assert_eq!(bench.refreshes(), 0);
        bench.store.end();
        // A lease that was taken for nothing ends by itself.
        bench.advance(3);
        assert_ne!(bench.freshen(&bench.other).await.unwrap().tokens, before.tokens);
        bench.settle().await;
        assert_eq!(bench.refreshes(), 1);
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_written_are_served_from_here_and_written_later() {
    let bench = Bench::start().await;
    let before = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    let served = bench.freshen(&bench.one).await.unwrap();
    assert_ne!(served.tokens, before.tokens);
    assert_eq!(bench.stored().await, before, "nothing was written");
    assert_eq!(bench.freshen(&bench.one).await.unwrap().tokens, served.tokens);
    bench.store.begin(Step::Read, Trouble::Fails);
    assert_eq!(bench.freshen(&bench.one).await.unwrap().tokens, served.tokens, "the store is all away");
    let elsewhere = bench.freshen(&bench.other).await;
    assert!(matches!(elsewhere, Err(Failure::Store(_))), "{elsewhere:?}");
    bench.store.end();
    bench.settle().await;
    assert_eq!(bench.stored().await.tokens, served.tokens);
    assert_eq!(bench.freshen(&bench.other).await.unwrap().tokens, served.tokens);
    assert_eq!(bench.refreshes(), 1);
}

#[tokio::test]
async fn a_spent_refresh_token_is_not_sent_again_while_its_successor_is_unwritten() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    let served = bench.freshen(&bench.one).await.unwrap();
    bench.advance(250);
    assert_eq!(bench.freshen(&bench.one).await.unwrap().tokens, served.tokens, "stale");
    bench.advance(50);
    let expired = bench.freshen(&bench.one).await;
    assert!(matches!(expired, Err(Failure::Store(_))), "{expired:?}");
    assert!(bench.one.refresher.replace_refused(&bench.ticket, &served, None).await.is_none());
    assert_eq!(bench.refreshes(), 1);
    bench.store.end();
    until(async || bench.stored().await.tokens == served.tokens).await;
    until(async || bench.freshen(&bench.one).await.is_ok()).await;
    bench.settle().await;
    let seen = bench.issuer.refresh_tokens_seen();
    assert_eq!((seen.len(), seen[0] == seen[1]), (2, false));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_known_again_as_ours() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::LosesItsAnswer);
    let served = bench.freshen(&bench.one).await.unwrap();
    bench.store.end();
    bench.settle().await;
    assert_eq!(bench.stored().await.tokens, served.tokens);
    assert_eq!((bench.refreshes(), bench.issuer.revoked().len()), (1, 0));
}

#[tokio::test]
async fn a_lease_that_cannot_be_given_up_holds_nobody_for_long() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Release, Trouble::Fails);
    let first = bench.freshen(&bench.one).await.unwrap();
    bench.store.end();
    bench.advance(300);
    assert_ne!(bench.freshen(&bench.other).await.unwrap().tokens, first.tokens);
    bench.settle().await;
}

#[tokio::test]
async fn a_new_token_that_is_refused_while_the_lease_is_given_up_is_replaced_too() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Release, Trouble::Waits);
    let first = bench.freshen(&bench.one).await.unwrap();
    bench.store.until_reached().await;
    let replaced = bench.one.refresher.replace_refused(&bench.ticket, &first, None);
    let (replaced, ()) = tokio::join!(replaced, async { bench.store.end() });
    assert_ne!(replaced.unwrap().unwrap().tokens, first.tokens);
    assert_eq!(bench.refreshes(), 2);
    bench.settle().await;
}

#[tokio::test]
async fn a_session_that_cannot_be_ended_now_is_ended_later() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.issuer.end_login_of(session.tokens.access_token.expose());
    bench.advance(300);
    bench.store.begin(Step::TakeVersion, Trouble::Fails);
    let refused = bench.freshen(&bench.one).await;
    assert!(matches!(refused, Err(Failure::Store(_))), "{refused:?}");
    bench.store.end();
    until(async || matches!(bench.freshen(&bench.one).await, Err(Failure::Ended))).await;
    assert!(matches!(bench.freshen(&bench.one).await, Err(Failure::Gone)));
    bench.settle().await;
}

#[tokio::test]
async fn a_logout_between_the_answer_and_the_write_wins_and_the_late_tokens_are_revoked() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Waits);
    let waiting = bench.begin_freshen(&bench.one, &session);
    bench.store.until_reached().await;
    let late = bench.issuer.living_refresh_tokens();
    let ended = bench.other.sessions.end(&bench.ticket).await.unwrap();
    assert_eq!(ended.unwrap().tokens, session.tokens);
    bench.store.end();
    assert!(matches!(waiting.await.unwrap(), Err(Failure::Gone)));
    bench.settle().await;
    assert_eq!(bench.issuer.revoked().len(), 2);
    assert_eq!(bench.issuer.revoked()[..1], late);
    assert_eq!(bench.one.sessions.load(&bench.ticket).await.unwrap(), None, "nothing brings it back");
}

#[tokio::test]
async fn a_logout_while_the_tokens_are_unwritten_wins_too() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    bench.freshen(&bench.one).await.unwrap();
    bench.other.sessions.end(&bench.ticket).await.unwrap().expect("a session to end");
    assert!(matches!(bench.freshen(&bench.one).await, Err(Failure::Gone)), "though this node has tokens");
    bench.store.end();
    bench.settle().await;
    assert_eq!(bench.issuer.revoked().len(), 2);
    assert_eq!(bench.one.sessions.load(&bench.ticket).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_unwritten_is_handed_to_nobody_while_it_is_revoked_for_a_session_that_has_ended() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    bench.freshen(&bench.one).await.unwrap();
    bench.issuer.fail(Endpoint::Revoke, Fault::Silence);
    bench.other.sessions.end(&bench.ticket).await.unwrap().expect("a session to end");
    bench.store.end();
    let asked = || bench.issuer.received_at(Endpoint::Revoke).len();
    bench.issuer.until(|_| asked() > 0).await;
    assert_eq!(bench.one.refresher.load(&bench.ticket).await.unwrap(), None);
    bench.assert_hands_nothing_out(&session, |failure| matches!(failure, Failure::Gone)).await;
    bench.store.begin(Step::Read, Trouble::Fails);
    bench.one.refresher.load(&bench.ticket).await.unwrap_err();
    bench.assert_hands_nothing_out(&session, |failure| matches!(failure, Failure::Store(_))).await;
}

#[tokio::test]
async fn what_is_unwritten_is_handed_to_nobody_where_the_session_may_have_been_ended_here() {
    for trouble in [Trouble::Fails, Trouble::LosesItsAnswer] {
        let bench = Bench::start().await;
        let session = bench.stored().await;
        bench.advance(300);
        bench.store.begin(Step::Replace, Trouble::Fails);
        bench.freshen(&bench.one).await.unwrap();
        bench.store.begin(Step::Any, trouble);
        bench.one.sessions.end(&bench.ticket).await.unwrap_err();
        bench.one.refresher.load(&bench.ticket).await.unwrap_err();
        bench.assert_hands_nothing_out(&session, |failure| matches!(failure, Failure::Store(_))).await;
        bench.store.end();
        bench.settle().await;
    }
}

#[tokio::test]
async fn an_invalid_grant_ends_nothing_where_another_node_got_further() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.issuer.fail_once(Endpoint::Token, Fault::invalid_grant());
    bench.store.begin(Step::TakeVersion, Trouble::Waits);
    let waiting = bench.begin_freshen(&bench.one, &session);
    bench.store.until_reached().await;
    let tokens = renewed_elsewhere(&session);
    let written = bench.other.sessions.replace_tokens(&bench.ticket, &session, tokens.clone()).await.unwrap();
    assert!(matches!(written, TokensReplaced::Written(_)));
    bench.store.end();
    assert_eq!(waiting.await.unwrap().unwrap().tokens, tokens);
    bench.settle().await;
    assert!(bench.issuer.revoked().is_empty());
}

#[tokio::test]
async fn what_another_node_has_written_meanwhile_is_not_written_over() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Waits);
    let waiting = bench.begin_freshen(&bench.one, &session);
    bench.store.until_reached().await;
    let tokens = renewed_elsewhere(&session);
    let theirs = Arc::new(Session { tokens, version: Version(5), ..Session::clone(&session) });
    put(&bench, &theirs).await;
    bench.store.end();
    assert_eq!(waiting.await.unwrap().unwrap().version, Version(5));
    bench.settle().await;
    assert_eq!(bench.stored().await, theirs);
}

#[tokio::test]
async fn a_store_that_went_back_in_time_gets_the_newer_tokens() {
    let bench = Bench::start().await;
    let older = bench.stored().await;
    bench.advance(300);
    bench.freshen(&bench.one).await.unwrap();
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Waits);
    let waiting = bench.begin_freshen(&bench.one, &bench.stored().await);
    bench.store.until_reached().await;
    put(&bench, &older).await;
    bench.store.end();
    let served = waiting.await.unwrap().unwrap();
    bench.settle().await;
    assert_eq!(bench.stored().await.tokens, served.tokens);
    assert!(bench.issuer.is_alive(bench.stored().await.tokens.refresh_token.as_ref().unwrap().expose()));
}

/// Writes a session over whatever lies there, as no gateway does.
async fn put(bench: &Bench, session: &Session) {
    let before = Session { version: Version(session.version.0 - 1), ..session.clone() };
    let key = bench.one.sessions.record_key(&bench.ticket);
    let lying = bench.store.memory.take(&key).await.unwrap().unwrap();
    bench.store.memory.create(&key, &Record { version: before.version, ..lying }).await.unwrap();
    let tokens = session.tokens.clone();
    let trouble = bench.store.swap(None);
    let written = bench.other.sessions.replace_tokens(&bench.ticket, &before, tokens).await.unwrap();
    bench.store.swap(trouble);
    assert!(matches!(written, TokensReplaced::Written(_)));
}

#[tokio::test]
async fn a_refresh_that_is_forced_asks_only_where_nobody_else_has() {
    let bench = Bench::start().await;
    let refused = bench.stored().await;
    bench.advance(10);
    let renewed = bench.one.refresher.replace_refused(&bench.ticket, &refused, None).await.unwrap().unwrap();
    assert_ne!(renewed.tokens, refused.tokens);
    let elsewhere =
        bench.other.refresher.replace_refused(&bench.ticket, &refused, None).await.unwrap().unwrap();
    assert_eq!((elsewhere, bench.refreshes()), (renewed.clone(), 1));
    let again = bench.one.refresher.replace_refused(&bench.ticket, &refused, None).await.unwrap().unwrap();
    assert_eq!((again.tokens.clone(), bench.refreshes()), (renewed.tokens.clone(), 1));
    assert!(bench.one.refresher.replace_refused(&bench.ticket, &renewed, None).await.is_none());
    bench.settle().await;
}

#[tokio::test]
async fn where_the_issuer_failed_a_refused_token_is_replaced_after_the_back_off_and_a_good_one_is_used_to_its_end()
 {
    let bench = Bench::start().await;
    let refused = bench.stored().await;
    bench.advance(10);
    bench.issuer.fail(Endpoint::Token, Fault::status(503));
    let failed = bench.one.refresher.replace_refused(&bench.ticket, &refused, None).await;
    assert!(matches!(failed, Some(Err(Failure::Issuer { .. }))), "{failed:?}");
    bench.issuer.heal(Endpoint::Token);
    assert!(
        bench.one.refresher.replace_refused(&bench.ticket, &refused, None).await.is_none(),
        "not at once"
    );
    bench.advance(31);
    let renewed = bench.one.refresher.replace_refused(&bench.ticket, &refused, None).await.unwrap().unwrap();
    assert_ne!(renewed.tokens, refused.tokens);
    bench.advance(31);
    bench.issuer.fail(Endpoint::Token, Fault::status(503));
    let failed = bench.one.refresher.replace_refused(&bench.ticket, &renewed, None).await;
    assert!(matches!(failed, Some(Err(Failure::Issuer { .. }))), "{failed:?}");
    let asked = bench.refreshes();
    bench.advance(250);
    assert_eq!(bench.freshen(&bench.one).await.unwrap().tokens, renewed.tokens, "stale, and used");
    bench.settle().await;
    assert_eq!(bench.refreshes(), asked);
}

#[tokio::test]
async fn a_forced_refresh_and_an_ordinary_one_are_the_same_flight() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(250);
    bench.issuer.hold_token_answers();
    bench.freshen(&bench.one).await.unwrap();
    bench.issuer.until(|issuer| issuer.held() == 1).await;
    let replaced = bench.one.refresher.replace_refused(&bench.ticket, &session, None);
    let released = async { bench.issuer.release_token_answers() };
    let (replaced, ()) = tokio::join!(replaced, released);
    assert_ne!(replaced.unwrap().unwrap().tokens, session.tokens);
    bench.settle().await;
    assert_eq!(bench.refreshes(), 1);
}

#[tokio::test]
async fn a_flight_that_crashes_leaves_nobody_waiting_and_the_next_one_starts() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Lease, Trouble::Panics);
    let waiting = bench.begin_freshen(&bench.one, &session);
    assert!(matches!(waiting.await.unwrap(), Err(Failure::Issuer { .. })));
    bench.store.end();
    assert_ne!(bench.freshen(&bench.one).await.unwrap().tokens, session.tokens);
    bench.settle().await;
}

#[tokio::test]
async fn what_was_surely_not_sent_is_tried_again_within_the_same_request() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.issuer.fail(Endpoint::Discovery, Fault::status(503));
    let asked = bench.issuer.received_at(Endpoint::Discovery).len();
    let session = bench.stored().await;
    let waiting = bench.begin_freshen(&bench.cold, &session);
    bench.issuer.until(|issuer| issuer.received_at(Endpoint::Discovery).len() > asked).await;
    bench.issuer.heal(Endpoint::Discovery);
    until(async || {
        // That it failed is remembered for a second.
        bench.advance(1);
        waiting.is_finished()
    })
    .await;
    assert_ne!(waiting.await.unwrap().unwrap().tokens, session.tokens);
    bench.settle().await;
    assert_eq!(bench.refreshes(), 1);
}

#[tokio::test]
async fn a_lease_of_a_node_that_crashed_ends_by_itself() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    let crashed = LeaseOwner("crashed".to_owned());
    assert!(bench.other.sessions.lease(&bench.ticket, &crashed, Duration::from_secs(3)).await.unwrap());
    let waiting = bench.begin_freshen(&bench.one, &session);
    bench.advance(3);
    assert_ne!(waiting.await.unwrap().unwrap().tokens, session.tokens);
    bench.settle().await;
}

#[tokio::test]
async fn the_lease_outlives_an_outage_for_as_long_as_the_access_token_lives() {
    let bench = Bench::start().await;
    bench.advance(250);
    bench.store.begin(Step::Replace, Trouble::Fails);
    bench.freshen(&bench.one).await.unwrap();
    bench.store.until_reached().await;
    // Nobody else can renew it in between: no time passes here but that of the clock.
    let another = LeaseOwner("another".to_owned());
    bench.store.begin(Step::Any, Trouble::Fails);
    bench.advance(25);
    assert!(!bench.store.memory.lease(&bench.key(), &another, Duration::from_secs(3)).await.unwrap());
    bench.store.end();
    until(async || bench.stored().await.version == Version(2)).await;
    assert_eq!(bench.freshen(&bench.other).await.unwrap().version, Version(2));
    bench.settle().await;
    assert_eq!(bench.refreshes(), 1);
}

#[tokio::test]
async fn after_an_outage_a_spent_token_is_not_sent_again_before_its_successor_could_be_written() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    let served = bench.freshen(&bench.one).await.unwrap();
    assert!(bench.other.sessions.common().store_answers().await);
    // An outage in which the lease runs out, and cannot be renewed for a while after it.
    bench.store.begin(Step::Any, Trouble::Fails);
    bench.freshen(&bench.other).await.unwrap_err();
    until(async || bench.store.arrived() > 12).await;
    bench.advance(5);
    bench.freshen(&bench.other).await.unwrap_err();
    bench.store.begin(Step::Replace, Trouble::Waits);
    let waiting = bench.begin_freshen(&bench.other, &session);
    bench.store.until_reached().await;
    assert_eq!(bench.refreshes(), 1);
    bench.store.end();
    assert_eq!(waiting.await.unwrap().unwrap().tokens, served.tokens);
    bench.settle().await;
    assert_eq!(bench.refreshes(), 1);
}

#[tokio::test]
async fn what_is_unwritten_is_written_as_soon_as_the_store_is_heard_of_again() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    bench.freshen(&bench.one).await.unwrap();
    let changes = bench.store.memory.changes();
    // So often as no poll comes by in the time that a test has.
    in_time(async {
        for _ in 0..2000 {
            bench.store.begin(Step::Replace, Trouble::Fails);
            changes.disconnected();
            changes.connected();
            bench.store.until_reached().await;
        }
    })
    .await;
    bench.store.end();
    bench.settle().await;
}

#[tokio::test]
async fn what_cannot_be_written_for_as_long_as_the_session_lives_is_revoked() {
    let bench = Bench::start().await;
    bench.advance(300);
    bench.store.begin(Step::Replace, Trouble::Fails);
    let served = bench.freshen(&bench.one).await.unwrap();
    bench.store.begin(Step::Any, Trouble::Fails);
    bench.clock.advance(served.expires_at.since(bench.clock.now()));
    bench.issuer.until(|issuer| issuer.revoked().len() == 2).await;
    assert!(bench.issuer.living_refresh_tokens().is_empty());
    bench.one.refresher.load(&bench.ticket).await.unwrap_err();
    bench.settle().await;
}

#[tokio::test]
async fn a_lease_that_grew_old_behind_a_slow_store_is_not_relied_on() {
    let bench = Bench::start().await;
    let session = bench.stored().await;
    bench.advance(300);
    bench.store.begin(Step::Read, Trouble::Waits);
    let waiting = bench.begin_freshen(&bench.one, &session);
    bench.store.until_reached().await;
    let reached = Instant::now();
    until(async || reached.elapsed() > Duration::from_secs(1)).await;
    bench.advance(3);
    let another = LeaseOwner("another".to_owned());
    assert!(bench.other.sessions.lease(&bench.ticket, &another, Duration::from_secs(3)).await.unwrap());
    // What was read meanwhile is the past: the other node is at work.
    bench.store.begin(Step::Lease, Trouble::Waits);
    bench.store.until_reached().await;
    let tokens = renewed_elsewhere(&session);
    bench.other.sessions.replace_tokens(&bench.ticket, &session, tokens.clone()).await.unwrap();
    bench.store.end();
    assert_eq!(waiting.await.unwrap().unwrap().tokens, tokens);
    bench.settle().await;
    assert_eq!(bench.refreshes(), 0);
}
