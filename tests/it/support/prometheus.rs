//! Debian's Prometheus, which watches gateways as `deploy/prometheus` has it.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::browser::exchange;
use super::port::Reserved;
use super::wait::until;

/// A server that scrapes each gateway every half second. Dropping it kills it.
pub struct Prometheus {
    address: SocketAddr,
    _server: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// With the rules of this file; ready once it has scraped each of these admin listeners twice.
    pub async fn watching(gateways: &[SocketAddr], rules: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let rules = fs::canonicalize(rules).unwrap();
        let mut yaml =
            "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n"
                .to_owned();
        let targets: Vec<_> = gateways.iter().map(|gateway| format!("\"{gateway}\"")).collect();
        writeln!(yaml, "rule_files: [\"{}\"]", rules.display()).unwrap();
        yaml += "scrape_configs:\n  - job_name: cloakroom\n";
        writeln!(yaml, "    static_configs: [{{targets: [{}]}}]", targets.join(", ")).unwrap();
        let configuration = folder.path().join("prometheus.yml");
        fs::write(&configuration, yaml).unwrap();
        let port = Reserved::new();
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("start prometheus; tests/run installs it");
        let prometheus = Self { address: port.address(), _server: server, _folder: folder };
        until(async || tokio::net::TcpStream::connect(prometheus.address).await.is_ok()).await;
        drop(port);
        let scraped = format!("count(count_over_time(up[1m]) > 1) == {}", gateways.len());
        until(async || prometheus.query(&scraped).await.is_ok_and(|found| !found.is_empty())).await;
        prometheus
    }

    /// The samples of an expression, now; or what is wrong with it.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        let answer = self.ask(&format!("/api/v1/query?{form}")).await;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }

    /// Every rule, as it is told by the server: with `name`, `query`, `health` and `annotations`.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.ask("/api/v1/rules").await;
        let groups = answer["data"]["groups"].as_array().unwrap_or_else(|| panic!("{answer}"));
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    async fn ask(&self, target: &str) -> Value {
        let request = Request::get(target).header(header::HOST, "prometheus").body(Full::default()).unwrap();
        let (status, _, body) = exchange(self.address, request).await;
        let text = String::from_utf8_lossy(&body);
        // While it starts, it says so in plain text.
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{target}: {error}: {text}"))
    }
}
