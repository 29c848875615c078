//! What became of each request, and whether a fault of ours was to blame.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long after its end a fault may still be felt: connections that were about to be used.
const AFTERMATH: Duration = Duration::from_secs(2);

/// What is over with one answer that is given at once.
const SHORT: [&str; 2] = ["GET", "POST"];

/// Errors by what they were.
pub type Causes = BTreeMap<String, usize>;

/// Written by all users, read each minute.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    minute: Minute,
    /// Begin and end of the last fault.
    fault: Option<(Instant, Option<Instant>)>,
}

/// What was noted in one minute.
#[derive(Default)]
pub struct Minute {
    /// How often all went as it should.
    pub answered: usize,
    /// How long each of those took that is one request, and whose answer nothing holds up on purpose.
    pub waits: Vec<Duration>,
    pub caused: Causes,
    pub uncaused: Causes,
}

impl Journal {
    /// What was begun then has just come to an end.
    pub fn note(&self, what: &str, begun: Instant, outcome: Result<(), String>) {
        let mut entries = self.0.lock().unwrap();
        match outcome {
            Ok(()) => {
                entries.minute.answered += 1;
                if SHORT.contains(&what) {
                    entries.minute.waits.push(begun.elapsed());
                }
            }
            Err(cause) => {
                let is_caused = entries.fault.is_some_and(|(from, to)| {
                    from <= Instant::now() && to.is_none_or(|to| begun <= to + AFTERMATH)
                });
                let minute = &mut entries.minute;
                let causes = if is_caused { &mut minute.caused } else { &mut minute.uncaused };
                *causes.entry(format!("{what}: {cause}")).or_default() += 1;
            }
        }
    }

    pub fn fault_begins(&self) {
        self.0.lock().unwrap().fault = Some((Instant::now(), None));
    }

    pub fn fault_ends(&self) {
        if let Some((_, end)) = &mut self.0.lock().unwrap().fault {
            *end = Some(Instant::now());
        }
    }

    /// All since this was last asked.
    pub fn take(&self) -> Minute {
        std::mem::take(&mut self.0.lock().unwrap().minute)
    }
}
