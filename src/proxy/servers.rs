//! Which of an upstream's servers a request goes to.
//!
//! Of two that are drawn by lot, the one with fewer requests under way (`balance`); none that lately gave no
//! answer (`health`), or that a check found unwell (`check`). Names lead where they led when they were last
//! resolved (`resolve`). While all is well, a choice costs no lock that anybody waits for, no allocation and
//! no call to the system.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::ForwardError;
use crate::config;
use crate::random::Random;
use crate::telemetry::chain;

mod balance;
pub(super) mod check;
mod health;
pub(super) mod resolve;

use balance::Lots;
use health::{Moment, Server};

pub use health::Standing;

use resolve::{Known, Place};

/// Where one server listens, as far as names can be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ServerAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<Path>),
}

/// One server, for people who look.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownServer {
    /// Where it listens.
    pub address: String,
    /// How it does.
    pub standing: Standing,
    /// How many requests wait for its answer.
    pub under_way: usize,
}

/// The servers of one upstream.
#[derive(Debug)]
pub(super) struct Servers {
    places: Vec<Place>,
    known: watch::Sender<Known>,
    /// How long a request waits for a name to be resolved.
    patience: Duration,
    lots: Lots,
    start: Instant,
    /// Whether a server was picked since names were last resolved.
    is_used: AtomicBool,
    used: Notify,
    /// Somebody waits for names to be resolved.
    wanted: Notify,
}

/// A server that a request is sent to, which counts as under way until this is dropped: once the head of the
/// answer is there. What streams on for hours says nothing of how busy a server is, and the tunnels that
/// have piled up on one would send all other requests away from it.
#[derive(Debug)]
pub(super) struct Picked(Arc<Server>);

impl Servers {
    /// The servers that the addresses of an upstream stand for, or else its URL. A request waits for
    /// `patience` at most until it is known where their names lead.
    pub(super) fn new(upstream: &config::Upstream, patience: Duration, random: Random) -> Self {
        let places: Vec<_> = upstream.servers().iter().map(Place::new).collect();
        let known = Known::default().with(places.iter().filter_map(Place::fixed));
        Self {
            places,
            known: watch::Sender::new(known),
            patience,
            lots: Lots::new(random),
            start: Instant::now(),
            is_used: AtomicBool::new(false),
            used: Notify::new(),
            wanted: Notify::new(),
        }
    }

    /// A server for a request that was sent to none yet.
    pub(super) async fn pick(&self) -> Result<Picked, ForwardError> {
        if let Some(picked) = self.choose(&[]) {
            return Ok(picked);
        }
        Box::pin(self.resolve_anew()).await;
        self.choose(&[]).ok_or_else(|| ForwardError::Connect(self.known.borrow().why_none()))
    }

    /// A server for a request that these did not process; where there is no other, a name may lead elsewhere
    /// by now.
    pub(super) async fn pick_another(
        &self,
        tried: &[ServerAddress],
        failure: &ForwardError,
    ) -> Option<Picked> {
        if let Some(picked) = self.choose(tried) {
            return Some(picked);
        }
        if matches!(failure, ForwardError::Connect(_)) {
            self.resolve_anew().await;
            return self.choose(tried);
        }
        // A connection that was closed while it was idle says nothing of the next.
        let known = self.known.borrow();
        match (known.servers.as_slice(), tried) {
            ([only], [tried]) if only.address == *tried => Some(Picked::new(only)),
            _ => None,
        }
    }

    /// Notes that a server gave an answer, whatever its status.
    pub(super) fn note_answer(&self, picked: &Picked) {
        picked.0.note_answer(|| self.now());
    }

    /// Notes that a server gave no answer. `unprocessed` where it surely had no part in that.
    pub(super) fn note_failure(&self, picked: &Picked, failure: &ForwardError, unprocessed: bool) {
        let is_unreachable = match failure {
            ForwardError::Connect(_) => true,
            ForwardError::Timeout => false,
            // Servers close idle connections, and refuse streams while they stop.
            ForwardError::Exchange(_) if unprocessed => return,
            ForwardError::Exchange(_) => false,
            // The request's own fault, or an answer that another server would give, too.
            ForwardError::Framing
            | ForwardError::Upgrade
            | ForwardError::BodyTooLarge
            | ForwardError::RequestBody(_)
            | ForwardError::Address(_) => return,
        };
        if is_unreachable {
            self.want_resolved();
        }
        let server = &picked.0;
        if self.known.borrow().servers.len() < 2 {
            return server.note_failure_of_only();
        }
        let jitter = self.lots.draw().fraction();
        if let Some(away) = server.note_failure(is_unreachable, self.now(), jitter) {
            let seconds = away.as_secs_f64();
            tracing::warn!(event = "upstream.ejected", address = %server.address, seconds, error = %failure);
        }
    }

