//! Maps: each type says once which keys it has, and both the decoder and the JSON Schema are made of that, so that they
//! cannot drift apart.

use serde_json::{Map, Value};

use crate::config::decode::{At, Decode, Optional, Required, decode_at, quoted, wrong_type};
use crate::config::diagnostic::{InvalidValue, Position};
use crate::config::document::{self, Content, Node};
use crate::config::reading::{Place, Reading, Reported};
use crate::config::schema;

/// A map with known keys.
pub(super) trait Record: Sized {
    /// Keys of a later version: said to be so, rather than unknown.
    const LATER: &[&str] = &[];

    /// Keys that there will never be, though some look for them, and what is said of each.
    const NEVER: &[Never] = &[];

    /// Reads each key, come what may, so that each fault is found.
    fn read(keys: &mut Keys<'_, '_>) -> Result<Self, Reported>;
}

/// The keys of one map while they are read.
pub(super) struct Keys<'a, 'b> {
    entries: &'a [(Place, Node)],
    position: Position,
    reading: &'a mut Reading<'b>,
    known: Vec<&'static str>,
    /// The key that stands where one of a few was asked for: reported then, and not once more at the end.
    misspelt: Option<&'a str>,
    later: Option<Reported>,
    /// Filled where a schema is wanted.
    description: Option<&'a mut Description>,
}

/// What is said about a map's keys in the schema.
#[derive(Default)]
struct Description {
    properties: Map<String, Value>,
    required: Vec<Value>,
    choice: Vec<Value>,
}

