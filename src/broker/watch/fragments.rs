//! What is too long for one message.

use std::sync::Arc;

use crate::events::Written;

/// Bytes of states or events in one message, of the 256 KiB that the contract allows: a stream keeps the buffer of its
/// longest message for as long as it waits. One value is never longer, because no row of the store is.
const MOST: usize = 63 * 1024;
/// Of each value's own tag and length.
const HEAD: usize = 4;

/// `values` in order, cut where the next one would be too much; nothing for none.
pub(super) fn fragments<T>(values: Vec<Arc<Written<T>>>) -> Vec<Vec<Arc<Written<T>>>> {
    let (mut fragments, mut room) = (Vec::<Vec<_>>::new(), 0);
    for value in values {
        let length = value.wire.len() + HEAD;
        match fragments.last_mut() {
            Some(fragment) if length <= room => fragment.push(value),
            _ => {
                fragments.push(vec![value]);
                room = MOST;
            }
        }
        room = room.saturating_sub(length);
    }
    fragments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(lengths: &[usize]) -> Vec<Arc<Written<usize>>> {
        let written = |(value, length): (usize, &usize)| Arc::new(Written { value, wire: vec![0; *length].into() });
        lengths.iter().enumerate().map(written).collect()
    }

    fn cut(lengths: &[usize]) -> Vec<Vec<usize>> {
        let of = |fragment: &Vec<Arc<Written<usize>>>| fragment.iter().map(|written| written.value).collect();
        fragments(values(lengths)).iter().map(of).collect()
    }

    #[test]
    fn a_fragment_is_as_long_as_it_may_be_and_no_longer() {
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(cut(&[MOST - 2 * HEAD - 7, 7]), [vec![0, 1]]);
        assert_eq!(cut(&[MOST - 2 * HEAD - 7, 8]), [vec![0], vec![1]]);
        assert_eq!(cut(&[1, MOST, 1, 1]), [vec![0], vec![1], vec![2, 3]]);
    }

    #[test]
    fn ten_thousand_short_values_are_cut_and_none_is_lost() {
        let lengths: Vec<usize> = (0..10_000).map(|number| 200 + number % 311).collect();
        let cut = cut(&lengths);
        for (number, fragment) in cut.iter().enumerate() {
            let length: usize = fragment.iter().map(|value| lengths[*value] + HEAD).sum();
            assert!(length <= MOST && (length > MOST - 520 || number + 1 == cut.len()), "{length}");
        }
        assert_eq!(cut.concat(), (0..10_000).collect::<Vec<_>>());
    }
}
