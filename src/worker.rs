//! Which of the threads that serve connections this one is, so that what a thread often uses can be its own.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread, counted from 0; where threads of their own serve, the gateway's first one comes
/// behind them.
pub fn current() -> usize {
    CURRENT.get()
}

/// Gives this thread its number.
pub fn enter(number: usize) {
    CURRENT.set(number);
}
