//! Each rule of the ID token, broken once.

use std::time::Duration;

use cloakroom::oidc::{IdTokenFault, JwtFault, RedeemError};
use serde_json::{Value, json};

use crate::support::clock::NOW;
use crate::support::issuer::{Algorithm, CLIENT_ID, Draft, Endpoint, Fault, Signature};

use super::Parties;

/// Logs in with an ID token that was changed, and tells why it was refused, if it was.
async fn refusal(change: impl Fn(&mut Draft) + Send + 'static) -> Option<IdTokenFault> {
    let parties = Parties::start().await;
    parties.issuer.tamper(change);
    match parties.log_in().await {
        Ok(_) => None,
        Err(RedeemError::IdToken(fault)) => Some(fault),
        Err(other) => panic!("{other:?}"),
    }
}

async fn refusal_of_claim(name: &'static str, value: Value) -> Option<IdTokenFault> {
    refusal(move |draft| draft.claims[name] = value.clone()).await
}

async fn refusal_of_header(name: &'static str, value: Value) -> Option<IdTokenFault> {
    refusal(move |draft| draft.header[name] = value.clone()).await
}

async fn refusal_without(name: &'static str) -> Option<IdTokenFault> {
    refusal(move |draft| {
        draft.claims.as_object_mut().unwrap().remove(name);
    })
    .await
}

#[tokio::test]
async fn an_untouched_id_token_passes() {
    assert_eq!(refusal(|_| {}).await, None);
}

#[tokio::test]
async fn r11_iss_is_exact() {
    for wrong in [json!("https://evil.test"), json!(["a"]), json!(null)] {
        assert_eq!(refusal_of_claim("iss", wrong).await, Some(IdTokenFault::Jwt(JwtFault::Issuer)));
    }
    let with_slash = |draft: &mut Draft| {
        draft.claims["iss"] = json!(format!("{}/", draft.claims["iss"].as_str().unwrap()));
    };
    assert_eq!(refusal(with_slash).await, Some(IdTokenFault::Jwt(JwtFault::Issuer)));
    assert_eq!(refusal_without("iss").await, Some(IdTokenFault::Jwt(JwtFault::Issuer)));
}

#[tokio::test]
async fn r11_aud_holds_the_client_and_no_stranger() {
    assert_eq!(refusal_of_claim("aud", json!([CLIENT_ID])).await, None);
    for wrong in [
        json!("other"),
        json!([]),
        json!([CLIENT_ID, "other"]),
        json!(["other"]),
        json!({}),
        json!([[CLIENT_ID]]),
    ] {
        assert_eq!(
            refusal_of_claim("aud", wrong.clone()).await,
            Some(IdTokenFault::Jwt(JwtFault::Audience)),
            "{wrong}"
        );
    }
    assert_eq!(refusal_without("aud").await, Some(IdTokenFault::Jwt(JwtFault::Audience)));
}

#[tokio::test]
async fn r11_aud_may_hold_others_that_are_trusted_beside_the_client() {
    let parties = Parties::start_with(|oidc| oidc.trusted_audiences = vec!["project".to_owned()]).await;
    for (audience, party, fault) in [
        (json!([CLIENT_ID, "project"]), json!(CLIENT_ID), None),
        (json!(CLIENT_ID), json!(CLIENT_ID), None),
        (json!([CLIENT_ID, "project"]), json!("project"), Some(JwtFault::AuthorizedParty)),
        (json!([CLIENT_ID, "project", "other"]), json!(CLIENT_ID), Some(JwtFault::Audience)),
        (json!(["project"]), json!(CLIENT_ID), Some(JwtFault::Audience)),
        (json!("project"), json!(CLIENT_ID), Some(JwtFault::Audience)),
    ] {
        let claim = audience.clone();
        parties.issuer.tamper(move |draft| {
            draft.claims["aud"] = claim.clone();
            draft.claims["azp"] = party.clone();
        });
        let refused = parties.log_in().await.err().map(|error| match error {
            RedeemError::IdToken(IdTokenFault::Jwt(fault)) => fault,
            other => panic!("{other:?}"),
        });
        assert_eq!(refused, fault, "{audience}");
    }
}

