//! YAML 1.2 as a tree in which each key and value knows its place.
//!
//! Stricter than the language, for a file that is read once and must mean what it says: one document,
//! no duplicate keys, no tags, no merge keys; depth and size are bounded, aliases counted in full.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::config::diagnostic::Position;
use crate::config::reading::{Place, Reading, Reported};

/// What is shown in place of a secret.
pub(super) const REDACTED: &str = "[redacted]";

const DEEPEST: usize = 32;
const MOST_NODES: usize = 10_000;

/// One value, and where it starts.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A text, and whether it was written without quotes.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<(Place, Node)>),
}

/// What YAML's core schema takes a scalar for (YAML 1.2.2 §10.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
}

/// Reads a text that holds one document.
pub(super) fn parse(text: &str, reading: &mut Reading<'_>) -> Result<Node, Reported> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_unprintable(text, reading)?;
    // The parser sees a line break at the end of each text, and may find something behind it.
    let end = position_of(text, text.len());
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree::default();
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => tree.take(event, position(span.start).min(end), reading)?,
            Err(error) => {
                return Err(syntax_fault(text, end, &error, reading));
            }
        }
    }
    let nothing = Place { position: Position { line: 1, column: 1 }, text: String::new() };
    match tree.root {
        Some(root) if root.kind() != Some(Kind::Null) => Ok(root),
        Some(_) | None => {
            Err(reading.fault(&nothing, "the file says nothing", "a configuration; see config/minimal.yaml"))
        }
    }
}

impl Node {
    /// What a fault shows of it.
    pub(super) fn shown(&self) -> String {
        match &self.content {
            Content::Scalar { text, .. } => without_user(text).to_owned(),
            Content::List(_) => "[…]".to_owned(),
            Content::Map(_) => "{…}".to_owned(),
        }
    }

    /// Its place, with its text.
    pub(super) fn place(&self) -> Place {
        Place { position: self.position, text: self.shown() }
    }

    /// What a scalar is taken for; nothing for a list or a map.
    pub(super) fn kind(&self) -> Option<Kind> {
        match &self.content {
            Content::Scalar { text, plain: true } => Some(kind_of_plain(text)),
            Content::Scalar { plain: false, .. } => Some(Kind::Text),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// Makes it, and all in it, stand at another place.
    pub(super) fn move_to(&mut self, position: Position) {
        self.position = position;
        match &mut self.content {
            Content::Scalar { .. } => {}
            Content::List(nodes) => nodes.iter_mut().for_each(|node| node.move_to(position)),
            Content::Map(entries) => {
                for (key, node) in entries {
                    key.position = position;
                    node.move_to(position);
                }
            }
        }
    }

    /// How many nodes it is made of.
    fn size(&self) -> usize {
        match &self.content {
            Content::Scalar { .. } => 1,
            Content::List(nodes) => 1 + nodes.iter().map(Self::size).sum::<usize>(),
            Content::Map(entries) => 1 + entries.iter().map(|(_, node)| 1 + node.size()).sum::<usize>(),
        }
    }
}

/// The tree as far as it has grown.
#[derive(Default)]
struct Tree {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    documents: usize,
    nodes: usize,
}

/// A list or map whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Place>,
}

impl Tree {
    fn take(
        &mut self,
        event: Event<'_>,
        position: Position,
        reading: &mut Reading<'_>,
    ) -> Result<(), Reported> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(position, reading),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    let place = Place { position, text: "*".to_owned() };
                    return Err(reading.fault(
                        &place,
                        "an alias inside of what it stands for",
                        "the value itself",
                    ));
                };
                self.count(node.size(), position, reading)?;
                self.add(node, 0, reading)
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.as_deref(), position, reading)?;
                self.count(1, position, reading)?;
                let plain = style == ScalarStyle::Plain;
                let content = Content::Scalar { text: text.into_owned(), plain };
                self.add(Node { position, content }, anchor, reading)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), position, reading)?;
                self.open(Node { position, content: Content::List(Vec::new()) }, anchor, reading)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), position, reading)?;
                self.open(Node { position, content: Content::Map(Vec::new()) }, anchor, reading)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.add(node, anchor, reading),
                None => Ok(()),
            },
        }
    }

    fn start_document(&mut self, position: Position, reading: &mut Reading<'_>) -> Result<(), Reported> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        let place = Place { position, text: "---".to_owned() };
        Err(reading.fault(&place, "a second YAML document starts here", "one document a file"))
    }

    /// Aliases count in full: nine aliases of nine aliases of nine … would fill the memory.
    fn count(&mut self, nodes: usize, position: Position, reading: &mut Reading<'_>) -> Result<(), Reported> {
        self.nodes += nodes;
        if self.nodes <= MOST_NODES {
            return Ok(());
        }
        let place = Place { position, text: "…".to_owned() };
        let problem = format!("more than {MOST_NODES} values, aliases counted in full");
        Err(reading.fault(&place, problem, "fewer values, fewer aliases"))
    }

    fn open(&mut self, node: Node, anchor: usize, reading: &mut Reading<'_>) -> Result<(), Reported> {
        self.count(1, node.position, reading)?;
        if self.open.len() == DEEPEST {
            let problem = format!("nested more than {DEEPEST} deep");
            return Err(reading.fault(&node.place(), problem, "a flatter file"));
        }
        self.open.push(Open { node, anchor, key: None });
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn add(&mut self, node: Node, anchor: usize, reading: &mut Reading<'_>) -> Result<(), Reported> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.node.content {
            Content::Scalar { .. } => Ok(()),
            Content::List(nodes) => {
                nodes.push(node);
                Ok(())
            }
            Content::Map(entries) => match parent.key.take() {
                None => {
                    parent.key = Some(key(&node, reading)?);
                    Ok(())
                }
                Some(key) => {
                    match entries.iter().find(|(earlier, _)| earlier.text == key.text) {
                        None => entries.push((key, node)),
                        Some((earlier, _)) => {
                            let remedy =
                                format!("one of the two; the other is in line {}", earlier.position.line);
                            reading.fault(&key, "duplicate key", remedy);
                        }
                    }
                    Ok(())
                }
            },
        }
    }
}

