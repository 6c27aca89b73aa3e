//! Slots for peers that have not shown yet that they mean well, shared out between addresses.
//!
//! If all are taken, a newcomer gets the slot of the peer that was silent longest at the address that holds most:
//! one address delays its own peers only. It must not know what the slots are for.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// All slots of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
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

/// One slot, until it is dropped or given to another.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    turn: u64,
    given: CancellationToken,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, inner: Arc::default() }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.locked().taken.len()
    }

    /// A slot, if need be another's.
    pub(crate) fn enter(&self, address: IpAddr) -> Slot {
        let mut inner = self.locked();
        if inner.taken.len() >= self.max {
            inner.give_one();
        }
        inner.slot(self, address)
    }

    /// A free slot; none if all are taken, or if most are and this address has a tenth of them.
    pub(crate) fn try_enter(&self, address: IpAddr) -> Option<Slot> {
        let mut inner = self.locked();
        let (taken, tenth) = (inner.taken.len(), self.max / 10);
        let held = inner.held.get(&address).copied().unwrap_or(0);
        let free = taken < self.max - tenth || (taken < self.max && held < tenth);
        free.then(|| inner.slot(self, address))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn slot(&mut self, slots: &Slots, address: IpAddr) -> Slot {
        self.turn += 1;
        let given = CancellationToken::new();
        self.taken.insert(self.turn, (address, given.clone()));
        *self.held.entry(address).or_default() += 1;
        Slot { slots: slots.clone(), turn: self.turn, given }
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

impl Slot {
    /// Set when the slot is another's.
    pub(crate) fn given(&self) -> &CancellationToken {
        &self.given
    }

    /// It has shown itself: others go first.
    pub(crate) fn renew(&mut self) {
        let mut inner = self.slots.locked();
        if let Some(taken) = inner.taken.remove(&self.turn) {
            inner.turn += 1;
            self.turn = inner.turn;
            inner.taken.insert(self.turn, taken);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let turn = self.turn;
        self.slots.locked().leave(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn whoever_comes_late_replaces_the_oldest_at_the_address_with_most() {
        let slots = Slots::new(4);
        let other = slots.enter(address(2));
        let mut flood: Vec<Slot> = (0..3).map(|_| slots.enter(address(1))).collect();
        flood[0].renew();
        let late = slots.enter(address(3));
        let given = |slots: &[Slot]| slots.iter().map(|it| it.given().is_cancelled()).collect::<Vec<_>>();
        assert_eq!(given(&flood), [false, true, false]);
        assert!(!other.given().is_cancelled() && !late.given().is_cancelled());
        drop((flood, other, late));
        assert_eq!(slots.taken(), 0);
        assert!(slots.locked().held.is_empty());
    }

    #[test]
    fn the_last_tenth_is_for_addresses_that_hold_little() {
        let slots = Slots::new(20);
        let taken: Vec<Slot> = std::iter::from_fn(|| slots.try_enter(address(1))).collect();
        assert_eq!(taken.len(), 18);
        let others: Vec<Slot> = std::iter::from_fn(|| slots.try_enter(address(2))).collect();
        assert_eq!(others.len(), 2);
        assert!(slots.try_enter(address(3)).is_none());
    }
}
