//! From a file to a configuration, and every fault on the way.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use cloakroom::config::{
    Auth, ClientAuth, Config, Csrf, Diagnostic, Faults, Loaded, LogFormat, Origin, OtlpProtocol, RouteGrant,
    RouteToken, SameSite, Store, Target, Token, TokenTarget, load, parse,
};

mod apps;
mod authorization;
mod defaults;
mod environment;
mod faults_in_general;
mod files;
mod issuers;
mod routes;
mod secrets;
mod server;
mod sessions;
mod settings;
mod signals;
mod signing_keys;
mod tls;
mod upstreams;
mod yaml;

/// The least there can be.
const BASE: &str = "\
server:
  listen: 127.0.0.1:0
sessions:
  keys: [{env: KEY}]
  store: {memory: {}}
apps:
  - origin: https://shop.example.com
    oidc:
      issuer: https://id.example.com
      client_id: shop
      client_auth: none
    routes:
      - path: /api
        upstream: https://orders.internal:9000
";

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "-_EyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "KEY" | "KEY_AGAIN" => KEY,
        "OTHER_KEY" => OTHER_KEY,
        "SHORT_KEY" => "MDEyMzQ1Njc4OWFiY2RlZg==",
        "LONG_KEY" => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWZnaA==",
        "ZERO_KEY" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "WORDS" => "not base64 at all",
        "SECRET" => "hunter2\n",
        "EMPTY" => "",
        "NEWLINE" => "\n",
        // RFC 8037 appendix A.1.
        "JWK" => {
            r#"{"kty": "OKP", "crv": "Ed25519", "kid": "from-env", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
        }
        "PORT" => "4711",
        "INJECTION" => "x\n  listen: 1.2.3.4:5\nadmin: {}",
        _ => return None,
    };
    Some(value.to_owned())
}

fn with(old: &str, new: &str) -> String {
    assert!(BASE.contains(old), "{old}");
    BASE.replacen(old, new, 1)
}

fn accepted(text: &str) -> Loaded {
    parse("test.yaml", text, &environment).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

fn config(text: &str) -> Config {
    accepted(text).config
}

fn faults(text: &str) -> Vec<Diagnostic> {
    match parse("test.yaml", text, &environment) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(faults) => {
            assert!(!faults.diagnostics().is_empty());
            faults.diagnostics().to_vec()
        }
    }
}

/// Replaces `old` and expects one fault at the place marked `«`, with this text and this problem.
#[track_caller]
fn refused(old: &str, new: &str, text: &str, problem: &str) {
    refused_in(&with(old, new), text, problem);
}

#[track_caller]
fn refused_in(marked: &str, text: &str, problem: &str) {
    let before = marked.split_once('«').expect("a place is marked").0;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let found = faults(&marked.replace('«', ""));
    let [fault] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((fault.position.line, fault.position.column), (line, column), "{fault}");
    assert_eq!(fault.text, text, "{fault}");
    assert!(fault.problem.contains(problem), "{fault}");
    assert!(!fault.remedy.is_empty());
    let shown = fault.to_string();
    assert!(
        shown.starts_with(&format!("test.yaml:{line}:{column}: ")) && shown.contains("\n  write instead: ")
    );
}
