//! An app's issuers: their metadata, keys and clocks, and whether they take the client for who it is.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Finding, in_time};
use crate::clock::Clock;
use crate::config::{App, ClientAuth, Oidc};
use crate::oidc::{Client, Clients, Trial};
use crate::random::Random;
use crate::telemetry::chain;

/// Tokens are taken with clocks a minute apart. Half of that is lost already.
const LARGEST_GOOD_OFFSET: u64 = 10;
const LARGEST_OFFSET: u64 = 60;

/// Each issuer once, and for each app what it asks of it and how it proves itself there.
pub(super) async fn check<'a>(
    app: &'a App,
    tried: &mut HashSet<&'a str>,
    clock: &Arc<dyn Clock>,
) -> Vec<Finding> {
    let clients = match Clients::new(app, clock, Random::SYSTEM, None) {
        Ok(clients) => clients,
        Err(error) => {
            let remedy = "see that `ca` and the client's own key and certificate can be read";
            return vec![Finding::fault(
                format!("issuers of {}", app.origin.as_str()),
                chain(&error),
                remedy,
            )];
        }
    };
    let mut findings = Vec::new();
    for (oidc, client) in app.oidc.iter().zip(clients.iter()) {
        let is_first = tried.insert(oidc.issuer.as_str());
        let again = if is_first { String::new() } else { format!(", for {} too", app.origin.as_str()) };
        let metadata = in_time(client.check_offer()).await;
        let is_there = metadata.is_ok();
        let remedy = "see that its /.well-known/openid-configuration can be fetched from here, names this very issuer, \
             and offers what `oidc` asks for";
        findings.push(Finding::new(format!("issuer {}{again}: metadata", oidc.issuer), metadata, remedy));
        if is_there && is_first {
            findings.push(keys(client).await);
            findings.push(time(client).await);
        }
        if is_there {
            findings.push(authentication(oidc, client).await);
        }
    }
    findings
}

async fn keys(client: &Client) -> Finding {
    let part = format!("issuer {}: keys", client.issuer());
    let remedy = "have the issuer publish the keys that it signs with; `oidc.id_token_signed_response_alg` names the \
         algorithm where its metadata do not";
    let counts = match in_time(client.count_keys()).await {
        Ok(counts) => counts,
        Err(fault) => return Finding::fault(part, fault, remedy),
    };
    let listed = |wanted: fn(usize) -> bool| {
        let some = counts.iter().filter(|(_, count)| wanted(*count));
        let some: Vec<_> = some.map(|(algorithm, count)| format!("{algorithm} ({count})")).collect();
        some.join(", ")
    };
    if counts.iter().all(|(_, count)| *count == 0) {
        let without = counts.into_iter().map(|(algorithm, _)| algorithm).collect::<Vec<_>>().join(", ");
        return Finding::fault(part, format!("none for any algorithm of its ID tokens: {without}"), remedy);
    }
    // Many issuers name what they could sign with. One that does so without a key is told at the login.
    Finding::good(format!("{part} for {}", listed(|count| count > 0)))
}

async fn time(client: &Client) -> Finding {
    let part = format!("issuer {}: clock", client.issuer());
    let remedy = "set both clocks by NTP: tokens from the future, and those that have expired, are refused";
    match in_time(client.clock_offset()).await {
        Ok(Some(offset)) => {
            let apart =
                format!("{} s {}", offset.unsigned_abs(), if offset < 0 { "behind" } else { "ahead" });
            if offset.unsigned_abs() <= LARGEST_GOOD_OFFSET {
                Finding::good(format!("{part} {apart}"))
            } else if offset.unsigned_abs() <= LARGEST_OFFSET {
                Finding::warning(part, apart, remedy)
            } else {
                Finding::fault(part, apart, remedy)
            }
        }
        Ok(None) => Finding::warning(part, "it does not say what time it has", remedy),
        Err(fault) => Finding::fault(part, fault, remedy),
    }
}

async fn authentication(oidc: &Oidc, client: &Client) -> Finding {
    let method = method(&oidc.client_auth);
    let part = format!("client {} at {}: {method}", oidc.client_id, oidc.issuer);
    let remedy = "compare client_id and client_auth with the client's registration, and whether it may use the \
         authorization code grant";
    match (in_time(client.try_authentication()).await, &oidc.client_auth) {
        (Ok(Trial::Accepted), ClientAuth::None) => Finding::good(format!(
            "{part}, a public client: the issuer knows it, and there is no proof to try"
        )),
        (Ok(Trial::Accepted), _) => Finding::good(format!("{part} accepted")),
        (Ok(Trial::Refused(error)), _) => Finding::fault(part, format!("the issuer says {error}"), remedy),
        (Ok(Trial::Unclear(error)), _) => Finding::warning(
            part,
            format!("could not be tried: to a code that nobody was given, the issuer says {error}"),
            "log in once to see whether the client is accepted",
        ),
        (Err(fault), _) => Finding::fault(
            part,
            fault,
            "see that the token endpoint of its metadata can be reached from here",
        ),
    }
}

/// As it is registered (RFC 7591 §2).
fn method(client_auth: &ClientAuth) -> &'static str {
    match client_auth {
        ClientAuth::ClientSecretBasic(_) => "client_secret_basic",
        ClientAuth::ClientSecretPost(_) => "client_secret_post",
        ClientAuth::PrivateKeyJwt { .. } => "private_key_jwt",
        ClientAuth::MutualTls => "tls_client_auth or self_signed_tls_client_auth",
        ClientAuth::None => "none",
    }
}
