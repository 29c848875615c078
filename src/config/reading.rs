//! One reading of one file: what it may see, and what it found wrong.
//!
//! Whoever finds a fault gets a [`Reported`] for it and gives up on that value alone; the reading goes
//! on, so that one run names every fault. A [`Reported`] comes from nowhere else: a value can't be
//! missing without a word.

use crate::config::diagnostic::{Diagnostic, Faults, InvalidValue, Position};
use crate::config::{Config, Loaded, Setting};

/// Where a value stands, and what may be shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) text: String,
}

/// The proof that a fault was put down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// One reading of one file.
pub(super) struct Reading<'a> {
    file: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
    path: String,
    faults: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// Those that were read so far, and which of them are being read.
    settings: Vec<Setting>,
    open: Vec<usize>,
    is_default: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &'a str, environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            file,
            environment,
            path: String::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            settings: Vec::new(),
            open: Vec::new(),
            is_default: false,
        }
    }

    /// Puts down a fault.
    pub(super) fn fault(
        &mut self,
        place: &Place,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Reported {
        let fault = self.diagnostic(place, InvalidValue::new(problem, remedy));
        self.faults.push(fault);
        Reported(())
    }

    /// Puts down a fault of another file, which the one that is read names.
    pub(super) fn fault_in(
        &mut self,
        file: String,
        place: &Place,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Reported {
        let fault = self.diagnostic(place, InvalidValue::new(problem, remedy));
        self.faults.push(Diagnostic { file, ..fault });
        Reported(())
    }

    /// Puts down why a text was refused.
    pub(super) fn refuse(&mut self, place: &Place, invalid: InvalidValue) -> Reported {
        self.fault(place, invalid.problem, invalid.remedy)
    }

    /// Puts down what is allowed, but seldom meant.
    pub(super) fn warn(&mut self, place: &Place, problem: impl Into<String>, remedy: impl Into<String>) {
        let warning = self.diagnostic(place, InvalidValue::new(problem, remedy));
        self.warnings.push(warning);
    }

    /// A variable of the environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name)
    }

    /// Does `inner` one step further down, so that a missing key can be named by its whole path.
    pub(super) fn within<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path = self.path_to(step);
        let (depth, is_default) = (self.open.len(), self.is_default);
        self.open.push(self.settings.len());
        self.settings.push(Setting { depth, name: step.to_owned(), value: None, is_default });
        let result = inner(self);
        self.open.pop();
        self.path.truncate(length);
        result
    }

    /// Does `inner` with what stands for something that was left out.
    pub(super) fn by_default<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.is_default, true);
        let result = inner(self);
        self.is_default = outer;
        result
    }

    /// Notes the value of what is being read, unless that was read part by part.
    pub(super) fn note(&mut self, value: impl FnOnce(&mut Self) -> String) {
        if let Some(open) = self.open.last().copied()
            && open + 1 == self.settings.len()
            && self.settings[open].value.is_none()
        {
            self.settings[open].value = Some(value(self));
        }
    }

    /// The path of what is being read, such as `apps[0].oidc`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a key or list index (`[0]`) below the current one.
    pub(super) fn path_to(&self, step: &str) -> String {
        let dot = if self.path.is_empty() || step.starts_with('[') { "" } else { "." };
        format!("{}{dot}{step}", self.path)
    }

    /// Puts `${NAME}` and `${NAME:-default}` in: after the YAML was parsed, so that a value is never more
    /// than text. As in a shell, the default also stands in for an empty variable. `$${` is a plain `${`.
    pub(super) fn substitute(&mut self, written: &str, place: &Place) -> Result<String, Reported> {
        let mut substituted = String::new();
        let mut rest = written;
        while let Some(start) = rest.find("${") {
            let (before, placeholder) = rest.split_at(start);
            let inner = &placeholder[2..];
            if let Some(before) = before.strip_suffix('$') {
                substituted.push_str(before);
                substituted.push_str("${");
                rest = inner;
                continue;
            }
            substituted.push_str(before);
            let Some((inner, after)) = inner.split_once('}') else {
                return Err(self.fault(
                    place,
                    "`${` without its `}`",
                    "`${NAME}`, or `$${` for a plain `${`",
                ));
            };
            substituted.push_str(&self.value_of(inner, place)?);
            rest = after;
        }
        substituted.push_str(rest);
        Ok(substituted)
    }

    /// Ends the reading.
    pub(super) fn finish(mut self, config: Result<Config, Reported>) -> Result<Loaded, Faults> {
        match config {
            Ok(config) if self.faults.is_empty() => {
                let config = Config { settings: self.settings, ..config };
                Ok(Loaded { config, warnings: in_order(&mut self.warnings) })
            }
            Ok(_) | Err(Reported(())) => Err(Faults::Found(in_order(&mut self.faults))),
        }
    }

    fn value_of(&mut self, inner: &str, place: &Place) -> Result<String, Reported> {
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_variable_name(name) {
            let problem = "not the name of an environment variable between `${` and `}`";
            return Err(self.fault(place, problem, "`${NAME}` or `${NAME:-default}`"));
        }
        match (self.variable(name), default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                let problem = format!("the environment variable {name} is not set");
                Err(self.fault(
                    place,
                    problem,
                    format!("set {name}, or give a default: `${{{name}:-default}}`"),
                ))
            }
        }
    }

    fn diagnostic(&self, place: &Place, invalid: InvalidValue) -> Diagnostic {
        Diagnostic {
            file: self.file.to_owned(),
            position: place.position,
            problem: invalid.problem,
            text: place.text.clone(),
            remedy: invalid.remedy,
        }
    }
}

/// Whether a POSIX shell could set a variable of this name.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// Sorted by file and position. What an alias repeats is said once.
fn in_order(diagnostics: &mut Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut diagnostics = std::mem::take(diagnostics);
    diagnostics.sort_by(|one, other| (&one.file, one.position).cmp(&(&other.file, other.position)));
    diagnostics.dedup();
    diagnostics
}
