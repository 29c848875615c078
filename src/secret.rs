//! A text that must never be seen: wiped when dropped, `[redacted]` in `Debug`, and it comes out by
//! [`Secret::expose`] alone, so that every place that reads a secret can be found by one search.

use std::fmt;
use std::io;

use bytes::Bytes;
use http::HeaderValue;
use http::header::InvalidHeaderValue;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

/// What stands before a bearer token in `Authorization` (RFC 6750 §2.1).
const BEARER: &str = "Bearer ";

/// A secret text, such as a token or a client secret.
#[derive(Clone)]
pub struct Secret(Text);

/// Where the text lies. Most secrets never go out with requests.
#[derive(Clone)]
enum Text {
    ByItself(Zeroizing<String>),
    /// Behind [`BEARER`], all of which is text. All requests share it, and it is wiped with the last of them.
    AsCredentials(HeaderValue),
}

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Text::ByItself(Zeroizing::new(text.into())))
    }

    /// The same of a token that goes out with many requests. It lies nowhere but in what goes out, for each letter of that
    /// is looked at when it is made, and of many sessions hardly one lies in the processor's caches.
    pub fn bearer(text: impl Into<String>) -> Self {
        let secret = Self::new(text);
        secret.as_credentials(BEARER).map(|value| Self(Text::AsCredentials(value))).unwrap_or(secret)
    }

    /// The text itself, for the one who seals or sends it.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// Whether the text is to be found in this.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let text = self.bytes();
        !text.is_empty() && bytes.windows(text.len()).any(|window| window == text)
    }

    /// The value of `Authorization` that has the text behind a scheme and a space (RFC 9110 §11.6.2).
    pub fn as_credentials(&self, scheme: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        if let Text::AsCredentials(value) = &self.0
            && scheme == BEARER
        {
            return Ok(value.clone());
        }
        let bytes = Zeroizing::new([scheme.as_bytes(), self.bytes()].concat());
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Text::ByItself(text) => text.as_bytes(),
            Text::AsCredentials(value) => value.as_bytes().get(BEARER.len()..).unwrap_or_default(),
        }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
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
        for secret in [Secret::new("hunter2"), Secret::bearer("hunter2")] {
            for scheme in ["Bearer ", "DPoP ", "Bearer "] {
                let credentials = secret.as_credentials(scheme).unwrap();
                assert_eq!(credentials, format!("{scheme}hunter2"));
                assert!(credentials.is_sensitive());
            }
            assert_eq!((secret.expose(), format!("{secret:?}").as_str()), ("hunter2", "[redacted]"));
            assert_eq!(secret, Secret::new("hunter2"));
            assert!(secret.is_in(b"a hunter2!") && !secret.is_in(b"hunter"));
        }
        assert!(!Secret::bearer("").is_in(b"anything"));
    }

    #[test]
    fn what_cannot_go_out_is_a_secret_all_the_same() {
        let secret = Secret::bearer("line\nbreak");
        assert_eq!(secret.expose(), "line\nbreak");
        assert!(secret.as_credentials("Bearer ").is_err());
    }

    #[test]
    fn a_bearer_token_lies_in_one_place_alone() {
        let (secret, lies_at) = (Secret::bearer("hunter2"), |value: &HeaderValue| value.as_bytes().as_ptr());
        let [copy, secret] = [secret.clone(), secret];
        let first = secret.as_credentials("Bearer ").unwrap();
        assert_eq!(lies_at(&first), lies_at(&copy.as_credentials("Bearer ").unwrap()));
        assert_eq!(first.as_bytes()[7..].as_ptr(), secret.expose().as_ptr());
    }
}
