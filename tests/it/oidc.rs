//! The client of an issuer against one that misbehaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::clock::{Clock, ManualClock};
use cloakroom::config::{self, ClientAuth};
use cloakroom::oidc::{AuthorizationRequest, Client, Expected, RedeemError};
use cloakroom::random::Random;
use cloakroom::secret::Secret;
use cloakroom::tokens::{Identity, Tokens};

use crate::support::clock::clock;
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET, Issuer};

mod client_auth;
mod discovery;
mod id_token;
mod login;
mod logout;
mod pushed;
mod refresh;
mod request_object;
mod response;
mod userinfo;

const REDIRECT_URI: &str = "https://shop.test/bff/callback";

/// An issuer, and a client of it; both go by the same clock.
struct Parties {
    issuer: Issuer,
    client: Arc<Client>,
    clock: Arc<ManualClock>,
}

impl Parties {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut config::Oidc)) -> Self {
        let clock = clock();
        let issuer = Issuer::start_with(clock.clone()).await;
        let mut oidc = registration(&issuer.url());
        change(&mut oidc);
        let client = Arc::new(client(&oidc, clock.clone()).expect("a good configuration"));
        Self { issuer, client, clock }
    }

    /// Another client of the same issuer, which waits for no answer and knows the metadata. For an answer
    /// that never comes; any other might be late on a busy machine.
    async fn impatient(&self) -> Client {
        let oidc = config::Oidc { timeout: Duration::from_millis(300), ..registration(&self.issuer.url()) };
        let client = client(&oidc, self.clock.clone()).expect("a good configuration");
        while client.discover().await.is_err() {
            self.clock.advance(Duration::from_secs(1));
        }
        client
    }

    /// The whole login: to the issuer, back with a code, and the code redeemed.
    async fn log_in(&self) -> Result<(Tokens, Identity), RedeemError> {
        self.log_in_expecting(&self.client.expect(None, None)).await
    }

    async fn log_in_expecting(&self, expected: &Expected) -> Result<(Tokens, Identity), RedeemError> {
        let code = self.code(expected).await;
        self.client.redeem(&code, expected).await
    }

    async fn code(&self, expected: &Expected) -> Secret {
        let url = self.client.authorization_url(&request(expected)).await.expect("the issuer is there");
        let response = self.issuer.authorize(&url);
        let (_, code) = response.into_iter().find(|(name, _)| name == "code").expect("a code");
        Secret::new(code)
    }
}

fn registration(issuer: &str) -> config::Oidc {
    config::Oidc {
        name: None,
        issuer: config::Issuer::parse(issuer).expect("a good issuer"),
        client_id: CLIENT_ID.to_owned(),
        client_auth: ClientAuth::ClientSecretBasic(Secret::new(CLIENT_SECRET)),
        ca: None,
        identity: None,
        tls_client_certificate_bound_access_tokens: false,
        scopes: ["openid", "profile", "offline_access"].map(str::to_owned).to_vec(),
        authorization_parameters: [("audience".to_owned(), "https://api.test".to_owned())].into(),
        max_age: None,
        authorization: config::Authorization::default(),
        end_session_parameters: BTreeMap::new(),
        trusted_audiences: Vec::new(),
        id_token_signed_response_alg: None,
        timeout: Duration::from_secs(10),
        userinfo: false,
        dpop_bound_access_tokens: false,
        introspection: None,
        device_authorization: false,
    }
}

fn client(oidc: &config::Oidc, clock: Arc<dyn Clock>) -> Result<Client, cloakroom::oidc::BuildError> {
    Client::new(
        oidc,
        REDIRECT_URI.to_owned(),
        "https://shop.test/bff/logout/callback".to_owned(),
        clock,
        Random::SYSTEM,
    )
}

fn request(expected: &Expected) -> AuthorizationRequest<'_> {
    AuthorizationRequest {
        state: "state-1",
        expected,
        prompt: None,
        login_hint: None,
        ui_locales: None,
        accept_language: &[],
    }
}
