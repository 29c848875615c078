//! What tests run against.

#![allow(dead_code, reason = "each test uses the part it needs")]

pub mod browser;
pub mod chromium;
pub mod demo;
pub mod form;
pub mod gateway;
pub mod issuer;
pub mod node;
pub mod port;
pub mod real_issuer;
pub mod redis;
pub mod shop;
pub mod terminator;
pub mod until;
pub mod upstream;
pub mod wire;
