//! Security event tokens (RFC 8417) of a transmitter, in the profile of the Shared Signals Framework 1.0 §4: whose
//! sessions they end, by CAEP 1.0 and RISC 1.0, and subjects as RFC 9493 writes them.

use serde_json::{Map, Value};

use super::LoggedOut;
use super::error::{JwtFault, SecurityEventFault};
use super::jwt::{Jwt, LEEWAY};
use crate::clock::Timestamp;

/// The media type of a SET, and its `typ` (RFC 8417 §2.3).
const TYPE: &str = "secevent+jwt";

/// The events that end sessions. `token-claims-change` does, for only a new login shows the new claims.
const ENDING: [&str; 5] = [
    SESSION_REVOKED,
    "https://schemas.openid.net/secevent/caep/event-type/token-claims-change",
    "https://schemas.openid.net/secevent/risc/event-type/account-disabled",
    "https://schemas.openid.net/secevent/risc/event-type/account-purged",
    "https://schemas.openid.net/secevent/risc/event-type/sessions-revoked",
];

/// Its subject, where it has no parts, is a session rather than a user.
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// How old a SET may be, in seconds: transmitters go on trying while a receiver is away. For so long its `jti` is
/// to be remembered.
pub(super) const LONGEST_AGE: u64 = 24 * 60 * 60;

/// How long an id and a `jti` may be, in bytes, and a `sub` (Core §2).
const LONGEST_ID: usize = 1024;
const LONGEST_SUBJECT: usize = 255;

/// How many other names one subject may have.
const MOST_ALIASES: usize = 16;

/// What a good security event token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityEvent {
    /// `jti`: a token is to be acted upon once.
    pub id: String,
    /// Whose sessions end.
    pub ended: Vec<EndedSubject>,
    /// Whether it would end sessions of somebody who is named in a way that is not known here.
    pub names_unknown: bool,
}

/// A subject whose sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSubject {
    /// The issuer who knows the subject by this name; the transmitter's own name for it where there is none.
    pub issuer: Option<String>,
    /// Whose sessions they are.
    pub whose: LoggedOut,
}

/// A simple subject (RFC 9493 §3.2).
enum Named {
    By {
        issuer: Option<String>,
        name: String,
    },
    /// In a format that says nothing here, such as an address or a telephone number.
    Unknown,
}

impl SecurityEvent {
    /// What a token says, where all is right with it but perhaps its signature, which is to be checked after.
    /// `critical` are the parts of a subject that must be understood.
    ///
    /// # Errors
    /// Where something is not.
    pub fn check(
        jwt: &Jwt<'_>,
        transmitter: &str,
        audience: &[String],
        critical: &[String],
        now: Timestamp,
    ) -> Result<Self, SecurityEventFault> {
        if !jwt.has_type(TYPE) {
            return Err(SecurityEventFault::Type);
        }
        if jwt.text("iss") != Some(transmitter) {
            return Err(JwtFault::Issuer.into());
        }
        if !is_for(jwt.claims.get("aud"), audience) {
            return Err(SecurityEventFault::Audience);
        }
        check_times(jwt, now)?;
        let id = jwt.text("jti").filter(|id| (1..=LONGEST_ID).contains(&id.len()));
        let id = id.ok_or(SecurityEventFault::TokenId)?.to_owned();
        let events = jwt.claims.get("events").and_then(Value::as_object).filter(|events| !events.is_empty());
        let mut said = Self { id, ended: Vec::new(), names_unknown: false };
        for (kind, event) in events.ok_or(SecurityEventFault::Events)? {
            let event = event.as_object().ok_or(SecurityEventFault::Events)?;
            if ENDING.contains(&kind.as_str()) {
                // Drafts of the framework had it in the event.
                let subject = jwt.claims.get("sub_id").or_else(|| event.get("subject"));
                let subject = subject.and_then(Value::as_object).ok_or(SecurityEventFault::Subject)?;
                let ended = subjects(subject, kind == SESSION_REVOKED, critical)?;
                said.names_unknown |= ended.is_empty();
                said.ended.extend(ended);
            }
        }
        Ok(said)
    }
}

/// A SET has no `exp` (RFC 8417 §2.2); where one does, it holds.
fn check_times(jwt: &Jwt<'_>, now: Timestamp) -> Result<(), JwtFault> {
    let now = now.as_secs();
    let issued_at = jwt.time("iat").ok_or(JwtFault::IssuedAt)?;
    if issued_at > now + LEEWAY || now > issued_at + LONGEST_AGE {
        return Err(JwtFault::IssuedAt);
    }
    match jwt.claims.get("exp") {
        Some(_) if jwt.time("exp").is_none_or(|expires_at| now >= expires_at + LEEWAY) => {
            Err(JwtFault::Expired)
        }
        _ => Ok(()),
    }
}

