//! A text that must never be seen: wiped when dropped, `[redacted]` in `Debug`, and it comes out by
//! [`Secret::expose`] alone, so that every place that reads a secret can be found by one search.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

/// A secret text, such as a token or a client secret.
#[derive(Clone)]
pub struct Secret {
    text: Zeroizing<String>,
    /// As it goes out with requests, where it has. Most secrets never do.
    credentials: OnceLock<Box<HeaderValue>>,
}

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: Zeroizing::new(text.into()), credentials: OnceLock::new() }
    }

    /// The text itself, for the one who seals or sends it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The value of `Authorization` that has the text behind a scheme and a space (RFC 9110 §11.6.2). It is made with the
    /// first request and kept, for each letter of it is looked at then. All requests share it, and it is wiped with the
    /// last of them.
    pub fn as_credentials(&self, scheme: &'static str) -> Result<HeaderValue, InvalidHeaderValue> {
        let made = self.credentials.get().filter(|made| made.as_bytes().starts_with(scheme.as_bytes()));
        if let Some(made) = made {
            return Ok(HeaderValue::clone(made));
        }
        let bytes = Zeroizing::new([scheme, &self.text].concat().into_bytes());
        let mut made = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes))?;
        made.set_sensitive(true);
        let _ = self.credentials.set(Box::new(made.clone()));
        Ok(made)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

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

    #[test]
    fn credentials_are_of_the_scheme_that_is_asked_for_and_as_secret_as_the_text() {
        let secret = Secret::new("hunter2");
        for scheme in ["Bearer ", "DPoP ", "Bearer "] {
            let credentials = secret.as_credentials(scheme).unwrap();
            assert_eq!(credentials, format!("{scheme}hunter2"));
            assert!(credentials.is_sensitive());
        }
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret, Secret::new("hunter2"));
        assert!(Secret::new("line\nbreak").as_credentials("Bearer ").is_err());
    }
}
