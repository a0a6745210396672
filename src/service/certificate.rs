//! The certificate of step 2: read from PEM, or made.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use zeroize::Zeroizing;

const MAX_DAYS: u32 = 3_650;

/// Why step 2 cannot be served with a certificate and key; never shows the key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No certificate in the chain file.
    #[error(
        "no certificate in the certificate file: it needs a block that begins with -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate,
    /// A block of the chain file cannot be read.
    #[error("the certificate file is not PEM: a block in it is cut off or not base64")]
    BrokenPem,
    /// No private key in the key file.
    #[error("no private key in the key file: it needs a block that begins with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// The key needs a pass phrase.
    #[error("the private key is encrypted: decrypt it with `openssl pkey -in KEY -out KEY.plain`")]
    EncryptedKey,
    /// A key of a kind that TLS servers have no use for.
    #[error(
        "the private key cannot be used: make it ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more"
    )]
    UnusableKey(#[source] rustls::Error),
    /// The key belongs to a later certificate of the chain.
    #[error(
        "the certificates are in the wrong order: that of the server goes first, then those that signed it"
    )]
    WrongOrder,
    /// The key belongs to none of the certificates.
    #[error("the private key does not belong to the certificate: give the two files that were made together")]
    Mismatch,
    /// The certificate cannot be served for another reason.
    #[error("the certificate cannot be used: make a new one with `knock-agent cert`")]
    Unusable(#[source] rustls::Error),
    /// No name to make a certificate for.
    #[error("a certificate needs at least one name or address")]
    NoName,
    /// A name that no certificate can carry.
    #[error("a certificate cannot carry one of these names: write host names in ASCII, or addresses")]
    Name(#[source] rcgen::Error),
    /// Zero days, or more than ten years.
    #[error("{0} days are outside 1 to 3650")]
    Days(u32),
    /// Making the key or certificate failed.
    #[error("the certificate could not be made")]
    Making(#[source] rcgen::Error),
}

/// What `TLS 1.3 and 1.2, HTTP/1.1` needs, from the texts of a chain file and a key file.
///
/// # Errors
/// [`CertificateError`] says what is wrong with which file.
pub fn server_config(chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CertificateError::BrokenPem)?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    let key = private_key(key_pem)?;
    check_belongs(&chain, &key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(CertificateError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(CertificateError::Unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A knock is one request: nobody resumes, and nothing is remembered of anybody.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let encrypted: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| pem.windows(mark.len()).any(|text| text == *mark)) {
        return Err(CertificateError::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| CertificateError::NoKey)
}

fn check_belongs(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), CertificateError> {
    let signer = any_supported_type(key).map_err(CertificateError::UnusableKey)?;
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&signer)).keys_match()
    };
    let mut rest = chain.iter();
    match rest.next().map(belongs) {
        None => Err(CertificateError::NoCertificate),
        Some(Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown))) => Ok(()),
        Some(Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch))) => {
            let later = rest.any(|certificate| belongs(certificate).is_ok());
            Err(if later { CertificateError::WrongOrder } else { CertificateError::Mismatch })
        }
        Some(Err(error)) => Err(CertificateError::Unusable(error)),
    }
}

/// A certificate and its key, both PEM; the key is wiped when dropped.
pub struct SelfSigned {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: Zeroizing<String>,
}

/// The SHA-256 of the public key of the first certificate in a PEM text, as curl's `--pinnedpubkey` writes it.
///
/// # Errors
/// [`CertificateError`] where there is no certificate in it.
#[cfg(feature = "client")]
pub fn pin(chain_pem: &[u8]) -> Result<String, CertificateError> {
    let first = CertificateDer::pem_slice_iter(chain_pem).next().ok_or(CertificateError::NoCertificate)?;
    let first = first.map_err(|_| CertificateError::BrokenPem)?;
    let parsed = webpki::EndEntityCert::try_from(&first).map_err(|_| CertificateError::BrokenPem)?;
    let hash = ring::digest::digest(&ring::digest::SHA256, &parsed.subject_public_key_info());
    Ok(format!("sha256//{}", base64(hash.as_ref())))
}

