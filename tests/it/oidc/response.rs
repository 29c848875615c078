//! Authorization responses: in the way that was asked for, signed by the issuer where it is to sign, and its own.

use std::collections::BTreeMap;

use cloakroom::config::ResponseMode;
use cloakroom::oidc::{AuthorizationResponse, IdTokenFault, JwtFault, RedeemError, ResponseError};
use serde_json::json;

use crate::support::issuer::{Algorithm, CLIENT_ID, Draft, Endpoint, Fault, Signature};

use super::{Parties, request};

type Parameters = BTreeMap<String, String>;

async fn answering_by(mode: ResponseMode) -> Parties {
    Parties::start_with(|oidc| oidc.authorization.response_mode = mode).await
}

/// What comes back for a login of the user who always says yes.
async fn response(parties: &Parties) -> Parameters {
    let expected = parties.client.expect(None, None);
    let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
    parties.issuer.authorize(&url).into_iter().collect()
}

async fn accept(parties: &Parties, parameters: Parameters, was_posted: bool) -> Result<(), ResponseError> {
    parties.client.accept(&AuthorizationResponse::new(parameters, was_posted)).await.map(drop)
}

/// The fault of a signed response that the issuer has changed so before it signed it.
async fn fault_of(change: impl Fn(&mut Draft) + Send + 'static) -> ResponseError {
    let parties = answering_by(ResponseMode::Jwt).await;
    parties.issuer.tamper_response(change);
    let parameters = response(&parties).await;
    accept(&parties, parameters, false).await.expect_err("it is refused")
}

fn parameters(pairs: &[(&str, &str)]) -> Parameters {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn jarm_2_3_a_signed_response_of_each_mode_brings_its_code() {
    for (mode, was_posted) in
        [(ResponseMode::Jwt, false), (ResponseMode::QueryJwt, false), (ResponseMode::FormPostJwt, true)]
    {
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let parties = answering_by(mode).await;
            parties.issuer.behave(|behaviour| behaviour.algorithm = algorithm);
            let expected = parties.client.expect(None, None);
            let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
            assert!(url.query_pairs().any(|(name, value)| name == "response_mode" && value == mode.as_str()));
            let parameters: Parameters = parties.issuer.authorize(&url).into_iter().collect();
            assert_eq!(parameters.keys().collect::<Vec<_>>(), ["response"]);
            let response = AuthorizationResponse::new(parameters, was_posted);
            assert_eq!(response.state(), Some("state-1"));
            let code = parties.client.accept(&response).await.unwrap();
            parties.client.redeem(&code, &expected).await.unwrap();
        }
    }
}

#[tokio::test]
async fn jarm_2_4_beside_a_signed_response_no_parameter_counts() {
    let parties = answering_by(ResponseMode::Jwt).await;
    let mut beside = response(&parties).await;
    beside.extend(parameters(&[
        ("code", "an attacker's"),
        ("state", "another"),
        ("iss", "https://evil.test"),
        ("error", "access_denied"),
    ]));
    let response = AuthorizationResponse::new(beside, false);
    assert_eq!(response.state(), Some("state-1"));
    let code = parties.client.accept(&response).await.unwrap();
    assert!(code.expose().starts_with("code-"), "the issuer's own");
}

#[tokio::test]
async fn jarm_2_4_a_response_of_another_issuer_for_another_client_or_past_its_time_is_refused() {
    let now = crate::support::clock::NOW;
    for (name, value, fault) in [
        ("iss", json!("https://evil.test"), JwtFault::Issuer),
        ("iss", json!(null), JwtFault::Issuer),
        ("aud", json!("another"), JwtFault::Audience),
        ("aud", json!([CLIENT_ID, "another"]), JwtFault::Audience),
        ("aud", json!(null), JwtFault::Audience),
        ("exp", json!(now - 61), JwtFault::Expired),
        ("exp", json!("soon"), JwtFault::Expired),
        ("exp", json!(null), JwtFault::Expired),
        ("nbf", json!(now + 100), JwtFault::NotBefore),
    ] {
        let shown = format!("{name}: {value}");
        let refused = fault_of(move |draft| draft.claims[name] = value.clone()).await;
        assert!(matches!(&refused, ResponseError::Jwt(found) if *found == fault), "{shown}: {refused:?}");
    }
}

