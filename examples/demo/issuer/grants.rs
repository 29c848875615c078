//! What the demo's issuer remembers: who is logged in, and the codes and tokens it gave out.
//!
//! Codes are used once (RFC 6749 §4.1.2) and bound to a PKCE challenge (RFC 7636); refresh tokens
//! rotate, and one that comes twice ends all tokens of its login (RFC 9700 §4.14.2).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::clock::Timestamp;
use cloakroom::random::Random;
use sha2::{Digest, Sha256};

/// Short, so that a visitor sees it replaced.
pub const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(60);

const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// Somebody who can log in.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// `sub`, and what is typed in.
    pub name: &'static str,
    /// In plain text: it is printed at the start anyway.
    pub password: &'static str,
    /// `name`
    pub full_name: &'static str,
    /// `email`
    pub email: &'static str,
}

/// Everybody who can log in.
pub static USERS: [User; 2] = [
    User { name: "alice", password: "wonderland", full_name: "Alice Liddell", email: "alice@example.com" },
    User { name: "bob", password: "builder", full_name: "Bob Baumeister", email: "bob@example.com" },
];

/// Somebody's login at the issuer, which spares the next password.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who.
    pub user: &'static User,
    /// `sid`
    pub sid: String,
    /// `auth_time`
    pub at: Timestamp,
}

/// What a code stands for.
#[derive(Debug)]
pub struct Code {
    /// Whose it is.
    pub login: Login,
    /// Where it was sent to.
    pub redirect_uri: String,
    /// PKCE's `code_challenge`, of method S256.
    pub challenge: String,
    /// For the ID token.
    pub nonce: Option<String>,
    /// What was granted.
    pub scope: String,
    /// When it was given out.
    pub issued_at: Timestamp,
}

/// What the token endpoint answers with.
#[derive(Debug)]
pub struct Issued {
    /// Whose the tokens are.
    pub login: Login,
    /// What was granted.
    pub scope: String,
    /// Lives for [`ACCESS_TOKEN_LIFETIME`].
    pub access_token: String,
    /// Where `offline_access` was granted.
    pub refresh_token: Option<String>,
    /// How many access tokens this login's session had, this one included.
    pub number: u64,
}

/// Whom an access token speaks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub user: &'static User,
    /// What was granted.
    pub scope: String,
    /// Which of the session's access tokens it is, counted from 1.
    pub number: u64,
    /// What is left of its life.
    pub expires_in: Duration,
}

/// Why a code or a refresh token was refused; each is an `invalid_grant` (RFC 6749 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Never given out, or forgotten.
    #[error("the code is unknown or too old")]
    UnknownCode,
    /// All tokens that came of it are dead now.
    #[error("the code was used before: its tokens are revoked")]
    CodeReused,
    /// Not the one the code was sent to.
    #[error("the redirect_uri is another")]
    WrongRedirectUri,
    /// PKCE failed.
    #[error("the code_verifier does not fit the code_challenge")]
    WrongVerifier,
    /// Never given out, revoked or forgotten.
    #[error("the refresh token is unknown or revoked")]
    UnknownRefreshToken,
    /// All tokens of its session are dead now.
    #[error("the refresh token was used before: the session's tokens are revoked")]
    RefreshTokenReused,
}

/// The issuer's memory.
#[derive(Debug, Default)]
pub struct Grants {
    logins: Bounded<Login>,
    codes: Bounded<Code>,
    /// Code to family.
    spent_codes: Bounded<String>,
    families: Bounded<Family>,
}

/// The tokens that came of one code. A token is `family.random`, so that a refresh token that was
/// replaced is recognised without a list of all that ever were.
#[derive(Debug)]
struct Family {
    login: Login,
    scope: String,
    number: u64,
    refresh_token: Option<String>,
    access_tokens: Vec<AccessToken>,
}

#[derive(Debug)]
struct AccessToken {
    token: String,
    number: u64,
    expires_at: Timestamp,
}

impl Grants {
    /// Remembers a login, and gives the value of its cookie.
    pub fn log_in(&mut self, user: &'static User, now: Timestamp) -> (String, Login) {
        let (cookie, login) =
            (Random::SYSTEM.token::<32>(), Login { user, sid: Random::SYSTEM.token::<16>(), at: now });
        self.logins.insert(cookie.clone(), login.clone());
        (cookie, login)
    }

    /// The login of a cookie.
    pub fn login(&self, cookie: &str) -> Option<&Login> {
        self.logins.map.get(cookie)
    }

    /// Forgets a login. Its tokens live on: to revoke them is their holder's business.
    pub fn log_out(&mut self, cookie: &str) {
        self.logins.map.remove(cookie);
    }

    /// Forgets all logins, and gives what they were.
    pub fn log_everybody_out(&mut self) -> Vec<Login> {
        self.logins.map.drain().map(|(_, login)| login).collect()
    }

