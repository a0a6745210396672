//! TLS towards step 2, never without a verified certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::Trust;

/// Why no certificate can be verified.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system has no authorities.
    #[error(
        "this system has no trusted certificates: install them (ca-certificates), or write `pin:` or `ca:` into the profile"
    )]
    NoRoots,
    /// The file of authorities cannot be used.
    #[error("{}: {reason}", path.display())]
    Ca {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The library would not.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What verifies as the profile says.
pub(super) fn config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let crypto = Arc::new(provider::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&crypto)).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
        Trust::Ca(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
        Trust::Pins(pins) => {
            let verifier = Arc::new(Pinned { pins: pins.clone(), crypto });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    // Nothing is resumed: each knock verifies anew.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    // Single ones that cannot be read are left out: fewer are trusted then.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |reason: String| TlsError::Ca { path: path.to_owned(), reason };
    let text = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        store.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if store.is_empty() { Err(failed("there is no certificate in it".to_owned())) } else { Ok(store) }
}

/// Takes a certificate by its hash or by that of its key, whatever name, dates and issuer it has.
#[derive(Debug)]
struct Pinned {
    pins: Vec<[u8; 32]>,
    crypto: Arc<CryptoProvider>,
}

impl Pinned {
    fn knows(&self, bytes: &[u8]) -> bool {
        let hash = digest(&SHA256, bytes);
        self.pins.iter().any(|pin| pin == hash.as_ref())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        if self.knows(end_entity) || self.knows(&parsed.subject_public_key_info()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}
