//! Events of one stretch of a partition that were read and have passed the chain: what is sent to consumers is cut from
//! these.

use levada_chain::{DeadLetter, DeadReason, Filtered, Paused, subtract};
use std::ops::Range;

use levada_delivery::subscription::{Chunk, EventKey, Failed, Fetched, Reason};
use levada_protocol::{
    batch::EventRef,
    deliver::RUN_HEADER_BYTES,
    event::Event,
    ids::{Offset, Timestamp},
    partition::key_hash,
};

use super::lifetimes::Lifetimes;
use crate::{
    error::Error,
    frames::{LogSlice, SliceBatches},
};

/// A stretch of a partition.
#[derive(Debug)]
pub(super) struct Slices {
    from: Offset,
    /// Everything below is decided: in a piece, filtered or failed.
    reached: Offset,
    pieces: Vec<LogSlice>,
    /// What the rules of delivery know of each piece.
    chunks: Vec<Chunk>,
    filtered: Vec<Range<Offset>>,
    failed: Vec<Failed>,
    /// Of the events in the pieces. Those that have ended are failed, and may be in the pieces all the same.
    lifetimes: Lifetimes,
    /// The keys of the events in the first `keyed` pieces.
    keys: Vec<EventKey>,
    keyed: usize,
}

/// Events that were read, and have passed the chain.
#[derive(Debug)]
pub(super) struct FoundSlices {
    pub(super) slices: Slices,
    /// What the chain failed on.
    pub(super) dead_letters: Vec<DeadLetter>,
    /// Why the chain must stop behind the last slice, and when it may be tried again by itself.
    pub(super) paused: Option<Box<Paused>>,
}

impl FoundSlices {
    /// Where there is no chain.
    pub(super) fn stored(slices: Slices) -> Self {
        Self { slices, dead_letters: Vec::new(), paused: None }
    }
}