/// Base64 with padding (RFC 4648).
#[cfg(feature = "client")]
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let number =
            three.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let six = usize::try_from(number >> (18 - 6 * place) & 63).unwrap_or_default();
            let letter = LETTERS.get(six).copied().unwrap_or(b'A');
            out.push(if place <= three.len() { letter.into() } else { '=' });
        }
    }
    out
}

/// Makes a self-signed ECDSA P-256 certificate for host names and addresses, valid from an hour before `now` for
/// `days` days, 1 to 3650.
///
/// # Errors
/// [`CertificateError`] for names or days that cannot be.
pub fn self_signed(names: &[String], days: u32, now: SystemTime) -> Result<SelfSigned, CertificateError> {
    let first = names.first().ok_or(CertificateError::NoName)?;
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(CertificateError::Days(days));
    }
    let mut params = CertificateParams::new(names).map_err(CertificateError::Name)?;
    params.distinguished_name.push(DnType::CommonName, first.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A client's clock may be a little behind.
    params.not_before = (now - Duration::from_secs(3_600)).into();
    params.not_after = (now + Duration::from_secs(86_400) * days).into();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CertificateError::Making)?;
    let certificate = params.self_signed(&key).map_err(CertificateError::Making)?;
    Ok(SelfSigned { certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str) -> SelfSigned {
        self_signed(
            &[name.to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()],
            30,
            SystemTime::now(),
        )
        .unwrap()
    }

    #[cfg(feature = "client")]
    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, wanted) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    fn problem(chain: &str, key: &str) -> CertificateError {
        server_config(chain.as_bytes(), key.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_made_can_be_served() {
        let made = made("gate.example");
        assert!(made.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(made.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
        let config = server_config(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    }

    #[test]
    fn one_file_may_hold_both_and_a_chain_may_follow() {
        let (leaf, issuer) = (made("leaf.example"), made("issuer.example"));
        let both = format!("{}{}{}", *leaf.key_pem, leaf.certificate_pem, issuer.certificate_pem);
        assert!(server_config(both.as_bytes(), both.as_bytes()).is_ok());
    }

    #[test]
    fn each_wrong_pair_of_files_has_its_own_message() {
        use CertificateError::*;
        let (one, two) = (made("one.example"), made("two.example"));
        let (cert, key) = (one.certificate_pem.as_str(), one.key_pem.as_str());
        assert!(matches!(problem("", key), NoCertificate));
        assert!(matches!(problem(key, key), NoCertificate));
        assert!(matches!(problem(&cert[..cert.len() - 40], key), BrokenPem));
        assert!(matches!(problem(&cert.replace('M', "*"), key), BrokenPem));
        assert!(matches!(problem(cert, ""), NoKey));
        assert!(matches!(problem(cert, cert), NoKey));
        let encrypted = key.replace(" PRIVATE", " ENCRYPTED PRIVATE");
        assert!(matches!(problem(cert, &encrypted), EncryptedKey));
        assert!(matches!(problem(cert, &two.key_pem), Mismatch));
        let turned = format!("{}{cert}", two.certificate_pem);
        assert!(matches!(problem(&turned, key), WrongOrder));
        let rubbish = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(problem(cert, rubbish), UnusableKey(_)));
    }

    #[test]
    fn messages_do_not_show_the_key() {
        let (one, two) = (made("one.example"), made("two.example"));
        let error = problem(&one.certificate_pem, &two.key_pem);
        let shown = format!("{error} {error:?}");
        let line = two.key_pem.lines().nth(1).unwrap();
        assert!(!shown.contains(line));
    }

    #[test]
    fn names_and_days_that_cannot_be_are_refused() {
        let now = SystemTime::now();
        let make = |names: &[&str], days| {
            self_signed(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>(), days, now).err()
        };
        assert!(matches!(make(&[], 30), Some(CertificateError::NoName)));
        assert!(matches!(make(&["gäte"], 30), Some(CertificateError::Name(_))));
        assert!(matches!(make(&["gate"], 0), Some(CertificateError::Days(0))));
        assert!(matches!(make(&["gate"], 3_651), Some(CertificateError::Days(3_651))));
        assert!(make(&["gate"], 3_650).is_none());
    }
}
