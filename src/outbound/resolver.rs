//! Looks names up and keeps only the addresses that may be called. The connection goes to exactly the addresses that were judged, so
//! a name that answers differently the second time (DNS rebinding) gains nothing.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::BoxFuture;

/// Finds a name's addresses.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Every address of the name was refused; carried through reqwest and found again in the error's sources.
#[derive(Debug, thiserror::Error)]
#[error("no public address")]
pub(super) struct NoPublicAddress;

pub(super) struct Filtered {
    pub(super) lookup: Lookup,
    /// Which addresses a name may lead to.
    pub(super) allows: fn(IpAddr) -> bool,
}

impl Resolve for Filtered {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, allows) = ((self.lookup)(name.as_str().to_owned()), self.allows);
        Box::pin(async move {
            let allowed = allowed_of(found.await?, allows)?;
            // port 0: the connector puts the URL's port there
            Ok(Box::new(allowed.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// The system's resolver.
pub(super) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|socket| socket.ip()).collect())
        })
    })
}

fn allowed_of(mut addresses: Vec<IpAddr>, allows: fn(IpAddr) -> bool) -> Result<Vec<IpAddr>, NoPublicAddress> {
    addresses.retain(|&address| allows(address));
    if addresses.is_empty() { Err(NoPublicAddress) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::{super::is_public, *};

    #[test]
    fn of_a_mixed_answer_only_the_public_addresses_are_called() {
        let mixed = ["10.0.0.1", "93.184.215.14", "::1", "127.0.0.1", "2606:4700::1111", "::ffff:10.0.0.1"];
        let public = allowed_of(mixed.iter().map(|text| text.parse().unwrap()).collect(), is_public).unwrap();
        assert_eq!(public, ["93.184.215.14".parse::<IpAddr>().unwrap(), "2606:4700::1111".parse().unwrap()]);
    }

    #[test]
    fn a_name_without_a_public_address_is_refused() {
        assert!(allowed_of(vec!["192.168.0.1".parse().unwrap()], is_public).is_err());
        assert!(allowed_of(Vec::new(), is_public).is_err());
    }
}
