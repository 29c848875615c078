//! A text that must never be seen: wiped when dropped, `[redacted]` in `Debug`, and it comes out by
//! [`Secret::expose`] alone, so that every place that reads a secret can be found by one search.

use std::fmt;
use std::io;

use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

/// A secret text, such as a token or a client secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one who seals or sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The JSON of something with secrets in it. Measured first: a buffer that grows leaves copies of them behind
/// that nobody wipes.
pub fn to_json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut length = Length(0);
    write(&mut length, value);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    write(&mut *bytes, value);
    bytes
}

struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[expect(clippy::expect_used, reason = "memory takes all, and our own types all have a form in JSON")]
fn write(to: impl io::Write, value: &impl Serialize) {
    serde_json::to_writer(to, value).expect("it can be written as JSON");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_text() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
    }
}
