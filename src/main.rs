//! The program. Everything it does is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Each request asks for memory a hundred times; see decision 0021.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cloakroom::cli::run()
}
