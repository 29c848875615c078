//! The audit trail: what happened to logins, sessions and their tokens, one JSON object a line. `docs/audit.md` has
//! each event with its fields.
//!
//! Users and sessions have names in it that are keyed hashes: the same one each time and at each gateway, and nobody
//! without the key can tell whose it is. No level of the log keeps an event back. What anybody can cause without a
//! session is bounded for each second, and what was left out is counted in the trail itself.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use super::access_log::date;
use super::request::Current;
use crate::clock::{Clock, Timestamp};
use crate::config;

/// How many of one kind of event that anybody can cause are written in a second.
const MOST_A_SECOND: u32 = 100;

/// Of a name, in bytes: half of the hash (RFC 2104 §5).
const NAME_BYTES: usize = 16;

/// What an event can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A browser or a device was sent to the issuer.
    LoginBegun,
    /// A session has begun.
    LoginSucceeded,
    /// A login came to nothing.
    LoginFailed,
    /// The issuer has given a session new tokens.
    RefreshSucceeded,
    /// The issuer has refused to.
    RefreshRefused,
    /// A session has ended.
    SessionEnded,
    /// An operator has looked for sessions.
    SessionsListed,
    /// The issuer has revoked a token.
    RevocationDone,
    /// Nobody will ask it to any more.
    RevocationGivenUp,
    /// A request was refused, or a session it claimed was not there.
    RequestRefused,
    /// Events were left out, for there were too many.
    EventsSuppressed,
}

/// What an event says. Whoever it is about is named as they are, and written down by a hash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The app's origin.
    pub app: &'a str,
    /// Whose user it is.
    pub issuer: Option<&'a str>,
    /// `sub`
    pub user: Option<&'a str>,
    /// `sid`
    pub issuer_session: Option<&'a str>,
    /// The name of the session's record.
    pub session: Option<&'a str>,
    /// Why, or by what.
    pub reason: Option<&'static str>,
    /// By which grant, or what kind of token.
    pub kind: Option<&'static str>,
    /// When the session will have ended at the latest.
    pub expires_at: Option<Timestamp>,
    /// How many.
    pub count: Option<u64>,
}

/// Where events go. A clone goes to the same place; the default is nowhere.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<Trail>>);

/// The names of whom a request comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    issuer: Option<String>,
    user: Option<String>,
    issuer_session: Option<String>,
    session: Option<String>,
}

struct Trail {
    key: Hmac<Sha256>,
    path: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    output: Mutex<Output>,
}

struct Output {
    file: Option<File>,
    /// The second that is counted in.
    second: u64,
    written: [u32; Event::ALL.len()],
    suppressed: [u64; Event::ALL.len()],
}

/// One line, in this order.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    audit: bool,
    event: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    app: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

impl Event {
    /// Each of them.
    pub const ALL: [Self; 11] = [
        Self::LoginBegun,
        Self::LoginSucceeded,
        Self::LoginFailed,
        Self::RefreshSucceeded,
        Self::RefreshRefused,
        Self::SessionEnded,
        Self::SessionsListed,
        Self::RevocationDone,
        Self::RevocationGivenUp,
        Self::RequestRefused,
        Self::EventsSuppressed,
    ];

    /// Its name in the trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoginBegun => "login.begun",
            Self::LoginSucceeded => "login.succeeded",
            Self::LoginFailed => "login.failed",
            Self::RefreshSucceeded => "refresh.succeeded",
            Self::RefreshRefused => "refresh.refused",
            Self::SessionEnded => "session.ended",
            Self::SessionsListed => "sessions.listed",
            Self::RevocationDone => "revocation.done",
            Self::RevocationGivenUp => "revocation.given_up",
            Self::RequestRefused => "request.refused",
            Self::EventsSuppressed => "events.suppressed",
        }
    }

    /// Whether it takes no session to cause it, so that a flood of them must not fill the disk.
    const fn is_anybodys(self) -> bool {
        matches!(self, Self::LoginBegun | Self::LoginFailed | Self::RequestRefused)
    }
}

