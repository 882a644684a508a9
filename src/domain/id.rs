//! Identifiers as types: names that an operator chose, and random ids that the broker made.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not an identifier of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
pub struct InvalidId {
    pub kind: &'static str,
}

/// Declares a name: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit. Clones share the text: every call and
/// every audit record carries several.
macro_rules! name_id {
    ($($(#[$doc:meta])* $name:ident = $kind:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(InvalidId { kind: $kind }) }
            }
        }

        text_form!($name);
    )+};
}

/// Declares an id of `$len` bytes that prints as prefix and lower-case hex.
macro_rules! byte_id {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $prefix:literal, $len:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { kind: $kind };
                let hex = text.strip_prefix($prefix).ok_or(invalid)?;
                let mut bytes = [0; $len];
                if hex.len() != 2 * $len {
                    return Err(invalid);
                }
                for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
                    *byte = (nibble(pair[0]).ok_or(invalid)? << 4) | nibble(pair[1]).ok_or(invalid)?;
                }
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; $prefix.len() + 2 * $len];
                let (prefix, hex) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
                    pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
                }
                f.write_str(std::str::from_utf8(&text).expect("prefix and hex are ASCII"))
            }
        }

        serde_as_text!($name);
    )+};
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        serde_as_text!($name);
    };
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_id! {
    /// A customer of the installation; every record belongs to one.
    TenantId = "tenant",
    /// A tool, MCP server or API that an agent calls.
    PluginId = "plugin",
    /// An authorization server together with our client registration there.
    ProviderId = "provider",
    /// A group of issuers of one identity system (Entra v1 and v2 are one).
    FamilyId = "issuer family",
}

byte_id! {
    /// One person or workload in one tenant: a keyed hash, so it names nobody without the installation's key.
    SubjectId = "subject", "sub_", 32,
    /// A user's connected account at a provider.
    ConnectionId = "connection id", "con_", 16,
    /// The secrets of a connection; clients see it in tokens' answers and on the stream.
    CredentialId = "credential id", "crd_", 16,
    /// An authorization that was asked for and may still be finished.
    FlowId = "flow id", "flw_", 16,
    /// A durable follow-up job.
    JobId = "job id", "job_", 16,
    /// A sealing key.
    KeyId = "key id", "key_", 16,
    /// One audit record or event before it has its number.
    EntryId = "entry id", "ent_", 16,
    /// This store, from its creation on; a copy restored elsewhere keeps it.
    InstallationId = "installation id", "ins_", 16,
}

/// The agent as the platform's token names it (`azp`, `appid` or `act`): opaque text of 1 to 256 visible characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(Arc<str>);

/// Where a token is put to use, as the holder names itself: a container, a process. Opaque text of 1 to 128 visible ASCII
/// characters that stays the same from start to start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId(Arc<str>);

/// Names one call in logs, audit and errors: the caller's `x-request-id`, or one we made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl AgentId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HolderId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RequestId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if is_visible(text, 256) { Ok(Self(text.into())) } else { Err(InvalidId { kind: "agent" }) }
    }
}

impl FromStr for HolderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if is_visible(text, 128) { Ok(Self(text.into())) } else { Err(InvalidId { kind: "holder" }) }
    }
}

impl FromStr for RequestId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if is_visible(text, 128) { Ok(Self(text.into())) } else { Err(InvalidId { kind: "request id" }) }
    }
}

text_form!(AgentId);
text_form!(HolderId);
text_form!(RequestId);

fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(legal) && text.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_visible(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

const fn digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[nibble as usize]
}

fn nibble(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_read_back_from_text_and_json(bytes: [u8; 16], wide: [u8; 32]) {
            let (connection, subject) = (ConnectionId::from_bytes(bytes), SubjectId::from_bytes(wide));
            prop_assert_eq!(connection.to_string().parse(), Ok(connection));
            prop_assert_eq!(subject.to_string().parse(), Ok(subject));
            let json = serde_json::to_string(&(connection, subject)).unwrap();
            prop_assert_eq!(serde_json::from_str::<(ConnectionId, SubjectId)>(&json).unwrap(), (connection, subject));
        }

        #[test]
        fn names_are_kept_as_they_are_written(text in "[a-z0-9][a-z0-9._-]{0,63}") {
            let name: TenantId = text.parse().unwrap();
            prop_assert_eq!(name.as_str(), &text);
            prop_assert_eq!(serde_json::to_value(&name).unwrap(), text.as_str());
            prop_assert_eq!(serde_json::from_value::<TenantId>(text.into()).unwrap(), name);
        }

        #[test]
        fn arbitrary_text_is_a_name_only_if_it_is_spelt_like_one(text in any::<String>()) {
            let spelt = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
            let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            prop_assert_eq!(text.parse::<PluginId>().is_ok(), first && text.len() <= 64 && text.chars().all(spelt));
        }
    }

    #[test]
    fn illegal_names_are_refused() {
        let long = "a".repeat(65);
        for text in ["", "Acme", "-acme", ".acme", "_acme", "a/b", "a b", "a:b", "å", "acme\n", long.as_str()] {
            assert!(text.parse::<ProviderId>().is_err(), "{text}");
            assert!(serde_json::from_value::<ProviderId>(text.into()).is_err(), "{text}");
        }
        assert!(long[1..].parse::<ProviderId>().is_ok());
    }

    #[test]
    fn another_kind_of_id_or_another_spelling_is_refused() {
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(format!("con_{hex}").parse::<ConnectionId>().is_ok());
        for text in [
            String::new(),
            hex.to_owned(),
            format!("crd_{hex}"),
            format!("con_{}", hex.to_uppercase()),
            format!("con_{}", &hex[1..]),
            format!("con_{hex}0"),
            format!("con_{}g", &hex[1..]),
            format!(" con_{hex}"),
            format!("con_{}é", &hex[2..]),
        ] {
            assert!(text.parse::<ConnectionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn opaque_names_are_visible_and_bounded() {
        for (text, ok) in [("gid://agent/7?x=Y", true), ("", false), ("a b", false), ("a\u{7f}", false), ("é", false)]
        {
            assert_eq!(text.parse::<AgentId>().is_ok(), ok, "{text}");
            assert_eq!(text.parse::<RequestId>().is_ok(), ok, "{text}");
        }
        assert!("x".repeat(256).parse::<AgentId>().is_ok() && "x".repeat(257).parse::<AgentId>().is_err());
        assert!("x".repeat(128).parse::<RequestId>().is_ok() && "x".repeat(129).parse::<RequestId>().is_err());
    }
}
