//! How web servers are told.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::ways::Teller;

/// From the look-up of its name to the end of its answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Posts each event to a web server.
pub(super) fn webhook<'a>(
    url: &'a str,
    authorization: Option<&'a str>,
    ca_file: Option<&'a Path>,
) -> Teller<'a> {
    let mut agent = None;
    Box::new(move |message| {
        let agent = match &agent {
            Some(agent) => agent,
            // Not before it is needed: a file that is not there yet may be there then.
            None => agent.insert(agent_with(ca_file)?),
        };
        let body = serde_json::to_string(message).map_err(|error| error.to_string())?;
        let mut request = agent.post(url).header("content-type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        // The address may be a secret, which the library's errors could hold.
        match request.send(&body) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("a web server answered {}", answer.status())),
            Err(error) => Err(format!("a web server was not reached: {}", of_webhook(&error))),
        }
    })
}

fn agent_with(ca_file: Option<&Path>) -> Result<Agent, String> {
    let roots: Vec<Certificate<'static>> =
        roots(ca_file)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(PATIENCE))
        // Where it leads is what the operator wrote, not what a server says.
        .max_redirects(0)
        .http_status_as_error(false)
        .proxy(None)
        .build();
    Ok(config.into())
}

/// The authorities of a file, or of the system.
fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(path) = ca_file else { return Ok(rustls_native_certs::load_native_certs().certs) };
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read(path).map_err(|error| failed(&error))?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| failed(&error))
}

/// What went wrong, in words that hold nothing of the request.
fn of_webhook(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(what) => format!("it took too long ({what})"),
        ureq::Error::HostNotFound => "its name was not found".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::TooManyRedirects => "it sends elsewhere".to_owned(),
        _ => "the request failed".to_owned(),
    }
}
