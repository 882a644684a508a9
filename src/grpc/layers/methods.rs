//! The methods that there are.

use std::collections::HashSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The paths of all of them, `/package.Service/Method`.
pub(in crate::grpc) struct Methods(HashSet<String>);

/// What strangers call that is not there: a name of theirs for each would be more names than a store of traces or metrics
/// can take.
const OTHER: &str = "_OTHER";

impl Methods {
    /// `descriptors` tell which there are.
    pub(in crate::grpc) fn of(descriptors: &[&[u8]]) -> Self {
        Self(descriptors.iter().flat_map(|set| described(set)).collect())
    }

    /// How to speak of a call to `path`.
    pub(super) fn name<'a>(&self, path: &'a str) -> &'a str {
        if self.0.contains(path) { path } else { OTHER }
    }

    /// Every name that [`Self::name`] gives.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).chain([OTHER])
    }
}

fn described(descriptor_set: &[u8]) -> Vec<String> {
    let set = FileDescriptorSet::decode(descriptor_set).expect("embedded descriptor sets are well-formed");
    let services = set.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    services
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::FILE_DESCRIPTOR_SET;

    #[test]
    fn only_methods_that_there_are_have_a_name() {
        let ours = "/claviger.v1.TokenBrokerService/GetPluginToken";
        let methods = Methods::of(&[FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET]);
        assert_eq!((methods.name(ours), methods.name("/a.B/C")), (ours, OTHER));
        assert!(methods.names().any(|name| name == "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"));
    }
}
