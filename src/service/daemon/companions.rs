//! The files that the daemon reads beside its configuration.

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::DaemonError;
use crate::config::Settings;
use crate::service::certificate::server_config;
use crate::service::link::serving::Pem;
use crate::service::two_factor::{self, Found};
use crate::sys::files;

/// How many keys a line names.
const NAMED: usize = 50;

pub(in crate::service) fn load_two_factor(settings: &Settings) -> Result<Found, DaemonError> {
    let found = two_factor::load(settings).map_err(DaemonError::TwoFactor)?;
    if settings.global.two_factor_folder.is_some() {
        let mut whose = found.whose.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
        if found.whose.len() > NAMED {
            whose.push("...");
        }
        tracing::info!(
            keys = found.whose.len(),
            whose = whose.join(", "),
            "keys that need a one-time code by their files"
        );
    }
    if found.unsure > 0 {
        tracing::info!(
            files = found.unsure,
            "2FA files that are named after none of these keys count for whoever's key is stored as argon2id, once it is used"
        );
    }
    for trouble in found.troubles() {
        tracing::warn!("{trouble}");
    }
    Ok(found)
}

/// A certificate file holds some kilobytes.
const MAX_PEM: u64 = 1 << 20;

/// The certificate and key of step 2, from the files that `run` was told; they can be served.
///
/// # Errors
/// [`DaemonError`] for files that cannot be read or used.
pub fn tls(certificate: &Path, key: &Path) -> Result<Arc<Pem>, DaemonError> {
    let read = |path: &Path| {
        files::read_text(path, MAX_PEM)
            .map(Zeroizing::new)
            .map_err(|source| DaemonError::CertificateFile { path: path.to_owned(), source })
    };
    let (chain_pem, key_pem) = (read(certificate)?, read(key)?);
    server_config(chain_pem.as_bytes(), key_pem.as_bytes()).map_err(|source| DaemonError::Certificate {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })?;
    let key = Zeroizing::new(key_pem.as_bytes().to_vec());
    Ok(Arc::new(Pem { chain: chain_pem.as_bytes().to_vec(), key }))
}
