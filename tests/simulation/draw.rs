//! What is drawn from a seed: the same numbers in every run.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex},
};

/// SplitMix64. Clones draw from one sequence.
#[derive(Clone)]
pub(crate) struct Draw(Arc<Mutex<u64>>);

impl Draw {
    /// Another sequence for each `purpose`, so that one more draw here changes nothing there.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let state = seed.wrapping_mul(0xd134_2543_de82_ef95) ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn number(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn within(&self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.number() % (range.end() - range.start() + 1)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&self, share: u64) -> bool {
        self.number() % 100 < share
    }

    pub(crate) fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.number() as usize % choices.len()]
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }
}
