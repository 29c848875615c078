//! What is read from files, and read again while the gateway runs: certificates and keys that are replaced
//! under it.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::sign::CertifiedKey;

use crate::config::{Identity, IdentityFile, InvalidIdentity, InvalidSigningKey, PrivateKey, SigningKey};

/// Files that may change.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// What they hold.
    type Content: Send + Sync;
    /// Why they hold nothing that can be used.
    type Fault: Error;

    /// Reads them, as they are now.
    ///
    /// # Errors
    /// Where they hold nothing that can be used.
    fn load(&self) -> Result<Self::Content, Self::Fault>;

    /// Whether nothing has changed.
    fn is_same(before: &Self::Content, now: &Self::Content) -> bool;

    /// The file that is to be mended.
    fn at_fault(&self, fault: &Self::Fault) -> Option<&Path>;
}

/// What files held when they were last good.
pub struct Reloaded<F: Files> {
    files: F,
    current: Mutex<Arc<F::Content>>,
    last_fault: Mutex<Option<String>>,
}

/// Reads some files again, each time it is run.
pub struct Reload(Box<dyn Fn() + Send + Sync>);

impl Reload {
    /// Once.
    pub fn run(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reload")
    }
}

impl<F: Files> Reloaded<F> {
    /// Reads the files.
    ///
    /// # Errors
    /// Where they hold nothing that can be used.
    pub fn new(files: F) -> Result<Self, F::Fault> {
        let current = Mutex::new(Arc::new(files.load()?));
        Ok(Self { files, current, last_fault: Mutex::default() })
    }

    /// What they held when they were last good.
    pub fn current(&self) -> Arc<F::Content> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where it is read.
    pub fn files(&self) -> &F {
        &self.files
    }

    /// For those who watch.
    pub fn reload(self: &Arc<Self>) -> Reload {
        let this = Arc::clone(self);
        Reload(Box::new(move || this.read_again()))
    }

    /// Where the files have become wrong, what they held before is used on, and that is said once. They are read
    /// and compared whole: in Kubernetes they are links whose folder is replaced under them.
    pub fn read_again(&self) {
        let read = self.files.load();
        let fault = read.as_ref().err().map(ToString::to_string);
        let last_fault = {
            let mut last = self.last_fault.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, fault.clone())
        };
        match read {
            Ok(now) => {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                if !F::is_same(&current, &now) {
                    *current = Arc::new(now);
                    tracing::info!(event = "files.replaced", files = ?self.files);
                }
            }
            Err(error) if fault != last_fault => {
                let file = self.files.at_fault(&error).map(|path| tracing::field::display(path.display()));
                tracing::error!(event = "files.refused", file, %error, "what they held before is used on");
            }
            Err(_) => {}
        }
    }
}

impl<F: Files> fmt::Debug for Reloaded<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Reloaded({:?})", self.files)
    }
}

impl Files for Identity {
    type Content = CertifiedKey;
    type Fault = InvalidIdentity;

    fn load(&self) -> Result<CertifiedKey, InvalidIdentity> {
        Self::load(self)
    }

    /// A certificate has one key, so that another key comes with another certificate.
    fn is_same(before: &CertifiedKey, now: &CertifiedKey) -> bool {
        before.cert == now.cert
    }

    fn at_fault(&self, fault: &InvalidIdentity) -> Option<&Path> {
        Some(match fault.file {
            IdentityFile::Certificate => &self.certificate,
            IdentityFile::PrivateKey => &self.private_key,
        })
    }
}

impl Files for SigningKey {
    type Content = PrivateKey;
    type Fault = InvalidSigningKey;

    fn load(&self) -> Result<PrivateKey, InvalidSigningKey> {
        Self::load(self)
    }

    fn is_same(before: &PrivateKey, now: &PrivateKey) -> bool {
        before == now
    }

    fn at_fault(&self, _: &InvalidSigningKey) -> Option<&Path> {
        self.file()
    }
}
