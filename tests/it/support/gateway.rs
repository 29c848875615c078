//! The gateway under test: in this process, on a free port, or as the real program.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use cloakroom::clock::{Clock, SystemClock};
use cloakroom::config;
use cloakroom::server::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::issuer::{CLIENT_ID, CLIENT_SECRET};

/// The origin of the app under test. The gateway listens on loopback in plain HTTP, as behind a TLS
/// terminator, and the browser of these tests sends this host.
pub const ORIGIN: &str = "https://shop.test";

/// What a gateway is started with: YAML, piece by piece. Each `…` piece is put in as it stands, indented
/// for its place.
pub struct Setup {
    pub listen: String,
    pub origin: String,
    pub issuer: String,
    pub oidc: String,
    pub session: String,
    pub routes: String,
    /// Further apps, as the list in YAML goes on.
    pub further_apps: String,
    pub limits: String,
    pub server: String,
    pub sessions: String,
    pub store: String,
    pub clock: Arc<dyn Clock>,
}

/// A gateway in this process. It stops when it is dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// The real program. It is killed when it is dropped.
pub struct GatewayProcess {
    pub address: SocketAddr,
    pub child: Child,
    _folder: tempfile::TempDir,
}

impl Setup {
    /// One app at [`ORIGIN`], whose issuer is at `issuer` and knows the client [`CLIENT_ID`].
    pub fn new(issuer: &str) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            origin: ORIGIN.to_owned(),
            issuer: issuer.to_owned(),
            oidc: "scopes: [openid, profile, offline_access]".to_owned(),
            session: String::new(),
            routes: String::new(),
            further_apps: String::new(),
            limits: String::new(),
            server: String::new(),
            sessions: String::new(),
            store: "memory: {}".to_owned(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Adds a route, such as `path: /api, upstream: "http://127.0.0.1:9000"`.
    pub fn route(mut self, keys: &str) -> Self {
        writeln!(self.routes, "- {{{keys}}}").unwrap();
        self
    }

    /// Takes the sessions to this Redis.
    pub fn redis(mut self, url: &url::Url) -> Self {
        self.store = format!("redis: {{url: \"{url}\"}}");
        self
    }

    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The configuration as a file holds it.
    pub fn yaml(&self) -> String {
        let indented = |text: &str, by: usize| {
            let pad = " ".repeat(by);
            text.lines().map(|line| format!("{pad}{line}\n")).collect::<String>()
        };
        let mut yaml = format!("server:\n  listen: {}\n", self.listen);
        yaml += &indented(&self.server, 2);
        if !self.limits.is_empty() {
            yaml += "  limits:\n";
            yaml += &indented(&self.limits, 4);
        }
        yaml += "admin: {listen: \"127.0.0.1:0\"}\n";
        yaml += "sessions:\n  keys: [{env: SESSION_KEY}]\n";
        writeln!(yaml, "  store: {{{}}}", self.store).unwrap();
        yaml += &indented(&self.sessions, 2);
        writeln!(yaml, "apps:\n  - origin: {}\n    oidc:\n      issuer: {}", self.origin, self.issuer)
            .unwrap();
        writeln!(yaml, "      client_id: \"{CLIENT_ID}\"").unwrap();
        if !self.oidc.contains("client_auth") {
            yaml += "      client_auth: {client_secret_basic: {env: CLIENT_SECRET}}\n";
        }
        yaml += &indented(&self.oidc, 6);
        if !self.session.is_empty() {
            yaml += "    session:\n";
            yaml += &indented(&self.session, 6);
        }
        if self.routes.is_empty() {
            yaml += "    routes: []\n";
        } else {
            yaml += "    routes:\n";
            yaml += &indented(&self.routes, 6);
        }
        yaml += &self.further_apps;
        yaml
    }

    /// Starts a gateway in this process.
    pub async fn start(&self) -> Gateway {
        let loaded = config::parse("test.yaml", &self.yaml(), &environment).unwrap_or_else(|faults| {
            panic!("{faults}\n{}", self.yaml());
        });
        let server = Server::bind_with_clock(loaded.config, Arc::clone(&self.clock)).await.unwrap();
        let address = server.address().unwrap();
        let admin = server.admin_address().unwrap().unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Gateway { address, admin, stop: Some(stop), running }
    }

    /// Starts the program itself, and waits until it listens.
    pub async fn start_process(&self) -> GatewayProcess {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloakroom.yaml");
        std::fs::write(&file, self.yaml()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .arg("serve")
            .arg("-c")
            .arg(&file)
            .env("SESSION_KEY", SESSION_KEY)
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("the gateway says where it listens");
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if event["event"] == "server.listening" {
                break event["address"].as_str().unwrap().parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        GatewayProcess { address, child, _folder: folder }
    }
}

impl Gateway {
    /// Asks the gateway to stop, and waits until it has.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.running).await.unwrap();
    }

    /// Asks the gateway to stop, and goes on.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Anything 32 bytes long that is not all alike.
pub const SESSION_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The secrets the configuration of these tests names.
pub fn environment(name: &str) -> Option<String> {
    match name {
        "SESSION_KEY" => Some(SESSION_KEY.to_owned()),
        "CLIENT_SECRET" => Some(CLIENT_SECRET.to_owned()),
        _ => None,
    }
}