fn is_for(claim: Option<&Value>, audience: &[String]) -> bool {
    let is_ours = |value: &Value| value.as_str().is_some_and(|own| audience.iter().any(|one| one == own));
    match claim {
        Some(Value::Array(several)) => several.iter().any(is_ours),
        Some(one) => is_ours(one),
        None => false,
    }
}

/// Whom a subject names; nobody where only in ways that are not known here.
fn subjects(
    subject: &Map<String, Value>,
    is_session: bool,
    critical: &[String],
) -> Result<Vec<EndedSubject>, SecurityEventFault> {
    // An opaque name may be a session's; `iss` and `sub` are always a user's.
    let whole = |subject: &Map<String, Value>| {
        let is_opaque = subject.get("format").is_some_and(|format| format == "opaque");
        simple(subject).map(|named| named.alone(is_session && is_opaque))
    };
    match subject.get("format").and_then(Value::as_str) {
        None | Some("complex") => complex(subject, critical).map(|ended| ended.into_iter().collect()),
        Some("aliases") => {
            let aliases = subject.get("identifiers").and_then(Value::as_array);
            let aliases = aliases.filter(|aliases| (1..=MOST_ALIASES).contains(&aliases.len()));
            let mut ended = Vec::new();
            for alias in aliases.ok_or(SecurityEventFault::Subject)? {
                ended.extend(whole(alias.as_object().ok_or(SecurityEventFault::Subject)?)?);
            }
            Ok(ended)
        }
        Some(_) => Ok(whole(subject)?.into_iter().collect()),
    }
}

/// A subject in parts (Shared Signals Framework §3.2). Parts that only narrow down which sessions of a user are
/// meant, such as a device, say nothing here: rather one session too many ends than one too few.
fn complex(
    subject: &Map<String, Value>,
    critical: &[String],
) -> Result<Option<EndedSubject>, SecurityEventFault> {
    if !subject.values().any(Value::is_object) {
        return Err(SecurityEventFault::Subject);
    }
    let part = |name: &str| match subject.get(name) {
        None => Ok(Named::Unknown),
        Some(Value::Object(part)) => simple(part),
        Some(_) => Err(SecurityEventFault::Subject),
    };
    let (user, session) = (part("user")?, part("session")?);
    let is_understood = |name: &str| match name {
        "user" => matches!(user, Named::By { .. }),
        "session" => matches!(session, Named::By { .. }),
        _ => false,
    };
    if critical.iter().any(|name| subject.contains_key(name) && !is_understood(name)) {
        return Ok(None);
    }
    Ok(match (user, session) {
        (Named::By { issuer: of_user, name: user }, Named::By { issuer: of_session, name: sid }) => {
            let is_of_one = of_user.is_none() || of_session.is_none() || of_user == of_session;
            let both = LoggedOut::Both { subject: user, sid };
            is_of_one.then(|| EndedSubject { issuer: of_user.or(of_session), whose: both })
        }
        (user, Named::Unknown) => user.alone(false),
        (Named::Unknown, session) => session.alone(true),
    })
}

fn simple(subject: &Map<String, Value>) -> Result<Named, SecurityEventFault> {
    let text = |name: &str, longest: usize| {
        let text = subject.get(name).and_then(Value::as_str);
        let text = text.filter(|text| (1..=longest).contains(&text.len()));
        text.map(str::to_owned).ok_or(SecurityEventFault::Subject)
    };
    match subject.get("format").and_then(Value::as_str) {
        Some("iss_sub") => {
            Ok(Named::By { issuer: Some(text("iss", LONGEST_ID)?), name: text("sub", LONGEST_SUBJECT)? })
        }
        Some("opaque") => Ok(Named::By { issuer: None, name: text("id", LONGEST_ID)? }),
        Some(_) => Ok(Named::Unknown),
        None => Err(SecurityEventFault::Subject),
    }
}

impl Named {
    /// The sessions of this name alone.
    fn alone(self, is_session: bool) -> Option<EndedSubject> {
        match self {
            Self::By { issuer, name } => {
                let whose = if is_session { LoggedOut::Sid(name) } else { LoggedOut::Subject(name) };
                Some(EndedSubject { issuer, whose })
            }
            Self::Unknown => None,
        }
    }
}
