//! Randomness as an argument: whoever needs bytes that cannot be guessed is handed a [`Random`].

use std::cell::RefCell;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

/// How much a thread asks the operating system for at a time, in bytes: each request needs some for the names
/// it goes by, and a system call for each would cost more than all else that is done with them.
const STOCK: usize = 1024;

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

thread_local! {
    static STOCKED: RefCell<Stock> = RefCell::new(Stock { bytes: Zeroizing::new([0; STOCK]), left: 0 });
}

/// Bytes of the operating system that nobody has been given yet.
struct Stock {
    bytes: Zeroizing<[u8; STOCK]>,
    /// So many from the start on are good.
    left: usize,
}

impl Stock {
    /// What was given out is wiped here: a key must not lie about where nobody knows of it.
    fn take(&mut self, wanted: &mut [u8]) {
        if self.left < wanted.len() {
            fill_anew(&mut *self.bytes);
            self.left = STOCK;
        }
        let given = &mut self.bytes[self.left - wanted.len()..self.left];
        wanted.copy_from_slice(given);
        given.zeroize();
        self.left -= wanted.len();
    }
}

fn fill_from_system(bytes: &mut [u8]) {
    if bytes.len() > STOCK {
        return fill_anew(bytes);
    }
    STOCKED.with_borrow_mut(|stock| stock.take(bytes));
}

#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "the one place that reads it")]
fn fill_anew(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_are_given_out_twice_however_many_are_taken() {
        let mut given = HashSet::new();
        for _ in 0..3 * STOCK {
            assert!(given.insert(Random::SYSTEM.bytes::<16>()));
        }
        assert!(!given.contains(&[0; 16]));
    }

    #[test]
    fn what_was_given_out_is_kept_nowhere() {
        let mut stock = Stock { bytes: Zeroizing::new([0; STOCK]), left: 0 };
        let mut key = [0; 32];
        stock.take(&mut key);
        assert!(stock.bytes.windows(8).all(|kept| !key.windows(8).any(|part| part == kept)));
        assert_eq!(stock.bytes[STOCK - 32..], [0; 32]);
        stock.take(&mut [0; STOCK - 32]);
        assert_eq!((stock.left, *stock.bytes), (0, [0; STOCK]));
    }

    #[test]
    fn more_than_is_kept_in_stock_comes_straight_from_the_system() {
        assert_ne!(Random::SYSTEM.bytes::<{ STOCK + 1 }>()[..16], [0; 16]);
    }
}
