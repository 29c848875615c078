//! What the browser keeps while a login is under way: one sealed cookie for each login, so that two tabs
//! do not overwrite each other's (R3), few and short-lived, so that they do not pile up (R6).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::silent::Silent;
use crate::clock::Timestamp;
use crate::config;
use crate::dpop::Key;
use crate::oidc::Expected;
use crate::pages::Language;
use crate::random::Random;
use crate::seal::{Context, KeyRing, Purpose};
use crate::secret::Secret;
use crate::session::cookie::{find, names};

/// How long a login may take.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// How many logins one browser may have under way.
const MOST: usize = 5;

/// In bytes; browsers drop what is longer than 4096. The rest is room for a session that `tell_others` puts in.
const LONGEST: usize = 3800;

/// The login cookies of one app.
#[derive(Debug)]
pub(super) struct LoginCookies {
    /// What each name begins with; the rest follows from the login's `state`.
    prefix: String,
    app: String,
    secure: bool,
    ring: Arc<KeyRing>,
    random: Random,
}

/// A login under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    /// Comes back from the issuer, and must be this (RFC 6749 §10.12).
    pub(super) state: Secret,
    /// The issuer that the browser was sent to; alone it may answer (RFC 9700 §4.4). `None` in a cookie of a gateway
    /// that knew only one for each app.
    pub(super) issuer: Option<String>,
    /// What the ID token and the code must answer to.
    pub(super) expected: Expected,
    /// A path of the app.
    pub(super) return_to: String,
    pub(super) begun_at: Timestamp,
    /// The session cookie that the browser had when it began: at the callback, which comes from another
    /// site, a `SameSite=Strict` cookie is not sent.
    pub(super) previous: Option<Secret>,
    /// Where the issuer is to ask nobody anything.
    pub(super) silent: Option<Silent>,
    /// Whether the issuer has the browser post its response, from its own site.
    pub(super) is_posted: bool,
    /// What the app has asked the issuer for in `ui_locales`, of the languages of our own pages.
    pub(super) language: Option<Language>,
}

/// How a login is written into its cookie.
#[derive(Serialize, Deserialize)]
struct Contents<'a> {
    state: &'a str,
    issuer: Option<String>,
    nonce: &'a str,
    verifier: &'a str,
    max_age: Option<u64>,
    acr_values: Option<Vec<String>>,
    return_to: String,
    begun_at: u64,
    previous: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpop_key: Option<&'a str>,
    silent: Option<Silent>,
    #[serde(default)]
    is_posted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
}

impl LoginCookies {
    pub(super) fn new(app: &config::App, ring: Arc<KeyRing>, random: Random) -> Self {
        Self {
            prefix: app.session.login_cookie_prefix(),
            app: app.origin.as_str().to_owned(),
            secure: app.origin.is_secure(),
            ring,
            random,
        }
    }

    /// The `Set-Cookie` values that add a login to those the browser has: the new one, and the end of
    /// those that are too many or cannot be opened. `None` where the new one is larger than browsers keep.
    pub(super) fn add(&self, headers: &HeaderMap, login: &Login) -> Option<Vec<HeaderValue>> {
        let added = Some(self.set(login)).filter(|cookie| cookie.len() <= LONGEST)?;
        let (mut alive, dead): (Vec<_>, Vec<_>) = self
            .known(headers)
            .map(|name| (self.open(headers, &name, login.begun_at).map(|login| login.begun_at), name))
            .partition(|(begun_at, _)| begun_at.is_some());
        alive.sort();
        let surplus = (alive.len() + 1).saturating_sub(MOST);
        let ended = alive.drain(..surplus).chain(dead).map(|(_, name)| self.clear(&name));
        Some(ended.chain([added]).collect())
    }

    /// The login that a `state` belongs to, if this browser began it and it did not take too long.
    pub(super) fn take(&self, headers: &HeaderMap, state: &str, now: Timestamp) -> Option<Login> {
        self.open(headers, &self.name(state), now).filter(|login| login.state.expose() == state)
    }

    /// The `Set-Cookie` values that tell the browser's other logins which session they will replace: the
    /// one that the login of this `state` has brought.
    pub(super) fn tell_others(
        &self,
        headers: &HeaderMap,
        state: &str,
        session: &Secret,
        now: Timestamp,
    ) -> Vec<HeaderValue> {
        let own = self.name(state);
        self.known(headers)
            .filter(|name| *name != own)
            .filter_map(|name| self.open(headers, &name, now))
            .map(|login| self.set(&Login { previous: Some(session.clone()), ..login }))
            .collect()
    }

