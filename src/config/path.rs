//! Names of keys, as problems tell them and as the environment overrides them.

use std::fmt;

/// The way to a key: `providers.google.client_id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(pub Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Key(String),
    /// An element of an array, as it is written.
    Index(usize),
    /// An element of an array, counted among those that could be read.
    Nth(usize),
    /// An element of an array, by its `id`.
    Id(String),
}

impl KeyPath {
    /// `"outbound.timeout"`; for keys that lie in no array.
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }

    /// `providers`, `2` and `"client_id"` for `providers[2].client_id`; an empty `dotted` is the element itself.
    pub fn in_array(array: &str, nth: usize, dotted: &str) -> Self {
        let mut path = Self::of(array);
        path.0.push(Step::Nth(nth));
        path.join(dotted)
    }

    #[must_use]
    pub fn join(mut self, dotted: &str) -> Self {
        if !dotted.is_empty() {
            self.0.extend(Self::of(dotted).0);
        }
        self
    }

    #[must_use]
    pub fn nth(mut self, nth: usize) -> Self {
        self.0.push(Step::Nth(nth));
        self
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) | Step::Id(name) if at > 0 => write!(f, ".{name}")?,
                Step::Key(name) | Step::Id(name) => f.write_str(name)?,
                Step::Index(index) | Step::Nth(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
