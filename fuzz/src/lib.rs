//! What must hold whatever comes in: one function for each parser that strangers reach, and each is given any
//! bytes at all. They are run with random input by libFuzzer (`fuzz/run`), and on the kept input by the tests.

pub mod authorization_responses;
pub mod challenges;
pub mod client_address;
pub mod configuration;
pub mod cookies;
pub mod headers;
pub mod id_tokens;
pub mod key_sets;
pub mod logout_tokens;
pub mod metadata;
pub mod paths;
pub mod proxy_headers;
pub mod return_to;
pub mod sealed_boxes;
pub mod signed;
pub mod token_answers;

/// A target's name, which is also its folder's in `fuzz/corpus`, and what it does with one input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 15] = [
    ("authorization_responses", authorization_responses::run),
    ("challenges", challenges::run),
    ("client_address", client_address::run),
    ("configuration", configuration::run),
    ("cookies", cookies::run),
    ("headers", headers::run),
    ("id_tokens", id_tokens::run),
    ("key_sets", key_sets::run),
    ("logout_tokens", logout_tokens::run),
    ("metadata", metadata::run),
    ("paths", paths::run),
    ("proxy_headers", proxy_headers::run),
    ("return_to", return_to::run),
    ("sealed_boxes", sealed_boxes::run),
    ("token_answers", token_answers::run),
];