impl Slices {
    /// Stored pieces from `from` on, where there is no chain.
    pub(super) fn stored(from: Offset, mut pieces: Vec<LogSlice>) -> Result<Self, Error> {
        let reached = pieces.last().map_or(from, LogSlice::end);
        let mut filtered = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.events < piece.span) {
            add_gaps(piece, &mut filtered)?;
        }
        filtered.retain_mut(|range: &mut Range<Offset>| {
            range.start = range.start.max(from);
            !range.is_empty()
        });
        pieces.retain(|piece| piece.events > 0);
        Self::new(from, reached, pieces, filtered, Vec::new())
    }

    /// What a chain made of the events from `from` on. `keys` are those of what it was given: without them they are taken from
    /// what it made, once they are needed, which will do if it changed none, and knows those of no event that did not pass.
    /// `expired` was not given to it.
    pub(super) fn filtered(
        from: Offset,
        filtered: Filtered,
        keys: Option<Vec<EventKey>>,
        expired: Vec<Range<Offset>>,
    ) -> Result<Self, Error> {
        let dead_letters = filtered.progress.dead_letters.iter();
        let failed =
            dead_letters.map(|it| Failed { first: it.offset, last: it.offset, reason: reason(it) }).collect();
        let pieces = filtered.passed;
        let reached = filtered.progress.reached;
        let dropped = subtract(&filtered.dropped, &expired);
        let mut slices = Self::new(from, reached, pieces, dropped, failed)?;
        let begun = expired.into_iter().map(|it| it.start..it.end.min(reached));
        let begun: Vec<_> = begun.filter(|it| it.start < it.end).collect();
        slices.fail_expired(&begun);
        slices.lifetimes.add_ended(begun);
        if let Some(mut keys) = keys {
            keys.retain(|it| slices.range().contains(&it.offset));
            slices.keys = keys;
            slices.keyed = slices.pieces.len();
        }
        Ok(slices)
    }

    fn new(
        from: Offset,
        reached: Offset,
        pieces: Vec<LogSlice>,
        filtered: Vec<Range<Offset>>,
        failed: Vec<Failed>,
    ) -> Result<Self, Error> {
        let lifetimes = Lifetimes::of(&pieces, from)?;
        let chunks = pieces.iter().map(chunk_of).collect();
        let (keys, keyed) = (Vec::new(), 0);
        Ok(Self { from, reached, pieces, chunks, filtered, failed, lifetimes, keys, keyed })
    }

    /// Offsets without an event.
    pub(super) fn without_events(range: Range<Offset>) -> Self {
        Self {
            from: range.start,
            reached: range.end,
            pieces: Vec::new(),
            chunks: Vec::new(),
            filtered: vec![range],
            failed: Vec::new(),
            lifetimes: Lifetimes::default(),
            keys: Vec::new(),
            keyed: 0,
        }
    }

    /// The same from `from` on, with offsets that are as far from each other.
    pub(super) fn renumbered(mut self, from: Offset) -> Self {
        let before = self.from;
        let renumber = |offset: &mut Offset| *offset = from.plus(offset.0 - before.0);
        let renumber_range = |range: &mut Range<Offset>| {
            renumber(&mut range.start);
            renumber(&mut range.end);
        };
        self.pieces.iter_mut().for_each(|piece| renumber(&mut piece.run.base));
        self.chunks.iter_mut().for_each(|chunk| renumber_range(&mut chunk.range));
        self.filtered.iter_mut().for_each(renumber_range);
        self.failed.iter_mut().for_each(|failed| {
            renumber(&mut failed.first);
            renumber(&mut failed.last);
        });
        self.keys.iter_mut().for_each(|key| renumber(&mut key.offset));
        self.lifetimes.renumber(renumber);
        renumber(&mut self.reached);
        self.from = from;
        self
    }

    /// From the first offset to behind the last one that is decided.
    pub(super) fn range(&self) -> Range<Offset> {
        self.from..self.reached
    }

    /// Bytes that it takes in memory: the batches, the keys as far as they are known, when events end, and what is known of
    /// events that are in no batch.
    pub(super) fn bytes(&self) -> usize {
        let batches = self.pieces.iter().map(|piece| piece.run.batches.len()).sum::<usize>();
        let failed = self.failed.iter().map(|failed| size_of::<Failed>() + failed.reason.text_len());
        let filtered = self.filtered.len() * size_of::<Range<Offset>>();
        batches + size_of_val(&self.keys[..]) + self.lifetimes.bytes() + filtered + failed.sum::<usize>()
    }

    /// True if nothing is lost where `more` is appended: the keys of what a chain changed are found nowhere else.
    pub(super) fn keeps_keys_of(&self, more: &Self) -> bool {
        more.keyed == 0 || self.keyed == self.pieces.len()
    }

    /// Adds what follows directly, and whose keys it keeps.
    pub(super) fn append(&mut self, more: Self) {
        debug_assert!(self.keeps_keys_of(&more), "keys that are known stay known");
        if self.keyed == self.pieces.len() {
            self.keys.extend(more.keys);
            self.keyed += more.keyed;
        }
        self.reached = more.reached;
        self.pieces.extend(more.pieces);
        self.chunks.extend(more.chunks);
        self.filtered.extend(more.filtered);
        self.failed.extend(more.failed);
        self.lifetimes.append(more.lifetimes);
    }

    /// Fails the events whose time to live is over; true if there are any more. They stay in memory, as they may be in flight
    /// or become dead letters.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        let ended = self.lifetimes.end(now);
        self.fail_expired(&ended);
        !ended.is_empty()
    }

    fn fail_expired(&mut self, ended: &[Range<Offset>]) {
        let failed = |it: &Range<Offset>| Failed {
            first: it.start,
            last: Offset(it.end.0 - 1),
            reason: Reason::Expired,
        };
        if !ended.is_empty() {
            self.failed.extend(ended.iter().map(failed));
            self.failed.sort_unstable_by_key(|it| it.first);
        }
    }

    /// Finds the keys of all events, each piece once; returns how many bytes they take beyond those known before.
    ///
    /// # Errors
    /// If a batch is damaged; then no more keys are known than before.
    pub(super) fn load_keys(&mut self) -> Result<usize, Error> {
        let mut keys = keys_of(&self.pieces[self.keyed..])?;
        // The first piece may begin before the stretch.
        keys.retain(|it| it.offset >= self.from);
        let bytes = size_of_val(&keys[..]);
        self.keys.append(&mut keys);
        self.keyed = self.pieces.len();
        Ok(bytes)
    }

    /// What is here from `at` on, for the rules of delivery: with keys if it `needs_keys`, which must be loaded then.
    pub(super) fn fetched(&self, at: Offset, needs_keys: bool) -> Fetched<'_> {
        let filtered = self.filtered.partition_point(|range| range.end <= at);
        let failed = self.failed.partition_point(|it| it.last < at);
        Fetched {
            reached: self.reached,
            chunks: &self.chunks[self.at(at)..],
            filtered: &self.filtered[filtered..],
            failed: &self.failed[failed..],
            keys: needs_keys.then(|| &self.keys[self.keys.partition_point(|it| it.offset < at)..]),
        }
    }

    /// The events in these ranges, ascending and disjoint, in few pieces: whole batches are shared, those that are cut are
    /// built again.
    pub(super) fn select(&self, offsets: &[Range<Offset>]) -> Result<Vec<LogSlice>, Error> {
        let live;
        let offsets = match self.lifetimes.ended() {
            [] => offsets,
            ended => {
                live = subtract(offsets, ended);
                &live
            }
        };
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(Vec::new()) };
        let mut selected = Vec::new();
        let between = self.pieces[self.at(first.start)..].iter();
        for piece in between.take_while(|piece| piece.run.base < last.end) {
            selected.extend(piece.cut(offsets, u64::MAX)?);
        }
        Ok(selected)
    }

    /// As [`Slices::select`], for several takers whose ranges do not overlap.
    pub(super) fn divide(&self, takers: &[&[Range<Offset>]]) -> Vec<Result<Vec<LogSlice>, Error>> {
        match (takers.len() > 1).then(|| self.divide_live(takers)) {
            Some(Ok(divided)) => divided.into_iter().map(Ok).collect(),
            // What is damaged is not for all of them.
            Some(Err(_)) | None => takers.iter().map(|offsets| self.select(offsets)).collect(),
        }
    }

    fn divide_live(&self, takers: &[&[Range<Offset>]]) -> Result<Vec<Vec<LogSlice>>, Error> {
        let mut divided = vec![Vec::new(); takers.len()];
        let of_taker = |(taker, offsets): (usize, &&[Range<Offset>])| {
            let live = subtract(offsets, self.lifetimes.ended());
            live.into_iter().map(move |range| (range, taker))
        };
        let mut parts: Vec<_> = takers.iter().enumerate().flat_map(of_taker).collect();
        parts.sort_unstable_by_key(|(range, _)| range.start);
        let (Some((first, _)), Some((last, _))) = (parts.first(), parts.last()) else { return Ok(divided) };
        let between = self.pieces[self.at(first.start)..].iter();
        for piece in between.take_while(|piece| piece.run.base < last.end) {
            let from = parts.partition_point(|(range, _)| range.end <= piece.run.base);
            piece.divide(&parts[from..], |taker, slice| divided[taker].push(slice))?;
        }
        Ok(divided)
    }

    /// The event at an offset as it is stored; `None` if it is not here, or if a chain may have changed it.
    pub(super) fn event(&self, offset: Offset) -> Option<Event> {
        let piece = self.pieces.get(self.at(offset)).filter(|piece| !piece.built)?;
        event_in(piece, offset).ok().flatten()
    }

    fn at(&self, offset: Offset) -> usize {
        self.chunks.partition_point(|chunk| chunk.range.end <= offset)
    }
}

