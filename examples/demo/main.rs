//! The whole story in one process: an OpenID provider, an API, a small SPA, and the gateway between them.
//!
//!     cargo run --release --example demo [PORT]
//!
//! The issuer and the API take free ports on 127.0.0.1, the gateway takes 8080 or the PORT given (0 for a
//! free one). Cookies ignore ports, so the issuer is on `127.0.0.1` and the app on `localhost`: to a
//! browser these are two sites, as issuer and app are in real life.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks to its terminal")]

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloakroom::clock::SystemClock;
use cloakroom::config;
use cloakroom::random::Random;
use cloakroom::server::Server;
use tokio::net::TcpListener;

use crate::issuer::grants::USERS;
use crate::issuer::{Client, Issuer};

mod api;
mod issuer;
mod web;

/// The gateway's configuration, as an operator would write it.
const CONFIGURATION: &str = include_str!("cloakroom.yaml");

const SPA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/spa");

/// The gateway's port and those of its neighbours, which have it.
#[derive(Debug)]
struct Neighbours {
    port: u16,
    client_secret: String,
    issuer_url: String,
    api_url: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let port = match std::env::args().nth(1).map(|port| port.parse()) {
        None => 8080,
        Some(Ok(port)) => port,
        Some(Err(_)) => return fail("the only argument is the port to listen on, such as 8081"),
    };
    let port = match free_port(port).await {
        Ok(port) => port,
        Err(error) => {
            return fail(&format!(
                "port {port} can't be had: {error}\nTry another:  cargo run --release --example demo -- 8081"
            ));
        }
    };
    match run(port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

async fn run(port: u16) -> Result<(), Box<dyn Error>> {
    let neighbours = start_issuer_and_api(port).await?;
    let gateway = Server::bind(configuration(&neighbours)?.config).await?;
    introduce(&neighbours);
    gateway.run(asked_to_stop()).await;
    Ok(())
}

async fn start_issuer_and_api(port: u16) -> Result<Neighbours, Box<dyn Error>> {
    let issuer_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let api_listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let neighbours = Neighbours {
        port,
        client_secret: Random::SYSTEM.token::<32>(),
        issuer_url: format!("http://{}", issuer_listener.local_addr()?),
        api_url: format!("http://{}", api_listener.local_addr()?),
    };
    let client = Client {
        id: "demo",
        secret: neighbours.client_secret.clone(),
        redirect_uri: format!("http://localhost:{port}/bff/callback"),
        post_logout_redirect_uri: format!("http://localhost:{port}/bff/logout/callback"),
    };
    let issuer = Arc::new(Issuer::new(neighbours.issuer_url.clone(), client, Arc::new(SystemClock))?);
    let asked_by_api = Arc::clone(&issuer);
    tokio::spawn(web::serve(issuer_listener, move |request| issuer.answer(request)));
    tokio::spawn(web::serve(api_listener, move |request| api::answer(&asked_by_api, request)));
    Ok(neighbours)
}

/// What is known at the start alone goes in as an operator would give it: by the environment, but one
/// that this process makes up.
fn configuration(neighbours: &Neighbours) -> Result<config::Loaded, config::Faults> {
    let session_key = STANDARD.encode(Random::SYSTEM.bytes::<32>());
    let environment = |name: &str| match name {
        "DEMO_PORT" => Some(neighbours.port.to_string()),
        "DEMO_ISSUER" => Some(neighbours.issuer_url.clone()),
        "DEMO_API" => Some(neighbours.api_url.clone()),
        "DEMO_SPA" => Some(SPA.to_owned()),
        "DEMO_CLIENT_SECRET" => Some(neighbours.client_secret.clone()),
        "DEMO_SESSION_KEY" => Some(session_key.clone()),
        _ => None,
    };
    config::parse("examples/demo/cloakroom.yaml", CONFIGURATION, &environment)
}

fn introduce(Neighbours { port, issuer_url, api_url, .. }: &Neighbours) {
    let [alice, bob] = &USERS;
    println!(
        "
Cloakroom's demo is running. Open  http://localhost:{port}

  log in as {} with password {}, or as {} with password {}

What to try
  · Call the API, and see what it saw: the token, which the browser never had.
  · Tick “Keep calling”, and watch the 20-second token being replaced without a pause.
  · Look for a token in the browser's developer tools: storage, cookies, requests, answers.
  · Open a second tab; log out in one, and call the API in the other.
  · Log out and in again: the issuer asks for the password anew.
  · Be a script without the header, and one without a session:
      curl -i -H 'Cookie: cloakroom=any' http://localhost:{port}/api/hello
      curl -i -H 'X-CSRF: 1' http://localhost:{port}/api/hello

The issuer, which is for this demo alone, is {issuer_url}; the API is {api_url}.
Both will tell here what they do. Ctrl-C ends it all.
",
        alice.name, alice.password, bob.name, bob.password
    );
}

/// The port, if it is free on both addresses that browsers take `localhost` for; a free one for 0.
async fn free_port(wanted: u16) -> io::Result<u16> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).await?.local_addr()?.port();
    match TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // No IPv6 here, then.
        Ok(_) | Err(_) => Ok(port),
    }
}

async fn asked_to_stop() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("demo: {message}");
    ExitCode::FAILURE
}