#[tokio::test]
async fn r11_azp_is_the_client_and_there_for_several_audiences() {
    assert_eq!(refusal_of_claim("azp", json!(CLIENT_ID)).await, None);
    for wrong in [json!("other"), json!([CLIENT_ID]), json!(null)] {
        assert_eq!(
            refusal_of_claim("azp", wrong.clone()).await,
            Some(IdTokenFault::Jwt(JwtFault::AuthorizedParty)),
            "{wrong}"
        );
    }
    let several = refusal_of_claim("aud", json!([CLIENT_ID, CLIENT_ID])).await;
    assert_eq!(several, Some(IdTokenFault::Jwt(JwtFault::AuthorizedParty)));
}

#[tokio::test]
async fn r12_the_signature_is_the_issuers() {
    let foreign = refusal(|draft| draft.signature = Signature::Foreign).await;
    assert_eq!(foreign, Some(IdTokenFault::Jwt(JwtFault::Signature)));
    let absent = refusal(|draft| draft.signature = Signature::Absent).await;
    assert_eq!(absent, Some(IdTokenFault::Jwt(JwtFault::Signature)));
}

#[tokio::test]
async fn r12_neither_none_nor_a_symmetric_algorithm_is_believed_though_the_issuer_lists_them() {
    for name in ["none", "None", "NONE", "", "HS256"] {
        let refused = refusal(move |draft| {
            draft.header["alg"] = json!(name);
            draft.signature = Signature::Absent;
        });
        assert_eq!(refused.await, Some(IdTokenFault::Jwt(JwtFault::Algorithm)), "{name}");
    }
    let confused = refusal(|draft| {
        draft.header["alg"] = json!("HS256");
        draft.signature = Signature::HmacOfPublicKey;
    });
    assert_eq!(confused.await, Some(IdTokenFault::Jwt(JwtFault::Algorithm)));
}

#[tokio::test]
async fn r12_the_algorithm_is_one_of_the_metadata_and_of_the_keys_kind() {
    // Not in the metadata.
    assert_eq!(refusal_of_header("alg", json!("PS256")).await, Some(IdTokenFault::Jwt(JwtFault::Algorithm)));
    // In the metadata, but the named key is of another kind.
    assert_eq!(refusal_of_header("alg", json!("RS256")).await, Some(IdTokenFault::Jwt(JwtFault::UnknownKey)));
}

#[tokio::test]
async fn r12_rsa_signatures_are_checked_too() {
    let parties = Parties::start().await;
    parties.issuer.behave(|behaviour| behaviour.algorithm = Algorithm::Rs256);
    parties.log_in().await.unwrap();
    parties.issuer.tamper(|draft| draft.signature = Signature::Foreign);
    let refused = parties.log_in().await.unwrap_err();
    assert!(matches!(refused, RedeemError::IdToken(IdTokenFault::Jwt(JwtFault::Signature))), "{refused:?}");
}

#[tokio::test]
async fn r12_the_algorithm_is_the_registered_one_where_that_is_known() {
    for (registered, fault) in [
        (jsonwebtoken::Algorithm::ES256, None),
        (jsonwebtoken::Algorithm::RS256, Some(IdTokenFault::Jwt(JwtFault::Algorithm))),
    ] {
        let parties = Parties::start_with(|oidc| oidc.id_token_signed_response_alg = Some(registered)).await;
        let refused = parties.log_in().await.err().map(|error| match error {
            RedeemError::IdToken(fault) => fault,
            other => panic!("{other:?}"),
        });
        assert_eq!(refused, fault);
    }
}

#[tokio::test]
async fn r12_keys_that_share_an_id_are_all_tried() {
    let parties = Parties::start().await;
    parties.log_in().await.unwrap();
    // Another issuer's key under the same id, before the good one.
    let other = Parties::start().await;
    other.log_in().await.unwrap();
    let published = |parties: &Parties| parties.issuer.published_keys()["keys"].as_array().unwrap().clone();
    let keys: Vec<Value> = published(&other).into_iter().chain(published(&parties)).collect();
    parties.clock.advance(Duration::from_secs(3600));
    parties.issuer.fail(Endpoint::Jwks, Fault::json(200, json!({"keys": keys})));
    assert!(parties.log_in().await.is_ok());
}

#[tokio::test]
async fn r12_a_token_without_a_key_id_is_checked_by_every_fitting_key() {
    let refused = refusal(|draft| {
        draft.header.as_object_mut().unwrap().remove("kid");
    });
    assert_eq!(refused.await, None);
    assert_eq!(refusal_of_header("kid", json!(7)).await, Some(IdTokenFault::Jwt(JwtFault::Malformed)));
}

