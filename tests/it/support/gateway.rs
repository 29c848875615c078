//! The gateway under test: in this process, on a free port, or as the real program.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::clock::{Clock, SystemClock};
use cloakroom::config;
use cloakroom::server::Server;
use cloakroom::session::store::Store;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::issuer::{CLIENT_ID, CLIENT_SECRET};
use super::redis::Redis;
use super::wait::in_time;

/// The origin of the app under test. The gateway listens on loopback in plain HTTP, as behind a TLS
/// terminator, and the browser of these tests sends this host.
pub const ORIGIN: &str = "https://shop.test";

/// The name of its session cookie.
pub const SESSION_COOKIE: &str = "__Host-cloakroom";

/// An issuer where nobody is, for apps at which nobody logs in.
pub const NO_ISSUER: &str = "http://127.0.0.1:9";

/// The program as it was built for these tests.
const PROGRAM: &str = env!("CARGO_BIN_EXE_cloakroom");

/// What a gateway is started with: YAML, piece by piece. Each `…` piece is put in as it stands, indented
/// for its place.
pub struct Setup {
    pub listen: String,
    pub admin: String,
    pub origin: String,
    pub issuer: String,
    /// Further issuers by name and URL, which know the same client. The first is called `staff` then.
    pub other_issuers: Vec<(&'static str, String)>,
    pub oidc: String,
    pub session: String,
    pub routes: String,
    /// Further apps, as the list in YAML goes on.
    pub further_apps: String,
    pub limits: String,
    pub server: String,
    pub sessions: String,
    /// The list of session keys.
    pub keys: String,
    pub store: String,
    /// The last lines of the file.
    pub telemetry: String,
    pub clock: Arc<dyn Clock>,
    /// Stands in for the store that the file names.
    pub stand_in: Option<Arc<dyn Store>>,
}

/// A gateway in this process. It stops when it is dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// The real program, and every line it has logged. It is killed when it is dropped.
pub struct GatewayProcess {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: JoinHandle<()>,
    lines: Arc<Mutex<Vec<String>>>,
    access_log: JoinHandle<()>,
    accesses: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Setup {
    /// One app at [`ORIGIN`], whose issuer is at `issuer` and knows the client [`CLIENT_ID`].
    pub fn new(issuer: &str) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            admin: "127.0.0.1:0".to_owned(),
            origin: ORIGIN.to_owned(),
            issuer: issuer.to_owned(),
            other_issuers: Vec::new(),
            oidc: "scopes: [openid, profile, offline_access]".to_owned(),
            session: String::new(),
            routes: String::new(),
            further_apps: String::new(),
            limits: String::new(),
            server: String::new(),
            sessions: String::new(),
            keys: "[{env: SESSION_KEY}]".to_owned(),
            store: "memory: {}".to_owned(),
            telemetry: String::new(),
            clock: Arc::new(SystemClock),
            stand_in: None,
        }
    }

    /// With a route, such as `path: /api, upstream: "http://127.0.0.1:9000"`.
    pub fn route(mut self, keys: &str) -> Self {
        self.add_route(keys);
        self
    }

    /// The same, in place.
    pub fn add_route(&mut self, keys: &str) {
        writeln!(self.routes, "- {{{keys}}}").unwrap();
    }

    /// The upstream of the first route.
    pub fn upstream(&self) -> String {
        self.routes.split('"').nth(1).expect("a route to an upstream").to_owned()
    }

    /// With a route for those who have a session.
    pub fn for_users(self, path: &str, upstream: &str) -> Self {
        self.route(&format!("path: {path}, upstream: \"{upstream}\""))
    }

    /// With a route that looks at no session.
    pub fn for_anybody(self, path: &str, upstream: &str) -> Self {
        self.route(&format!("path: {path}, upstream: \"{upstream}\", auth: none"))
    }

    /// Takes the sessions to the Redis at this URL.
    pub fn redis(mut self, url: &url::Url) -> Self {
        self.store = format!("redis: {{url: \"{url}\"}}");
        self
    }