/// The event at an offset of a piece.
pub(super) fn event_in(piece: &LogSlice, offset: Offset) -> Result<Option<Event>, Error> {
    for batch in SliceBatches::new(&piece.run, false) {
        let (base, batch) = batch?;
        if offset < base {
            break;
        }
        if let Some(event) = batch.events().find(|event| event.offset(base) == offset) {
            return Ok(Some(event.to_event(&batch)));
        }
    }
    Ok(None)
}

/// The events of these pieces with their keys.
pub(super) fn keys_of(pieces: &[LogSlice]) -> Result<Vec<EventKey>, Error> {
    let mut keys = Vec::with_capacity(pieces.iter().map(|piece| piece.events as usize).sum());
    for piece in pieces {
        for batch in SliceBatches::new(&piece.run, false) {
            let (base, batch) = batch?;
            let key =
                |event: EventRef<'_>| EventKey { offset: event.offset(base), key: event.key().map(key_hash) };
            keys.extend(batch.events().map(key));
        }
    }
    Ok(keys)
}

/// Adds the offsets of a piece that hold no event.
fn add_gaps(piece: &LogSlice, gaps: &mut Vec<Range<Offset>>) -> Result<(), Error> {
    let mut next = piece.run.base;
    for batch in SliceBatches::new(&piece.run, false) {
        let (base, batch) = batch?;
        for event in batch.events() {
            let offset = event.offset(base);
            if next < offset {
                gaps.push(next..offset);
            }
            next = offset.plus(1);
        }
    }
    if next < piece.end() {
        gaps.push(next..piece.end());
    }
    Ok(())
}