#[tokio::test]
async fn r13_sub_is_there_and_of_sane_length() {
    for wrong in [json!(""), json!(7), json!(null), json!("x".repeat(256))] {
        assert_eq!(refusal_of_claim("sub", wrong).await, Some(IdTokenFault::Subject));
    }
    assert_eq!(refusal_without("sub").await, Some(IdTokenFault::Subject));
}

#[tokio::test]
async fn r13_exp_is_there_and_not_past_by_more_than_the_leeway() {
    assert_eq!(
        refusal_of_claim("exp", json!(NOW - 59)).await,
        Some(IdTokenFault::Jwt(JwtFault::IssuedAt)),
        "before its iat"
    );
    let expired_within_leeway = refusal(|draft| {
        draft.claims["iat"] = json!(NOW - 100);
        draft.claims["exp"] = json!(NOW - 59);
    });
    assert_eq!(expired_within_leeway.await, None);
    for wrong in [json!(NOW - 60), json!("soon"), json!(-1), json!(1e300), json!(null)] {
        assert_eq!(
            refusal_of_claim("exp", wrong.clone()).await,
            Some(IdTokenFault::Jwt(JwtFault::Expired)),
            "{wrong}"
        );
    }
    assert_eq!(refusal_without("exp").await, Some(IdTokenFault::Jwt(JwtFault::Expired)));
}

#[tokio::test]
async fn r13_iat_is_there_neither_old_nor_in_the_future() {
    for good in [json!(NOW + 60), json!(NOW - 660), json!(NOW as f64 + 0.5)] {
        assert_eq!(refusal_of_claim("iat", good.clone()).await, None, "{good}");
    }
    for wrong in [json!(NOW + 61), json!(NOW - 661), json!(0), json!("now"), json!(null)] {
        assert_eq!(
            refusal_of_claim("iat", wrong.clone()).await,
            Some(IdTokenFault::Jwt(JwtFault::IssuedAt)),
            "{wrong}"
        );
    }
    assert_eq!(refusal_without("iat").await, Some(IdTokenFault::Jwt(JwtFault::IssuedAt)));
}

#[tokio::test]
async fn r13_nbf_is_not_in_the_future() {
    assert_eq!(refusal_of_claim("nbf", json!(NOW + 60)).await, None);
    for wrong in [json!(NOW + 61), json!("now")] {
        assert_eq!(refusal_of_claim("nbf", wrong).await, Some(IdTokenFault::Jwt(JwtFault::NotBefore)));
    }
}

#[tokio::test]
async fn r14_a_wrong_nonce_is_refused() {
    assert_eq!(refusal_of_claim("nonce", json!("another")).await, Some(IdTokenFault::Nonce));
    assert_eq!(refusal_without("nonce").await, Some(IdTokenFault::Nonce));
}

#[tokio::test]
async fn r15_at_hash_matches_if_there() {
    assert_eq!(refusal_without("at_hash").await, None);
    for wrong in [json!("AAAAAAAAAAAAAAAAAAAAAA"), json!(7), json!("")] {
        assert_eq!(refusal_of_claim("at_hash", wrong).await, Some(IdTokenFault::AccessTokenHash));
    }
}

#[tokio::test]
async fn r15_auth_time_is_within_max_age_where_asked_for() {
    for (auth_time, passes) in [
        (json!(NOW), true),
        (json!(NOW - 360), true),
        (json!(NOW - 361), false),
        (json!(NOW + 61), false),
        (json!(null), false),
    ] {
        let parties = Parties::start().await;
        let claim = auth_time.clone();
        parties.issuer.tamper(move |draft| draft.claims["auth_time"] = claim.clone());
        let outcome = parties.log_in_expecting(&parties.client.expect(Some(300), None)).await;
        assert_eq!(outcome.is_ok(), passes, "{auth_time}");
        if let Err(error) = outcome {
            assert!(matches!(error, RedeemError::IdToken(IdTokenFault::AuthenticationTime)), "{error:?}");
        }
        assert!(parties.log_in().await.is_ok(), "not asked for");
    }
}

