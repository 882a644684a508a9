//! `[store]`: the embedded store.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Finding, KeyPath, Size, range};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// Of this process alone; made with mode 0700 when it is not there.
    #[schemars(example = &"/var/lib/claviger/store")]
    pub directory: PathBuf,
    /// What sled may keep of its pages in memory.
    #[serde(default = "page_cache")]
    pub page_cache: Size,
    /// How much of sealed rows is kept at hand.
    #[serde(default = "row_cache")]
    pub row_cache: Size,
}

impl StoreSection {
    /// In `directory`, with all else as it is usual.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory, page_cache: page_cache(), row_cache: row_cache() }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let (least, most) = (Size::mib(1), Size::mib(64 * 1024));
        [("store.page_cache", self.page_cache), ("store.row_cache", self.row_cache)]
            .into_iter()
            .filter_map(|(key, size)| range(KeyPath::of(key), &size, &least, &most))
            .collect()
    }
}

fn page_cache() -> Size {
    Size::mib(256)
}

fn row_cache() -> Size {
    Size::mib(64)
}
