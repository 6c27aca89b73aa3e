//! The ids against a list of all events, and what they cost.

use proptest::{collection::vec, prelude::*};

use super::*;

const SEED: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// A hash that is as good as random.
fn hash(id: u64) -> u128 {
    let half = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    u128::from(half(id.wrapping_add(1))) << 64 | u128::from(half(id.wrapping_add(0x5851_f42d_4c95_7f2d)))
}

#[derive(Debug, Clone)]
enum Step {
    /// Events with these ids, appended together after so many milliseconds.
    Append {
        ids: Vec<u64>,
        later: u64,
    },
    Window(u64),
    ForgetOldest,
    /// What is stored of the ids is read again, and with it what should have been deleted.
    Restart {
        stale: bool,
    },
}

fn step(ids: u64) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (vec(0..ids, 1..30), prop_oneof![Just(0), 0..40_u64, 0..4_000_u64])
            .prop_map(|(ids, later)| Step::Append { ids, later }),
        1 => (1..5_000_u64).prop_map(Step::Window),
        1 => Just(Step::ForgetOldest),
        1 => any::<bool>().prop_map(|stale| Step::Restart { stale }),
    ]
}

/// An event as the model has it.
#[derive(Debug, Clone, Copy)]
struct Stored {
    id: u64,
    offset: u64,
    time: u64,
}

struct Model {
    ids: Ids,
    /// All that were stored, dead ones included.
    log: Vec<Stored>,
    window_ms: u64,
    now: u64,
    /// How much longer than its window an id may be remembered, at most.
    grain: u64,
    /// What was forgotten before the last restart.
    forgotten: u64,
}

impl Model {
    fn new(window_ms: u64) -> Self {
        let (ids, log, grain) = (Ids::new(SEED), Vec::new(), window_ms / GRAINS);
        Self { ids, log, window_ms, now: 1_000, grain, forgotten: 0 }
    }

    fn floor(&self) -> u64 {
        self.ids.floor().0.max(self.forgotten)
    }

    fn append(&mut self, id: u64) -> Result<(), TestCaseError> {
        let next = self.log.last().map_or(3, |stored| stored.offset + 1);
        let last = self.log.iter().rev().find(|stored| stored.id == id).copied();
        let remembered = last.filter(|last| last.offset >= self.floor());
        let time = Timestamp(self.now);
        let found = self.ids.find_or_add(hash(id), Offset(next), time, self.window_ms);
        prop_assert_eq!(found, remembered.map(|stored| Offset(stored.offset)));
        if let Some(stored) = last.filter(|stored| found.is_none() && stored.time > self.complete_since()) {
            prop_assert!(self.now - stored.time >= self.window_ms, "{stored:?} was within the window");
        }
        if found.is_none() {
            self.log.push(Stored { id, offset: next, time: self.now });
        }
        Ok(())
    }

