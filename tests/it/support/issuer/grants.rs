//! Logins and what was issued for them: codes, access tokens, refresh tokens and their families.

use std::collections::HashMap;
use std::time::Duration;

use cloakroom::clock::Timestamp;
use serde_json::Value;

/// All that was issued.
pub struct Grants {
    /// Put into each token, so that two issuers never issue the same.
    port: u16,
    issued: usize,
    logins: Vec<Login>,
    /// In the place of a login, for tokens of the client's own.
    client: Option<LoginId>,
    codes: HashMap<String, Code>,
    tokens: HashMap<String, Token>,
    pub revoked: Vec<String>,
}

/// One login; its tokens are a family that dies together.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: Value,
    pub nonce: Option<String>,
    pub acr: Option<String>,
    pub sid: String,
    pub authenticated_at: Timestamp,
    /// The thumbprint of the key that its code, and then its tokens, are bound to.
    pub key: Option<String>,
    pub alive: bool,
}

/// A login by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginId(usize);

struct Code {
    login: LoginId,
    redirect_uri: String,
    challenge: String,
    spent: bool,
}

struct Token {
    login: LoginId,
    kind: Kind,
    expires_at: Option<Timestamp>,
    /// Rotated away, or revoked.
    dead: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Access,
    Refresh,
}

impl Grants {
    pub fn new(port: u16) -> Self {
        Self {
            port,
            issued: 0,
            logins: Vec::new(),
            client: None,
            codes: HashMap::new(),
            tokens: HashMap::new(),
            revoked: Vec::new(),
        }
    }

    /// A login, and the code for it.
    pub fn begin(&mut self, login: Login, redirect_uri: &str, challenge: &str) -> String {
        let id = self.log_in(login);
        let code = self.name("code");
        let (redirect_uri, challenge) = (redirect_uri.to_owned(), challenge.to_owned());
        self.codes.insert(code.clone(), Code { login: id, redirect_uri, challenge, spent: false });
        code
    }

    /// A login.
    pub fn log_in(&mut self, mut login: Login) -> LoginId {
        login.sid = self.name("sid");
        self.logins.push(login);
        LoginId(self.logins.len() - 1)
    }

    /// Redeems a code, once; a second time ends the login (RFC 6749 §4.1.2).
    pub fn redeem_code(&mut self, code: &str, redirect_uri: &str, challenge: &str) -> Option<LoginId> {
        let code = self.codes.get_mut(code)?;
        if code.spent {
            self.logins[code.login.0].alive = false;
            return None;
        }
        code.spent = true;
        let is_good = code.redirect_uri == redirect_uri && code.challenge == challenge;
        is_good.then_some(code.login)
    }

    /// Redeems a refresh token. A spent one that comes back ends the login: somebody stole it.
    pub fn redeem_refresh_token(&mut self, refresh_token: &str, rotates: bool) -> Option<LoginId> {
        let token = self.tokens.get_mut(refresh_token).filter(|token| token.kind == Kind::Refresh)?;
        let login = &mut self.logins[token.login.0];
        if token.dead {
            login.alive = false;
        }
        token.dead |= rotates;
        login.alive.then_some(token.login)
    }

    /// Whose the tokens are that are the client's own (RFC 6749 §4.4).
    pub fn client(&mut self) -> LoginId {
        *self.client.get_or_insert_with(|| {
            self.logins.push(Login {
                user: Value::Null,
                nonce: None,
                acr: None,
                sid: String::new(),
                authenticated_at: Timestamp::from_secs(0),
                key: None,
                alive: true,
            });
            LoginId(self.logins.len() - 1)
        })
    }

    /// The login of a living access token that is to be exchanged (RFC 8693 §2.1).
    pub fn subject(&self, access_token: &str, now: Timestamp) -> Option<LoginId> {
        self.login_of(access_token, now)?;
        self.tokens.get(access_token).map(|token| token.login)
    }

    /// `name` tells in a token what it was issued for.
    pub fn issue_access_token(
        &mut self,
        name: &str,
        login: LoginId,
        now: Timestamp,
        lifetime: Duration,
    ) -> String {
        self.issue(name, Token { login, kind: Kind::Access, expires_at: Some(now + lifetime), dead: false })
    }

    pub fn issue_refresh_token(&mut self, login: LoginId) -> String {
        self.issue("refresh", Token { login, kind: Kind::Refresh, expires_at: None, dead: false })
    }

    /// Revokes a token, and with a refresh token all of its login (RFC 7009 §2.1).
    pub fn revoke(&mut self, token: &str) {
        self.revoked.push(token.to_owned());
        if let Some(known) = self.tokens.get_mut(token) {
            known.dead = true;
            if known.kind == Kind::Refresh {
                self.logins[known.login.0].alive = false;
            }
        }
    }

    pub fn kill(&mut self, token: &str) {
        self.tokens.get_mut(token).expect("a token").dead = true;
    }

    pub fn end_login_of(&mut self, token: &str) {
        if let Some(token) = self.tokens.get(token) {
            self.logins[token.login.0].alive = false;
        }
    }

    /// Binds a login to the key that was proved; `false` where it is bound to another.
    pub fn bind(&mut self, id: LoginId, key: Option<&str>) -> bool {
        let bound = &mut self.logins[id.0].key;
        if bound.is_none() {
            *bound = key.map(str::to_owned);
        }
        bound.as_deref() == key
    }

    pub fn login(&self, id: LoginId) -> &Login {
        &self.logins[id.0]
    }

    /// The login of a living access token.
    pub fn login_of(&self, access_token: &str, now: Timestamp) -> Option<&Login> {
        let token = self.tokens.get(access_token).filter(|token| token.kind == Kind::Access)?;
        self.is_alive(access_token, now).then(|| self.login(token.login))
    }

    pub fn is_alive(&self, token: &str, now: Timestamp) -> bool {
        self.tokens.get(token).is_some_and(|token| {
            !token.dead && self.login(token.login).alive && token.expires_at.is_none_or(|at| now < at)
        })
    }

    pub fn living_refresh_tokens(&self, now: Timestamp) -> Vec<String> {
        let refresh_tokens = self.tokens.iter().filter(|(_, token)| token.kind == Kind::Refresh);
        refresh_tokens.map(|(name, _)| name.clone()).filter(|name| self.is_alive(name, now)).collect()
    }

    fn issue(&mut self, kind: &str, token: Token) -> String {
        let name = self.name(kind);
        self.tokens.insert(name.clone(), token);
        name
    }

    pub fn last_sid(&self) -> String {
        self.logins.last().expect("a login").sid.clone()
    }

    pub fn name(&mut self, kind: &str) -> String {
        self.issued += 1;
        format!("{kind}-{}-{}", self.port, self.issued)
    }
}