#[tokio::test]
async fn jarm_2_4_a_response_that_the_issuer_did_not_sign_is_refused() {
    for (signature, algorithm, fault) in [
        (Signature::Foreign, None, JwtFault::Signature),
        (Signature::Absent, None, JwtFault::Signature),
        (Signature::Absent, Some("none"), JwtFault::Algorithm),
        (Signature::HmacOfPublicKey, Some("HS256"), JwtFault::Algorithm),
        (Signature::Good, Some("ES384"), JwtFault::Algorithm),
    ] {
        let refused = fault_of(move |draft| {
            draft.signature = signature;
            if let Some(algorithm) = algorithm {
                draft.header["alg"] = json!(algorithm);
            }
        })
        .await;
        assert!(
            matches!(&refused, ResponseError::Jwt(found) if *found == fault),
            "{signature:?} {algorithm:?}: {refused:?}"
        );
    }
    let parties = answering_by(ResponseMode::Jwt).await;
    let good = response(&parties).await.remove("response").unwrap();
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let other = response(&parties).await.remove("response").unwrap();
    let other = other.split('.').nth(1).unwrap().to_owned();
    assert_ne!(other, claims);
    for altered in [
        format!("{head}.{other}.{signature}"),
        format!("{head}.{claims}"),
        format!("{head}.{claims}.{signature}.{signature}.{signature}"),
        String::new(),
        "x".repeat(70_000),
    ] {
        let refused = accept(&parties, parameters(&[("response", &altered)]), false).await.unwrap_err();
        assert!(matches!(refused, ResponseError::Jwt(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn jarm_another_kind_of_token_is_no_response() {
    for kind in ["at+jwt", "logout+jwt", "secevent+jwt"] {
        let refused = fault_of(move |draft| draft.header["typ"] = json!(kind)).await;
        assert!(matches!(refused, ResponseError::Type), "{kind}: {refused:?}");
    }
    let refused = fault_of(|draft| draft.header["crit"] = json!(["exp"])).await;
    assert!(matches!(refused, ResponseError::Jwt(JwtFault::Critical)), "{refused:?}");
    let refused = fault_of(|draft| {
        let claims = draft.claims.to_string();
        draft.raw_claims = Some(claims.replacen('{', "{\"code\":\"another\",", 1));
    })
    .await;
    assert!(matches!(refused, ResponseError::Jwt(JwtFault::Malformed)), "{refused:?}");
}

#[tokio::test]
async fn jarm_3_the_algorithm_is_one_that_the_issuer_names_or_rs256() {
    let metadata = |list| ("authorization_signing_alg_values_supported".to_owned(), list);
    for (list, algorithm, is_good) in [
        (json!(["RS256"]), Algorithm::Es256, false),
        (json!(["RS256"]), Algorithm::Rs256, true),
        (json!(null), Algorithm::Es256, false),
        (json!(null), Algorithm::Rs256, true),
    ] {
        let parties = answering_by(ResponseMode::Jwt).await;
        parties.issuer.behave(|behaviour| {
            behaviour.metadata.extend([metadata(list.clone())]);
            behaviour.algorithm = algorithm;
        });
        let parameters = response(&parties).await;
        assert_eq!(accept(&parties, parameters, false).await.is_ok(), is_good, "{list} {algorithm:?}");
    }
}

#[tokio::test]
async fn jarm_without_the_issuers_keys_nothing_is_said_about_a_response() {
    let parties = answering_by(ResponseMode::Jwt).await;
    let parameters = response(&parties).await;
    parties.issuer.fail(Endpoint::Jwks, Fault::status(500));
    let refused = accept(&parties, parameters, false).await;
    assert!(matches!(refused, Err(ResponseError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_response_comes_in_the_way_that_was_asked_for_and_in_no_other() {
    let all = [
        ResponseMode::Query,
        ResponseMode::FormPost,
        ResponseMode::Jwt,
        ResponseMode::QueryJwt,
        ResponseMode::FormPostJwt,
    ];
    for asked in all {
        let parties = answering_by(asked).await;
        let issuer = parties.issuer.url();
        let plain = parameters(&[("code", "c"), ("state", "s"), ("iss", &issuer)]);
        let signed = || async {
            let signing = answering_by(ResponseMode::Jwt).await;
            response(&signing).await
        };
        for (parameters, is_signed) in [(plain, false), (signed().await, true)] {
            for was_posted in [false, true] {
                let accepted = accept(&parties, parameters.clone(), was_posted).await;
                let is_mode = matches!(accepted, Err(ResponseError::Mode(mode)) if mode == asked.as_str());
                let fits = asked.is_signed() == is_signed && asked.is_posted() == was_posted;
                assert_eq!(
                    !is_mode, fits,
                    "{asked:?}: signed {is_signed}, posted {was_posted}: {accepted:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn rfc9700_2_1_2_a_response_that_brings_tokens_is_refused_be_it_signed_or_not() {
    for name in ["access_token", "id_token"] {
        let parties = Parties::start().await;
        let mut hybrid = response(&parties).await;
        hybrid.insert(name.to_owned(), "a.b.c".to_owned());
        let refused = accept(&parties, hybrid, false).await;
        assert!(matches!(refused, Err(ResponseError::Tokens)), "{refused:?}");
        let refused = fault_of(move |draft| draft.claims[name] = json!("a.b.c")).await;
        assert!(matches!(refused, ResponseError::Tokens), "{refused:?}");
    }
}

#[tokio::test]
async fn r20_an_error_is_known_by_its_code_and_its_words_are_dropped() {
    for (error, told) in [("access_denied", "access_denied"), ("x\ny", "by no registered error")] {
        for mode in [ResponseMode::Query, ResponseMode::Jwt] {
            let parties = answering_by(mode).await;
            parties.issuer.behave(|behaviour| behaviour.authorization_error = Some(error.to_owned()));
            parties.issuer.tamper_response(|draft| draft.claims["error_description"] = json!("own words"));
            let refused = accept(&parties, response(&parties).await, false).await.unwrap_err();
            assert!(matches!(&refused, ResponseError::Denied { error } if error == told), "{refused:?}");
            assert!(!format!("{refused:?} {refused}").contains("own words"));
        }
    }
    for neither in [json!({}), json!({"code": ""}), json!({"code": 1}), json!({"code": "c", "error": "e"})] {
        let refused = fault_of(move |draft| {
            let members = draft.claims.as_object_mut().unwrap();
            members.remove("code");
            members.extend(neither.as_object().unwrap().clone());
        })
        .await;
        assert!(matches!(refused, ResponseError::Malformed), "{refused:?}");
    }
}

#[tokio::test]
async fn a_signed_response_is_worth_no_id_token() {
    let parties = answering_by(ResponseMode::Jwt).await;
    parties.issuer.tamper(|draft| draft.signature = Signature::Foreign);
    let expected = parties.client.expect(None, None);
    let url = parties.client.authorization_url(&request(&expected)).await.unwrap();
    let parameters = parties.issuer.authorize(&url).into_iter().collect();
    let code = parties.client.accept(&AuthorizationResponse::new(parameters, false)).await.unwrap();
    let refused = parties.client.redeem(&code, &expected).await.unwrap_err();
    let RedeemError::IdToken(IdTokenFault::Jwt(fault)) = refused else { panic!("{refused:?}") };
    assert_eq!(fault, JwtFault::Signature);
}