#[tokio::test]
async fn r15_acr_is_one_of_those_asked_for() {
    let parties = Parties::start().await;
    let expected = parties.client.expect(None, Some("gold silver"));
    assert!(parties.log_in_expecting(&expected).await.is_ok());
    for wrong in [json!("bronze"), json!(null), json!(["gold"])] {
        parties.issuer.tamper(move |draft| draft.claims["acr"] = wrong.clone());
        let refused =
            parties.log_in_expecting(&parties.client.expect(None, Some("gold silver"))).await.unwrap_err();
        assert!(matches!(refused, RedeemError::IdToken(IdTokenFault::AuthenticationContext)), "{refused:?}");
    }
}

#[tokio::test]
async fn r18_other_kinds_of_tokens_are_refused() {
    for good in [json!("JWT"), json!("jwt")] {
        assert_eq!(refusal_of_header("typ", good).await, None);
    }
    let untyped = refusal(|draft| {
        draft.header.as_object_mut().unwrap().remove("typ");
    });
    assert_eq!(untyped.await, None);
    for wrong in [json!("logout+jwt"), json!("at+jwt"), json!("dpop+jwt"), json!(""), json!(7)] {
        assert_eq!(refusal_of_header("typ", wrong.clone()).await, Some(IdTokenFault::Type), "{wrong}");
    }
    let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    assert_eq!(refusal_of_claim("events", events).await, Some(IdTokenFault::Type));
}

#[tokio::test]
async fn critical_extensions_are_refused() {
    for crit in [json!(["b64"]), json!([]), json!(null)] {
        assert_eq!(refusal_of_header("crit", crit).await, Some(IdTokenFault::Jwt(JwtFault::Critical)));
    }
}

#[tokio::test]
async fn duplicate_names_are_refused_in_header_and_claims() {
    let in_claims = refusal(|draft| {
        let claims = draft.claims.to_string();
        draft.raw_claims = Some(format!("{},\"sub\":\"mallory\"}}", claims.strip_suffix('}').unwrap()));
    });
    assert_eq!(in_claims.await, Some(IdTokenFault::Jwt(JwtFault::Malformed)));
    let in_header = refusal(|draft| {
        let header = draft.header.to_string();
        draft.raw_header = Some(format!("{},\"alg\":\"ES256\"}}", header.strip_suffix('}').unwrap()));
    });
    assert_eq!(in_header.await, Some(IdTokenFault::Jwt(JwtFault::Malformed)));
    let deep = refusal(|draft| {
        let claims = draft.claims.to_string();
        draft.raw_claims =
            Some(format!("{},\"a\":[{{\"b\":1,\"b\":2}}]}}", claims.strip_suffix('}').unwrap()));
    });
    assert_eq!(deep.await, Some(IdTokenFault::Jwt(JwtFault::Malformed)));
}

#[tokio::test]
async fn whatever_is_no_small_signed_jwt_is_refused() {
    assert_eq!(
        refusal(|draft| draft.raw_claims = Some("[]".to_owned())).await,
        Some(IdTokenFault::Jwt(JwtFault::Malformed))
    );
    assert_eq!(
        refusal(|draft| draft.raw_header = Some("x".to_owned())).await,
        Some(IdTokenFault::Jwt(JwtFault::Malformed))
    );
    let large = refusal_of_claim("padding", json!("x".repeat(64 * 1024))).await;
    assert_eq!(large, Some(IdTokenFault::Jwt(JwtFault::TooLarge)));
    for (id_token, fault) in [
        (json!("a.b"), IdTokenFault::Jwt(JwtFault::Malformed)),
        (json!("a.b.c.d.e"), IdTokenFault::Jwt(JwtFault::Encrypted)),
        (json!("..."), IdTokenFault::Jwt(JwtFault::Malformed)),
        (json!("eyJhbGciOiJFUzI1NiJ9=.e30.x"), IdTokenFault::Jwt(JwtFault::Malformed)),
        (json!(""), IdTokenFault::Missing),
        (json!(null), IdTokenFault::Missing),
        (json!({"a": 1}), IdTokenFault::Missing),
    ] {
        let parties = Parties::start().await;
        let answer = json!({"access_token": "a", "token_type": "Bearer", "id_token": id_token});
        parties.issuer.fail(Endpoint::Token, Fault::json(200, answer));
        let refused = parties.log_in().await.unwrap_err();
        assert!(matches!(refused, RedeemError::IdToken(found) if found == fault), "{id_token}: {refused:?}");
    }
}
