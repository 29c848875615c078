//! The token of a route and the claims it asks for, as they are written.

use serde_json::{Value, json};

use crate::config::authorization::password_grant;
use crate::config::decode::{At, Decode, Form, List, Optional, Required, scalar, wrong_type};
use crate::config::diagnostic::InvalidValue;
use crate::config::document::{Content, Node};
use crate::config::keys::{Choice, Keys, Record};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::{Scope, Text, text};
use crate::config::schema;
use crate::config::web::ResourceUri;
use crate::config::{Auth, RequiredClaim};

#[expect(clippy::enum_variant_names, reason = "the first is named as RFC 6749 names it")]
pub(in crate::config) enum Token {
    AccessToken,
    Resource(Resource),
    Exchange(TokenTarget),
    /// As the issuer gives it by itself where nothing is asked for.
    ClientCredentials(Option<TokenTarget>),
    None,
}

pub(in crate::config) struct TokenTarget {
    pub(in crate::config) scopes: Required<List<Scope>>,
    pub(in crate::config) resource: Optional<ResourceUri>,
    pub(in crate::config) audience: Optional<Text>,
}

pub(in crate::config) struct Resource {
    pub(in crate::config) resource: Required<ResourceUri>,
}

pub(in crate::config) struct RequiredClaims(pub(in crate::config) Vec<RequiredClaim>);

/// What a claim is compared with.
struct ClaimValue(Value);

impl Token {
    /// Whether a route with such an `auth` sends a token. The client's own takes no session.
    pub(in crate::config) fn is_sent(&self, auth: Auth) -> bool {
        match self {
            Self::AccessToken | Self::Resource(_) | Self::Exchange(_) => auth != Auth::None,
            Self::ClientCredentials(_) => true,
            Self::None => false,
        }
    }

    const WORDS: [&str; 3] = ["access_token", "client_credentials", "none"];
}

impl Decode for Token {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        if let Content::Map(_) = node.content {
            return TokenKeys::decode(node, reading).map(|TokenKeys(token)| token);
        }
        let remedy =
            "`access_token`, `client_credentials`, `none`, or a map with what is asked of the issuer";
        scalar(node, remedy, reading, |written| match written.text.as_str() {
            "access_token" => Ok(Self::AccessToken),
            "client_credentials" => Ok(Self::ClientCredentials(None)),
            "none" => Ok(Self::None),
            "password" => Err(password_grant(node)),
            _ => Err(InvalidValue::new("an unknown value", remedy)),
        })
    }

    fn schema() -> Value {
        json!({"anyOf": [schema::words(Self::WORDS.into_iter()), TokenKeys::schema()]})
    }
}

/// The long form of a token.
struct TokenKeys(Token);

impl Record for TokenKeys {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        keys.one_of(&[
            Choice::new(
                "access_token",
                "A token of the session's for this resource: the refresh token is redeemed for it (RFC 8707).",
                |resource: At<Resource>| Self(Token::Resource(resource.value)),
            ),
            Choice::new(
                "exchange",
                "A token that the session's access token is exchanged for (RFC 8693).",
                |target: At<TokenTarget>| Self(Token::Exchange(target.value)),
            ),
            Choice::new(
                "client_credentials",
                "A token of the client's own, for all who use the route (RFC 6749 §4.4).",
                |target: At<TokenTarget>| Self(Token::ClientCredentials(Some(target.value))),
            ),
        ])
    }
}

impl Record for TokenTarget {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            scopes: keys.or(
                "scopes",
                "[]",
                "What is asked for; what the issuer gives by itself where empty.",
            ),
            resource: keys.optional("resource", "The service it is for, by an absolute URI (RFC 8707)."),
            audience: keys.optional("audience", "The service it is for, by the name the issuer knows it by."),
        })
    }
}

impl Record for Resource {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            resource: keys.required(
                "resource",
                "https://orders.example.com",
                "The service it is for, by an absolute URI (RFC 8707).",
            ),
        })
    }
}

impl Decode for RequiredClaims {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Content::Map(entries) = &node.content else {
            return Err(wrong_type(node, "a map of claims", &node.shown(), reading));
        };
        let mut claims = Vec::new();
        let mut result = Ok(());
        for (name, node) in entries {
            let values = match &node.content {
                Content::List(_) => List::<ClaimValue, 1>::decode(node, reading).and_then(|list| {
                    let values = list.0.into_iter().map(|value| value.map(|value| value.value.0));
                    values.collect::<Result<Vec<_>, _>>()
                }),
                Content::Scalar { .. } | Content::Map(_) => {
                    ClaimValue::decode(node, reading).map(|value| vec![value.0])
                }
            };
            match values {
                Ok(_) if name.text.is_empty() => {
                    result = Err(reading.fault(name, "a claim without a name", "such as `groups: staff`"));
                }
                Ok(values) => claims.push(RequiredClaim { name: name.text.clone(), values }),
                Err(reported) => result = Err(reported),
            }
        }
        result.map(|()| Self(claims))
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": {"anyOf": [ClaimValue::schema(), List::<ClaimValue, 1>::schema()]},
            "propertyNames": {"minLength": 1},
        })
    }
}

impl Decode for ClaimValue {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a text, a number or a truth value, or a list of them", reading, |written| match written
            .form
        {
            Form::Boolean | Form::Number => written.text.to_lowercase().parse().map(Self).map_err(|_| {
                InvalidValue::new("not a number or a truth value as JSON has them", "the same in quotes")
            }),
            Form::Text | Form::Substituted => text(written).map(Value::from).map(Self),
        })
    }

    fn schema() -> Value {
        json!({"anyOf": [schema::text(), {"type": ["number", "boolean"]}]})
    }
}
