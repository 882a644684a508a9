//! How a listener is encrypted, or that it is not to be.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, de};

use super::Problem;
use crate::listener::TlsFiles;

/// `"off"`, or where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSection {
    /// Something in front encrypts the way, and the operator says so.
    Off,
    Files(TlsFiles),
}

impl<'de> Deserialize<'de> for TlsSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OffOrFiles)
    }
}

/// By hand, so that a wrong key in the table is named: an untagged enum would say that nothing fits.
struct OffOrFiles;

impl<'de> de::Visitor<'de> for OffOrFiles {
    type Value = TlsSection;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"off\", or a table with certificate_file and private_key_file")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TlsSection, E> {
        if text == "off" { Ok(TlsSection::Off) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, table: A) -> Result<TlsSection, A::Error> {
        TlsFiles::deserialize(de::value::MapAccessDeserializer::new(table)).map(TlsSection::Files)
    }
}

/// What is wrong with one listener's encryption.
pub(super) fn check(section: &'static str, listen: SocketAddr, tls: Option<&TlsSection>) -> Option<Problem> {
    match tls {
        None if listen.ip().to_canonical().is_loopback() => None,
        None => Some(Problem::Plaintext { section, listen }),
        Some(TlsSection::Off) => None,
        Some(TlsSection::Files(files)) if files.client_ca_file.is_none() && files.client_certificates.is_some() => {
            Some(Problem::NoClientAuthority { section })
        }
        Some(TlsSection::Files(files)) => {
            files.check().err().map(|problem| Problem::Tls { section, problem: problem.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::GrpcSection, listener::ClientCertificates};

    fn parse(text: &str) -> Result<GrpcSection, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    fn problem(text: &str) -> Option<Problem> {
        let section = parse(text).unwrap();
        check("grpc", section.listen, section.tls.as_ref())
    }

    #[test]
    fn plaintext_beyond_this_machine_must_be_asked_for() {
        for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1"] {
            let told = problem(&format!("listen = \"{listen}\"")).unwrap();
            assert!(matches!(told, Problem::Plaintext { section: "grpc", .. }), "{listen}");
            assert!(told.to_string().contains("grpc.tls") && told.to_string().contains("\"off\""), "{told}");
            assert_eq!(problem(&format!("listen = \"{listen}\"\ntls = \"off\"")), None, "{listen}");
        }
        for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(problem(&format!("listen = \"{listen}\"")), None, "{listen}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_a_problem_of_its_section() {
        let told =
            problem("tls = { certificate_file = \"/nowhere/tls.crt\", private_key_file = \"/nowhere/tls.key\" }");
        assert!(
            matches!(&told, Some(Problem::Tls { section: "grpc", problem }) if problem.contains("/nowhere/tls.crt"))
        );
    }

    #[test]
    fn clients_cannot_be_asked_for_certificates_of_nobody() {
        let files = "certificate_file = \"a\", private_key_file = \"b\", client_certificates = \"optional\"";
        assert_eq!(problem(&format!("tls = {{ {files} }}")), Some(Problem::NoClientAuthority { section: "grpc" }));
    }

    #[test]
    fn what_is_neither_off_nor_files_is_refused_by_its_name() {
        let files = "certificate_file = \"a\", private_key_file = \"b\"";
        let Some(TlsSection::Files(read)) =
            parse(&format!("tls = {{ {files}, client_ca_file = \"c\", client_certificates = \"required\" }}"))
                .unwrap()
                .tls
        else {
            unreachable!("files were given")
        };
        assert_eq!(read.client_certificates, Some(ClientCertificates::Required));
        for (wrong, named) in [
            ("tls = \"on\"".to_owned(), "certificate_file"),
            ("tls = false".to_owned(), "off"),
            (format!("tls = {{ {files}, client_ca = \"c\" }}"), "client_ca"),
            ("tls = { certificate_file = \"a\" }".to_owned(), "private_key_file"),
        ] {
            let refused = parse(&wrong).err().unwrap();
            assert!(refused.contains(named), "{wrong}: {refused}");
        }
    }
}
