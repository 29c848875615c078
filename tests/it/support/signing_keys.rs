//! Private keys that sign, made by openssl, and what checks their signatures.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A private key in PEM, of `openssl genpkey` with these arguments.
pub fn private_key(arguments: &str) -> String {
    openssl(&format!("genpkey {arguments}"), "")
}

pub const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
pub const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
pub const ED25519: &str = "-algorithm ED25519";

/// What openssl makes of its input.
pub fn openssl(arguments: &str, input: &str) -> String {
    piped(Command::new("openssl").args(arguments.split_whitespace()), input)
}

/// The private JWK of a key in PEM.
pub fn jwk(pem: &str) -> Value {
    export("createPrivateKey", pem)
}

/// The public JWK of a private key in PEM.
pub fn public_jwk(pem: &str) -> Value {
    export("createPublicKey", pem)
}

fn export(create: &str, pem: &str) -> Value {
    let script = format!(
        "const pem = require('fs').readFileSync(0); \
         console.log(JSON.stringify(require('crypto').{create}(pem).export({{ format: 'jwk' }})))"
    );
    serde_json::from_str(&piped(Command::new("node").args(["-e", &script]), pem)).expect("a JWK")
}

fn piped(command: &mut Command, input: &str) -> String {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl and node, which tests/run installs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