    fn complete_since(&self) -> u64 {
        self.ids.complete_since().0
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Append { ids, later } => {
                self.now += later;
                self.ids.expire(Timestamp(self.now), self.window_ms);
                for id in ids {
                    self.append(id)?;
                }
            }
            Step::Window(window_ms) => {
                self.window_ms = window_ms;
                self.grain = self.grain.max(window_ms / GRAINS);
                self.ids.expire(Timestamp(self.now), self.window_ms);
            }
            Step::ForgetOldest => {
                self.ids.forget_oldest();
            }
            Step::Restart { stale } => {
                let (floor, complete_since) = (self.floor(), self.ids.complete_since());
                self.forgotten = if stale { 0 } else { floor };
                self.ids = Ids::new(SEED);
                for stored in self.log.iter().filter(|stored| stored.offset >= self.forgotten) {
                    let (offset, time) = (Offset(stored.offset), Timestamp(stored.time));
                    self.ids.restore(hash(stored.id), offset, time, self.window_ms);
                }
                self.ids.restore_complete_since(complete_since);
                self.ids.expire(Timestamp(self.now), self.window_ms);
            }
        }
        self.check()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let floor = self.floor();
        let is_last = |stored: &&Stored| {
            let later = self.log.iter().rev().find(|later| later.id == stored.id);
            later.is_some_and(|later| later.offset == stored.offset)
        };
        let alive = self.log.iter().filter(|stored| stored.offset >= floor).filter(is_last);
        prop_assert_eq!(self.ids.held(), alive.clone().count() as u64);
        for stored in alive {
            let age = self.now - stored.time;
            prop_assert!(age < self.window_ms + self.grain + 1, "{stored:?} is kept at {}", self.now);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn an_id_is_found_within_its_window_and_not_long_after(
        window_ms in 1..5_000_u64,
        steps in vec(step(60), 1..80),
    ) {
        let mut model = Model::new(window_ms);
        for step in steps {
            model.step(step)?;
        }
    }

    #[test]
    fn many_ids_are_found_while_parts_grow_split_and_are_swept(
        window_ms in 2_000..20_000_u64,
        bursts in vec((0..30_000_u64, 1..8_000_u64, 0..6_000_u64), 1..12),
    ) {
        let (mut ids, mut now, mut next) = (Ids::new(SEED), 0, 0);
        let mut last = std::collections::HashMap::new();
        for (from, count, later) in bursts {
            now += later;
            ids.expire(Timestamp(now), window_ms);
            ids.tidy();
            for id in from..from + count {
                let alive = last.get(&id).copied().filter(|offset| *offset >= ids.floor().0);
                let found = ids.find_or_add(hash(id), Offset(next), Timestamp(now), window_ms);
                prop_assert_eq!(found, alive.map(Offset));
                if found.is_none() {
                    last.insert(id, next);
                    next += 1;
                }
            }
        }
        let alive = last.values().filter(|offset| **offset >= ids.floor().0).count();
        prop_assert_eq!(ids.held(), alive as u64);
    }
}

#[test]
fn an_id_costs_at_most_32_bytes_of_memory_growing_and_in_a_steady_state() {
    const WINDOW_MS: u64 = 10_000;
    let mut ids = Ids::new(SEED);
    // 100 ids a millisecond: a million within the window.
    for step in 0..3_000_000_u64 {
        let now = Timestamp(step / 100);
        if step % 100 == 0 {
            ids.expire(now, WINDOW_MS);
        }
        assert_eq!(ids.find_or_add(hash(step), Offset(step), now, WINDOW_MS), None);
        if step > 100_000 && step % 50_000 == 0 {
            let bytes = ids.bytes() as u64;
            assert!(bytes <= 32 * ids.held(), "{bytes} bytes for {} ids at {step}", ids.held());
        }
    }
    assert!((1_000_000..1_010_000).contains(&ids.held()), "{}", ids.held());
    ids.expire(Timestamp(40_000), WINDOW_MS);
    assert_eq!(ids.held(), 0);
    assert!(ids.bytes() < 4_096, "what expired gives its memory back: {}", ids.bytes());
}

#[test]
fn memory_comes_back_while_some_ids_are_still_remembered() {
    let mut ids = Ids::new(SEED);
    let add = |ids: &mut Ids, range: std::ops::Range<u64>, time| {
        for id in range {
            assert_eq!(ids.find_or_add(hash(id), Offset(id), Timestamp(time), 1_000), None);
        }
    };
    add(&mut ids, 0..200_000, 0);
    let full = ids.bytes();
    add(&mut ids, 200_000..210_000, 900);
    ids.expire(Timestamp(1_000), 1_000);
    (0..100).for_each(|_| ids.tidy());
    assert_eq!(ids.held(), 10_000);
    assert!(ids.bytes() < full / 8, "{} of {full}", ids.bytes());
    for id in 200_000..210_000 {
        assert_eq!(ids.find_or_add(hash(id), Offset(210_000), Timestamp(1_000), 1_000), Some(Offset(id)));
    }
}

#[test]
fn ids_of_before_the_clock_was_set_back_are_kept_for_one_window_from_then_on() {
    let mut ids = Ids::new(SEED);
    let (hour, window) = (3_600_000, 1_000);
    assert_eq!(ids.find_or_add(1, Offset(0), Timestamp(hour), window), None);
    ids.expire(Timestamp(10), window);
    assert_eq!(ids.find_or_add(1, Offset(1), Timestamp(10), window), Some(Offset(0)));
    ids.expire(Timestamp(10 + window - 1), window);
    assert_eq!(ids.held(), 1);
    ids.expire(Timestamp(10 + window), window);
    assert_eq!(ids.held(), 0);
}

#[test]
fn offsets_beyond_the_bits_of_an_entry_are_told_apart() {
    let (mut ids, far) = (Ids::new(SEED), (1 << 40) - 2);
    for (number, offset) in (far..far + 5).enumerate() {
        let id = number as u128;
        assert_eq!(ids.find_or_add(id, Offset(offset), Timestamp(number as u64 * 10), 100), None);
    }
    for (number, offset) in (far..far + 5).enumerate() {
        let found = ids.find_or_add(number as u128, Offset(far + 9), Timestamp(40), 100);
        assert_eq!(found, Some(Offset(offset)));
    }
    ids.expire(Timestamp(125), 100);
    assert_eq!(ids.floor(), Offset(far + 3));
    assert_eq!(ids.find_or_add(0, Offset(far + 5), Timestamp(125), 100), None);
    assert_eq!(ids.find_or_add(3, Offset(far + 6), Timestamp(125), 100), Some(Offset(far + 3)));
}
