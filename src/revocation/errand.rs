//! One token that is to be revoked: what lies sealed in the outbox.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Issuer, Unwanted};
use crate::clock::Timestamp;
use crate::oidc::TokenKind;
use crate::secret::{self, Secret};

/// Counts changes that older gateways cannot read; a new field is none.
const FORMAT: u32 = 1;

/// For how long the issuer is asked to revoke a refresh token, which may live for ever.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The pause before the next try is as long as the errand is old, within these.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// A token that is to be revoked.
#[derive(Clone, Debug)]
pub(super) struct Errand {
    /// The origin of the app whose session it was.
    pub(super) app: String,
    pub(super) issuer: String,
    pub(super) client_id: String,
    /// `sub`, for the audit trail; gateways of before wrote none.
    pub(super) subject: Option<String>,
    pub(super) kind: TokenKind,
    pub(super) token: Secret,
    pub(super) posted_at: Timestamp,
    /// From when on it is not worth another try: an access token is dead then anyway.
    pub(super) over_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Plaintext<'a> {
    format: u32,
    app: Cow<'a, str>,
    issuer: Cow<'a, str>,
    client_id: Cow<'a, str>,
    #[serde(default)]
    subject: Option<Cow<'a, str>>,
    kind: Cow<'a, str>,
    token: Cow<'a, str>,
    posted_at: u64,
    over_at: u64,
}

impl Errand {
    pub(super) fn new(issuer: &Issuer, subject: &str, unwanted: &Unwanted<'_>, now: Timestamp) -> Self {
        Self {
            app: issuer.app.to_string(),
            issuer: issuer.url.to_string(),
            client_id: issuer.client_id.to_string(),
            subject: Some(subject.to_owned()),
            kind: unwanted.kind,
            token: unwanted.token.clone(),
            posted_at: now,
            over_at: unwanted.expires_at.unwrap_or(now + LONGEST),
        }
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        secret::to_json(&Plaintext {
            format: FORMAT,
            app: self.app.as_str().into(),
            issuer: self.issuer.as_str().into(),
            client_id: self.client_id.as_str().into(),
            subject: self.subject.as_deref().map(Cow::from),
            kind: self.kind.as_str().into(),
            token: self.token.expose().into(),
            posted_at: self.posted_at.as_millis(),
            over_at: self.over_at.as_millis(),
        })
    }

    /// `None` where a newer gateway wrote it in a way that is not known here.
    pub(super) fn decode(plaintext: &[u8]) -> Option<Self> {
        let plaintext: Plaintext<'static> = serde_json::from_slice(plaintext).ok()?;
        let kind = [TokenKind::RefreshToken, TokenKind::AccessToken]
            .into_iter()
            .find(|kind| kind.as_str() == plaintext.kind)?;
        (plaintext.format == FORMAT).then(|| Self {
            app: plaintext.app.into_owned(),
            issuer: plaintext.issuer.into_owned(),
            client_id: plaintext.client_id.into_owned(),
            subject: plaintext.subject.map(Cow::into_owned),
            kind,
            token: Secret::new(plaintext.token),
            posted_at: Timestamp::from_millis(plaintext.posted_at),
            over_at: Timestamp::from_millis(plaintext.over_at),
        })
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now >= self.over_at
    }

    /// When it is worth another try. By its age, so that nobody needs to remember how often it was tried.
    pub(super) fn next_try(&self, now: Timestamp, at_least: Duration, jitter: f64) -> Timestamp {
        let pause = now.since(self.posted_at).max(at_least).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        now + pause.mul_f64(0.75 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand() -> Errand {
        Errand {
            app: "https://shop.test".to_owned(),
            issuer: "https://id.test".to_owned(),
            client_id: "shop".to_owned(),
            subject: Some("alice".to_owned()),
            kind: TokenKind::RefreshToken,
            token: Secret::new("a\"token"),
            posted_at: Timestamp::from_secs(1000),
            over_at: Timestamp::from_secs(2000),
        }
    }

    #[test]
    fn an_errand_is_read_as_it_was_written_and_one_of_another_format_is_not() {
        let plaintext = errand().encode();
        let read = Errand::decode(&plaintext).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", errand()));
        assert_eq!(read.token, errand().token);
        let text = String::from_utf8(plaintext.to_vec()).unwrap();
        assert!(Errand::decode(text.replace(":1,", ":2,").as_bytes()).is_none());
        assert!(Errand::decode(text.replace("refresh_token", "device_code").as_bytes()).is_none());
        assert!(Errand::decode(text.replace("{", "{\"later\":{},").as_bytes()).is_some());
        assert!(Errand::decode(b"{}").is_none());
        let of_before = text.replace("\"subject\":\"alice\",", "");
        assert_eq!(Errand::decode(of_before.as_bytes()).unwrap().subject, None);
    }

    #[test]
    fn the_pause_doubles_the_age_within_its_bounds() {
        let pause = |age: u64, at_least: u64, jitter| {
            let now = Timestamp::from_secs(1000 + age);
            errand().next_try(now, Duration::from_secs(at_least), jitter).since(now).as_millis()
        };
        assert_eq!(pause(0, 0, 0.5), 5_000);
        assert_eq!(pause(40, 0, 0.5), 40_000);
        assert_eq!(pause(40, 0, 0.0), 30_000);
        assert_eq!(pause(10_000, 0, 0.5), 600_000);
        assert_eq!(pause(0, 60, 0.5), 60_000, "as the issuer asked for");
        assert_eq!(pause(0, 3600, 0.5), 600_000);
    }
}
