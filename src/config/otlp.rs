//! Where spans and metrics are handed over, by the OpenTelemetry protocol.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use url::Url;

use super::CertificateAuthorities;
use super::decode::{At, Decode, Form, decode_at, scalar, wrong_type};
use super::diagnostic::InvalidValue;
use super::document::{Content, Node};
use super::reading::{Place, Reading, Reported};
use super::schema;
use super::secret_ref::SecretRef;

/// A collector, and how much it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// Where it listens; gRPC's services, or `/v1/…`, come behind its path.
    pub endpoint: Url,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Fields that go along with each request, such as an API key. All of them are sensitive.
    pub headers: HeaderMap,
    /// Of the traces that begin here, the part that is recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// The only authorities that are believed; the system's where absent.
    pub ca: Option<CertificateAuthorities>,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// A message in the body of a `POST`.
    HttpProtobuf,
}

/// A part of all, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio(pub(super) f64);

/// Fields of a request by their names, with secret values.
pub(super) struct Headers(pub(super) Vec<(HeaderName, At<SecretRef>)>);

/// What the client of the protocol writes itself.
const RESERVED: [HeaderName; 6] = [CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, USER_AGENT];

impl Decode for Ratio {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        scalar(node, "a number such as `0.1`", reading, |written| {
            let number = match written.form {
                Form::Number | Form::Substituted => written.text.parse().ok(),
                Form::Boolean | Form::Text => None,
            };
            let number = number.filter(|number| (0.0..=1.0).contains(number));
            number
                .map(Self)
                .ok_or_else(|| InvalidValue::new("not a number from 0 to 1", "such as `0.1`, without quotes"))
        })
    }

    fn schema() -> Value {
        schema::or_substituted(&json!({"type": "number", "minimum": 0, "maximum": 1}))
    }
}

impl Decode for Headers {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Content::Map(entries) = &node.content else {
            return Err(wrong_type(node, "a map of names and secrets", &Self::shown(node), reading));
        };
        let mut headers = Ok(Vec::new());
        for (key, value) in entries {
            let secret = reading.within(&key.text, |reading| decode_at(value, reading));
            let read = name(key, reading).and_then(|name| Ok((name, secret?)));
            match (&mut headers, read) {
                (Ok(headers), Ok(header)) => headers.push(header),
                (Ok(_), Err(reported)) => headers = Err(reported),
                (Err(_), _) => {}
            }
        }
        headers.map(Self)
    }

    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": SecretRef::schema()})
    }

    fn shown(node: &Node) -> String {
        SecretRef::shown(node)
    }
}

fn name(key: &Place, reading: &mut Reading<'_>) -> Result<HeaderName, Reported> {
    let remedy = "a field of the collector's, such as `api-key`";
    match HeaderName::try_from(key.text.as_str()) {
        Ok(name) if RESERVED.contains(&name) || name.as_str().starts_with("grpc-") => {
            Err(reading.fault(key, "a field that the protocol itself has", remedy))
        }
        Ok(name) => Ok(name),
        Err(_) => Err(reading.fault(key, "not the name of a field", remedy)),
    }
}
