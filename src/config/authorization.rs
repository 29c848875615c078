//! How an authorization request reaches the issuer, what it asks for, and how its response comes back.

use serde_json::{Map, Number, Value, json};

use crate::config::SigningKey;
use crate::config::decode::{Decode, wrong_type};
use crate::config::diagnostic::InvalidValue;
use crate::config::document::{Content, Kind, Node};
use crate::config::reading::{Place, Reading, Reported};

/// An app's authorization requests, as far as they are not the gateway's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authorization {
    /// Whether they are pushed (RFC 9126).
    pub pushed: PushedAuthorizationRequests,
    /// How the response comes back.
    pub response_mode: ResponseMode,
    /// Signs them (RFC 9101), where they are to be signed.
    pub request_object: Option<SigningKey>,
    /// Where the access token is to be used (RFC 8707), as it is written.
    pub resource: Vec<String>,
    /// Single claims that are asked for.
    pub claims: Claims,
}

/// Whether authorization requests are pushed (RFC 9126).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushedAuthorizationRequests {
    /// Where the issuer takes them.
    #[default]
    Auto,
    /// Or nobody logs in.
    Required,
    /// Never.
    Off,
}

/// `response_mode`: how an authorization response comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseMode {
    /// In the query, as it does where nothing is said.
    #[default]
    Query,
    /// In a form that the browser posts (OAuth 2.0 Form Post Response Mode).
    FormPost,
    /// Signed, in the way that is usual for a code: in the query (JARM §2.3.4).
    Jwt,
    /// Signed, in the query (JARM §2.3.1).
    QueryJwt,
    /// Signed, in a form (JARM §2.3.3).
    FormPostJwt,
}

/// The parameter `claims` (OpenID Connect Core §5.5).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl ResponseMode {
    /// Its registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::FormPost => "form_post",
            Self::Jwt => "jwt",
            Self::QueryJwt => "query.jwt",
            Self::FormPostJwt => "form_post.jwt",
        }
    }

    /// Whether the browser posts the response.
    pub const fn is_posted(self) -> bool {
        matches!(self, Self::FormPost | Self::FormPostJwt)
    }

    /// Whether the response is signed (JARM).
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Jwt | Self::QueryJwt | Self::FormPostJwt)
    }
}

impl Claims {
    /// What is asked for; empty where nothing is.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The authentication contexts, one of which the ID token must have, where that is demanded (Core §5.5.1.1);
    /// any at all where none is named.
    pub fn essential_acr(&self) -> Option<Vec<&str>> {
        let acr = self.id_token_acr()?;
        if acr.get("essential") != Some(&Value::Bool(true)) {
            return None;
        }
        let values = acr.get("values").and_then(Value::as_array).into_iter().flatten();
        Some(acr.get("value").into_iter().chain(values).filter_map(Value::as_str).collect())
    }

    /// Whether the authentication context is asked for.
    pub(super) fn names_acr(&self) -> bool {
        self.id_token_acr().is_some()
    }

    fn id_token_acr(&self) -> Option<&Value> {
        self.0.get("id_token")?.get("acr")
    }
}

impl Decode for Claims {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Content::Map(members) = &node.content else {
            return Err(wrong_type(node, "a map of `userinfo` and `id_token`", &node.shown(), reading));
        };
        let mut claims = Map::new();
        let mut result = Ok(());
        for (name, requests) in members {
            let read = if matches!(name.text.as_str(), "userinfo" | "id_token") {
                claim_requests(requests, reading).map(|requests| {
                    claims.insert(name.text.clone(), requests.into());
                })
            } else {
                Err(reading.fault(name, "claims come from no such place", "`userinfo` or `id_token`"))
            };
            result = result.and(read);
        }
        result.map(|()| Self(claims))
    }

    fn schema() -> Value {
        let request = json!({
            "anyOf": [
                {"type": "null"},
                {"type": "object", "patternProperties": {
                    "^essential$": {"type": "boolean"},
                    "^values$": {"type": "array", "minItems": 1},
                }},
            ],
        });
        let requests = json!({"type": "object", "additionalProperties": request});
        json!({
            "type": "object",
            "patternProperties": {"^(?:userinfo|id_token)$": requests},
            "additionalProperties": false,
        })
    }
}

