//! Everything that needs a server, in one binary: a file for each capability.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by them")]

mod across_gateways;
mod admin;
mod admission;
mod apps;
mod architecture;
mod backchannel;
mod callback;
mod chromium;
mod cli;
mod config;
mod cookies;
mod counts;
mod csrf;
mod damaged_records;
mod demo;
mod documents;
mod files;
mod forwarding;
mod framing;
mod frontchannel;
mod headers;
mod limits;
mod login;
mod logout;
mod main_path;
mod oidc;
mod outbox;
mod paths;
mod real_issuer;
mod record_formats;
mod redemption;
mod refresh;
mod secrets;
mod session_cache;
mod session_endpoint;
mod shutdown;
mod store;
mod streams;
mod support;
mod websocket;