    /// Those that are known; or why a name leads to none. Names that nothing was sent to yet lead nowhere so far.
    pub(super) fn known(&self) -> Result<Vec<KnownServer>, String> {
        let (known, now) = (self.known.borrow(), self.now());
        if let (true, Some(error)) = (known.servers.is_empty(), known.error()) {
            return Err(chain(error));
        }
        let shown = |server: &Arc<Server>| KnownServer {
            address: server.address.to_string(),
            standing: server.standing(now),
            under_way: server.under_way(),
        };
        Ok(known.servers.iter().map(shown).collect())
    }

    /// All that are known, for checks of them.
    async fn all(&self) -> Vec<Arc<Server>> {
        self.note_use();
        if self.known.borrow().servers.is_empty() {
            self.resolve_anew().await;
        }
        self.known.borrow().servers.clone()
    }

    /// The one with the fewest requests under way of two that may be asked. Where none may, the one whose
    /// time comes first: it may have come back, and nobody is helped by not asking.
    fn choose(&self, tried: &[ServerAddress]) -> Option<Picked> {
        self.note_use();
        let known = self.known.borrow();
        if let ([only], []) = (known.servers.as_slice(), tried) {
            return Some(Picked::new(only));
        }
        let untried = || known.servers.iter().filter(|server| !tried.contains(&server.address));
        let now = self.now();
        let available = untried().filter(|server| server.is_available(now));
        let chosen = balance::choose(available, now, &mut self.lots.draw());
        chosen.or_else(|| untried().min_by_key(|server| server.due())).map(Picked::new)
    }

    /// Has the names resolved once more, and waits for that, unless it was done just now.
    async fn resolve_anew(&self) {
        let mut known = self.known.subscribe();
        let (round, was_empty) = {
            let known = known.borrow_and_update();
            (known.round, known.servers.is_empty())
        };
        if !self.want_resolved() {
            return;
        }
        let changed =
            known.wait_for(|known| known.round != round || (was_empty && !known.servers.is_empty()));
        // Where it takes too long, the name still leads where it led.
        let _ = tokio::time::timeout(self.patience, changed).await;
    }

    /// Whether there are names that were not resolved just now; they are, then.
    fn want_resolved(&self) -> bool {
        let is_wanted = self.has_names() && !self.known.borrow().is_fresh();
        if is_wanted {
            self.wanted.notify_one();
        }
        is_wanted
    }

    fn note_use(&self) {
        // Read first: a store would take the cache line from the other threads.
        if !self.is_used.load(Ordering::Relaxed) && !self.is_used.swap(true, Ordering::Relaxed) {
            self.used.notify_one();
        }
    }

    /// Whether any address is resolved, by [`resolve::follow`].
    pub(super) fn has_names(&self) -> bool {
        self.places.iter().any(|place| place.name().is_some())
    }

    fn now(&self) -> Moment {
        Moment::after(self.start.elapsed())
    }
}

impl Picked {
    fn new(server: &Arc<Server>) -> Self {
        server.begin();
        Self(Arc::clone(server))
    }