fn chunk_of(piece: &LogSlice) -> Chunk {
    Chunk { range: piece.run.base..piece.end(), bytes: (RUN_HEADER_BYTES + piece.run.batches.len()) as u64 }
}

fn reason(dead_letter: &DeadLetter) -> Reason {
    let error = dead_letter.error.clone();
    match dead_letter.reason {
        DeadReason::Rejected => Reason::Rejected { reason: error },
        DeadReason::Undecodable => Reason::Undecodable { error },
        DeadReason::PluginError | DeadReason::Loop => {
            Reason::PluginError { plugin: dead_letter.plugin.clone().unwrap_or_default(), error }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use levada_protocol::{
        batch::{BatchBuilder, Stamp},
        deliver::Run,
        ids::Timestamp,
    };

    use super::*;

    /// A piece of one batch with these events, by their offsets.
    pub(in crate::subscription) fn piece(offsets: &[u64]) -> LogSlice {
        keyed_piece(&offsets.iter().map(|offset| (*offset, None)).collect::<Vec<_>>())
    }

    /// A piece of one batch with these events, by their offsets and keys.
    pub(in crate::subscription) fn keyed_piece(events: &[(u64, Option<&'static str>)]) -> LogSlice {
        let event = |(offset, key): &(u64, Option<&'static str>)| {
            (*offset, Event { key: key.map(Into::into), ..Event::new(offset.to_string()) })
        };
        piece_of(events.iter().map(event).collect())
    }

    /// A piece of one batch with these events, by their offsets and times to live in milliseconds, appended at 0.
    pub(in crate::subscription) fn piece_with_ttls(events: &[(u64, u32)]) -> LogSlice {
        let event = |(offset, ttl_ms): &(u64, u32)| {
            (*offset, Event { ttl_ms: Some(*ttl_ms), ..Event::new(offset.to_string()) }.with_key("k"))
        };
        piece_of(events.iter().map(event).collect())
    }

    fn piece_of(events: Vec<(u64, Event)>) -> LogSlice {
        let base = events[0].0;
        let mut builder = BatchBuilder::selection();
        for (offset, event) in events {
            let delta = u32::try_from(offset - base).unwrap();
            let mut own = BatchBuilder::new();
            own.push(&event).unwrap();
            let own = own.finish(Stamp::ENGINE);
            builder.push_ref(delta, &own.events().next().unwrap()).unwrap();
        }
        let batch = builder.finish(Stamp::ENGINE);
        let run =
            Run { base: Offset(base), append_time: Timestamp(0), hops: 0, batches: batch.bytes().clone() };
        LogSlice::of(run, true).unwrap()
    }

    pub(in crate::subscription) fn key(offset: u64, key: Option<&str>) -> EventKey {
        EventKey { offset: Offset(offset), key: key.map(|key| key_hash(key.as_bytes())) }
    }

    fn offsets(range: Range<u64>) -> Range<Offset> {
        Offset(range.start)..Offset(range.end)
    }

    #[test]
    fn offsets_that_the_log_does_not_hold_are_filtered() {
        let slices = Slices::stored(Offset(3), vec![piece(&[3, 4]), piece(&[5, 8, 9])]).unwrap();
        assert_eq!(slices.range(), offsets(3..10));
        let fetched = slices.fetched(Offset(4), false);
        assert_eq!((fetched.reached, fetched.chunks.len()), (Offset(10), 2));
        assert_eq!(fetched.filtered, [offsets(6..8)]);
        assert_eq!(slices.fetched(Offset(8), false).filtered, []);
        assert_eq!(slices.fetched(Offset(5), false).chunks.len(), 1);
    }

    #[test]
    fn a_piece_without_events_is_filtered_as_a_whole() {
        let none = LogSlice { events: 0, span: 4, ..piece_without_events(5) };
        let slices = Slices::stored(Offset(3), vec![piece(&[3, 4]), none.clone()]).unwrap();
        let fetched = slices.fetched(Offset(3), false);
        assert_eq!((fetched.reached, fetched.chunks.len()), (Offset(9), 1));
        assert_eq!(fetched.filtered, [offsets(5..9)]);
        let slices = Slices::stored(Offset(6), vec![none]).unwrap();
        assert_eq!(
            (slices.range(), slices.fetched(Offset(6), false).filtered),
            (offsets(6..9), &[offsets(6..9)][..])
        );
        assert!(slices.select(&[offsets(6..9)]).unwrap().is_empty());
    }

    fn piece_without_events(base: u64) -> LogSlice {
        let run = Run { base: Offset(base), append_time: Timestamp(0), hops: 0, batches: Vec::new().into() };
        LogSlice::of(run, true).unwrap()
    }

    #[test]
    fn keys_are_those_of_the_events_from_an_offset_on() {
        let first = keyed_piece(&[(2, Some("before")), (3, Some("a")), (4, None), (6, Some(""))]);
        let pieces = vec![first, keyed_piece(&[(8, Some("a"))])];
        let mut slices = Slices::stored(Offset(3), pieces).unwrap();
        let before = slices.bytes();
        let bytes = slices.load_keys().unwrap();
        assert_eq!((slices.bytes(), bytes), (before + bytes, 4 * size_of::<EventKey>()));
        let keys = [key(3, Some("a")), key(4, None), key(6, Some("")), key(8, Some("a"))];
        assert_ne!(keys[0].key, keys[2].key);
        assert_eq!(slices.fetched(Offset(3), true).keys, Some(&keys[..]));
        assert_eq!(slices.fetched(Offset(5), true).keys, Some(&keys[2..]), "5 holds no event");
        assert_eq!(slices.fetched(Offset(9), true).keys, Some(&keys[..0]));
        assert_eq!(slices.fetched(Offset(3), false).keys, None);
        assert_eq!(slices.load_keys().unwrap(), 0, "each piece is looked at once");
    }

    #[test]
    fn keys_go_on_with_what_is_appended_whether_they_were_loaded_or_not() {
        let names = ["a", "b", "c", "d"];
        let stretch = |at: usize| {
            Slices::stored(Offset(at as u64), vec![keyed_piece(&[(at as u64, Some(names[at]))])]).unwrap()
        };
        let loaded = |mut slices: Slices| {
            slices.load_keys().unwrap();
            slices
        };
        for pattern in 0..8 {
            let mut slices = stretch(0);
            for at in 1..names.len() {
                if pattern & 1 << (at - 1) != 0 {
                    slices.load_keys().unwrap();
                }
                let more = if at == 2 { loaded(stretch(at)) } else { stretch(at) };
                if !slices.keeps_keys_of(&more) {
                    slices.load_keys().unwrap();
                }
                slices.append(more);
            }
            let missing = loaded(slices);
            let keys: Vec<_> = (0..4).map(|at| key(at as u64, Some(names[at]))).collect();
            assert_eq!(missing.fetched(Offset(0), true).keys, Some(&keys[..]), "{pattern:b}");
        }
    }

    #[test]
    fn events_between_others_are_selected_as_runs_with_gaps() {
        let pieces = vec![piece(&[0, 1, 2, 4]), piece(&[5, 6]), piece(&[7, 8, 9])];
        let slices = Slices::stored(Offset(0), pieces).unwrap();
        let selected = slices.select(&[offsets(0..1), offsets(2..3), offsets(5..8), offsets(9..10)]).unwrap();
        let shape: Vec<_> = selected.iter().map(|it| (it.run.base.0, it.span, it.events, it.built)).collect();
        assert_eq!(shape, [(0, 3, 2, true), (5, 2, 2, false), (7, 3, 2, true)]);
        let found = keys_of(&selected).unwrap().into_iter().map(|it| it.offset.0).collect::<Vec<_>>();
        assert_eq!(found, [0, 2, 5, 6, 7, 9]);
        assert!(slices.select(&[]).unwrap().is_empty());
    }

    #[test]
    fn what_several_take_is_what_each_would_take_by_itself() {
        let pieces = vec![piece(&[0, 1, 2, 4]), piece(&[5, 6]), piece(&[7, 8, 9]), piece(&[10, 14])];
        let slices = Slices::stored(Offset(0), pieces).unwrap();
        // Offsets go round among three, or in runs of three; some nobody takes.
        for (of, run) in [(3, 1), (3, 3), (2, 5), (1, 20), (5, 2)] {
            let ranges = |taker: u64| {
                let own = (0..15).filter(move |offset| offset / run % of == taker && offset % 11 != 8);
                own.map(|offset| offsets(offset..offset + 1)).collect::<Vec<_>>()
            };
            let takers: Vec<_> = (0..of).map(ranges).collect();
            let takers: Vec<_> = takers.iter().map(Vec::as_slice).collect();
            for (offsets, taken) in takers.iter().zip(slices.divide(&takers)) {
                assert_eq!(
                    taken.unwrap(),
                    slices.select(offsets).unwrap(),
                    "{of} in runs of {run}: {offsets:?}"
                );
            }
        }
    }

    #[test]
    fn whole_pieces_are_shared_and_others_are_cut() {
        let slices = Slices::stored(Offset(0), vec![piece(&[0, 1, 2]), piece(&[3, 4])]).unwrap();
        let selected = slices.select(&[offsets(1..2), offsets(2..5)]).unwrap();
        let shape: Vec<_> = selected.iter().map(|it| (it.run.base.0, it.events, it.built)).collect();
        assert_eq!(shape, [(1, 2, true), (3, 2, false)]);
        assert_eq!(selected[1].run.batches.as_ptr(), slices.pieces[1].run.batches.as_ptr());
    }

    #[test]
    fn an_event_whose_time_is_over_fails_and_is_not_sent() {
        let pieces = vec![piece_with_ttls(&[(0, 5), (1, 0), (3, 9)]), piece_with_ttls(&[(4, 5), (5, 5)])];
        let mut slices = Slices::stored(Offset(0), pieces).unwrap();
        slices.append(Slices::stored(Offset(6), vec![piece(&[6, 7])]).unwrap());
        let sent = |slices: &Slices| {
            let selected = slices.select(&[offsets(0..8)]).unwrap();
            keys_of(&selected).unwrap().into_iter().map(|it| it.offset.0).collect::<Vec<_>>()
        };
        assert!(!slices.expire(Timestamp(4)));
        assert_eq!(sent(&slices), [0, 1, 3, 4, 5, 6, 7]);
        assert!(slices.expire(Timestamp(5)));
        let fetched = slices.fetched(Offset(0), false);
        let failed: Vec<_> = fetched.failed.iter().map(|it| (it.first.0, it.last.0, &it.reason)).collect();
        assert_eq!(failed, [(0, 0, &Reason::Expired), (4, 5, &Reason::Expired)]);
        assert_eq!((fetched.reached, fetched.filtered), (Offset(8), &[offsets(2..3)][..]));
        assert_eq!(sent(&slices), [1, 3, 6, 7]);
        assert_eq!(
            slices.event(Offset(4)).unwrap().payload.as_deref(),
            Some(&b"4"[..]),
            "for its dead letter"
        );
        let takers = [&[offsets(0..4)][..], &[offsets(4..8)]];
        let divided = slices.divide(&takers).into_iter().map(Result::unwrap);
        let divided: Vec<Vec<_>> =
            divided.map(|it| keys_of(&it).unwrap().into_iter().map(|it| it.offset.0).collect()).collect();
        assert_eq!(divided, [vec![1, 3], vec![6, 7]]);
        slices.load_keys().unwrap();
        let keys = slices.fetched(Offset(0), true).keys.unwrap();
        assert_eq!(keys.len(), 7, "also of what may be in flight");
        assert!(slices.expire(Timestamp(9)));
        assert_eq!(slices.fetched(Offset(2), false).failed.len(), 2);
        assert_eq!(sent(&slices), [1, 6, 7]);
    }

    #[test]
    fn renumbered_slices_are_the_same_elsewhere() {
        let pieces = || vec![keyed_piece(&[(7, Some("a")), (9, None)])];
        let mut slices = Slices::stored(Offset(7), pieces()).unwrap();
        slices.load_keys().unwrap();
        let moved = slices.renumbered(Offset(2));
        let fetched = moved.fetched(Offset(2), true);
        assert_eq!((moved.range(), fetched.reached), (offsets(2..5), Offset(5)));
        assert_eq!((&fetched.chunks[0].range, fetched.filtered), (&offsets(2..5), &[offsets(3..4)][..]));
        assert_eq!(fetched.keys, Some(&[key(2, Some("a")), key(4, None)][..]));
        assert_eq!(moved.event(Offset(4)).and_then(|event| event.payload).as_deref(), Some(&b"9"[..]));
    }

    #[test]
    fn an_event_is_found_by_its_offset() {
        let slices = Slices::stored(Offset(0), vec![piece(&[0, 2]), piece(&[3])]).unwrap();
        let payload = |offset| slices.event(Offset(offset)).and_then(|event| event.payload);
        assert_eq!(payload(2).as_deref(), Some(&b"2"[..]));
        assert_eq!((payload(1), payload(4)), (None, None));
    }
}
