//! The files that a configuration names: secrets are read, everything else is looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{Config, Fault, Finding, KeyPath};
use crate::{
    domain::ClientSecret,
    sealing::{private_file, root_key},
};

/// Longer than any provider's secret.
const LONGEST_SECRET: usize = 4096;

/// Makes relative paths begin at `base`: the file means the same wherever the process was started.
pub(super) fn anchor(config: &mut Config, base: &Path) {
    let own = [&mut config.store.directory, &mut config.sealing.root_key];
    let secrets = config.providers.iter_mut().filter_map(|provider| provider.client_secret_file.as_mut());
    for path in own.into_iter().chain(secrets).chain(config.outbound.extra_roots.as_mut()) {
        // An empty one only stands in for what was reported missing.
        if !path.as_os_str().is_empty() {
            *path = base.join(&*path);
        }
    }
}

/// Reads what the configuration takes from files, and says what serving would stumble over.
pub(super) fn read(config: &mut Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = root_key::file::load(&config.sealing.root_key) {
        findings.push(Finding::new(KeyPath::of("sealing.root_key"), Fault::RootKey(told(&error))));
    }
    if config.store.directory.exists() && !config.store.directory.is_dir() {
        let path = config.store.directory.clone();
        findings.push(Finding::new(KeyPath::of("store.directory"), Fault::NotADirectory { path }));
    }
    for (nth, provider) in config.providers.iter_mut().enumerate() {
        let Some(path) = &provider.client_secret_file else { continue };
        match secret(path) {
            Ok(secret) => provider.client_secret = Some(secret),
            Err(fault) => {
                findings.push(Finding::new(KeyPath::in_array("providers", nth, "client_secret_file"), fault));
            }
        }
    }
    if let Some(path) = &config.outbound.extra_roots {
        match certificates(path) {
            Ok(pem) => config.outbound.extra_roots_pem = pem,
            Err(fault) => findings.push(Finding::new(KeyPath::of("outbound.extra_roots"), fault)),
        }
    }
    findings
}

/// A secret of one line.
fn secret(path: &Path) -> Result<ClientSecret, Fault> {
    let bytes = private_file::read(path, LONGEST_SECRET).map_err(|error| Fault::PrivateFile(told(&error)))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let visible = !line.is_empty() && line.iter().all(u8::is_ascii_graphic);
    let text = Zeroizing::new(line.to_vec());
    match str::from_utf8(&text) {
        Ok(text) if visible => Ok(ClientSecret::new(text.to_owned())),
        _ => Err(Fault::NotASecret { path: path.to_owned() }),
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<u8>, Fault> {
    let pem = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let mut found = CertificateDer::pem_slice_iter(&pem).peekable();
    if found.peek().is_none() || found.any(|certificate| certificate.is_err()) {
        return Err(Fault::NoCertificates { path: path.clone() });
    }
    Ok(pem)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::FileUnreadable { path: path.to_owned(), reason: error.kind().to_string() }
}

/// The error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
