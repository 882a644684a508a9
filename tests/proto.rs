//! What the contract promises about secrets and reasons, read from its own descriptors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    marker::PhantomData,
};

use claviger::{
    domain::Reason,
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{self, ErrorReason},
    },
};
use prost::Message as _;
use prost_types::{FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/claviger.v1.rs"));

/// Text fields of these names hold a secret wherever they stand.
const SECRET_NAMES: &[&str] = &[
    "access_token",
    "authorization_url",
    "client_secret",
    "code",
    "code_verifier",
    "id_token",
    "nonce",
    "password",
    "refresh_token",
    "secret",
    "state",
    "token",
];

/// Whether a type has `Debug`. With it, the method is found on the value; without it, on the reference to it.
macro_rules! is_debug {
    ($type:ty) => {
        (&IsDebug(PhantomData::<$type>)).is_debug()
    };
}

struct IsDebug<T>(PhantomData<T>);

trait WithDebug {
    fn is_debug(&self) -> bool;
}

trait WithoutDebug {
    fn is_debug(&self) -> bool;
}

impl<T: Debug> WithDebug for IsDebug<T> {
    fn is_debug(&self) -> bool {
        true
    }
}

impl<T> WithoutDebug for &IsDebug<T> {
    fn is_debug(&self) -> bool {
        false
    }
}

#[test]
fn a_message_that_can_hold_a_secret_has_no_debug() {
    let secret = secret_messages(&messages());
    assert!(secret.contains("GetPluginTokenResponse"), "the search finds nothing: {secret:?}");
    assert!(secret.contains("StoreAuthCodeRequest"), "a secret one message down is found");
    for message in secret {
        let declaration = format!("#[prost(skip_debug)]\npub struct {message} {{");
        assert!(GENERATED.contains(&declaration), "{message} can hold a secret: mark the field `debug_redact`");
    }
}

#[test]
fn skipping_debug_really_removes_it() {
    assert!(is_debug!(v1::Connection));
    assert!(!is_debug!(v1::GetPluginTokenResponse));
    assert!(!is_debug!(v1::GetPluginTokensResponse));
    assert!(!is_debug!(v1::StoreAuthCodeRequest));
    assert!(!is_debug!(v1::store_auth_code_request::Flow));
    assert!(!is_debug!(v1::OwnCode));
    assert!(!is_debug!(v1::StartAuthorizationResponse));
}

#[test]
fn the_status_stream_can_hold_no_secret() {
    let messages = messages();
    let secret = secret_messages(&messages);
    let mut reached = BTreeSet::new();
    let mut open = vec!["WatchCredentialStatusResponse".to_owned()];
    while let Some(name) = open.pop() {
        assert!(!secret.contains(&name), "{name} is on the stream and can hold a secret");
        if reached.insert(name.clone()) {
            open.extend(messages[&name].iter().filter_map(inner_message));
        }
    }
    assert!(reached.contains("CredentialStatus"), "the search stops short: {reached:?}");
}

#[test]
fn every_reason_has_its_name_on_the_wire_and_no_other_is_promised() {
    let ours: BTreeSet<String> = Reason::ALL.iter().map(|reason| format!("ERROR_REASON_{reason}")).collect();
    let wire: BTreeSet<String> = descriptors()
        .file
        .iter()
        .flat_map(|file| &file.enum_type)
        .filter(|declared| declared.name() == "ErrorReason")
        .flat_map(|declared| &declared.value)
        .map(|value| value.name().to_owned())
        .filter(|name| name != ErrorReason::Unspecified.as_str_name())
        .collect();
    assert_eq!(wire, ours);
}

#[test]
fn the_set_for_reflection_is_complete() {
    let files: BTreeSet<String> = descriptors().file.iter().map(|file| file.name().to_owned()).collect();
    let expected = [
        "claviger/v1/connection.proto",
        "claviger/v1/error.proto",
        "claviger/v1/operations.proto",
        "claviger/v1/token_broker.proto",
        "claviger/v1/watch.proto",
        "google/protobuf/any.proto",
        "google/protobuf/duration.proto",
        "google/protobuf/timestamp.proto",
        "google/rpc/status.proto",
    ];
    assert_eq!(files, expected.into_iter().map(str::to_owned).collect());
}

/// Our messages by name, each with its fields.
fn messages() -> BTreeMap<String, Vec<FieldDescriptorProto>> {
    descriptors()
        .file
        .into_iter()
        .filter(|file| file.package() == "claviger.v1")
        .flat_map(|file| file.message_type)
        .map(|message| (message.name().to_owned(), message.field))
        .collect()
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote a descriptor set")
}

fn secret_messages(messages: &BTreeMap<String, Vec<FieldDescriptorProto>>) -> BTreeSet<String> {
    let mut secret: BTreeSet<String> = BTreeSet::new();
    loop {
        let known = secret.len();
        for (name, fields) in messages {
            let holds = |field: &FieldDescriptorProto| {
                is_secret_text(field) || inner_message(field).is_some_and(|inner| secret.contains(&inner))
            };
            if fields.iter().any(holds) {
                secret.insert(name.clone());
            }
        }
        if secret.len() == known {
            return secret;
        }
    }
}

fn is_secret_text(field: &FieldDescriptorProto) -> bool {
    matches!(field.r#type(), Type::String | Type::Bytes) && SECRET_NAMES.contains(&field.name())
}

fn inner_message(field: &FieldDescriptorProto) -> Option<String> {
    field.type_name().strip_prefix(".claviger.v1.").filter(|_| field.r#type() == Type::Message).map(str::to_owned)
}
