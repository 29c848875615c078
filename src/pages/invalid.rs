//! What is wrong with an app's page, and where.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::values;

/// What is wrong with a page of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPage {
    /// The file, or the folder of all.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The text in question.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

/// What is wrong with a template.
pub(super) enum Fault {
    UnknownValue(String),
    Template(minijinja::Error),
}

impl From<minijinja::Error> for Fault {
    fn from(error: minijinja::Error) -> Self {
        Self::Template(error)
    }
}

impl Fault {
    pub(super) fn at(&self, path: &Path, template: &str) -> InvalidPage {
        match self {
            Self::Template(error) => InvalidPage::in_template(path, template, error),
            Self::UnknownValue(name) => {
                let problem = "a page has no such value".to_owned();
                let remedy = format!("one of {}", values::NAMES.join(", "));
                InvalidPage::new(path, template, range_of(name, template), problem, remedy)
            }
        }
    }
}

impl InvalidPage {
    /// Something is wrong with all of it.
    pub(super) fn whole(path: &Path, problem: impl Into<String>) -> Self {
        let text = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let remedy = "a folder with pages such as error.html, in UTF-8, which this user may read".to_owned();
        Self { path: path.to_owned(), line: 1, column: 1, text, problem: problem.into(), remedy }
    }

    /// A template that cannot be parsed, or cannot be filled in.
    pub(super) fn in_template(path: &Path, template: &str, error: &minijinja::Error) -> Self {
        let begin_of_line = error.line().map_or(0, |line| {
            template.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum()
        });
        let range = error.range().unwrap_or(begin_of_line..begin_of_line);
        let said = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let remedy = "HTML with {{ value }}, {% if value %} and {% for value in values %}".to_owned();
        Self::new(path, template, range, format!("not a template ({said})"), remedy)
    }

    fn new(path: &Path, template: &str, range: Range<usize>, problem: String, remedy: String) -> Self {
        let before = template.get(..range.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let rest = template.get(range.start..).unwrap_or_default().lines().next().unwrap_or_default();
        let text = template.get(range).filter(|text| !text.is_empty()).unwrap_or(rest).to_owned();
        Self { path: path.to_owned(), line, column, text, problem, remedy }
    }
}

/// Where a template first says this name by itself.
fn range_of(name: &str, template: &str) -> Range<usize> {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = template.as_bytes();
    let stands_alone = |(start, _): &(usize, &str)| {
        !is_part(start.checked_sub(1).and_then(|index| bytes.get(index)))
            && !is_part(bytes.get(start + name.len()))
    };
    let in_tags = |start: usize| {
        let before = template.get(..start).unwrap_or_default();
        let opened = before.rfind("{{").max(before.rfind("{%"));
        opened > before.rfind("}}").max(before.rfind("%}"))
    };
    let mut found = template.match_indices(name).filter(stands_alone);
    let start = found.find(|(start, _)| in_tags(*start)).map_or(0, |(start, _)| start);
    start..start + if start == 0 { 0 } else { name.len() }
}
