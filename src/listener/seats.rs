//! How many connections there may be, in all and from one address.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The places of one listener. Clones share them.
#[derive(Clone)]
pub(super) struct Seats(Arc<Inner>);

/// One place; it is free again when this is dropped.
pub(super) struct Seat {
    seats: Seats,
    peer: IpAddr,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    ForAll,
    ForThisPeer,
}

struct Inner {
    most: usize,
    most_per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Seats {
    pub(super) fn new(most: usize, most_per_peer: usize) -> Self {
        Self(Arc::new(Inner { most, most_per_peer, taken: Mutex::default() }))
    }

    pub(super) fn take(&self, peer: IpAddr) -> Result<Seat, Full> {
        let peer = host(peer);
        let mut taken = self.taken();
        if taken.all >= self.0.most {
            return Err(Full::ForAll);
        }
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.0.most_per_peer {
            return Err(Full::ForThisPeer);
        }
        taken.by_peer.insert(peer, of_peer + 1);
        taken.all += 1;
        Ok(Seat { seats: self.clone(), peer })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Entry::Occupied(mut of_peer) = taken.by_peer.entry(self.peer) {
            *of_peer.get_mut() -= 1;
            if *of_peer.get() == 0 {
                of_peer.remove();
            }
        }
    }
}

/// What one host cannot have many of: an IPv4 address, or an IPv6 network of /64 (RFC 4291 §2.5.4).
fn host(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !(u64::MAX as u128);
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(seats: &Seats, peer: &str) -> Result<Seat, Full> {
        seats.take(peer.parse().unwrap())
    }

    #[test]
    fn one_peer_cannot_take_all_seats_and_gives_back_what_it_leaves() {
        let seats = Seats::new(3, 2);
        let (first, _second) = (take(&seats, "192.0.2.1").unwrap(), take(&seats, "192.0.2.1").unwrap());
        assert_eq!(take(&seats, "192.0.2.1").err(), Some(Full::ForThisPeer));
        let _other = take(&seats, "192.0.2.2").unwrap();
        assert_eq!(take(&seats, "192.0.2.3").err(), Some(Full::ForAll));
        drop(first);
        assert!(take(&seats, "192.0.2.1").is_ok());
    }

    #[test]
    fn a_peer_is_not_many_by_having_many_addresses() {
        let seats = Seats::new(9, 1);
        let _kept = ["2001:db8::1", "2001:db8:0:1::1", "192.0.2.1"].map(|peer| take(&seats, peer).unwrap());
        for same in ["2001:db8::2", "2001:db8:0:1:ffff::", "::ffff:192.0.2.1"] {
            assert_eq!(take(&seats, same).err(), Some(Full::ForThisPeer), "{same}");
        }
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let seats = Seats::new(9, 9);
        drop([take(&seats, "192.0.2.1").unwrap(), take(&seats, "192.0.2.2").unwrap()]);
        assert!(seats.taken().by_peer.is_empty());
    }
}
