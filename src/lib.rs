//! Cloakroom: a token handler (backend for frontend) for single-page apps.
//!
//! The browser holds one sealed, HTTP-only cookie; access and refresh tokens never leave the server.
pub mod clock;
pub mod config;
pub mod random;
pub mod secret;
pub mod tokens;
