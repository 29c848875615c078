//! ID tokens: none is accepted whose claims another reader would refuse, and a signature is for one token alone
//! (R11 to R15, R18).

use cloakroom::oidc::{Expected, IdTokenFault, LogoutToken};

use cloakroom::oidc::id_token::IdToken;
use cloakroom::oidc::jwt::Jwt;
use cloakroom::secret::Secret;
use cloakroom::tokens::Identity;
use serde_json::{Map, Value};

use super::signed;

/// Either a whole token, which somebody else made, or a header and claims, which our own issuer signs.
pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let forged = Secret::new(text);
        assert!(accept(&forged).is_err());
    }
    let (header, claims) = signed::parts(data);
    let token = signed::token(header, claims);
    assert!(accept(&signed::altered(&token)).is_err());
    let Ok(identity) = accept(&token) else { return };

    let claims = signed::check_claims(header, claims);
    assert_eq!(claims["nonce"], "nonce");
    assert_eq!(claims["acr"], "strong");
    assert!(claims["auth_time"].as_f64().is_some_and(|at| at >= signed::NOW.as_secs() as f64 - 3661.0));
    assert_eq!(claims["sub"], identity.subject.as_str());
    assert!((1..=255).contains(&identity.subject.len()));
    assert_eq!(identity.issuer, signed::ISSUER);
    for name in ["nonce", "at_hash", "aud", "exp", "sid"] {
        assert!(!identity.claims.contains_key(name), "{name}");
    }
    for (name, value) in &identity.claims {
        assert_eq!(*value, claims[name.as_str()], "{name}");
    }
    let jwt = Jwt::read(&token, &signed::ALGORITHMS).expect("it was read before");
    assert!(LogoutToken::check(&jwt, signed::ISSUER, signed::CLIENT, signed::NOW).is_err());
}

/// All that a callback checks.
fn accept(token: &Secret) -> Result<Identity, IdTokenFault> {
    let expected = Expected {
        nonce: Secret::new("nonce"),
        verifier: Secret::new("verifier"),
        max_age: Some(3600),
        acr_values: Some(vec!["strong".to_owned()]),
        dpop_key: None,
    };
    let id_token = IdToken::read(token, &signed::ALGORITHMS)?;
    id_token.jwt().check_signature(&signed::KEYS)?;
    id_token.check_parties(signed::ISSUER, signed::CLIENT, &[])?;
    id_token.check_times(signed::NOW)?;
    id_token.check_nonce(Some(&expected.nonce))?;
    id_token.check_authentication(&expected, signed::NOW)?;
    id_token.into_identity(Map::<String, Value>::new())
}