/// A key that there will never be, and what is said of it by what stands there.
pub(super) type Never = (&'static str, fn(&Node) -> InvalidValue);

type Decoder<U> = dyn Fn(&Node, &mut Reading<'_>) -> Result<U, Reported>;

/// One of the keys of which exactly one is wanted.
pub(super) struct Choice<U> {
    key: &'static str,
    about: &'static str,
    schema: fn() -> Value,
    decode: Box<Decoder<U>>,
}

impl<U> Choice<U> {
    /// A key whose value becomes a `U`.
    pub(super) fn new<T: Decode>(
        key: &'static str,
        about: &'static str,
        wrap: impl Fn(At<T>) -> U + 'static,
    ) -> Self {
        let decode = move |node: &Node, reading: &mut Reading<'_>| decode_at(node, reading).map(&wrap);
        Self { key, about, schema: T::schema, decode: Box::new(decode) }
    }
}

impl Description {
    fn add(&mut self, key: &str, mut schema: Value, about: &str, default: Option<Value>) {
        schema["description"] = about.into();
        if let Some(default) = default {
            schema["default"] = default;
        }
        self.properties.insert(key.to_owned(), schema);
    }
}

impl Keys<'_, '_> {
    /// A key that must be there. The example is its remedy.
    pub(super) fn required<T: Decode>(
        &mut self,
        key: &'static str,
        example: &str,
        about: &str,
    ) -> Required<T> {
        self.describe::<T>(key, about, None);
        if let Some(description) = &mut self.description {
            description.required.push(key.into());
        }
        match self.decode(key) {
            Some(result) => result,
            None => {
                let place = Place { position: self.position, text: self.reading.path_to(key) };
                Err(self.reading.fault(&place, "a required key is missing", format!("{key}: {example}")))
            }
        }
    }

    /// A key that stands for `default`, a text in YAML, where it is left out.
    pub(super) fn or<T: Decode>(&mut self, key: &'static str, default: &str, about: &str) -> Required<T> {
        let mut default = document::parse(default, self.reading)?;
        default.move_to(self.position);
        self.describe::<T>(key, about, Some(schema::json_of(&default)));
        match self.decode(key) {
            Some(result) => result,
            None => {
                let default = self
                    .reading
                    .by_default(|reading| reading.within(key, |reading| decode_at(&default, reading)));
                default.map(|default| At { written: false, ..default })
            }
        }
    }

    /// A key that may be left out.
    pub(super) fn optional<T: Decode>(&mut self, key: &'static str, about: &str) -> Optional<T> {
        self.describe::<T>(key, about, None);
        self.decode(key).transpose()
    }

    /// Asks for one of these keys, and no more.
    pub(super) fn one_of<U>(&mut self, choices: &[Choice<U>]) -> Result<U, Reported> {
        let names: Vec<_> = choices.iter().map(|choice| choice.key).collect();
        self.known.extend(&names);
        if let Some(description) = &mut self.description {
            description.choice = names.iter().map(|key| (*key).into()).collect();
            for choice in choices {
                description.add(choice.key, (choice.schema)(), choice.about, None);
            }
        }
        let given = self.entries.iter().filter_map(|(key, node)| {
            let choice = choices.iter().find(|choice| choice.key == key.text)?;
            Some((key, node, choice))
        });
        match (given.collect::<Vec<_>>().as_slice(), self.later) {
            ([(_, node, choice)], _) => {
                self.reading.within(choice.key, |reading| (choice.decode)(node, reading))
            }
            ([], Some(reported)) => Err(reported),
            ([], None) => Err(self.none_of(&names)),
            ([_, (second, _, _), ..], _) => {
                let problem = format!("only one of {} can stand here", quoted(&names));
                Err(self.reading.fault(second, problem, "one of them"))
            }
        }
    }

    /// None of these keys is there: it was misspelt, or it is missing.
    fn none_of(&mut self, names: &[&'static str]) -> Reported {
        let is_all_there_can_be = self.known.len() == names.len();
        let is_misspelt =
            |(key, _): &&(Place, Node)| is_all_there_can_be || nearest(&key.text, names).is_some();
        if let Some((key, _)) = self.entries.iter().find(is_misspelt) {
            self.misspelt = Some(&key.text);
            return report_unknown(key, names, self.reading);
        }
        let place = Place { position: self.position, text: self.reading.path().to_owned() };
        let problem = format!("one of {} is missing", quoted(names));
        self.reading.fault(&place, problem, "exactly one of them")
    }

    fn decode<T: Decode>(&mut self, key: &'static str) -> Option<Required<T>> {
        self.known.push(key);
        let (_, node) = self.entries.iter().find(|(entry, _)| entry.text == key)?;
        Some(self.reading.within(key, |reading| decode_at(node, reading)))
    }

    fn describe<T: Decode>(&mut self, key: &str, about: &str, default: Option<Value>) {
        if let Some(description) = &mut self.description {
            description.add(key, T::schema(), about, default);
        }
    }

    fn report_later(&mut self, later: &[&str]) {
        for (key, _) in self.entries.iter().filter(|(key, _)| later.contains(&key.text.as_str())) {
            let problem = "a key that is not supported by this version yet";
            self.later = Some(self.reading.fault(key, problem, "the file without it"));
        }
    }

    fn report_unknown<T: Record>(&mut self) {
        for (key, node) in self.entries {
            let name = key.text.as_str();
            if let Some((_, why)) = T::NEVER.iter().find(|(never, _)| *never == name) {
                self.reading.refuse(key, why(node));
            } else if !self.known.contains(&name) && !T::LATER.contains(&name) && self.misspelt != Some(name)
            {
                report_unknown(key, &self.known, self.reading);
            }
        }
    }
}

impl<T: Record> Decode for T {
    fn decode(node: &Node, reading: &mut Reading<'_>) -> Result<Self, Reported> {
        let Content::Map(entries) = &node.content else {
            return Err(wrong_type(node, "a map of keys and values", &T::shown(node), reading));
        };
        let position = node.position;
        let mut keys = Keys {
            entries,
            position,
            reading,
            known: Vec::new(),
            misspelt: None,
            later: None,
            description: None,
        };
        keys.report_later(T::LATER);
        let record = T::read(&mut keys);
        keys.report_unknown::<T>();
        record
    }

    fn schema() -> Value {
        let mut description = Description::default();
        let mut reading = Reading::new("", &|_| None);
        // Of a map without keys: what is missing is put down in a reading that nobody looks at.
        let _ = T::read(&mut Keys {
            entries: &[],
            position: Position { line: 1, column: 1 },
            reading: &mut reading,
            known: Vec::new(),
            misspelt: None,
            later: None,
            description: Some(&mut description),
        });
        schema::map(&description.properties, &description.required, &description.choice)
    }
}

fn report_unknown(key: &Place, known: &[&str], reading: &mut Reading<'_>) -> Reported {
    let remedy = match nearest(&key.text, known) {
        _ if key.text == "<<" => "the keys themselves; YAML 1.2 has no merge keys".to_owned(),
        Some(nearest) => format!("`{nearest}`"),
        None if known.is_empty() => "`{}`; there are no keys here".to_owned(),
        None => format!("one of {}", quoted(known)),
    };
    reading.fault(key, "unknown key", remedy)
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |key: &&&'a str| strsim::damerau_levenshtein(name, key);
    known.iter().min_by_key(distance).filter(|key| distance(key) <= key.len().div_ceil(3)).copied()
}
