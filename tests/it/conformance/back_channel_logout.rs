//! `oidcc-client-back-channel-logout-rp-basic`: while the browser is with the issuer to log out, the issuer's server posts a logout token.
//! A wrong one is refused, and the browser comes back all the same.
//!
//! The suite's token is about the session that the user has just ended. Here it is about one in another browser, so that it can be
//! seen what it does.

use serde_json::json;

use super::{Suite, append, without};
use crate::support::browser::Browser;
use crate::support::issuer::{Algorithm, Draft, Signature};
use crate::support::shop::parameter;

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout() {
    Away::open("").await.accepts(|_| {}).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_alg_none() {
    let unsigned = |draft: &mut Draft| {
        draft.header = json!({"alg": "none"});
        draft.signature = Signature::Absent;
    };
    Away::open("").await.refuses(unsigned).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_no_event() {
    Away::open("").await.refuses(|draft| without(&mut draft.claims, "events")).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_with_nonce() {
    Away::open("").await.refuses(|draft| draft.claims["nonce"] = json!("n")).await;
}

/// The issuer lists both algorithms and publishes keys for both: the client's registration alone tells that one is wrong.
#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_wrong_alg() {
    let away = Away::open("id_token_signed_response_alg: ES256").await;
    away.suite.issuer().behave(|behaviour| behaviour.algorithm = Algorithm::Rs256);
    away.refuses(|_| {}).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_wrong_aud() {
    Away::open("").await.refuses(|draft| append(&mut draft.claims["aud"], "INVALID")).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_wrong_event() {
    let event = json!({"http://schemas.openid.net/event/foobar": {}});
    Away::open("").await.refuses(|draft| draft.claims["events"] = event).await;
}

#[tokio::test]
async fn oidcc_client_test_rp_backchannel_rpinitlogout_wrong_iss() {
    Away::open("").await.refuses(|draft| append(&mut draft.claims["iss"], "1")).await;
}

/// The user has logged out here, and the browser is with the issuer.
struct Away {
    suite: Suite,
    browser: Browser,
    state: String,
    /// Another browser of the same user, still logged in, and its session at the issuer.
    other: Browser,
    sid: String,
}

impl Away {
    async fn open(oidc: &str) -> Self {
        let suite = Suite::open_with(oidc).await;
        let mut browser = suite.accepts().await;
        let other = suite.accepts().await;
        let sid = suite.issuer().last_sid();
        let request = suite.log_out(&mut browser).await;
        let state = parameter(&request, "state").unwrap();
        Self { suite, browser, state, other, sid }
    }

    async fn accepts(self, change: impl FnOnce(&mut Draft)) {
        self.answers(200, change).await;
    }

    async fn refuses(self, change: impl FnOnce(&mut Draft)) {
        self.answers(400, change).await;
    }

    async fn answers(mut self, status: u16, change: impl FnOnce(&mut Draft)) {
        let answer = self.suite.tell(&self.sid, change).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.headers["cache-control"], "no-store");
        let session = self.other.fetch("/bff/session").await.json();
        assert_eq!(session["authenticated"], status != 200);
        self.suite.is_back(&mut self.browser, Some(&self.state)).await;
    }
}
