//! From the tree to raw values, and to the JSON Schema that says the same of them. Maps: `keys`.

use serde_json::Value;

use crate::config::diagnostic::InvalidValue;
use crate::config::document::{self, Content, Kind, Node, REDACTED};
use crate::config::reading::{Place, Reading, Reported};
use crate::config::schema;

/// A value, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
    /// Whether the file has it, or it is a default.
    pub(super) written: bool,
}

/// A value that is there, unless a fault was put down for it.
pub(super) type Required<T> = Result<At<T>, Reported>;

/// A value that may be left out.
pub(super) type Optional<T> = Result<Option<At<T>>, Reported>;

/// A type that can be read from the tree.
pub(super) trait Decode: Sized {
    /// Reads it.
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported>;

    /// The JSON Schema of what [`Decode::decode`] takes.
    fn schema() -> Value;

    /// What a fault may show of it.
    fn shown(node: &Node) -> String {
        node.shown()
    }
}

/// A list of at least `LEAST` values.
#[derive(Debug)]
pub(super) struct List<T, const LEAST: usize = 0>(pub(super) Vec<Required<T>>);

/// A scalar with `${NAME}` put in.
pub(super) struct Written {
    pub(super) text: String,
    pub(super) form: Form,
}

/// What kind of scalar stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `true`, `false`
    Boolean,
    /// `12`
    Number,
    /// A text, perhaps in quotes.
    Text,
    /// A text with values of the environment in it, which may stand for anything.
    Substituted,
}

impl<T: Decode, const LEAST: usize> Decode for List<T, LEAST> {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Content::List(nodes) = &node.content else {
            return Err(wrong_type(node, "a list", &Self::shown(node), reading));
        };
        if nodes.len() < LEAST {
            return Err(reading.fault(&node.place(), "an empty list", format!("at least {LEAST}")));
        }
        let elements = nodes
            .iter()
            .enumerate()
            .map(|(index, node)| reading.within(&format!("[{index}]"), |reading| decode_at(node, reading)));
        Ok(Self(elements.collect()))
    }

    fn schema() -> Value {
        schema::list(&T::schema(), LEAST)
    }

    fn shown(node: &Node) -> String {
        T::shown(node)
    }
}

/// Reads a value together with its place.
pub(super) fn decode_at<T: Decode>(node: &Node, reading: &mut Reading<'_>) -> Required<T> {
    let value = T::decode(node, reading)?;
    let text = T::shown(node);
    reading.note(|reading| if text == REDACTED { text.clone() } else { in_force(node, reading) });
    Ok(At { value, place: Place { position: node.position, text }, written: true })
}

/// Reads a scalar. `wanted` says what is looked for, in words.
pub(super) fn scalar<T: Decode>(
    node: &Node,
    wanted: &str,
    reading: &mut Reading<'_>,
    parse: impl FnOnce(&Written) -> Result<T, InvalidValue>,
) -> Result<T, Reported> {
    let Content::Scalar { text, .. } = &node.content else {
        return Err(wrong_type(node, wanted, &T::shown(node), reading));
    };
    let place = Place { position: node.position, text: T::shown(node) };
    let form = match node.kind() {
        Some(Kind::Null) | None => return Err(wrong_type(node, wanted, &place.text, reading)),
        Some(Kind::Boolean) => Form::Boolean,
        Some(Kind::Number) => Form::Number,
        Some(Kind::Text) if text.contains("${") => Form::Substituted,
        Some(Kind::Text) => Form::Text,
    };
    let substituted = reading.substitute(text, &place)?;
    parse(&Written { text: substituted, form }).map_err(|mut invalid| {
        if form == Form::Substituted {
            invalid.problem.push_str(" (once the environment is put in)");
        }
        reading.refuse(&place, invalid)
    })
}

/// Reads one of a few words.
pub(super) fn word<T: Decode + Clone>(
    node: &Node,
    words: &[(&'static str, T)],
    later: &[&str],
    reading: &mut Reading<'_>,
) -> Result<T, Reported> {
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    let remedy = format!("one of {}", quoted(&names));
    scalar(node, &remedy, reading, |written| {
        let found = words.iter().find(|(name, _)| *name == written.text);
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let is_later = later.contains(&written.text.as_str());
            let problem = if is_later { "not supported by this version yet" } else { "an unknown value" };
            InvalidValue::new(problem, remedy.as_str())
        })
    })
}

/// A good value as it counts, with the environment put in.
fn in_force(node: &Node, reading: &mut Reading<'_>) -> String {
    let listed = |parts: Vec<String>| parts.join(", ");
    match &node.content {
        Content::Scalar { text, .. } => {
            let text = reading.substitute(text, &node.place()).unwrap_or_default();
            document::without_user(&text).to_owned()
        }
        Content::List(nodes) => {
            format!("[{}]", listed(nodes.iter().map(|node| in_force(node, reading)).collect()))
        }
        Content::Map(entries) => {
            let entries =
                entries.iter().map(|(key, node)| format!("{}: {}", key.text, in_force(node, reading)));
            format!("{{{}}}", listed(entries.collect()))
        }
    }
}

/// Puts down that something of another kind stands here.
pub(super) fn wrong_type(node: &Node, wanted: &str, shown: &str, reading: &mut Reading<'_>) -> Reported {
    let found = match (&node.content, node.kind()) {
        (Content::List(_), _) => "a list stands here",
        (Content::Map(_), _) => "a map stands here",
        (Content::Scalar { .. }, Some(Kind::Null)) => "nothing stands here",
        (Content::Scalar { .. }, _) => "a single value stands here",
    };
    let place = Place { position: node.position, text: shown.to_owned() };
    reading.fault(&place, format!("{found}, not {wanted}"), wanted)
}

pub(super) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
