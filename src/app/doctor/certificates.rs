//! What the listeners prove themselves with: whether it can be used, how long, and for which name.

use std::{path::Path, time::Duration};

use rustls::{
    CertificateError, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

use super::{About, Finding};
use crate::{
    config::{Config, TlsSection},
    domain::Timestamp,
};

/// Authorities that renew by themselves do so about now.
const SOON: Duration = Duration::from_secs(21 * 24 * 3600);

pub(super) fn examine(config: &Config, now: Timestamp) -> Vec<Finding> {
    let public_host = config.http.public_url.as_ref().and_then(|url| url.host_str());
    let listeners = [("grpc", &config.grpc.tls, None), ("http", &config.http.tls, public_host)];
    listeners.into_iter().map(|(listener, tls, host)| examine_one(listener, tls.as_ref(), host, now)).collect()
}

fn examine_one(listener: &'static str, tls: Option<&TlsSection>, host: Option<&str>, now: Timestamp) -> Finding {
    let about = About::new("certificate", listener);
    let files = match tls {
        None => return about.ok("plaintext, on this machine alone"),
        Some(TlsSection::Off) => {
            let cure = "make sure that something in front encrypts the way, and that nothing else reaches the port";
            return about.warn("plaintext, as configured", cure);
        }
        Some(TlsSection::Files(files)) => files,
    };
    if let Err(error) = files.check() {
        return about.fail(error.to_string(), "do what the message says");
    }
    let path = &files.certificate_file;
    let Some(certificate) = first_of(path) else {
        return about.fail(format!("{} cannot be read again", path.display()), "check the path");
    };
    let Ok(parsed) = ParsedCertificate::try_from(&certificate) else {
        return about.fail(format!("{} is no X.509 certificate", path.display()), "ask the authority for another");
    };
    match time_left(&parsed, now) {
        Validity::NotYet => return about.fail("it is not valid yet", "check the clock, or wait"),
        Validity::Over => return about.fail("it has expired", "put a new one into its place"),
        Validity::Ends(_) | Validity::Lasts => {}
    }
    if let Some(host) = host
        && !ServerName::try_from(host).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    {
        return about.fail(format!("it is not for {host}"), "have one made for the host of http.public_url");
    }
    match time_left(&parsed, now) {
        Validity::Ends(days) => about.warn(format!("it expires in {days} days"), "see that it is renewed"),
        _ => about.ok("valid for more than three weeks"),
    }
}

fn first_of(path: &Path) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).ok()?.next()?.ok()
}

enum Validity {
    NotYet,
    Over,
    /// Within [`SOON`], after so many days.
    Ends(u64),
    Lasts,
}

fn time_left(certificate: &ParsedCertificate<'_>, now: Timestamp) -> Validity {
    let now = u64::try_from(now.as_secs()).unwrap_or(0);
    match time_error(certificate, now) {
        Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => Validity::NotYet,
        Some(_) => Validity::Over,
        None => match time_error(certificate, now + SOON.as_secs()) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => {
                Validity::Ends(not_after.as_secs().saturating_sub(now) / (24 * 3600))
            }
            _ => Validity::Lasts,
        },
    }
}

/// What is wrong with the certificate's time. It is checked before anything else; whom clients trust is theirs to say,
/// so that no authority is given here and none is found.
fn time_error(certificate: &ParsedCertificate<'_>, at: u64) -> Option<CertificateError> {
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let verified = verify_server_cert_signed_by_trust_anchor(certificate, &RootCertStore::empty(), &[], at, algorithms);
    match verified {
        Err(rustls::Error::InvalidCertificate(
            error @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        )) => Some(error),
        _ => None,
    }
}