/// The claims that are wanted from one place (Core §5.5.1).
fn claim_requests(node: &Node, reading: &mut Reading<'_>) -> Result<Map<String, Value>, Reported> {
    let Content::Map(claims) = &node.content else {
        return Err(wrong_type(node, "a map of claims", &node.shown(), reading));
    };
    let requests = claims.iter().map(|(name, node)| Ok((name.text.clone(), claim_request(node, reading)?)));
    requests.collect::<Vec<_>>().into_iter().collect()
}

fn claim_request(node: &Node, reading: &mut Reading<'_>) -> Result<Value, Reported> {
    let Content::Map(members) = &node.content else {
        if node.kind() == Some(Kind::Null) {
            return Ok(Value::Null);
        }
        return Err(wrong_type(
            node,
            "nothing, or a map such as `{essential: true}`",
            &node.shown(),
            reading,
        ));
    };
    let names = |name: &str| members.iter().find(|(key, _)| key.text == name);
    if let (Some((value, _)), Some(_)) = (names("value"), names("values")) {
        return Err(reading.fault(value, "`value` beside `values`", "one of them (Core §5.5.1)"));
    }
    let request = json_of(node, reading)?;
    for (name, is_good, remedy) in [
        ("essential", Value::is_boolean as fn(&Value) -> bool, "`true` or `false`, without quotes"),
        ("values", |values| values.as_array().is_some_and(|values| !values.is_empty()), "a list"),
    ] {
        if let (Some((_, node)), Some(value)) = (names(name), request.get(name))
            && !is_good(value)
        {
            return Err(reading.fault(&node.place(), format!("not what `{name}` takes"), remedy));
        }
    }
    Ok(request)
}

/// A tree as JSON, with the environment put in.
fn json_of(node: &Node, reading: &mut Reading<'_>) -> Result<Value, Reported> {
    match &node.content {
        Content::List(nodes) => nodes.iter().map(|node| json_of(node, reading)).collect(),
        Content::Map(entries) => entries
            .iter()
            .map(|(key, node)| Ok((key.text.clone(), json_of(node, reading)?)))
            .collect::<Result<Map<_, _>, _>>()
            .map(Value::Object),
        Content::Scalar { text, .. } => {
            let place: Place = node.place();
            match node.kind() {
                Some(Kind::Null) => Ok(Value::Null),
                Some(Kind::Boolean) => Ok(Value::Bool(text.eq_ignore_ascii_case("true"))),
                Some(Kind::Number) => text.parse::<Number>().map(Value::Number).map_err(|_| {
                    reading.fault(&place, "a number that JSON does not have", "the same in quotes")
                }),
                Some(Kind::Text) | None => reading.substitute(text, &place).map(Value::String),
            }
        }
    }
}

/// Keys and values by which somebody asks for another grant or response type than the authorization code: what
/// they are told.
pub(super) fn other_grant(node: &Node) -> InvalidValue {
    let words = words(node);
    let names = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
    let remedy = "the file without it: the gateway asks for a code, with PKCE";
    if names(&["password", "ropc", "direct_access"]) {
        password_grant(node)
    } else if names(&["implicit", "hybrid", "token", "id_token"]) {
        InvalidValue::new(
            "the implicit and hybrid flows send tokens through the browser, and must not be used (RFC 9700 §2.1.2)",
            remedy,
        )
    } else {
        InvalidValue::new("a grant or response type is not chosen here", remedy)
    }
}

/// What those are told who would have the gateway take passwords.
pub(super) fn password_grant(_: &Node) -> InvalidValue {
    InvalidValue::new(
        "the password grant has users show their password to the client, and must not be used (RFC 9700 §2.4)",
        "the file without it: users log in at the issuer",
    )
}

/// The single words of a text or a list.
fn words(node: &Node) -> Vec<String> {
    match &node.content {
        Content::Scalar { text, .. } => text
            .split(|character: char| character.is_whitespace() || ",+".contains(character))
            .map(str::to_ascii_lowercase)
            .collect(),
        Content::List(nodes) => nodes.iter().flat_map(words).collect(),
        Content::Map(entries) => entries
            .iter()
            .flat_map(|(key, node)| [vec![key.text.to_ascii_lowercase()], words(node)].concat())
            .collect(),
    }
}