    pub(super) fn address(&self) -> &ServerAddress {
        &self.0.address
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::sync::Mutex;

    use http::uri::PathAndQuery;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use tokio_util::task::AbortOnDropHandle;
    use url::Url;

    use super::resolve::{Resolve, follow};
    use super::*;
    use crate::body;
    use crate::config::{Address, Protocol, UpstreamTls};
    use crate::proxy::Upstream;
    use crate::proxy::headers::{Facts, ToldOrigin};
    use crate::telemetry::RequestId;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A resolver whose answers a test sets; what it has none for has no address.
    #[derive(Debug, Default)]
    struct Answers {
        addresses: Mutex<HashMap<String, Vec<SocketAddr>>>,
        asked: Mutex<usize>,
        hangs: AtomicBool,
    }

    #[async_trait::async_trait]
    impl Resolve for Answers {
        async fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            *self.asked.lock().unwrap() += 1;
            tokio::task::yield_now().await;
            if self.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.addresses.lock().unwrap().get(host).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }

    impl Answers {
        fn set(&self, host: &str, ports: &[u16]) {
            let addresses = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
            self.addresses.lock().unwrap().insert(host.to_owned(), addresses);
        }

        fn forget(&self, host: &str) {
            self.addresses.lock().unwrap().remove(host);
        }

        /// How often it was asked since the last time.
        fn asked(&self) -> usize {
            std::mem::take(&mut *self.asked.lock().unwrap())
        }
    }

    fn upstream(hosts: &[&str]) -> config::Upstream {
        let tcp = |host: &&str| Address::Tcp { host: (*host).to_owned(), port: 80 };
        config::Upstream {
            url: Url::parse("http://orders.internal").unwrap(),
            strip_prefix: None,
            addresses: hosts.iter().map(tcp).collect(),
            protocol: Protocol::Auto,
            header_count: 100,
            tls: UpstreamTls::default(),
            health: None,
        }
    }

    fn following(hosts: &[&str]) -> (Arc<Servers>, Arc<Answers>, JoinHandle<()>) {
        let servers = Arc::new(Servers::new(&upstream(hosts), PATIENCE, Random::SYSTEM));
        let answers = Arc::new(Answers::default());
        let resolver = Arc::clone(&answers);
        let following = tokio::spawn(follow(Arc::clone(&servers), resolver));
        (servers, answers, following)
    }

    fn at(port: u16) -> ServerAddress {
        ServerAddress::Tcp(([127, 0, 0, 1], port).into())
    }

    fn refused() -> ForwardError {
        ForwardError::Connect("refused".into())
    }

    /// The ports of the servers that a hundred requests go to, one after the other.
    async fn ports(servers: &Servers) -> Vec<u16> {
        let mut ports = Vec::new();
        for _ in 0..100 {
            match servers.pick().await.unwrap().address() {
                ServerAddress::Tcp(address) => ports.push(address.port()),
                ServerAddress::Unix(_) => ports.push(0),
            }
        }
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_resolved_on_first_use_and_once_for_all_who_wait() {
        let (servers, answers, _following) = following(&[]);
        answers.set("orders.internal", &[1, 2]);
        pass(Duration::from_secs(60)).await;
        assert_eq!(answers.asked(), 0);
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let servers = Arc::clone(&servers);
                tokio::spawn(async move { servers.pick().await.is_ok() })
            })
            .collect();
        for picked in waiting {
            assert!(picked.await.unwrap());
        }
        assert_eq!(ports(&servers).await, [1, 2]);
        assert!((1..=2).contains(&answers.asked()), "those who wait share an answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_in_use_is_followed_and_one_that_nobody_uses_is_not_asked_for() {
        let (servers, answers, _following) = following(&[]);
        answers.set("orders.internal", &[1]);
        assert_eq!(ports(&servers).await, [1]);
        answers.set("orders.internal", &[2]);
        pass(Duration::from_secs(11)).await;
        assert_eq!(ports(&servers).await, [2]);
        answers.forget("orders.internal");
        pass(Duration::from_secs(11)).await;
        assert_eq!(ports(&servers).await, [2], "what cannot be resolved stays where it was");
        answers.asked();
        pass(Duration::from_secs(3600)).await;
        assert!(answers.asked() <= 2, "nobody uses it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_can_connect_nowhere_asks_where_the_name_leads_now() {
        let (servers, answers, _following) = following(&[]);
        answers.set("orders.internal", &[1]);
        let picked = servers.pick().await.unwrap();
        pass(Duration::from_secs(1)).await;
        answers.set("orders.internal", &[2]);
        servers.note_failure(&picked, &refused(), true);
        let another = servers.pick_another(&[at(1)], &refused()).await.unwrap();
        assert_eq!(*another.address(), at(2));
        assert!(servers.pick_another(&[at(1), at(2)], &refused()).await.is_none());
        answers.asked();
        for _ in 0..100 {
            assert!(servers.pick_another(&[at(2)], &refused()).await.is_none());
        }
        assert!(answers.asked() <= 1, "not each request that fails asks");
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_waits_longer_for_a_name_than_for_a_connection() {
        let (servers, answers, _following) = following(&[]);
        answers.hangs.store(true, Ordering::Relaxed);
        let began = Instant::now();
        assert!(matches!(servers.pick().await, Err(ForwardError::Connect(_))));
        assert_eq!(began.elapsed(), PATIENCE);
        let (servers, _, _nameless) = following(&[]);
        let began = Instant::now();
        assert!(matches!(servers.pick().await, Err(ForwardError::Connect(_))));
        assert!(began.elapsed() < PATIENCE, "there is no such name");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_and_names_stand_side_by_side_and_each_server_once() {
        let (servers, answers, _following) = following(&["127.0.0.1", "a.internal", "b.internal", "gone"]);
        assert_eq!(ports(&servers).await, [80], "what is known is used");
        answers.set("a.internal", &[1, 80]);
        answers.set("b.internal", &[1, 2]);
        servers.wanted.notify_one();
        pass(Duration::from_secs(1)).await;
        assert_eq!(ports(&servers).await, [1, 2, 80]);
        assert_eq!(servers.known.borrow().servers.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_reached_gets_nothing_until_it_comes_back_slowly() {
        let servers = Servers::new(&upstream(&["127.0.0.1", "127.0.0.2"]), PATIENCE, Random::SYSTEM);
        let picked = servers.pick().await.unwrap();
        servers.note_failure(&picked, &refused(), true);
        let dead = picked.address().clone();
        drop(picked);
        let share = async || {
            let mut share = 0;
            for _ in 0..1000 {
                share += usize::from(*servers.pick().await.unwrap().address() == dead);
            }
            share
        };
        assert_eq!(share().await, 0);
        pass(Duration::from_secs(2)).await;
        let back = share().await;
        assert!((1..300).contains(&back), "{back}");
        pass(Duration::from_secs(10)).await;
        assert!(share().await > 400);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_away_the_one_due_first_is_tried() {
        let servers = Servers::new(&upstream(&["127.0.0.1", "127.0.0.2"]), PATIENCE, Random::SYSTEM);
        let first = servers.pick().await.unwrap();
        servers.note_failure(&first, &refused(), true);
        pass(Duration::from_millis(100)).await;
        let second = servers.pick_another(&[first.address().clone()], &refused()).await.unwrap();
        for _ in 0..3 {
            servers.note_failure(&second, &ForwardError::Timeout, false);
        }
        let servers_known = servers.known.borrow().servers.clone();
        assert!(servers_known.iter().all(|server| !server.is_available(servers.now())));
        let soonest = servers_known.iter().min_by_key(|server| server.due()).unwrap().address.clone();
        assert_eq!(*servers.pick().await.unwrap().address(), soonest);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_the_servers_fault_is_not_held_against_it() {
        let servers = Servers::new(&upstream(&["127.0.0.1", "127.0.0.2"]), PATIENCE, Random::SYSTEM);
        let picked = servers.pick().await.unwrap();
        for _ in 0..10 {
            servers.note_failure(&picked, &ForwardError::BodyTooLarge, false);
            servers.note_failure(&picked, &ForwardError::RequestBody("gone".into()), false);
            servers.note_failure(&picked, &ForwardError::Framing, false);
            servers.note_failure(&picked, &ForwardError::Exchange("closed".into()), true);
        }
        assert!(picked.0.is_available(servers.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_server_is_tried_twice_unless_it_is_the_only_one_and_was_there() {
        let closed = ForwardError::Exchange("closed while idle".into());
        let two = Servers::new(&upstream(&["127.0.0.1", "127.0.0.2"]), PATIENCE, Random::SYSTEM);
        let first = two.pick().await.unwrap().address().clone();
        let second = two.pick_another(std::slice::from_ref(&first), &closed).await.unwrap().address().clone();
        assert_ne!(first, second);
        assert!(two.pick_another(&[first, second], &closed).await.is_none());
        let one = Servers::new(&upstream(&["127.0.0.1"]), PATIENCE, Random::SYSTEM);
        let only = one.pick().await.unwrap().address().clone();
        assert!(one.pick_another(std::slice::from_ref(&only), &closed).await.is_some());
        assert!(one.pick_another(&[only.clone(), only.clone()], &closed).await.is_none());
        assert!(one.pick_another(&[only], &refused()).await.is_none());
    }
    /// A server that answers each connection once, with its own port; until it is dropped.
    async fn server() -> (u16, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let running = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n{port:05}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (port, AbortOnDropHandle::new(running))
    }

    #[tokio::test]
    async fn no_request_fails_where_a_name_moves_to_another_server() {
        let ((old, running), (new, _running)) = (server().await, server().await);
        let answers = Arc::new(Answers::default());
        answers.set("orders.internal", &[old]);
        let timeouts = config::Timeouts { connect: PATIENCE, response: PATIENCE, idle: PATIENCE };
        let mut upstream = Upstream::new(&upstream(&[]), timeouts, 2, Random::SYSTEM).unwrap();
        upstream.watch_with(Arc::clone(&answers) as Arc<dyn Resolve>);
        let answered = async || {
            let origin = ToldOrigin::new(&config::Origin::parse("https://shop.example.com").unwrap());
            let facts = Facts {
                origin: &origin,
                peer: [127, 0, 0, 1].into(),
                peer_is_trusted: false,
                request_id: RequestId::generate(Random::SYSTEM),
                is_handshake: false,
            };
            let (request, path) =
                (Box::new(http::Request::new(body::full("order"))), PathAndQuery::from_static("/"));
            let answer =
                upstream.forward(request, &path, None, &facts, Random::SYSTEM, Instant::now()).await.unwrap();
            let body = answer.response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8_lossy(&body).parse::<u16>().unwrap()
        };
        assert_eq!(answered().await, old);
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        answers.set("orders.internal", &[new]);
        while upstream.servers.known.borrow().is_fresh() {
            tokio::task::yield_now().await;
        }
        assert_eq!(answered().await, new);
    }
}
