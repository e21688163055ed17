//! TLS of the listeners, with a certificate that can be renewed while they run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How often the files are looked at.
pub(super) const RENEWAL: Duration = Duration::from_secs(30);
/// Bytes of either file.
const MAX_BYTES: u64 = 1 << 20;

/// A server's certificate and its files. Cheap to clone; all clones change together.
#[derive(Clone)]
pub struct Tls(Arc<Renewed>);

struct Renewed {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    changed: Changed,
}

/// When the files were changed.
type Changed = [Option<SystemTime>; 2];

impl Tls {
    /// Reads a certificate and its private key.
    ///
    /// # Errors
    /// When a file cannot be read, or the two do not belong together.
    pub fn open(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let changed = changed(certificate, key);
        let certified = Arc::new(read(certificate, key)?);
        Ok(Self(Arc::new(Renewed {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: Mutex::new(Current { certified, changed }),
        })))
    }

    /// Takes the files if they have changed; says whether they have. What cannot be read leaves the old certificate.
    ///
    /// # Errors
    /// When a file cannot be read, or the two do not belong together: they are looked at again when they change again.
    pub fn renew(&self) -> anyhow::Result<bool> {
        let Renewed { certificate, key, .. } = &*self.0;
        let now = changed(certificate, key);
        if std::mem::replace(&mut self.0.current.lock().changed, now) == now {
            return Ok(false);
        }
        let certified = Arc::new(read(certificate, key)?);
        self.0.current.lock().certified = certified;
        Ok(true)
    }

    /// What listeners need. ALPN, and so HTTP/2, is added by actix.
    pub(super) fn config(&self) -> anyhow::Result<rustls::ServerConfig> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self.0.clone()))
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.lock().certified.clone())
    }
}

/// Without the private key.
impl std::fmt::Debug for Renewed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Renewed({})", self.certificate.display())
    }
}

fn changed(certificate: &Path, key: &Path) -> Changed {
    [certificate, key].map(|path| std::fs::metadata(path).and_then(|about| about.modified()).ok())
}

fn read(certificate: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = text_of(certificate, "tls_certificate")?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .with_context(|| format!("`tls_certificate`: {} is no PEM file", certificate.display()))?;
    if chain.is_empty() {
        bail!(
            "`tls_certificate`: there is no certificate in {}; it begins with -----BEGIN CERTIFICATE-----",
            certificate.display()
        );
    }
    let private = PrivateKeyDer::from_pem_slice(&text_of(key, "tls_key")?).map_err(|_| {
        // The error may quote the file.
        anyhow::anyhow!(
            "`tls_key`: there is no private key in {}; it begins with -----BEGIN PRIVATE KEY----- and has no password",
            key.display()
        )
    })?;
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, private, &provider).with_context(|| {
        format!(
            "the certificate in {} and the key in {} cannot be used together",
            certificate.display(),
            key.display()
        )
    })
}

fn text_of(path: &Path, what: &str) -> anyhow::Result<Vec<u8>> {
    let about = std::fs::metadata(path).with_context(|| format!("`{what}`: cannot read {}", path.display()))?;
    if about.len() > MAX_BYTES {
        bail!("`{what}`: {} is larger than any certificate", path.display());
    }
    std::fs::read(path).with_context(|| format!("`{what}`: cannot read {}", path.display()))
}
