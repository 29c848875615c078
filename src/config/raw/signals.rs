//! Shared signals as they are written.

use serde_json::{Value, json};

use crate::config::decode::{Decode, List, Optional, Required, decode_at};
use crate::config::document::{Content, Node};
use crate::config::keys::{Keys, Record};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::Text;
use crate::config::secret_ref::SecretRef;
use crate::config::web::Transmitter;

pub(in crate::config) struct SharedSignals {
    pub(in crate::config) transmitter: Required<Transmitter>,
    pub(in crate::config) audience: Required<Audience>,
    pub(in crate::config) authorization: Optional<SecretRef>,
}

/// One text, or several.
pub(in crate::config) struct Audience(pub(in crate::config) List<Text, 1>);

impl Record for SharedSignals {
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        Ok(Self {
            transmitter: keys.required(
                "transmitter",
                "https://id.example.com",
                "Who sends security events, letter by letter as it names itself (`issuer` of its /.well-known/ssf-configuration).",
            ),
            audience: keys.required(
                "audience",
                "https://shop.example.com",
                "What it calls this receiver, `aud` of its events; one text or a list of which one is enough.",
            ),
            authorization: keys.optional(
                "authorization",
                "The whole Authorization field that it was told to send, a secret; none is asked for where left out.",
            ),
        })
    }
}

impl Decode for Audience {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        match &node.content {
            Content::List(_) => List::decode(node, reading).map(Self),
            Content::Scalar { .. } | Content::Map(_) => Ok(Self(List(vec![decode_at(node, reading)]))),
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [Text::schema(), List::<Text, 1>::schema()]})
    }
}
