//! The files that a configuration names: secrets are read, everything else is looked at.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::{Config, Fault, Finding, KeyPath, TlsSection, tls};
use crate::{
    domain::ClientSecret,
    sealing::{private_file, root_key},
};

/// Longer than any provider's secret.
const LONGEST_SECRET: usize = 4096;

/// Makes relative paths begin at `base`: the file means the same wherever the process was started.
pub(super) fn anchor(config: &mut Config, base: &Path) {
    let own = iter::once(&mut config.store.directory).chain(&mut config.sealing.root_keys);
    let secrets = config.providers.iter_mut().filter_map(|provider| provider.client_secret_file.as_mut());
    let sign_in = config.identity.iter_mut().filter_map(|family| family.sign_in.as_mut()?.client_secret_file.as_mut());
    let tls = [&mut config.grpc.tls, &mut config.http.tls].into_iter().flatten().flat_map(TlsSection::paths);
    let roots = config.outbound.extra_roots.as_mut();
    for path in own.chain(secrets).chain(sign_in).chain(tls).chain(roots) {
        // An empty one only stands in for what was reported missing.
        if !path.as_os_str().is_empty() {
            *path = base.join(&*path);
        }
    }
}

/// Reads what the configuration takes from files, and says what serving would stumble over.
pub(super) fn read(config: &mut Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (nth, path) in config.sealing.root_keys.iter().enumerate() {
        if let Err(error) = root_key::file::load(path) {
            let key = KeyPath::of("sealing.root_keys").nth(nth);
            findings.push(Finding::new(key, Fault::File { reason: told(&error) }));
        }
    }
    if config.store.directory.exists() && !config.store.directory.is_dir() {
        let path = config.store.directory.clone();
        findings.push(Finding::new(KeyPath::of("store.directory"), Fault::NotADirectory { path }));
    }
    findings.extend(tls::check_files("grpc", config.grpc.tls.as_ref()));
    findings.extend(tls::check_files("http", config.http.tls.as_ref()));
    findings.extend(secrets(config));
    if let Some(path) = &config.outbound.extra_roots {
        match certificates(path) {
            Ok(pem) => config.outbound.extra_roots_pem = pem,
            Err(fault) => findings.push(Finding::new(KeyPath::of("outbound.extra_roots"), fault)),
        }
    }
    findings
}

fn secrets(config: &mut Config) -> Vec<Finding> {
    let of_providers = config.providers.iter_mut().enumerate().map(|(nth, provider)| {
        let key = KeyPath::in_array("providers", nth, "client_secret_file");
        (key, &provider.client_secret_file, &mut provider.client_secret)
    });
    let of_pages = config.identity.iter_mut().enumerate().filter_map(|(nth, family)| {
        let key = KeyPath::in_array("identity", nth, "sign_in.client_secret_file");
        let sign_in = family.sign_in.as_mut()?;
        Some((key, &sign_in.client_secret_file, &mut sign_in.client_secret))
    });
    let mut findings = Vec::new();
    for (key, file, held) in of_providers.chain(of_pages) {
        let Some(path) = file else { continue };
        match secret(path) {
            Ok(secret) => *held = Some(secret),
            Err(fault) => findings.push(Finding::new(key, fault)),
        }
    }
    findings
}

/// A secret of one line.
fn secret(path: &Path) -> Result<ClientSecret, Fault> {
    let bytes = private_file::read(path, LONGEST_SECRET).map_err(|error| Fault::File { reason: told(&error) })?;
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
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let causes = iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
