//! Who is measured, and how each is started: by name, as a row of the table.

use std::fs::File;
use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::Signal;

use crate::client::{Buffers, Client, Protocol, Target, believers};
use crate::load::IN_FLIGHT;
use crate::neighbours;
use crate::process::Process;
use crate::request::Requests;
use crate::support::gateway::SESSION_COOKIE;
use crate::support::redis::free_port;
use crate::upstream::{ECHO, body};
use crate::world::World;

/// The path that is asked for.
const PATH: &str = "/api/orders?state=open";

/// The file that a program's standard output goes to.
const OUTPUT: &str = "output.log";

#[derive(Debug)]
pub struct Contestant {
    /// Its name on the command line and in the code.
    pub key: &'static str,
    pub title: &'static str,
    pub protocol: Protocol,
    pub server: Server,
    pub users: Users,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Nginx,
    Haproxy,
    Apache,
    Gateway { auth: Auth, access_log: bool, store: Store },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    None,
    Required,
}

/// When the gateway asks its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    WhereNeeded,
    OnEachRequest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    One,
    AllAtRandom,
}

use Protocol::{Http1, Http1OverTls, Http2OverTls};

const PLAIN: Server = Server::Gateway { auth: Auth::None, access_log: false, store: Store::WhereNeeded };
const OPEN: Server = Server::Gateway { auth: Auth::None, access_log: true, store: Store::WhereNeeded };
const AUTHENTICATED: Server =
    Server::Gateway { auth: Auth::Required, access_log: true, store: Store::WhereNeeded };
const ASKING: Server =
    Server::Gateway { auth: Auth::Required, access_log: true, store: Store::OnEachRequest };

/// All of them, in the order of their turns.
pub static ALL: [Contestant; 12] = [
    row("nginx", "nginx, `proxy_pass`, buffered log", Http1, Server::Nginx, Users::One),
    row("gateway", "Cloakroom, authenticated, one warm session", Http1, AUTHENTICATED, Users::One),
    row("gateway-none", "Cloakroom, `auth: none`", Http1, OPEN, Users::One),
    row("gateway-plain", "Cloakroom, `auth: none`, no access log", Http1, PLAIN, Users::One),
    row("haproxy", "haproxy, no log", Http1, Server::Haproxy, Users::One),
    row(
        "gateway-many",
        "Cloakroom, authenticated, all sessions at random",
        Http1,
        AUTHENTICATED,
        Users::AllAtRandom,
    ),
    row("gateway-redis", "Cloakroom, authenticated, Redis asked on each request", Http1, ASKING, Users::One),
    row("nginx-tls", "nginx, TLS", Http1OverTls, Server::Nginx, Users::One),
    row("gateway-tls", "Cloakroom, TLS, authenticated", Http1OverTls, AUTHENTICATED, Users::One),
    row("nginx-http2", "nginx, HTTP/2 over TLS", Http2OverTls, Server::Nginx, Users::One),
    row(
        "gateway-http2",
        "Cloakroom, HTTP/2 over TLS, authenticated",
        Http2OverTls,
        AUTHENTICATED,
        Users::One,
    ),
    row("apache", "Apache with mod_auth_openidc and Redis", Http1, Server::Apache, Users::One),
];

const fn row(
    key: &'static str,
    title: &'static str,
    protocol: Protocol,
    server: Server,
    users: Users,
) -> Contestant {
    Contestant { key, title, protocol, server, users }
}

impl Contestant {
    /// Whether it is the gateway.
    pub fn is_ours(&self) -> bool {
        matches!(self.server, Server::Gateway { .. })
    }

    /// Writes its configuration into the folder, and gives the command that reads it.
    fn program(&self, world: &World, folder: &Path, address: SocketAddr) -> Program {
        let tls = (self.protocol != Http1).then_some(&world.certificate);
        let upstream = world.upstream.address;
        let file = folder.join("configuration");
        let text = match self.server {
            Server::Nginx => neighbours::nginx(folder, address, upstream, tls),
            Server::Haproxy => neighbours::haproxy(address, upstream),
            Server::Apache => {
                neighbours::apache(folder, address, upstream, &world.issuer.url(), world.redis.port())
            }
            Server::Gateway { auth, access_log, store } => {
                let mut setup = world.setup(auth, access_log, store, tls);
                setup.listen = address.to_string();
                setup.yaml()
            }
        };
        std::fs::write(&file, text).unwrap();
        let gateway = world.program.to_str().unwrap();
        // The gateway would wait politely for connections that rest.
        let (words, log, last_word) = match self.server {
            Server::Nginx => (vec!["nginx", "-c"], "access.log", Signal::TERM),
            Server::Haproxy => (vec!["haproxy", "-db", "-f"], OUTPUT, Signal::TERM),
            Server::Apache => (vec!["apache2", "-DFOREGROUND", "-f"], "access.log", Signal::TERM),
            Server::Gateway { .. } => (vec![gateway, "serve", "-c"], OUTPUT, Signal::KILL),
        };
        let words = words.into_iter().chain(file.to_str()).map(str::to_owned).collect();
        Program { words, log: folder.join(log), last_word }
    }
}

