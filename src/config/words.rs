//! Values that are one of a few words.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use crate::config::decode::{Decode, word};
use crate::config::document::Node;
use crate::config::reading::{Reading, Reported};
use crate::config::{
    AssertionAudience, Auth, Csrf, LogFormat, OtlpProtocol, Protocol, PushedAuthorizationRequests,
    RateLimitKey, ResponseMode, SameSite, SigningAlgorithm, schema,
};

/// The least that is logged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level(pub(super) &'static str);

/// An asymmetric algorithm of signatures (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct IdTokenAlgorithm(pub(super) Algorithm);

/// Words of the file and the values they stand for, for the decoder and the schema alike.
macro_rules! words {
    ($type:ty { $($word:literal => $value:expr),+ } later [$($later:literal),*]) => {
        impl Decode for $type {
            fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
                word(node, &[$(($word, $value)),+], &[$($later),*], reading)
            }

            fn schema() -> Value {
                schema::words([$($word),+].into_iter())
            }
        }
    };
}

words!(SameSite { "strict" => Self::Strict, "lax" => Self::Lax } later []);
words!(Auth { "required" => Self::Required, "optional" => Self::Optional, "none" => Self::None } later []);
words!(Csrf { "header" => Self::Header, "same_origin" => Self::SameOrigin, "off" => Self::Off } later []);
words!(Protocol { "auto" => Self::Auto, "http1" => Self::Http1, "http2" => Self::Http2 } later []);
words!(SigningAlgorithm {
    "RS256" => Self::Rs256,
    "PS256" => Self::Ps256,
    "ES256" => Self::Es256,
    "EdDSA" => Self::EdDsa
} later []);
words!(AssertionAudience { "issuer" => Self::Issuer, "endpoint" => Self::Endpoint } later []);
words!(RateLimitKey { "session" => Self::Session, "client" => Self::Client } later []);
words!(PushedAuthorizationRequests {
    "auto" => Self::Auto,
    "required" => Self::Required,
    "off" => Self::Off
} later []);
words!(ResponseMode {
    "query" => Self::Query,
    "form_post" => Self::FormPost,
    "jwt" => Self::Jwt,
    "query.jwt" => Self::QueryJwt,
    "form_post.jwt" => Self::FormPostJwt
} later []);
words!(OtlpProtocol { "grpc" => Self::Grpc, "http/protobuf" => Self::HttpProtobuf } later []);
words!(LogFormat { "json" => Self::Json, "text" => Self::Text } later []);
words!(Level {
    "error" => Self("error"),
    "warn" => Self("warn"),
    "info" => Self("info"),
    "debug" => Self("debug"),
    "trace" => Self("trace")
} later []);

words!(IdTokenAlgorithm {
    "RS256" => Self(Algorithm::RS256),
    "RS384" => Self(Algorithm::RS384),
    "RS512" => Self(Algorithm::RS512),
    "PS256" => Self(Algorithm::PS256),
    "PS384" => Self(Algorithm::PS384),
    "PS512" => Self(Algorithm::PS512),
    "ES256" => Self(Algorithm::ES256),
    "ES384" => Self(Algorithm::ES384),
    "EdDSA" => Self(Algorithm::EdDSA)
} later []);
