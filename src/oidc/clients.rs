//! The clients of one app, one for each issuer that its users may choose; `iss` tells whose something is.

use std::sync::Arc;

use super::{BuildError, Client, jwt};
use crate::clock::Clock;
use crate::config;
use crate::random::Random;
use crate::secret::Secret;

/// The clients of one app. Never empty; no two are of the same issuer.
#[derive(Clone, Debug)]
pub struct Clients(Arc<[Arc<Client>]>);

impl Clients {
    /// A client for each of the app's issuers. One that there was `before`, and that is as it was, is kept with all it
    /// knows of its issuer.
    ///
    /// # Errors
    /// Where TLS cannot be set up, or a client's own key or certificate cannot be used.
    pub fn new(
        app: &config::App,
        clock: &Arc<dyn Clock>,
        random: Random,
        before: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let under_base = |path: &str| format!("{}{}{path}", app.origin.as_str(), app.base_path);
        let clients = app.oidc.iter().map(|oidc| {
            let redirect_uri = under_base(&oidc.callback_path());
            let returned = under_base("/logout/callback");
            let before = before.and_then(|before| before.of(oidc.issuer.as_str()));
            match before.filter(|before| before.is_still(oidc, &redirect_uri, &returned)) {
                Some(before) => Ok(Arc::clone(before)),
                None => Client::new(oidc, redirect_uri, returned, Arc::clone(clock), random).map(Arc::new),
            }
        });
        clients.collect::<Result<_, _>>().map(Self)
    }

    /// The client of this issuer.
    pub fn of(&self, issuer: &str) -> Option<&Arc<Client>> {
        self.0.iter().find(|client| client.issuer() == issuer)
    }

    /// The only client; `None` where there are several.
    pub fn only(&self) -> Option<&Arc<Client>> {
        match &*self.0 {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The client whose issuer sends browsers back to this path, below `base_path`.
    pub fn at_callback(&self, path: &str) -> Option<&Arc<Client>> {
        self.0.iter().find(|client| client.callback_path() == path)
    }

    /// The client that can check a token of its issuer's: by the token's own word, which nothing else may rest on.
    pub fn for_token(&self, token: &Secret) -> Option<&Arc<Client>> {
        self.only().or_else(|| self.of(&jwt::alleged_issuer(token)?))
    }

    /// All of them, as configured.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.0.iter()
    }
}
