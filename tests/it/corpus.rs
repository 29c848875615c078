//! The kept corpus of each fuzz target: what once was found, or leads to a corner, holds without a fuzzer too.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
#[allow(missing_docs, missing_debug_implementations, reason = "a program's own parts")]
mod fuzz;

#[test]
fn every_kept_input_of_every_fuzz_target_holds() {
    for (name, run) in fuzz::TARGETS {
        let folder = Path::new("fuzz/corpus").join(name);
        let mut count = 0;
        for input in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = input.unwrap().path();
            let data = fs::read(&path).unwrap();
            let held = std::panic::catch_unwind(|| run(&data));
            assert!(held.is_ok(), "{} breaks a rule of its target", path.display());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