    /// The `Set-Cookie` value that ends the cookie of the login with this `state`.
    pub(super) fn end(&self, state: &str) -> HeaderValue {
        self.clear(&self.name(state))
    }

    fn known(&self, headers: &HeaderMap) -> impl Iterator<Item = String> {
        names(headers, &self.prefix).into_iter().collect::<HashSet<_>>().into_iter()
    }

    fn open(&self, headers: &HeaderMap, name: &str, now: Timestamp) -> Option<Login> {
        let value = find(headers, name).ok()??;
        let sealed = URL_SAFE_NO_PAD.decode(&*value).ok()?;
        let plaintext = self.ring.open(&self.context(name), &sealed)?;
        let contents: Contents<'_> = serde_json::from_slice(&plaintext).ok()?;
        let login = Login {
            state: Secret::new(contents.state),
            issuer: contents.issuer,
            expected: Expected {
                nonce: Secret::new(contents.nonce),
                verifier: Secret::new(contents.verifier),
                max_age: contents.max_age,
                acr_values: contents.acr_values,
                dpop_key: contents.dpop_key.and_then(Key::read).map(Arc::new),
            },
            return_to: contents.return_to,
            begun_at: Timestamp::from_millis(contents.begun_at),
            previous: contents.previous.map(Secret::new),
            silent: contents.silent,
            is_posted: contents.is_posted,
            language: contents.language.and_then(Language::of_tag),
        };
        (now.since(login.begun_at) < LIFETIME).then_some(login)
    }

    fn set(&self, login: &Login) -> HeaderValue {
        let name = self.name(login.state.expose());
        let contents = Contents {
            state: login.state.expose(),
            issuer: login.issuer.clone(),
            nonce: login.expected.nonce.expose(),
            verifier: login.expected.verifier.expose(),
            max_age: login.expected.max_age,
            acr_values: login.expected.acr_values.clone(),
            return_to: login.return_to.clone(),
            begun_at: login.begun_at.as_millis(),
            previous: login.previous.as_ref().map(Secret::expose),
            dpop_key: login.expected.dpop_key.as_ref().map(|key| key.expose()),
            silent: login.silent,
            is_posted: login.is_posted,
            language: login.language.map(Language::tag),
        };
        let plaintext = Zeroizing::new(serde_json::to_vec(&contents).unwrap_or_default());
        let value = URL_SAFE_NO_PAD.encode(self.ring.seal(self.random, &self.context(&name), &plaintext));
        // Without TLS browsers take no `SameSite=None`.
        let same_site = if login.is_posted && self.secure { SameSite::None } else { SameSite::Lax };
        self.header(&name, &value, LIFETIME, same_site)
    }

    fn clear(&self, name: &str) -> HeaderValue {
        self.header(name, "", Duration::ZERO, SameSite::Lax)
    }

    /// `Lax`, for the issuer's redirect back is a cross-site navigation; `None`, where it is a form (R21).
    fn header(&self, name: &str, value: &str, max_age: Duration, same_site: SameSite) -> HeaderValue {
        set_cookie(name, value, max_age, same_site, self.secure)
    }

    fn name(&self, state: &str) -> String {
        // The state itself is as good as a ticket to the callback; its hash names the cookie.
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(state)[..9]);
        format!("{}{hash}", self.prefix)
    }

    fn context<'a>(&'a self, name: &'a str) -> Context<'a> {
        Context { purpose: Purpose::LoginCookie, name, app: &self.app }
    }
}

/// A `Set-Cookie` value. The name comes from base64url and the configuration, the value from base64url alone.
pub(super) fn set_cookie(
    name: &str,
    value: &str,
    max_age: Duration,
    same_site: SameSite,
    secure: bool,
) -> HeaderValue {
    let cookie = Cookie::build((name, value))
        .path("/")
        .http_only(true)
        .same_site(same_site)
        .secure(secure)
        .max_age(max_age.try_into().unwrap_or(cookie::time::Duration::ZERO))
        .build();
    HeaderValue::try_from(cookie.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