    /// The same, in place.
    pub fn store_in(&mut self, redis: &Redis) {
        self.store = format!("redis: {{url: \"{}\"}}", redis.url());
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
        writeln!(yaml, "admin: {{listen: \"{}\"}}", self.admin).unwrap();
        writeln!(yaml, "sessions:\n  keys: {}", self.keys).unwrap();
        writeln!(yaml, "  store: {{{}}}", self.store).unwrap();
        yaml += &indented(&self.sessions, 2);
        writeln!(yaml, "apps:\n  - origin: {}\n    oidc:", self.origin).unwrap();
        if self.other_issuers.is_empty() {
            yaml += &indented(&self.client_at(&self.issuer), 6);
        } else {
            let first = ("staff", self.issuer.clone());
            for (name, issuer) in [&first].into_iter().chain(&self.other_issuers) {
                writeln!(yaml, "      - name: {name}").unwrap();
                yaml += &indented(&self.client_at(issuer), 8);
            }
        }
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
        yaml + &self.further_apps + &self.telemetry
    }

    fn client_at(&self, issuer: &str) -> String {
        let mut client = format!("issuer: {issuer}\nclient_id: \"{CLIENT_ID}\"\n");
        if !self.oidc.contains("client_auth") {
            client += "client_auth: {client_secret_basic: {env: CLIENT_SECRET}}\n";
        }
        client + &self.oidc
    }

    /// Starts a gateway in this process.
    pub async fn start(&self) -> Gateway {
        Gateway::run(self.bind(&self.yaml()).await.reload_interval(Duration::from_millis(50)))
    }

    /// One that does not run yet, by this text.
    pub async fn bind(&self, yaml: &str) -> Server {
        let loaded = config::parse("test.yaml", yaml, &environment).unwrap_or_else(|faults| {
            panic!("{faults}\n{yaml}");
        });
        let clock = Arc::clone(&self.clock);
        let server = match &self.stand_in {
            Some(store) => Server::bind_with_store(loaded.config, Arc::clone(store), clock).await,
            None => Server::bind_with_clock(loaded.config, clock).await,
        };
        server.unwrap()
    }

    /// Starts the program itself, and waits until it listens.
    pub async fn start_process(&self) -> GatewayProcess {
        self.start_process_as(program(&[])).await
    }

    /// The same on this socket, handed over as systemd does.
    pub async fn start_process_on(&self, sockets: &[(&str, &TcpListener)]) -> GatewayProcess {
        self.start_process_as(handing_over(sockets)).await
    }

    /// The same as this program, another version of it, say.
    pub async fn start_process_as(&self, program: Command) -> GatewayProcess {
        let (mut child, folder) = self.spawn(program);
        let accesses = Arc::new(Mutex::new(Vec::new()));
        let access_log = tokio::spawn(note_lines(child.stdout.take().unwrap(), Arc::clone(&accesses)));
        let mut reader = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (address, admin) = loop {
            let line = in_time(reader.next_line()).await.unwrap().expect("the gateway says where it listens");
            lines.lock().unwrap().push(line.clone());
            if line.contains("server.listening") {
                break addresses(&line);
            }
        };
        let log = tokio::spawn(note_lines(reader.into_inner(), Arc::clone(&lines)));
        GatewayProcess { address, admin, child, log, lines, access_log, accesses, folder }
    }

