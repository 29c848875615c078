//! What the audit trail is told of requests: whose they are, and why one was refused.

use super::Gateway;
use super::app::App;
use crate::error::{Code, Refusal};
use crate::session::Session;
use crate::session::cookie::Ticket;
use crate::telemetry::audit::{Event, Facts};

impl Gateway {
    /// What somebody may have tried who must not. What is refused for want of a session is noted
    /// where its cookie is looked at, and what ends one where it ends.
    pub(super) fn note(&self, app: &str, refusal: &Refusal) {
        match refusal.code() {
            Code::Csrf | Code::Forbidden | Code::InsufficientUserAuthentication | Code::RateLimited => {
                let facts = Facts { app, reason: Some(refusal.audited_reason()), ..Facts::default() };
                self.lasting.sessions.audit().note(Event::RequestRefused, &facts);
            }
            Code::Unauthenticated
            | Code::SessionEnded
            | Code::BadRequest
            | Code::LoginFailed
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::Misdirected
            | Code::TooLarge
            | Code::StoreUnavailable
            | Code::IssuerUnavailable
            | Code::UpstreamUnavailable
            | Code::UpstreamTimeout
            | Code::Overloaded
            | Code::Internal => {}
        }
    }
}

impl App {
    /// Whose the session is, or that the cookie stands for none. One of an ended session comes once
    /// from each browser that slept meanwhile; one that no key here has sealed was made up, or sealed under another key.
    pub(super) fn note_visitor(
        &self,
        ticket: Option<&Ticket>,
        session: Option<&Session>,
        cookie_is_dead: bool,
    ) {
        let (audit, app) = (self.sessions.common().audit(), self.sessions.app());
        match (ticket, session) {
            (Some(ticket), Some(session)) if audit.is_kept() => {
                audit.is_asked_by(&self.sessions.facts(&session.identity, ticket.record_key()));
            }
            (Some(ticket), None) => {
                let facts = Facts { app, session: Some(&ticket.record_key().0), ..Facts::default() };
                audit.note(Event::RequestRefused, &Facts { reason: Some("session-over"), ..facts });
            }
            (None, _) if cookie_is_dead => {
                let facts = Facts { app, reason: Some("unknown-cookie"), ..Facts::default() };
                audit.note(Event::RequestRefused, &facts);
            }
            (_, _) => {}
        }
    }
}
