//! Cloakroom: a token handler (backend for frontend) for single-page apps. The browser holds one sealed,
//! HTTP-only cookie; access and refresh tokens never leave the server.
//!
//! # The life of a request
//!
//! 1. [`server`] accepts the connection, bounds its time and size, and hands each request on.
//! 2. [`gateway`] admits the host and finds the route, or one of the app's own [`endpoints`], where
//!    sessions begin, are asked for and end.
//! 3. Its guard asks whether the request is the app's own, and whether a page or a script waits for it.
//! 4. [`session`] opens the cookie's ticket, and with it the record in the store. Found, absent and
//!    unavailable are three answers.
//! 5. [`refresh`] sees to it that the access token can be used, once per session however many want it;
//!    [`oidc`] speaks to the issuer, and [`revocation`] tells it what is no longer wanted.
//! 6. [`proxy`] forwards the request with the token, and nothing of ours or of anybody else's identity;
//!    [`files`] answers with an app's static files instead.
//! 7. Whatever is refused on the way becomes a problem document or a page: [`error`] chooses the status,
//!    [`respond`] writes the answer, and [`pages`] has how it looks to people.
//!
//! `docs/life-of-a-request.md` has the reasons for this order.
//!
//! # Who else is here
//!
//! [`cli`] and [`config`] start it all. [`seal`] is the only room that encrypts, [`dpop`] proves whose a token is. [`tokens`], [`secret`],
//! [`clock`], [`random`], [`rate`], [`body`], [`fields`], [`connector`], [`reloaded`], [`worker`] and [`telemetry`] are what everyone may
//! use.
//! `CONTRIBUTING.md` has the table of who may import whom, and a test holds the code to it.

pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connector;
pub mod dpop;
pub mod endpoints;
pub mod error;
pub mod fields;
pub mod files;
pub mod gateway;
pub mod oidc;
pub mod pages;
pub mod proxy;
pub mod random;
pub mod rate;
pub mod refresh;
pub mod reloaded;
pub mod respond;
pub mod revocation;
pub mod seal;
pub mod secret;
pub mod server;
pub mod session;
pub mod telemetry;
pub mod tokens;
pub mod worker;