    /// Starts the program where it is to refuse: its exit code, and what it says.
    pub async fn refused_process(&self, program: Command) -> (Option<i32>, String) {
        let (child, _folder) = self.spawn(program);
        let output = in_time(child.wait_with_output()).await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn spawn(&self, mut program: Command) -> (Child, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloakroom.yaml");
        std::fs::write(&file, self.yaml()).unwrap();
        program.args(["serve", "-c", file.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped());
        (program.spawn().unwrap(), folder)
    }
}

impl GatewayProcess {
    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let kill = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(kill.unwrap().success(), "it is there to take a signal");
    }

    /// `kill -9`, and nothing of it is left when this is done.
    pub async fn kill(mut self) {
        in_time(self.child.kill()).await.unwrap();
    }

    /// Puts another text in its configuration's place, and has it read.
    pub fn reload(&self, yaml: &str) {
        std::fs::write(self.folder.path().join("cloakroom.yaml"), yaml).unwrap();
        self.signal("HUP");
    }

    /// The lines of its log that have this in them.
    pub fn logged(&self, part: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// Whether a line of its log has this in it.
    pub fn has_logged(&self, part: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(part))
    }

    /// Its log so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// What it has written to standard output so far.
    pub fn accesses(&self) -> Vec<String> {
        self.accesses.lock().unwrap().clone()
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id().unwrap())).unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned()
        };
        tasks.map(name).collect()
    }

    /// Its number, as the system knows it.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// How many files and sockets it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// What it holds of the machine's memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process of Linux");
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, and gives its exit code with all it has logged.
    pub async fn ended(self) -> (Option<i32>, Vec<String>) {
        let (code, lines, _) = self.ended_with_accesses().await;
        (code, lines)
    }

    /// The same, and its access log.
    pub async fn ended_with_accesses(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let status = in_time(self.child.wait()).await.unwrap();
        in_time(self.log).await.unwrap();
        in_time(self.access_log).await.unwrap();
        let taken = |lines: &Mutex<Vec<String>>| std::mem::take(&mut *lines.lock().unwrap());
        (status.code(), taken(&self.lines), taken(&self.accesses))
    }
}

impl Gateway {
    /// Runs it in this process.
    pub fn run(server: Server) -> Self {
        let address = server.address().unwrap();
        let admin = server.admin_address().unwrap().unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { address, admin, stop: Some(stop), running }
    }

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

async fn note_lines(from: impl AsyncRead + Unpin, noted: Arc<Mutex<Vec<String>>>) {
    let mut reader = BufReader::new(from).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        noted.lock().unwrap().push(line);
    }
}

/// The program, with the secrets that the configuration of these tests names.
pub fn program(arguments: &[&str]) -> Command {
    prepared(Command::new(PROGRAM), arguments)
}

/// The program as another version of it, which lies at this path.
pub fn program_at(path: &str) -> Command {
    prepared(Command::new(path), &[])
}

/// The program, to which sockets of these names are handed over (sd_listen_fds(3)). A child's descriptors cannot be given
/// their places without unsafe code; a shell does it, and its process becomes the program's.
pub fn handing_over(sockets: &[(&str, &TcpListener)]) -> Command {
    let (mut script, mut names) = (String::new(), Vec::new());
    for (place, (name, socket)) in (3..).zip(sockets) {
        // Beyond the places that the shell fills.
        let inherited = fcntl_dupfd_cloexec(socket, 100).unwrap();
        fcntl_setfd(&inherited, FdFlags::empty()).unwrap();
        write!(script, "exec {place}<&{0} {0}<&-; ", inherited.as_raw_fd()).unwrap();
        // It must stay open until the program has started; nobody minds if it does for longer.
        std::mem::forget(inherited);
        names.push(*name);
    }
    script += "export LISTEN_PID=$$; exec \"$@\"";
    let mut command = prepared(Command::new("bash"), &["-c", &script, "bash", PROGRAM]);
    command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command
}

fn prepared(mut command: Command, arguments: &[&str]) -> Command {
    command
        .args(arguments)
        .env("SESSION_KEY", SESSION_KEY)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("AUDIT_KEY", AUDIT_KEY)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Both addresses in the line that says where the gateway listens, whatever the format of the log.
fn addresses(line: &str) -> (SocketAddr, SocketAddr) {
    let words = line.split(|letter: char| !(letter.is_ascii_digit() || matches!(letter, '.' | ':')));
    let mut addresses = words.filter_map(|word| word.trim_matches(':').parse().ok());
    let mut next = || addresses.next().expect("an address");
    (next(), next())
}

/// Anything 32 bytes long that is not all alike.
pub const SESSION_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Another one.
pub const AUDIT_KEY: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

/// The secrets the configuration of these tests names.
pub fn environment(name: &str) -> Option<String> {
    match name {
        "SESSION_KEY" => Some(SESSION_KEY.to_owned()),
        "CLIENT_SECRET" => Some(CLIENT_SECRET.to_owned()),
        "AUDIT_KEY" => Some(AUDIT_KEY.to_owned()),
        _ => None,
    }
}
