//! Randomness as an argument: whoever needs bytes that cannot be guessed is handed a [`Random`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The operating system's random source.
#[derive(Clone, Copy, Debug)]
pub struct Random;

impl Random {
    /// `N` bytes that cannot be guessed.
    ///
    /// # Panics
    /// Where the operating system has no randomness to give; nothing can be done safely then.
    #[expect(clippy::disallowed_methods, clippy::expect_used, reason = "the one place that reads it")]
    pub fn bytes<const N: usize>(self) -> [u8; N] {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
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
