//! All targets in one program, which is linked once: the environment says which of them is to run.

#![no_main]

use std::sync::LazyLock;

use cloakroom_fuzz::{TARGETS, Target};

static CHOSEN: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names = TARGETS.map(|(name, _)| name).join(", ");
    let chosen = TARGETS.into_iter().find(|(own, _)| *own == name);
    chosen.unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, not one of {names}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.1(data));
