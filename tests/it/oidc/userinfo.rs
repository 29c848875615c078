//! Userinfo that comes as a JWT (Core §5.3.2), and tokens that come encrypted.

use cloakroom::oidc::{IdTokenFault, JwtFault, RedeemError, UserinfoFault};
use serde_json::{Value, json};

use super::Parties;
use crate::support::clock::NOW;
use crate::support::issuer::{Draft, Endpoint, Fault, Signature};

type Tamper = fn(&mut Draft);

async fn parties() -> Parties {
    Parties::start_with(|oidc| oidc.userinfo = true).await
}

/// What becomes of a login whose userinfo is this JWT.
async fn refusal(change: impl FnOnce(&mut Draft)) -> RedeemError {
    let parties = parties().await;
    let token = parties.issuer.userinfo_token(change);
    parties.issuer.fail(Endpoint::Userinfo, Fault::text(200, "application/jwt", &token));
    parties.log_in().await.expect_err("the login fails")
}

#[tokio::test]
async fn r16_signed_userinfo_of_the_same_user_is_merged() {
    let parties = parties().await;
    let token = parties.issuer.userinfo_token(|draft| {
        draft.claims["email"] = json!("new@example.com");
        draft.claims["acr"] = json!("forged");
        draft.claims["sid"] = json!("forged");
        draft.claims["exp"] = json!(NOW + 60);
    });
    let media_type = "Application/JWT; charset=utf-8";
    parties.issuer.fail(Endpoint::Userinfo, Fault::text(200, media_type, &token));
    let (_, identity) = parties.log_in().await.unwrap();
    assert_eq!(identity.sid, Some(parties.issuer.last_sid()));
    assert_eq!(
        Value::Object(identity.claims),
        json!({"sub": "alice", "name": "Alice", "email": "new@example.com", "auth_time": NOW}),
    );
}

#[tokio::test]
async fn r16_signed_userinfo_is_the_issuers_for_this_client_and_about_this_user() {
    let tampers: [(Tamper, UserinfoFault); 12] = [
        (|draft| draft.claims["sub"] = json!("mallory"), UserinfoFault::Subject),
        (|draft| draft.claims["sub"] = json!(["alice"]), UserinfoFault::Subject),
        (|draft| draft.claims["iss"] = json!("https://evil.example"), JwtFault::Issuer.into()),
        (|draft| drop(draft.claims.as_object_mut().unwrap().remove("iss")), JwtFault::Issuer.into()),
        (|draft| draft.claims["aud"] = json!("other"), JwtFault::Audience.into()),
        (|draft| drop(draft.claims.as_object_mut().unwrap().remove("aud")), JwtFault::Audience.into()),
        (|draft| draft.claims["exp"] = json!(NOW - 60), JwtFault::Expired.into()),
        (|draft| draft.signature = Signature::Foreign, JwtFault::Signature.into()),
        (|draft| draft.header["kid"] = json!("unknown"), JwtFault::UnknownKey.into()),
        (|draft| draft.header["typ"] = json!("logout+jwt"), UserinfoFault::Type),
        (|draft| draft.claims["events"] = json!({}), UserinfoFault::Type),
        (
            |draft| draft.raw_claims = Some("{\"sub\":\"alice\",\"sub\":\"alice\"}".to_owned()),
            JwtFault::Malformed.into(),
        ),
    ];
    for (number, (tamper, fault)) in tampers.into_iter().enumerate() {
        let refused = refusal(tamper).await;
        assert!(matches!(refused, RedeemError::Userinfo(found) if found == fault), "{number}: {refused:?}");
    }
}

#[tokio::test]
async fn r12_signed_userinfo_is_of_an_asymmetric_algorithm_that_the_issuer_names() {
    for (header, signature) in
        [(json!({"alg": "none"}), Signature::Absent), (json!({"alg": "HS256"}), Signature::HmacOfPublicKey)]
    {
        let refused = refusal(|draft| (draft.header, draft.signature) = (header, signature)).await;
        let fault = UserinfoFault::from(JwtFault::Algorithm);
        assert!(matches!(refused, RedeemError::Userinfo(found) if found == fault), "{refused:?}");
    }
    let parties = parties().await;
    let only = json!(["RS256", "none", "HS256"]);
    parties.issuer.behave(|behaviour| {
        behaviour.metadata.insert("userinfo_signing_alg_values_supported".to_owned(), only);
    });
    let token = parties.issuer.userinfo_token(|_| {});
    parties.issuer.fail(Endpoint::Userinfo, Fault::text(200, "application/jwt", &token));
    let refused = parties.log_in().await.unwrap_err();
    let fault = UserinfoFault::from(JwtFault::Algorithm);
    assert!(matches!(refused, RedeemError::Userinfo(found) if found == fault), "{refused:?}");
}

#[tokio::test]
async fn userinfo_without_the_keys_to_check_it_is_not_believed() {
    let parties = parties().await;
    let token = parties.issuer.userinfo_token(|draft| draft.header["kid"] = json!("newer"));
    parties.issuer.fail(Endpoint::Userinfo, Fault::text(200, "application/jwt", &token));
    parties.log_in().await.expect_err("the keys are known now");
    parties.clock.advance(cloakroom::oidc::KEY_RENEWAL_INTERVAL);
    parties.issuer.fail(Endpoint::Jwks, Fault::status(503));
    assert!(matches!(parties.log_in().await, Err(RedeemError::Unavailable(_))));
}

#[tokio::test]
async fn rfc7516_what_comes_encrypted_is_refused_and_the_log_says_what_to_do() {
    let encrypted = "eyJhbGciOiJSU0EtT0FFUC0yNTYiLCJlbmMiOiJBMjU2R0NNIn0.a.b.c.d";
    let of_userinfo = parties().await;
    of_userinfo.issuer.fail(Endpoint::Userinfo, Fault::text(200, "application/jwt", encrypted));
    let refused = of_userinfo.log_in().await.unwrap_err();
    let RedeemError::Userinfo(fault) = refused else { panic!("{refused:?}") };
    assert_eq!(fault, JwtFault::Encrypted.into());
    assert!(fault.to_string().contains("userinfo_encrypted_response_alg"), "{fault}");

    let of_id_token = parties().await;
    let answer = json!({"access_token": "a", "token_type": "Bearer", "id_token": encrypted});
    of_id_token.issuer.fail(Endpoint::Token, Fault::json(200, answer));
    let refused = of_id_token.log_in().await.unwrap_err();
    let RedeemError::IdToken(fault) = refused else { panic!("{refused:?}") };
    assert_eq!(fault, IdTokenFault::Jwt(JwtFault::Encrypted));
    assert!(fault.to_string().contains("id_token_encrypted_response_alg"), "{fault}");
}
