//! Parameters that are added to the requests a browser carries to the issuer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::authorization::other_grant;
use crate::config::decode::{Decode, Form, scalar, wrong_type};
use crate::config::diagnostic::InvalidValue;
use crate::config::document::{Content, Node};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::text;
use crate::config::schema;

/// Parameters of the authorization request that are not the gateway's own.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    pub(super) max_age: Option<u64>,
    pub(super) others: BTreeMap<String, String>,
}

/// Parameters of the logout request that are not the gateway's own.
#[derive(Clone, Debug, Default)]
pub(super) struct EndSessionParameters(pub(super) BTreeMap<String, String>);

/// The value of a parameter: what it is sent as stands here, in quotes or not.
struct Parameter(String);

/// `max_age` of the authorization request (OpenID Connect Core §3.1.2.1).
struct MaxAge(u64);

impl Parameters {
    /// What the gateway itself sends (RFC 6749 §4.1.1, RFC 7636 §4.3, OpenID Connect Core §3.1.2.1, §5.5, §6, RFC 8707 §2,
    /// RFC 9449 §10), and what must not go through a browser (RFC 6749 §2.3.1, RFC 7521 §4.2).
    const RESERVED: [&str; 18] = [
        "claims",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code_challenge",
        "code_challenge_method",
        "dpop_jkt",
        "grant_type",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "state",
    ];
}

impl EndSessionParameters {
    /// What the gateway itself sends (OpenID Connect RP-Initiated Logout §2).
    const RESERVED: [&str; 4] = ["client_id", "id_token_hint", "post_logout_redirect_uri", "state"];
}

impl Decode for Parameters {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let mut parameters = Self::default();
        each(node, &Self::RESERVED, reading, |name, value, reading| {
            if name == "max_age" {
                parameters.max_age = Some(MaxAge::decode(value, reading)?.0);
            } else {
                parameters.others.insert(name.to_owned(), Parameter::decode(value, reading)?.0);
            }
            Ok(())
        })?;
        Ok(parameters)
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "patternProperties": {"^max_age$": MaxAge::schema()},
            "additionalProperties": Parameter::schema(),
            "propertyNames": {"minLength": 1, "not": {"enum": Self::RESERVED}},
        })
    }
}

impl Decode for EndSessionParameters {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let mut parameters = Self::default();
        each(node, &Self::RESERVED, reading, |name, value, reading| {
            parameters.0.insert(name.to_owned(), Parameter::decode(value, reading)?.0);
            Ok(())
        })?;
        Ok(parameters)
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": Parameter::schema(),
            "propertyNames": {"minLength": 1, "not": {"enum": Self::RESERVED}},
        })
    }
}

/// Reads each parameter, come what may, so that each fault is found.
fn each(
    node: &Node,
    reserved: &[&str],
    reading: &mut Reading<'_>,
    mut read: impl FnMut(&str, &Node, &mut Reading<'_>) -> Result<(), Reported>,
) -> Result<(), Reported> {
    let Content::Map(entries) = &node.content else {
        return Err(wrong_type(node, "a map of parameters", &node.shown(), reading));
    };
    let mut result = Ok(());
    for (name, value) in entries {
        let one = if name.text.is_empty() || reserved.contains(&name.text.as_str()) {
            Err(reading.refuse(name, own(&name.text, value)))
        } else {
            read(&name.text, value, reading)
        };
        result = result.and(one);
    }
    result
}

/// What is said of a parameter that the gateway sets itself.
fn own(name: &str, value: &Node) -> InvalidValue {
    let remedy = match name {
        "grant_type" | "response_type" => return other_grant(value),
        "claims" | "resource" | "response_mode" => format!("the key `{name}` of `oidc`"),
        _ => "the file without it".to_owned(),
    };
    InvalidValue::new("a parameter that the gateway sets itself", remedy)
}

impl Decode for Parameter {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a text, a number or a truth value", reading, |written| match written.form {
            Form::Boolean | Form::Number => Ok(Self(written.text.clone())),
            Form::Text | Form::Substituted => text(written).map(Self),
        })
    }

    fn schema() -> Value {
        json!({"anyOf": [schema::text(), {"type": ["number", "boolean"]}]})
    }
}

impl Decode for MaxAge {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a number of seconds", reading, |written| {
            let invalid = |_| InvalidValue::new("not a number of seconds", "such as `3600`");
            written.text.parse().map(Self).map_err(invalid)
        })
    }

    fn schema() -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 0}, schema::pattern("[0-9]+")]})
    }
}
