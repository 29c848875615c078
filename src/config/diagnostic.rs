//! What is wrong with a configuration, where, and what to write instead.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A place in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One fault, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, by the name it was asked for.
    pub file: String,
    /// Where in it.
    pub position: Position,
    /// What is wrong.
    pub problem: String,
    /// The text in question as the file has it; `[redacted]` for a secret.
    pub text: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        let text = printable(&self.text);
        writeln!(formatter, "{}:{line}:{column}: {}: `{text}`", self.file, self.problem)?;
        write!(formatter, "  write instead: {}", self.remedy)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Faults {
    /// The file could not be read.
    #[error("{}: the configuration cannot be read: {source}\n  write instead: -c FILE, a file this user may read", path.display())]
    Unreadable {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Every fault of the file, in its order; never empty.
    #[error("{}", one_below_the_other(.0))]
    Found(Vec<Diagnostic>),
}

impl Faults {
    /// The faults, in the order of the file; empty where it could not be read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Found(diagnostics) => diagnostics,
        }
    }
}

/// Why a text is not what it should be, and what to write instead. Holds nothing of the text itself,
/// which may be a secret or come from the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; write instead: {remedy}")]
pub struct InvalidValue {
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl InvalidValue {
    /// Names both.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// A text on one line, without control characters (which can drive a terminal), and not endless.
fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|character| if character.is_control() { '\u{fffd}' } else { character })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

fn one_below_the_other(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
