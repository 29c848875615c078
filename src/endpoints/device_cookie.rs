//! What the browser keeps while a login on another device is under way: the device code, sealed, so that no other
//! browser can take the session over, nor this one's scripts.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::SameSite;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::login_cookie::set_cookie;
use crate::clock::Timestamp;
use crate::config;
use crate::random::Random;
use crate::seal::{Context, KeyRing, Purpose};
use crate::secret::Secret;
use crate::session::cookie::find;

/// The device cookie of one app. A browser has one such login under way; a new one takes its place.
#[derive(Debug)]
pub(super) struct DeviceCookie {
    name: String,
    app: String,
    secure: bool,
    ring: Arc<KeyRing>,
    random: Random,
}

/// A login on another device that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Where the user logs in.
    pub(super) issuer: String,
    pub(super) device_code: Secret,
    /// How often the issuer may be asked.
    pub(super) interval: Duration,
    /// Not to be asked before.
    pub(super) not_before: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// How it is written into the cookie; times in milliseconds.
#[derive(Serialize, Deserialize)]
struct Contents<'a> {
    issuer: String,
    device_code: &'a str,
    interval: u64,
    not_before: u64,
    expires_at: u64,
}

impl Pending {
    /// What names this login in the store, where it is as good as nothing.
    pub(super) fn mark(&self) -> String {
        format!("device poll {}", URL_SAFE_NO_PAD.encode(Sha256::digest(self.device_code.expose())))
    }
}

impl DeviceCookie {
    pub(super) fn new(app: &config::App, ring: Arc<KeyRing>, random: Random) -> Self {
        Self {
            name: app.session.device_cookie_name(),
            app: app.origin.as_str().to_owned(),
            secure: app.origin.is_secure(),
            ring,
            random,
        }
    }

    /// The login that this browser has under way, if it did not take too long.
    pub(super) fn open(&self, headers: &HeaderMap, now: Timestamp) -> Option<Pending> {
        let value = find(headers, &self.name).ok()??;
        let sealed = URL_SAFE_NO_PAD.decode(&*value).ok()?;
        let plaintext = self.ring.open(&self.context(), &sealed)?;
        let contents: Contents<'_> = serde_json::from_slice(&plaintext).ok()?;
        let pending = Pending {
            issuer: contents.issuer,
            device_code: Secret::new(contents.device_code),
            interval: Duration::from_millis(contents.interval),
            not_before: Timestamp::from_millis(contents.not_before),
            expires_at: Timestamp::from_millis(contents.expires_at),
        };
        (now < pending.expires_at).then_some(pending)
    }

    /// The `Set-Cookie` value that keeps a login.
    pub(super) fn set(&self, pending: &Pending, now: Timestamp) -> HeaderValue {
        let contents = Contents {
            issuer: pending.issuer.clone(),
            device_code: pending.device_code.expose(),
            interval: u64::try_from(pending.interval.as_millis()).unwrap_or(u64::MAX),
            not_before: pending.not_before.as_millis(),
            expires_at: pending.expires_at.as_millis(),
        };
        let plaintext = Zeroizing::new(serde_json::to_vec(&contents).unwrap_or_default());
        let value = URL_SAFE_NO_PAD.encode(self.ring.seal(self.random, &self.context(), &plaintext));
        self.header(&value, pending.expires_at.since(now))
    }

    /// The `Set-Cookie` value that ends it.
    pub(super) fn clear(&self) -> HeaderValue {
        self.header("", Duration::ZERO)
    }

    /// `Strict`: nobody else's page has a part in this login.
    fn header(&self, value: &str, max_age: Duration) -> HeaderValue {
        set_cookie(&self.name, value, max_age, SameSite::Strict, self.secure)
    }

    fn context(&self) -> Context<'_> {
        Context { purpose: Purpose::DeviceCookie, name: &self.name, app: &self.app }
    }
}