/// A URL with user information holds a password, wherever it stands.
pub(super) fn without_user(text: &str) -> &str {
    if text.contains("://") && text.contains('@') { REDACTED } else { text }
}

fn key(node: &Node, reading: &mut Reading<'_>) -> Result<Place, Reported> {
    match &node.content {
        Content::Scalar { text, .. } => Ok(Place { position: node.position, text: text.clone() }),
        Content::List(_) | Content::Map(_) => {
            Err(reading.fault(&node.place(), "a key that is not a text", "a key such as `listen`"))
        }
    }
}

fn refuse_tag(
    tag: Option<&saphyr_parser::Tag>,
    position: Position,
    reading: &mut Reading<'_>,
) -> Result<(), Reported> {
    let Some(tag) = tag else { return Ok(()) };
    let place = Place { position, text: tag.to_string() };
    Err(reading.fault(&place, "YAML tags are not read", "the value without its tag"))
}

/// Refuses what YAML does not allow in a file at all (YAML 1.2.2 §5.1).
fn refuse_unprintable(text: &str, reading: &mut Reading<'_>) -> Result<(), Reported> {
    let is_unprintable = |character: char| match character {
        '\t' | '\n' | '\r' | '\u{85}' => false,
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        character => character.is_control(),
    };
    let Some(start) = text.find(is_unprintable) else { return Ok(()) };
    let character = text[start..].chars().next().unwrap_or_default();
    let place = Place { position: position_of(text, start), text: character.escape_unicode().to_string() };
    Err(reading.fault(&place, "a character that YAML does not allow", "plain text in UTF-8"))
}

fn syntax_fault(text: &str, end: Position, error: &ScanError, reading: &mut Reading<'_>) -> Reported {
    let position = position(*error.marker()).min(end);
    let line = text.lines().nth(position.line.saturating_sub(1)).filter(|_| position < end);
    let place = Place { position, text: line.map_or("the end of the file", key_of_line).to_owned() };
    let line = line.unwrap_or_default();
    let indentation = &line[..line.len() - line.trim_start().len()];
    let remedy = if indentation.contains('\t') {
        "spaces for indentation, never tabs"
    } else {
        "valid YAML; look at the quotes, brackets and indentation from here upwards"
    };
    reading.fault(&place, format!("this is not YAML: {}", error.info()), remedy)
}

/// The part of a line that names its key. The rest is not shown: where the syntax is broken nobody can
/// tell what is a secret.
fn key_of_line(line: &str) -> &str {
    let line = line.trim();
    let is_key = |key: &&str| key.chars().all(|c| c.is_ascii_alphanumeric() || " -_{[".contains(c));
    line.split_once(':').map(|(key, _)| key).filter(is_key).unwrap_or("…")
}

/// Where the byte at `offset` stands. A line ends as in YAML (1.2.2 §5.4).
pub(super) fn position_of(text: &str, offset: usize) -> Position {
    let before = text[..offset].replace("\r\n", "\n");
    let mut lines = before.rsplit(['\n', '\r']);
    let column = lines.next().unwrap_or_default().chars().count() + 1;
    Position { line: lines.count() + 1, column }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

fn kind_of_plain(text: &str) -> Kind {
    let is_number = || {
        let digits = text.trim_start_matches(['+', '-']);
        let is_decimal = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            && digits.parse::<f64>().is_ok();
        is_decimal || digits.starts_with("0x") || digits.starts_with("0o")
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Boolean,
        _ if is_number() => Kind::Number,
        _ => Kind::Text,
    }
}
