//! Randomness as an argument: whoever needs bytes that cannot be guessed is handed a [`Random`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A source of random bytes.
#[derive(Clone, Copy)]
pub struct Random {
    fill: fn(&mut [u8]),
}

impl Random {
    /// The operating system's source.
    pub const SYSTEM: Self = Self { fill: fill_from_system };

    /// Another source, which fills what it is given: for a simulation that is to be repeated exactly.
    pub const fn from_source(fill: fn(&mut [u8])) -> Self {
        Self { fill }
    }

    /// `N` bytes that cannot be guessed.
    ///
    /// # Panics
    /// Where the operating system has no randomness to give; nothing can be done safely then.
    pub fn bytes<const N: usize>(self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.fill)(&mut bytes);
        bytes
    }

    /// A text of `N` random bytes in base64url without padding, for `state`, `nonce` and the like.
    pub fn token<const N: usize>(self) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes::<N>())
    }

    /// A number from 0 up to, but without, 1: for jitter.
    pub fn fraction(self) -> f64 {
        f64::from(u32::from_le_bytes(self.bytes())) / (f64::from(u32::MAX) + 1.0)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Random")
    }
}

#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "the one place that reads it")]
fn fill_from_system(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}
