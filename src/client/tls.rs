//! Whose word counts for a server's certificate, where that is not the web's authorities.
use super::failure::Failure;
use std::fs;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Reads the certificates of a file in PEM; other things in it are passed over.
pub(super) fn certificates(file: &str) -> Result<TlsConfig, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::Usage(format!("--ca-file: {file}: {what}"));
    let pem = fs::read(file).map_err(|error| failed(&error))?;
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| failed(&error))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(failed(&"there is no certificate in it"));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&found)).build())
}
