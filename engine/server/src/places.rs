//! Places for those who have not shown yet that they mean well, shared out between addresses.
//!
//! Where all are taken, the newcomer gets the place of whoever has been silent longest at the address that holds most:
//! one address can take the patience of its own peers only. It must not know what the places are for.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// All places of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    max: usize,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the turn in which they last showed themselves.
    taken: BTreeMap<u64, (IpAddr, CancellationToken)>,
    held: HashMap<IpAddr, usize>,
    turn: u64,
}

/// One place, until it is dropped or given to another.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    turn: u64,
    given: CancellationToken,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, inner: Arc::default() }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.locked().taken.len()
    }

    /// A place, if need be another's.
    pub(crate) fn enter(&self, address: IpAddr) -> Place {
        let mut inner = self.locked();
        if inner.taken.len() >= self.max {
            inner.give_one();
        }
        inner.place(self, address)
    }

    /// A free place; none if all are taken, or if most are and this address has a tenth of them.
    pub(crate) fn try_enter(&self, address: IpAddr) -> Option<Place> {
        let mut inner = self.locked();
        let (taken, tenth) = (inner.taken.len(), self.max / 10);
        let held = inner.held.get(&address).copied().unwrap_or(0);
        let free = taken < self.max - tenth || (taken < self.max && held < tenth);
        free.then(|| inner.place(self, address))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn place(&mut self, places: &Places, address: IpAddr) -> Place {
        self.turn += 1;
        let given = CancellationToken::new();
        self.taken.insert(self.turn, (address, given.clone()));
        *self.held.entry(address).or_default() += 1;
        Place { places: places.clone(), turn: self.turn, given }
    }

    fn give_one(&mut self) {
        let Some((most, _)) = self.held.iter().max_by_key(|(_, held)| **held) else { return };
        let victim = self.taken.iter().find(|(_, (address, _))| address == most).map(|(turn, _)| *turn);
        if let Some(given) = victim.and_then(|turn| self.leave(turn)) {
            given.cancel();
        }
    }

    fn leave(&mut self, turn: u64) -> Option<CancellationToken> {
        let (address, given) = self.taken.remove(&turn)?;
        if let Some(held) = self.held.get_mut(&address) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&address);
            }
        }
        Some(given)
    }
}

impl Place {
    /// Set when the place is another's.
    pub(crate) fn given(&self) -> &CancellationToken {
        &self.given
    }

    /// It has shown itself: others go first.
    pub(crate) fn renew(&mut self) {
        let mut inner = self.places.locked();
        if let Some(taken) = inner.taken.remove(&self.turn) {
            inner.turn += 1;
            self.turn = inner.turn;
            inner.taken.insert(self.turn, taken);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let turn = self.turn;
        self.places.locked().leave(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn whoever_comes_late_takes_the_place_of_the_oldest_at_the_address_with_most() {
        let places = Places::new(4);
        let other = places.enter(address(2));
        let mut flood: Vec<Place> = (0..3).map(|_| places.enter(address(1))).collect();
        flood[0].renew();
        let late = places.enter(address(3));
        let given = |places: &[Place]| places.iter().map(|it| it.given().is_cancelled()).collect::<Vec<_>>();
        assert_eq!(given(&flood), [false, true, false]);
        assert!(!other.given().is_cancelled() && !late.given().is_cancelled());
        drop((flood, other, late));
        assert_eq!(places.taken(), 0);
        assert!(places.locked().held.is_empty());
    }

    #[test]
    fn the_last_tenth_is_for_addresses_that_hold_little() {
        let places = Places::new(20);
        let taken: Vec<Place> = std::iter::from_fn(|| places.try_enter(address(1))).collect();
        assert_eq!(taken.len(), 18);
        let others: Vec<Place> = std::iter::from_fn(|| places.try_enter(address(2))).collect();
        assert_eq!(others.len(), 2);
        assert!(places.try_enter(address(3)).is_none());
    }
}
