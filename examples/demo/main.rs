//! The whole story in one process: an OpenID provider, an API, a small SPA, and the gateway between them.
//!
//!     cargo run --release --example demo [-- [PORT] [--app FOLDER|URL]]
//!
//! The issuer and the API take free ports on 127.0.0.1, the gateway takes 8080 or the PORT given (0 for a
//! free one). Cookies ignore ports, so the issuer is on `127.0.0.1` and the app on `localhost`: to a
//! browser these are two sites, as issuer and app are in real life.
//!
//! With `--app` an app of yours takes the place of the demo's page.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks to its terminal")]

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use cloakroom::config;
use cloakroom::random::Random;
use cloakroom::server::Server;
use tokio::net::TcpListener;

use crate::app::App;
use crate::issuer::grants::USERS;
use crate::issuer::{Client, Issuer};
use crate::tour::Tour;
use crate::tour::clock::SkippingClock;
use crate::tour::hops::Hops;

mod api;
mod app;
mod issuer;
mod tour;
mod web;

/// The gateway's configuration, as an operator would write it.
const CONFIGURATION: &str = include_str!("cloakroom.yaml");

/// The same in front of a dev server.
const DEVELOPMENT: &str = include_str!("development.yaml");

const SPA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/spa");

/// A gateway, an issuer and an API in one process, to try things out with.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Where to listen; 0 for a free port
    #[arg(default_value_t = 8080)]
    port: u16,
    /// An app of yours in place of the demo's page: a folder of files; a folder with a package.json, whose script `dev` is
    /// run, as Vite's; or the URL of a dev server that you run yourself
    #[arg(long, value_name = "FOLDER|URL")]
    app: Option<String>,
    /// How long a session lasts whose user does nothing
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    idle_timeout: String,
}

/// The gateway's port and those of its neighbours, which have it.
#[derive(Debug)]
struct Neighbours {
    port: u16,
    client_secret: String,
    issuer_url: String,
    api_url: String,
    tour_url: String,
    tour: Arc<Tour>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    arguments.port = match free_port(arguments.port).await {
        Ok(port) => port,
        Err(error) => {
            return fail(&format!(
                "port {} can't be had: {error}\nTry another:  cargo run --release --example demo -- 8081",
                arguments.port
            ));
        }
    };
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

async fn run(Arguments { port, app, idle_timeout }: &Arguments) -> Result<(), Box<dyn Error>> {
    let neighbours = start_neighbours(*port).await?;
    let app = match app {
        Some(app) => Some(App::start(app).await?),
        None => None,
    };
    let gateway = gateway(&neighbours, app.as_ref(), idle_timeout).await?;
    match &app {
        Some(app) => app.introduce(*port),
        None => introduce(&neighbours),
    }
    gateway.run(asked_to_stop()).await;
    Ok(())
}

async fn gateway(
    neighbours: &Neighbours,
    app: Option<&App>,
    idle_timeout: &str,
) -> Result<Server, Box<dyn Error>> {
    let configuration = configuration(neighbours, app, idle_timeout)?;
    let (store, clock) = (neighbours.tour.store(), neighbours.tour.clock());
    Ok(Server::bind_with_store(configuration.config, store, clock).await?)
}

async fn start_neighbours(port: u16) -> Result<Neighbours, Box<dyn Error>> {
    let (issuer_listener, issuer_url) = listen().await?;
    let (api_listener, api_url) = listen().await?;
    let (tour_listener, tour_url) = listen().await?;
    let clock = Arc::new(SkippingClock::default());
    let client_secret = Random::SYSTEM.token::<32>();
    let client = Client {
        id: "demo",
        secret: client_secret.clone(),
        redirect_uri: format!("http://localhost:{port}/bff/callback"),
        post_logout_redirect_uri: format!("http://localhost:{port}/bff/logout/callback"),
        backchannel_logout_uri: format!("http://localhost:{port}/bff/backchannel-logout"),
    };
    let issuer = Arc::new(Issuer::new(issuer_url.clone(), client, Arc::clone(&clock) as _)?);
    let hops = Hops::new(issuer_url.clone(), api_url.clone());
    let tour = Arc::new(Tour::new(clock, Arc::clone(&issuer), hops));

    let (asked_by_api, watching, pressed) = (Arc::clone(&issuer), Arc::clone(&tour), Arc::clone(&tour));
    tokio::spawn(web::serve_while(tour.issuer_runs(), issuer_listener, move |request| {
        let answer = issuer.answer(request);
        watching.saw_visit(request, &answer);
        answer
    }));
    tokio::spawn(web::serve(api_listener, move |request| api::answer(&asked_by_api, request)));
    tokio::spawn(web::serve(tour_listener, move |request| pressed.answer(request)));
    Ok(Neighbours { port, client_secret, issuer_url, api_url, tour_url, tour })
}

/// At a free port.
async fn listen() -> io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

/// What is known at the start alone goes in as an operator would give it: by the environment, but one
/// that this process makes up.
fn configuration(
    neighbours: &Neighbours,
    app: Option<&App>,
    idle_timeout: &str,
) -> Result<config::Loaded, config::Faults> {
    let (file, text, place) = match app {
        None => ("cloakroom.yaml", CONFIGURATION, SPA),
        Some(App::Files(folder)) => ("cloakroom.yaml", CONFIGURATION, folder.as_str()),
        Some(App::DevServer { url, .. }) => ("development.yaml", DEVELOPMENT, url.as_str()),
    };
    let session_key = STANDARD.encode(Random::SYSTEM.bytes::<32>());
    let environment = |name: &str| match name {
        "DEMO_PORT" => Some(neighbours.port.to_string()),
        "DEMO_ISSUER" => Some(neighbours.issuer_url.clone()),
        "DEMO_API" => Some(neighbours.api_url.clone()),
        "DEMO_TOUR" => Some(neighbours.tour_url.clone()),
        "DEMO_SPA" => Some(place.to_owned()),
        "DEMO_IDLE_TIMEOUT" => Some(idle_timeout.to_owned()),
        "DEMO_CLIENT_SECRET" => Some(neighbours.client_secret.clone()),
        "DEMO_SESSION_KEY" => Some(session_key.clone()),
        _ => None,
    };
    config::parse(&format!("examples/demo/{file}"), text, &environment)
}

fn introduce(Neighbours { port, issuer_url, api_url, .. }: &Neighbours) {
    let [alice, bob] = &USERS;
    println!(
        "
Cloakroom's demo is running. Open  http://localhost:{port}

  log in as {} with password {}, or as {} with password {}

The page leads through it: log in, call the API, let the token expire, end the session at the issuer,
stop the issuer, stop the store, and see in a picture where each request went.

What to try besides
  · Look for a token in the browser's developer tools: storage, cookies, requests, answers.
  · Open a second tab; log out in one, and look at the other.
  · Be a script without the header, and one without a session:
      curl -i -H 'Cookie: cloakroom=any' http://localhost:{port}/api/hello
      curl -i -H 'X-CSRF: 1' http://localhost:{port}/api/hello

The issuer, which is for this demo alone, is {issuer_url}; the API is {api_url}.
They will tell here what they do. Ctrl-C ends it all.
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
