//! An authority of a test's own, and certificates of it, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A certificate authority that nobody knows but who is told of it.
#[derive(Debug)]
pub struct Authority(TempDir);

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self(TempDir::new().expect("a temporary folder"));
        let name =
            authority.0.path().file_name().expect("a folder's name").to_str().expect("a name in UTF-8");
        authority
            .openssl(&format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -subj /CN={name} -days 7"));
        authority
    }

    /// What its certificates are verified with.
    pub fn pem(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// A certificate for these names, such as `IP:127.0.0.1`, for some days from yesterday on.
    pub fn issue(&self, name: &str, alternative_names: &str, days: i32) -> Certificate {
        let extensions =
            format!("subjectAltName={alternative_names}\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(self.path(&format!("{name}.ext")), extensions).expect("a file in the temporary folder");
        self.openssl(&format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} \
             -extfile {name}.ext -out {name}.pem"
        ));
        let file = |kind| self.path(&format!("{name}.{kind}"));
        Certificate { certificate: file("pem"), key: file("key") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let command = command.args(arguments.split_whitespace()).current_dir(self.0.path());
        let output = command.output().expect("openssl, which tests/run installs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Certificate {
    /// What makes a Redis speak TLS on this port.
    pub fn options(&self, authority: &Path, port: u16) -> Vec<String> {
        let (certificate, key) = (self.certificate.to_str().unwrap(), self.key.to_str().unwrap());
        let port = port.to_string();
        let mut options = vec!["--tls-port", &port, "--tls-auth-clients", "no"];
        options.extend(["--tls-ca-cert-file", authority.to_str().unwrap()]);
        options.extend(["--tls-cert-file", certificate, "--tls-key-file", key]);
        options.into_iter().map(str::to_owned).collect()
    }
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
