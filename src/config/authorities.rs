//! Certificate authorities of an operator's own.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// More than any bundle has: the system's own has a quarter of it.
const LARGEST: u64 = 1024 * 1024;

/// Certificates of authorities in PEM: one at least, and all of them good.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateAuthorities(Vec<u8>);

/// Why a file is none of certificate authorities.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthorities {
    /// It is not there, or not ours to read.
    #[error("this file of certificates cannot be read ({0})")]
    Unreadable(#[source] io::Error),
    /// It is no bundle.
    #[error("this file of certificates has more than {LARGEST} bytes")]
    TooLarge,
    /// Nothing in it is a certificate in PEM.
    #[error("this file has no certificate in PEM")]
    Empty,
    /// Something in it claims to be one.
    #[error("one of the certificates in this file is damaged")]
    Damaged,
}

impl CertificateAuthorities {
    /// Reads a file in PEM. What it holds besides certificates is passed over.
    ///
    /// # Errors
    /// Where one is not good, or there is none.
    pub fn read(path: &Path) -> Result<Self, InvalidAuthorities> {
        let unreadable = InvalidAuthorities::Unreadable;
        // Before it is opened: to open a named pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(unreadable(io::Error::other("it is not a file")));
        }
        let mut pem = Vec::new();
        File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut pem)).map_err(unreadable)?;
        if pem.len() as u64 > LARGEST {
            return Err(InvalidAuthorities::TooLarge);
        }
        Self::parse(pem)
    }

    fn parse(pem: Vec<u8>) -> Result<Self, InvalidAuthorities> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| InvalidAuthorities::Damaged)?;
            roots.add(certificate).map_err(|_| InvalidAuthorities::Damaged)?;
        }
        if roots.is_empty() { Err(InvalidAuthorities::Empty) } else { Ok(Self(pem)) }
    }

    /// The certificates in PEM.
    pub fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for CertificateAuthorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CertificateAuthorities({} bytes of PEM)", self.0.len())
    }
}
