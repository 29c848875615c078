//! What tests run against.

pub mod browser;
pub mod certificates;
pub mod chromium;
pub mod clock;
pub mod demo;
pub mod doomed;
pub mod form;
pub mod gateway;
pub mod issuer;
pub mod log;
pub mod node;
pub mod port;
pub mod real_issuer;
pub mod redis;
pub mod redis_cluster;
pub mod redis_sentinel;
pub mod secrets;
pub mod shop;
pub mod terminator;
pub mod troubled_store;
pub mod upstream;
pub mod wait;
pub mod wire;