impl Audit {
    /// The trail that a configuration wants.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(config: Option<&config::Audit>, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let Some(config) = config else { return Ok(Self::default()) };
        let path = config.file.clone();
        let file = path.as_deref().map(appended).transpose()?;
        let nothing = [0; Event::ALL.len()];
        let output = Output { file, second: 0, written: [0; Event::ALL.len()], suppressed: nothing };
        // A key shorter than a block is filled up with zeros (RFC 2104 §2).
        let mut block = [0; 64];
        block[..config.key.expose().len()].copy_from_slice(config.key.expose());
        let key = Hmac::new(&block.into());
        Ok(Self(Some(Arc::new(Trail { key, path, clock, output: Mutex::new(output) }))))
    }

    /// Goes on in a new file, where the one that is written to was moved away, as `logrotate` does.
    pub fn follow_file(&self) {
        let Some(trail) = &self.0 else { return };
        let Some(path) = &trail.path else { return };
        let mut output = trail.output.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = output.file.as_ref().is_some_and(|file| is_at(path, file));
        if is_there {
            return;
        }
        match appended(path) {
            Ok(file) => output.file = Some(file),
            Err(error) => {
                tracing::error!(event = "audit.not_reopened", %error, "events go to the file that was moved");
            }
        }
    }

    /// Whether there is a trail.
    pub const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Writes an event down, with the request that it belongs to.
    pub fn note(&self, event: Event, facts: &Facts<'_>) {
        let Some(trail) = &self.0 else { return };
        let asked = Current::of_request();
        let mut names = trail.names(facts);
        if event == Event::RequestRefused
            && let Some(whose) = asked.as_ref().and_then(Current::whose)
        {
            names = whose;
        }
        trail.note(event, facts, &names, asked.as_ref());
    }

    /// From here on, what is refused to this request is refused to them.
    pub fn is_asked_by(&self, facts: &Facts<'_>) {
        if let Some(trail) = &self.0 {
            Current::belongs_to(|| trail.names(facts));
        }
    }
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether it is this very file that the path leads to.
fn is_at(path: &Path, file: &File) -> bool {
    let same = |one: &Metadata, other: &Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    fs::metadata(path).and_then(|found| Ok(same(&found, &file.metadata()?))).unwrap_or(false)
}

impl Trail {
    fn names(&self, facts: &Facts<'_>) -> Names {
        Names {
            issuer: facts.issuer.map(str::to_owned),
            user: facts.user.map(|subject| self.name("user", subject)),
            issuer_session: facts.issuer_session.map(|sid| self.name("issuer_session", sid)),
            session: facts.session.map(|record| self.name("session", record)),
        }
    }

    fn name(&self, kind: &str, value: &str) -> String {
        let mut name = self.key.clone();
        for part in [kind, ":", value] {
            Mac::update(&mut name, part.as_bytes());
        }
        format!("{:x}", Bytes::copy_from_slice(&name.finalize().into_bytes()[..NAME_BYTES]))
    }

    fn note(&self, event: Event, facts: &Facts<'_>, names: &Names, asked: Option<&Current>) {
        let now = self.clock.now();
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if output.admits(event, now) {
            output.tell_suppressed(now);
            output.write(&Line {
                request_id: asked.map(Current::id),
                client: asked.and_then(Current::client).map(|client| client.to_canonical().to_string()),
                issuer: names.issuer.as_deref(),
                user: names.user.as_deref(),
                issuer_session: names.issuer_session.as_deref(),
                session: names.session.as_deref(),
                ..Line::new(event, facts, now)
            });
        }
    }
}

impl Output {
    /// Counts it, within this second.
    fn admits(&mut self, event: Event, now: Timestamp) -> bool {
        if self.second != now.as_secs() {
            (self.second, self.written) = (now.as_secs(), [0; Event::ALL.len()]);
        }
        let written = &mut self.written[event as usize];
        *written += 1;
        let is_admitted = !event.is_anybodys() || *written <= MOST_A_SECOND;
        self.suppressed[event as usize] += u64::from(!is_admitted);
        is_admitted
    }

    /// Once the second that they came in is over.
    fn tell_suppressed(&mut self, now: Timestamp) {
        for event in Event::ALL {
            let is_over = self.written[event as usize] <= MOST_A_SECOND;
            if is_over && self.suppressed[event as usize] > 0 {
                let count = std::mem::take(&mut self.suppressed[event as usize]);
                let facts = Facts { kind: Some(event.as_str()), count: Some(count), ..Facts::default() };
                self.write(&Line::new(Event::EventsSuppressed, &facts, now));
            }
        }
    }

    /// In one piece, so that those of others who append to the same file do not get into it.
    fn write(&mut self, line: &Line<'_>) {
        let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            match &mut self.file {
                Some(file) => file.write_all(&line),
                None => {
                    let mut output = io::stdout().lock();
                    output.write_all(&line).and_then(|()| output.flush())
                }
            }
        });
        if let Err(error) = written {
            tracing::error!(event = "audit.unwritten", lost = line.event, %error);
        }
    }
}

impl<'a> Line<'a> {
    fn new(event: Event, facts: &Facts<'a>, now: Timestamp) -> Self {
        Self {
            timestamp: format!("{}.{:03}Z", date(now.as_secs()), now.as_millis() % 1000),
            audit: true,
            event: event.as_str(),
            app: facts.app,
            request_id: None,
            client: None,
            issuer: None,
            user: None,
            issuer_session: None,
            session: None,
            reason: facts.reason,
            kind: facts.kind,
            expires_at: facts.expires_at.map(Timestamp::as_secs),
            count: facts.count,
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let now = self.clock.now();
        let output = self.output.get_mut().unwrap_or_else(PoisonError::into_inner);
        output.written = [0; Event::ALL.len()];
        output.tell_suppressed(now);
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Trail")
    }
}
