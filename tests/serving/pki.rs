//! Certificates as an operator has them made.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use claviger::listener::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The name, besides `localhost` and `127.0.0.1`, that servers are certified under.
pub(crate) const NAME: &str = "broker.internal";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// PEM.
pub(crate) struct Certified {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn server(&self) -> Certified {
        self.certify(&["localhost", "127.0.0.1", NAME], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self) -> Certified {
        self.certify(&["agent"], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn certify(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Certified {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Certified { chain: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

impl Certified {
    /// Into the place where [`files`] says it is.
    pub(crate) fn write(&self, directory: &Path) {
        let files = files(directory);
        fs::write(&files.certificate_file, &self.chain).unwrap();
        write_key(&files.private_key_file, &self.key);
    }
}

pub(crate) fn write_key(path: &Path, pem: &str) {
    fs::write(path, pem).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn files(directory: &Path) -> TlsFiles {
    TlsFiles {
        certificate_file: directory.join("tls.crt"),
        private_key_file: directory.join("tls.key"),
        client_ca_file: None,
        client_certificates: None,
    }
}

/// A client that trusts `authority` alone, for what no proper client would do.
pub(crate) struct Handshake {
    pub(crate) trusts: String,
    pub(crate) alpn: &'static [u8],
    pub(crate) version: &'static SupportedProtocolVersion,
    pub(crate) shows: Option<Certified>,
}

impl Handshake {
    pub(crate) fn of(authority: &Authority) -> Self {
        Self { trusts: authority.pem(), alpn: b"h2", version: &TLS13, shows: None }
    }

    pub(crate) fn in_tls12(self) -> Self {
        Self { version: &TLS12, ..self }
    }

    pub(crate) async fn over(&self, socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusts.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.shows {
            Some(Certified { chain, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }
}

pub(crate) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}