/// One that listens.
pub struct Running {
    pub contestant: &'static Contestant,
    pub process: Process,
    pub target: Target,
    pub requests: Requests,
    log: PathBuf,
}

/// One of them by its name.
pub fn named(key: &str) -> &'static Contestant {
    ALL.iter().find(|contestant| contestant.key == key).expect("one of them")
}

/// How one is started.
struct Program {
    words: Vec<String>,
    /// Where its access log goes.
    log: PathBuf,
    last_word: Signal,
}

impl Running {
    /// Starts one, and makes sure that it does what it is measured by.
    pub async fn start(world: &World, contestant: &'static Contestant) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let folder = world.folder.path().join(address.port().to_string());
        std::fs::create_dir(&folder).unwrap();
        let Program { words, log, last_word } = contestant.program(world, &folder, address);
        let output = folder.join(OUTPUT);
        let process = Process::start(&words, &world.secrets(), &output, address, last_word).await;
        let authority = believers(&world.authority.pem());
        let target = Target { address, protocol: contestant.protocol, authority };
        let cookies = match (contestant.server, contestant.users) {
            (Server::Apache, _) => vec![neighbours::log_in_to_apache(address).await],
            (_, Users::One) => vec![format!("{SESSION_COOKIE}={}", world.sessions[0])],
            (_, Users::AllAtRandom) => {
                world.sessions.iter().map(|value| format!("{SESSION_COOKIE}={value}")).collect()
            }
        };
        let running = Self { contestant, process, target, requests: Requests::new(PATH, &cookies), log };
        running.verify(world).await;
        running
    }

    /// A client with so many connections.
    pub async fn client(&self, connections: usize) -> Rc<Client> {
        Rc::new(Client::connect(self.target.clone(), self.requests.clone(), connections).await)
    }

    /// The same with as many connections as there are requests under way.
    pub async fn usual_client(&self) -> Rc<Client> {
        self.client(IN_FLIGHT).await
    }

    /// Nobody is slowed down by a full disk.
    pub fn empty_log(&self) {
        if let Ok(log) = File::options().write(true).open(&self.log) {
            log.set_len(0).unwrap();
        }
    }

    /// The whole answer comes from behind it, and what is behind it has seen the token that it should see.
    async fn verify(&self, world: &World) {
        let name = self.contestant.key;
        let answer = ask(self.target.clone(), self.requests.clone()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(answer == body(), "{name}: {}", String::from_utf8_lossy(&answer));
        let seen = ask(self.target.clone(), self.requests.to(ECHO)).await;
        let seen = String::from_utf8(seen.unwrap_or_else(|error| panic!("{name}: {error}"))).unwrap();
        let token = seen.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_field = name.eq_ignore_ascii_case("authorization");
            is_field.then(|| value.trim().strip_prefix("Bearer ").expect("a bearer token"))
        });
        match self.contestant.server {
            Server::Gateway { auth: Auth::Required, .. } => {
                assert_eq!(token, Some(world.first_token().as_str()), "{name}: {seen}");
            }
            Server::Apache => {
                assert!(token.is_some_and(|token| world.issuer.is_alive(token)), "{name}: {seen}");
            }
            Server::Gateway { auth: Auth::None, .. } | Server::Nginx | Server::Haproxy => {
                assert_eq!(token, None, "{name}: {seen}");
            }
        }
    }
}

/// The body that one request is answered with.
async fn ask(target: Target, requests: Requests) -> Result<Vec<u8>, Error> {
    let client = Client::connect(target, requests, 1).await;
    let mut buffers = Buffers::default();
    let body = client.exchange(0, 0, &mut buffers).await?;
    Ok(buffers.answer[body].to_vec())
}
