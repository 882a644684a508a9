//! What a listener proves itself with, and asks of its clients; exchanged without a restart.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustix::{fs::OFlags, process::geteuid};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor};
use zeroize::Zeroizing;

use super::Protocol;

/// More than the authorities of all the world take.
const LONGEST_FILE: u64 = 1 << 20;

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM: our certificate first, then those that lead to its authority.
    #[schemars(example = &"/etc/claviger/tls.crt")]
    pub certificate_file: PathBuf,
    /// PEM, of the certificate's key (PKCS #8, PKCS #1 or SEC 1). Nobody but this process's user, its group and root
    /// may have access.
    #[schemars(example = &"/etc/claviger/tls.key")]
    pub private_key_file: PathBuf,
    /// PEM: authorities that client certificates come from. Without it clients are not asked for one.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client must have one; only with `client_ca_file`, and then `required` if it is left out.
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether a client must have a certificate. One that it shows is verified in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// Whoever has none is refused.
    #[default]
    Required,
    /// Whoever has none comes in all the same.
    Optional,
}

/// The TLS side of one listener.
pub struct Tls {
    files: TlsFiles,
    protocol: Protocol,
    in_force: ArcSwap<ServerConfig>,
}

/// Why certificates are not used, and what cures it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read; check the path and its permissions")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a regular file; name a file")]
    NotAFile { path: PathBuf },
    #[error("{path} is longer than 1 MiB; name the file with the certificates")]
    TooLong { path: PathBuf },
    #[error(
        "the private key {path} belongs to user {owner}, and this process runs as {process}: `chown {process} {path}`"
    )]
    Owner { path: PathBuf, owner: u32, process: u32 },
    #[error("the private key {path} has mode {mode:04o}, so others may use it: `chmod 600 {path}`")]
    Mode { path: PathBuf, mode: u32 },
    #[error("{path} holds no PEM certificate; name a file with BEGIN CERTIFICATE")]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no PEM private key that is not encrypted; name a file with BEGIN PRIVATE KEY")]
    NoKey { path: PathBuf },
    #[error("{certificate} and {key} are no pair that can be used; check that the key is the first certificate's")]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{path} holds a certificate that is no authority's; remove it")]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("{path} holds no authority that client certificates could come from")]
    Authorities { path: PathBuf, source: VerifierBuilderError },
}

impl Tls {
    /// # Errors
    /// A file cannot be read or used.
    pub fn load(files: TlsFiles, protocol: Protocol) -> Result<Self, TlsError> {
        let in_force = ArcSwap::from_pointee(files.read(protocol)?);
        Ok(Self { files, protocol, in_force })
    }

    /// What the files hold now, for [`Self::put_in_force`].
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn read_again(&self) -> Result<ServerConfig, TlsError> {
        self.files.read(self.protocol)
    }

    /// For new connections; those that are open keep what they began with. Sessions of before cannot be resumed, so a
    /// client that the new authorities would refuse does not come in with an old ticket.
    pub fn put_in_force(&self, fresh: ServerConfig) {
        self.in_force.store(Arc::new(fresh));
    }

    pub(super) fn accept(&self, socket: TcpStream) -> Accept<TcpStream> {
        TlsAcceptor::from(self.in_force.load_full()).accept(socket)
    }
}

impl TlsFiles {
    /// # Errors
    /// A file cannot be read or used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.read(Protocol::Http2).map(|_| ())
    }

    fn read(&self, protocol: Protocol) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate_file)?;
        let key = private_key(&self.private_key_file)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair = |source| TlsError::Pair {
            certificate: self.certificate_file.clone(),
            key: self.private_key_file.clone(),
            source,
        };
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]).map_err(pair)?;
        let builder = match &self.client_ca_file {
            Some(path) => builder.with_client_cert_verifier(self.client_verifier(path)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        Ok(config)
    }

    fn client_verifier(&self, path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(path)? {
            let refused = |source| TlsError::Authority { path: path.to_owned(), source };
            authorities.add(certificate).map_err(refused)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
        let builder = match self.client_certificates.unwrap_or_default() {
            ClientCertificates::Required => builder,
            ClientCertificates::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|source| TlsError::Authorities { path: path.to_owned(), source })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (_, text) = read(path)?;
    let none = || TlsError::NoCertificate { path: path.to_owned() };
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(none)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (metadata, text) = read(path)?;
    check(path, &metadata, geteuid().as_raw())?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey { path: path.to_owned() })
}

/// As strict as with the root key, but for what renewal needs: certificates are exchanged through symbolic links, and a
/// secret that an orchestrator mounts belongs to root and to a group. What is opened is what is checked.
fn check(path: &Path, metadata: &Metadata, process: u32) -> Result<(), TlsError> {
    let owner = metadata.uid();
    if owner != process && owner != 0 {
        return Err(TlsError::Owner { path: path.to_owned(), owner, process });
    }
    match metadata.permissions().mode() & 0o7777 {
        mode if mode & 0o037 == 0 => Ok(()),
        mode => Err(TlsError::Mode { path: path.to_owned(), mode }),
    }
}

fn read(path: &Path) -> Result<(Metadata, Zeroizing<Vec<u8>>), TlsError> {
    let failed = |source| TlsError::Io { path: path.to_owned(), source };
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(TlsError::NotAFile { path: path.to_owned() });
    }
    let text = read_all(file, &metadata).map_err(failed)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(TlsError::TooLong { path: path.to_owned() });
    }
    Ok((metadata, text))
}

/// Room for all of it at once: a buffer that grows leaves pieces of the key behind.
fn read_all(file: File, metadata: &Metadata) -> io::Result<Zeroizing<Vec<u8>>> {
    let room = usize::try_from(metadata.len().min(LONGEST_FILE)).unwrap_or(0);
    let mut text = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(LONGEST_FILE + 1).read_to_end(&mut text)?;
    Ok(text)
}
