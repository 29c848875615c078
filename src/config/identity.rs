//! A certificate with its private key: the gateway's own towards browsers, or towards an upstream.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

/// More than any chain of certificates has.
const LARGEST: u64 = 1024 * 1024;

/// Two files in PEM: a certificate with those that lead to its authority, and its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// The certificate's private key; others cannot read it.
    pub private_key: PathBuf,
}

/// Which of the two files of an [`Identity`] is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityFile {
    /// That of the certificates.
    Certificate,
    /// That of the key.
    PrivateKey,
}

/// Why two files are no identity.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidIdentity {
    /// The file that is to be mended.
    pub file: IdentityFile,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("this file cannot be read ({0})")]
    Unreadable(#[source] io::Error),
    #[error("this file has more than {LARGEST} bytes")]
    TooLarge,
    #[error("this private key can be read by others")]
    Exposed,
    #[error("this file has no certificate in PEM")]
    NoCertificate,
    #[error("this file has no private key in PEM")]
    NoKey,
    #[error("this certificate and this private key do not belong together ({0})")]
    Mismatch(#[source] rustls::Error),
}

impl Identity {
    /// Reads both files, as they are now. Symbolic links are followed.
    ///
    /// # Errors
    /// Where one cannot be read or is damaged, the key can be read by others, or the two do not belong together.
    pub fn load(&self) -> Result<CertifiedKey, InvalidIdentity> {
        let invalid = |file| move |problem| InvalidIdentity { file, problem };
        let (of_certificate, of_key) =
            (invalid(IdentityFile::Certificate), invalid(IdentityFile::PrivateKey));
        let pem = read(&self.certificate, false).map_err(of_certificate)?;
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or(Problem::NoCertificate).map_err(of_certificate)?;
        let pem = read(&self.private_key, true).map_err(of_key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| of_key(Problem::NoKey))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| of_key(Problem::Mismatch(error)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.certificate.display())
    }
}

fn read(path: &Path, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // Before it is opened: to open a named pipe would wait for its writer.
    if !fs::metadata(path).map_err(Problem::Unreadable)?.is_file() {
        return Err(Problem::Unreadable(io::Error::other("it is not a file")));
    }
    let file = File::open(path).map_err(Problem::Unreadable)?;
    let mode = file.metadata().map_err(Problem::Unreadable)?.permissions().mode();
    if is_secret && mode & 0o004 != 0 {
        return Err(Problem::Exposed);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Problem::Unreadable)?;
    if bytes.len() as u64 > LARGEST { Err(Problem::TooLarge) } else { Ok(bytes) }
}
