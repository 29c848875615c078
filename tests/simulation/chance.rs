//! Seeded randomness: SplitMix64, which gives the same numbers on every machine.

use std::cell::Cell;
use std::time::Duration;

use cloakroom::random::Random;

thread_local! {
    static OF_THE_GATEWAYS: Cell<u64> = const { Cell::new(0) };
}

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring schedules.
        Self(next(&mut seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// A number below this one.
    pub fn below(&mut self, bound: u64) -> u64 {
        next(&mut self.0) % bound.max(1)
    }

    /// A number from the first to the last.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// `true` so many times in a thousand.
    pub fn happens(&mut self, in_a_thousand: u64) -> bool {
        self.below(1000) < in_a_thousand
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    pub fn millis(&mut self, range: (u64, u64)) -> Duration {
        Duration::from_millis(self.between(range.0, range.1))
    }
}

/// What the gateways of this thread take for randomness, from this seed on.
pub fn random_of_the_gateways(seed: u64) -> Random {
    OF_THE_GATEWAYS.set(seed ^ 0x5bd1_e995);
    Random::from_source(|bytes| {
        let mut state = OF_THE_GATEWAYS.get();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&next(&mut state).to_le_bytes()[..chunk.len()]);
        }
        OF_THE_GATEWAYS.set(state);
    })
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