    /// Gives out a code.
    pub fn issue_code(&mut self, code: Code) -> String {
        let value = Random::SYSTEM.token::<32>();
        self.codes.insert(value.clone(), code);
        value
    }

    /// Takes a code for tokens. Whatever is wrong with the request, the code is gone.
    pub fn redeem(
        &mut self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        now: Timestamp,
    ) -> Result<(Issued, Option<String>), Refused> {
        let Some(grant) = self.codes.map.remove(code) else {
            let Some(family) = self.spent_codes.map.remove(code) else { return Err(Refused::UnknownCode) };
            self.families.map.remove(&family);
            return Err(Refused::CodeReused);
        };
        if now > grant.issued_at + CODE_LIFETIME {
            return Err(Refused::UnknownCode);
        }
        if grant.redirect_uri != redirect_uri {
            return Err(Refused::WrongRedirectUri);
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != grant.challenge {
            return Err(Refused::WrongVerifier);
        }
        let id = Random::SYSTEM.token::<16>();
        let mut family = Family {
            login: grant.login,
            scope: grant.scope,
            number: 0,
            refresh_token: None,
            access_tokens: Vec::new(),
        };
        let issued = family.issue(&id, now);
        self.spent_codes.insert(code.to_owned(), id.clone());
        self.families.insert(id, family);
        Ok((issued, grant.nonce))
    }

    /// Takes a refresh token for new tokens.
    pub fn refresh(&mut self, refresh_token: &str, now: Timestamp) -> Result<Issued, Refused> {
        let id = family_of(refresh_token);
        let family = self.families.map.get_mut(id).ok_or(Refused::UnknownRefreshToken)?;
        if family.refresh_token.as_deref() != Some(refresh_token) {
            self.families.map.remove(id);
            return Err(Refused::RefreshTokenReused);
        }
        Ok(family.issue(id, now))
    }

    /// Revokes a token (RFC 7009): a refresh token with all of its session's, an access token alone.
    /// Says whose it was.
    pub fn revoke(&mut self, token: &str) -> Option<(&'static User, &'static str)> {
        let id = family_of(token);
        let family = self.families.map.get_mut(id)?;
        let user = family.login.user;
        if family.refresh_token.as_deref() == Some(token) {
            self.families.map.remove(id);
            return Some((user, "refresh token"));
        }
        let before = family.access_tokens.len();
        family.access_tokens.retain(|access| access.token != token);
        (family.access_tokens.len() < before).then_some((user, "access token"))
    }

    /// Whom an access token speaks for, while it lives.
    pub fn caller(&self, access_token: &str, now: Timestamp) -> Option<Caller> {
        let family = self.families.map.get(family_of(access_token))?;
        let access = family.access_tokens.iter().find(|access| access.token == access_token)?;
        let (user, scope, number) = (family.login.user, family.scope.clone(), access.number);
        (now < access.expires_at).then(|| Caller {
            user,
            scope,
            number,
            expires_in: access.expires_at.since(now),
        })
    }
}

#[cfg(test)]
impl Grants {
    /// Cookies, codes and tokens, as far as they are remembered.
    pub fn secrets(&self) -> Vec<String> {
        let tokens = self.families.map.values().flat_map(|family| {
            let access = family.access_tokens.iter().map(|access| access.token.clone());
            access.chain(family.refresh_token.clone())
        });
        let codes = self.codes.map.keys().chain(self.spent_codes.map.keys()).cloned();
        tokens.chain(codes).chain(self.logins.map.keys().cloned()).collect()
    }
}

impl Family {
    fn issue(&mut self, id: &str, now: Timestamp) -> Issued {
        let offline = self.scope.split(' ').any(|scope| scope == "offline_access");
        let token = || format!("{id}.{}", Random::SYSTEM.token::<32>());
        self.number += 1;
        self.refresh_token = offline.then(token);
        self.access_tokens.retain(|access| now < access.expires_at);
        let access =
            AccessToken { token: token(), number: self.number, expires_at: now + ACCESS_TOKEN_LIFETIME };
        let issued = Issued {
            login: self.login.clone(),
            scope: self.scope.clone(),
            access_token: access.token.clone(),
            refresh_token: self.refresh_token.clone(),
            number: self.number,
        };
        self.access_tokens.push(access);
        issued
    }
}

/// A map that forgets its oldest entries, so that no visitor fills the memory.
#[derive(Debug)]
struct Bounded<V> {
    map: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Bounded<V> {
    const CAPACITY: usize = 1000;

    fn insert(&mut self, key: String, value: V) {
        if self.order.len() >= Self::CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.map.insert(key, value);
    }
}

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

fn family_of(token: &str) -> &str {
    token.split_once('.').map_or("", |(family, _)| family)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn later(seconds: u64) -> Timestamp {
        NOW + Duration::from_secs(seconds)
    }

    fn code(grants: &mut Grants) -> String {
        let login = Login { user: &USERS[0], sid: "sid".to_owned(), at: NOW };
        grants.issue_code(Code {
            login,
            redirect_uri: "http://app/callback".to_owned(),
            challenge: URL_SAFE_NO_PAD.encode(Sha256::digest("verifier")),
            nonce: Some("nonce".to_owned()),
            scope: "openid offline_access".to_owned(),
            issued_at: NOW,
        })
    }

    fn tokens(grants: &mut Grants) -> Issued {
        let code = code(grants);
        grants.redeem(&code, "http://app/callback", "verifier", NOW).unwrap().0
    }

    #[test]
    fn a_code_is_worth_tokens_once_and_a_second_use_revokes_them() {
        let mut grants = Grants::default();
        let code = code(&mut grants);
        let (issued, nonce) = grants.redeem(&code, "http://app/callback", "verifier", NOW).unwrap();
        assert_eq!(nonce.as_deref(), Some("nonce"));
        assert_eq!(grants.caller(&issued.access_token, NOW).unwrap().user, &USERS[0]);
        let again = grants.redeem(&code, "http://app/callback", "verifier", NOW);
        assert_eq!(again.unwrap_err(), Refused::CodeReused);
        assert_eq!(grants.caller(&issued.access_token, NOW), None);
        assert_eq!(
            grants.refresh(&issued.refresh_token.unwrap(), NOW).unwrap_err(),
            Refused::UnknownRefreshToken
        );
    }

    #[test]
    fn a_code_is_refused_with_another_verifier_or_redirect_uri_or_too_late() {
        for (redirect_uri, verifier, now, refused) in [
            ("http://app/callback", "another", NOW, Refused::WrongVerifier),
            ("http://evil/callback", "verifier", NOW, Refused::WrongRedirectUri),
            ("http://app/callback", "verifier", later(61), Refused::UnknownCode),
        ] {
            let mut grants = Grants::default();
            let code = code(&mut grants);
            assert_eq!(grants.redeem(&code, redirect_uri, verifier, now).unwrap_err(), refused);
            let retried = grants.redeem(&code, "http://app/callback", "verifier", NOW);
            assert_eq!(retried.unwrap_err(), Refused::UnknownCode, "the code is gone");
        }
    }

    #[test]
    fn an_access_token_lives_for_a_minute_and_its_successor_is_numbered() {
        let mut grants = Grants::default();
        let first = tokens(&mut grants);
        assert_eq!(grants.caller(&first.access_token, later(59)).unwrap().number, 1);
        assert_eq!(grants.caller(&first.access_token, later(60)), None);
        let second = grants.refresh(&first.refresh_token.unwrap(), later(45)).unwrap();
        assert_eq!(grants.caller(&second.access_token, later(104)).unwrap().number, 2);
        assert!(grants.caller(&first.access_token, later(59)).is_some(), "the old one lives on to its end");
    }

    #[test]
    fn a_refresh_token_that_comes_twice_ends_its_session() {
        let mut grants = Grants::default();
        let (first, other) = (tokens(&mut grants), tokens(&mut grants));
        let stolen = first.refresh_token.unwrap();
        let second = grants.refresh(&stolen, NOW).unwrap();
        assert_eq!(grants.refresh(&stolen, NOW).unwrap_err(), Refused::RefreshTokenReused);
        assert_eq!(grants.caller(&second.access_token, NOW), None);
        assert_eq!(
            grants.refresh(&second.refresh_token.unwrap(), NOW).unwrap_err(),
            Refused::UnknownRefreshToken
        );
        assert!(grants.refresh(&other.refresh_token.unwrap(), NOW).is_ok(), "another session is untouched");
    }

    #[test]
    fn revocation_ends_a_session_by_its_refresh_token_and_an_access_token_alone() {
        let mut grants = Grants::default();
        let issued = tokens(&mut grants);
        assert_eq!(grants.revoke("unknown"), None);
        assert_eq!(grants.revoke(&issued.access_token), Some((&USERS[0], "access token")));
        assert_eq!(grants.caller(&issued.access_token, NOW), None);
        let refreshed = grants.refresh(&issued.refresh_token.unwrap(), NOW).unwrap();
        assert_eq!(
            grants.revoke(refreshed.refresh_token.as_deref().unwrap()),
            Some((&USERS[0], "refresh token"))
        );
        assert_eq!(grants.caller(&refreshed.access_token, NOW), None);
    }

    #[test]
    fn the_oldest_entries_are_forgotten() {
        let mut grants = Grants::default();
        let (first, _) = grants.log_in(&USERS[0], NOW);
        for _ in 1..Bounded::<Login>::CAPACITY {
            grants.log_in(&USERS[1], NOW);
        }
        assert!(grants.login(&first).is_some());
        grants.log_in(&USERS[1], NOW);
        assert!(grants.login(&first).is_none());
        assert_eq!(grants.logins.map.len(), Bounded::<Login>::CAPACITY);
    }
}
