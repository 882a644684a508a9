//! What a stopped broker has left.

use std::sync::Arc;

use claviger::{
    audit::Chain,
    domain::{EntryId, InstallationId, Provider},
    sealing::{AuditKey, Random, root_key},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::Vault,
};

use crate::world::World;

/// A stopped broker's store, opened.
pub(crate) struct Records {
    pub(crate) vault: Vault,
    pub(crate) store: Arc<dyn Store>,
}

impl Records {
    pub(crate) async fn open(world: &World) -> Self {
        let (config, key, random) = (world.config(), AuditKey::default(), Random::system());
        let options = SledOptions {
            directory: config.store.directory,
            page_cache: config.store.page_cache.0,
            row_cache: config.store.row_cache.0,
            installation: InstallationId::from_bytes(random.bytes().unwrap()),
            epoch: EntryId::from_bytes(random.bytes().unwrap()),
        };
        let linker = Box::new(Chain::new(key.clone()));
        let store: Arc<dyn Store> = Arc::new(SledStore::open(options, linker).await.unwrap());
        let root = root_key::file::load(&config.sealing.root_keys[0]).unwrap();
        let vault = Vault::open(Arc::clone(&store), root, random, &key).await.unwrap();
        Self { vault, store }
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }

    /// The provider as the broker knows it.
    pub(crate) fn provider(&self, world: &World) -> Provider {
        let section = world.config().providers.swap_remove(0);
        Provider {
            definition: section.definition().unwrap(),
            id: section.id,
            client_id: section.client_id,
            client_secret: section.client_secret,
            refreshes_per_second: section.refreshes_per_second,
        }
    }
}
