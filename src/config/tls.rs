//! How a listener is encrypted, or that it is not to be.

use std::{borrow::Cow, net::SocketAddr, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::files::told;
use super::{Fault, Finding, KeyPath};
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

impl JsonSchema for TlsSection {
    fn schema_name() -> Cow<'static, str> {
        "TlsSection".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let off = json_schema!({ "const": "off", "description": "Something in front encrypts the way." });
        json_schema!({ "oneOf": [off, generator.subschema_for::<TlsFiles>()] })
    }
}

/// Only the default is ever written, and that is none.
impl Serialize for TlsSection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("off")
    }
}

impl TlsSection {
    /// The files that it names.
    pub(super) fn paths(&mut self) -> Vec<&mut PathBuf> {
        let Self::Files(files) = self else { return Vec::new() };
        let own = [&mut files.certificate_file, &mut files.private_key_file];
        own.into_iter().chain(files.client_ca_file.as_mut()).collect()
    }
}

/// What is wrong with one listener's encryption; whether its files can be used is not looked at.
pub(super) fn check(section: &str, listen: SocketAddr, tls: Option<&TlsSection>) -> Option<Finding> {
    let key = |name| KeyPath::of(section).join(name);
    match tls {
        None if listen.ip().to_canonical().is_loopback() => None,
        None => Some(Finding::new(key("listen"), Fault::Plaintext)),
        Some(TlsSection::Files(files)) if files.client_ca_file.is_none() && files.client_certificates.is_some() => {
            Some(Finding::new(key("tls.client_certificates"), Fault::NoClientAuthority))
        }
        Some(_) => None,
    }
}

/// Whether its files can be used.
pub(super) fn check_files(section: &str, tls: Option<&TlsSection>) -> Option<Finding> {
    let Some(TlsSection::Files(files)) = tls else { return None };
    let error = files.check().err()?;
    Some(Finding::new(KeyPath::of(section).join("tls"), Fault::File(told(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::GrpcSection, listener::ClientCertificates};

    fn parse(text: &str) -> Result<GrpcSection, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    fn problem(text: &str) -> Option<Fault> {
        let section = parse(text).unwrap();
        let tls = section.tls.as_ref();
        check("grpc", section.listen, tls).or(check_files("grpc", tls)).map(|finding| finding.fault)
    }

    #[test]
    fn plaintext_beyond_this_machine_must_be_asked_for() {
        for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "[2001:db8::1]:1"] {
            let told = problem(&format!("listen = \"{listen}\"")).unwrap();
            assert_eq!(told, Fault::Plaintext, "{listen}");
            assert!(
                told.to_string().contains("tls a certificate_file") && told.to_string().contains("\"off\""),
                "{told}"
            );
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
        assert!(matches!(&told, Some(Fault::File(problem)) if problem.contains("/nowhere/tls.crt")));
    }

    #[test]
    fn clients_cannot_be_asked_for_certificates_of_nobody() {
        let files = "certificate_file = \"a\", private_key_file = \"b\", client_certificates = \"optional\"";
        assert_eq!(problem(&format!("tls = {{ {files} }}")), Some(Fault::NoClientAuthority));
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
