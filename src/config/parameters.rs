//! Parameters that are added to the authorization request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

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

/// The value of a parameter: what it is sent as stands here, in quotes or not.
struct Parameter(String);

/// `max_age` of the authorization request (OpenID Connect Core §3.1.2.1).
struct MaxAge(u64);

impl Parameters {
    /// What the gateway itself sends (RFC 6749 §4.1.1, RFC 7636 §4.3, OpenID Connect Core §3.1.2.1, §6).
    const RESERVED: [&str; 11] = [
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "response_mode",
        "response_type",
        "scope",
        "state",
    ];
}

impl Decode for Parameters {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Content::Map(entries) = &node.content else {
            return Err(wrong_type(node, "a map of parameters", &node.shown(), reading));
        };
        let mut parameters = Self::default();
        let mut result = Ok(());
        for (name, value) in entries {
            let read = match name.text.as_str() {
                "max_age" => {
                    MaxAge::decode(value, reading).map(|seconds| parameters.max_age = Some(seconds.0))
                }
                reserved if reserved.is_empty() || Self::RESERVED.contains(&reserved) => {
                    let problem = "a parameter that the gateway sets itself";
                    Err(reading.fault(name, problem, "the file without it"))
                }
                other => Parameter::decode(value, reading).map(|value| {
                    parameters.others.insert(other.to_owned(), value.0);
                }),
            };
            result = result.and(read);
        }
        result.map(|()| parameters)
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
