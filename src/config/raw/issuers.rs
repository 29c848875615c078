//! One issuer, or several of which a user chooses one, as they are written.

use serde_json::{Value, json};

use super::app::Oidc;
use crate::config::decode::{Decode, List, Required};
use crate::config::document::{Content, Node};
use crate::config::keys::{Keys, Never, Record};
use crate::config::reading::{Reading, Reported};
use crate::config::scalar::IssuerName;

pub(in crate::config) enum Issuers {
    One(Box<Oidc>),
    Several(List<NamedOidc, 1>),
}

pub(in crate::config) struct NamedOidc {
    pub(in crate::config) name: Required<IssuerName>,
    pub(in crate::config) oidc: Oidc,
}

impl Decode for Issuers {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        match &node.content {
            Content::List(_) => List::decode(node, reading).map(Self::Several),
            Content::Map(_) | Content::Scalar { .. } => {
                Oidc::decode(node, reading).map(|oidc| Self::One(Box::new(oidc)))
            }
        }
    }

    fn schema() -> Value {
        json!({"anyOf": [Oidc::schema(), List::<NamedOidc, 1>::schema()]})
    }
}

impl Record for NamedOidc {
    const LATER: &[&str] = Oidc::LATER;
    const NEVER: &[Never] = Oidc::NEVER;

    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported> {
        let about =
            "In a list: what the page that lets a user choose calls it, and the end of its callback's path.";
        let name = keys.required("name", "staff", about);
        Ok(Self { name, oidc: Oidc::read(keys)? })
    }
}
