//! What can be set about a broker. Every queue and cache has its limit here.

use std::{path::PathBuf, sync::Arc, time::Duration};

use levada_delivery::subscription::Bounds;
use levada_protocol::ids::Timestamp;

use crate::{clock::Clock, push::PushUrls};

/// A broker's settings.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The data directory; artefacts and the free-space guard live there.
    pub data_dir: PathBuf,
    /// The number of the shard whose commits these are. Default 0; a store that holds another shard's is refused.
    pub shard: u16,
    /// Bytes of published batches that may wait for their commit. Default 32 MiB.
    pub publish_bytes_max: usize,
    /// Commands that may wait for the shard's writer. Default 8,192.
    pub writer_queue_max: usize,
    /// Unacknowledged publishes of one stream. Default 4,096.
    pub stream_in_flight_max: usize,
    /// Bytes of one encoded commit, unless one publish, proposal or change alone needs more: then it is a commit of its
    /// own, which a journal carries in parts. Default 960 KiB, which a message of common brokers can carry.
    pub commit_bytes_max: usize,
    /// Groups that may be written and not yet synced. Default 4.
    pub groups_unsynced_max: usize,
    /// Bytes of the newest batches kept in memory, over all partitions. Default 64 MiB.
    pub tail_bytes_max: usize,
    /// Bytes of batches that subscriptions keep in memory until they are acknowledged, so that sending one again needs
    /// no read; over all subscriptions. Default 16 MiB.
    pub retained_bytes_max: usize,
    /// What the deliveries of one subscription may take.
    pub delivery: Bounds,
    /// Bytes that may be ready for one connection's streams and not taken by them. Default 16 MiB.
    pub connection_unread_bytes_max: usize,
    /// The same over all connections. Default 256 MiB.
    pub unread_bytes_max: usize,
    /// Stored bytes that one search may scan before it ends with a cursor. Default 1 GiB.
    pub scan_bytes_max: u64,
    /// How long an acknowledgement waits for a group to ride in before it makes one. Default 5 ms.
    pub progress_delay: Duration,
    /// Free disk space under which publishes are refused: at least this, and at least the smaller of a tenth of
    /// the volume and 1 GiB. Default 64 MiB.
    pub disk_reserve_bytes: u64,
    /// How often free space is measured. Default 500 ms.
    pub disk_check_interval: Duration,
    /// How often retention runs. Default 30 s.
    pub retention_interval: Duration,
    /// Producers remembered in memory; older ones are looked up in the store. Default 65,536.
    pub producers_max: usize,
    /// How long a producer is remembered after its last publish, so that a repeat is known as one. Default 7 days.
    pub producers_idle: Duration,
    /// Event ids remembered for dedup windows, over all topics; beyond it the partition with the most forgets its oldest.
    /// Each takes about 32 bytes of memory, more where there are few. Default 8,000,000.
    pub dedup_ids_max: usize,
    /// Topics, subscriptions, routes and plugin versions together. Default 100,000.
    pub catalogue_records_max: usize,
    /// When logs that keep the last event of each key are compacted.
    pub compaction: CompactionConfig,
    /// When producer groups are asked about their prepared transactions.
    pub check_back: CheckBackConfig,
    /// How long after a start no subscription is deleted for having no consumers, so that they can come back. Default 1
    /// minute.
    pub expire_after_start: Duration,
    /// Which URLs deliveries may be pushed to. Default: none, and no push can be set.
    pub push_urls: Option<Arc<dyn PushUrls>>,
    /// What gives events their append times and subscriptions their time. Default: the system's clocks.
    pub clock: Clock,
}

impl BrokerConfig {
    /// The defaults, for this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            shard: 0,
            publish_bytes_max: 32 << 20,
            writer_queue_max: 8_192,
            stream_in_flight_max: 4_096,
            commit_bytes_max: 960 << 10,
            groups_unsynced_max: 4,
            tail_bytes_max: 64 << 20,
            retained_bytes_max: 16 << 20,
            delivery: Bounds::default(),
            connection_unread_bytes_max: 16 << 20,
            unread_bytes_max: 256 << 20,
            scan_bytes_max: 1 << 30,
            progress_delay: Duration::from_millis(5),
            disk_reserve_bytes: 64 << 20,
            disk_check_interval: Duration::from_millis(500),
            retention_interval: Duration::from_secs(30),
            producers_max: 65_536,
            producers_idle: Duration::from_secs(7 * 24 * 3_600),
            dedup_ids_max: 8_000_000,
            catalogue_records_max: 100_000,
            compaction: CompactionConfig::default(),
            check_back: CheckBackConfig::default(),
            expire_after_start: Duration::from_secs(60),
            push_urls: None,
            clock: Clock::system(),
        }
    }
}

/// What compaction leaves alone, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionConfig {
    /// How old events are at least that are looked at. Default 10 minutes.
    pub age_min: Duration,
    /// How long tombstones stay at least once what they delete is gone: who reads the log within that time learns what was
    /// deleted. They go with a pass behind that, after three times as long at the latest. Default 24 hours.
    pub tombstones_for: Duration,
    /// Keys that one pass collects: it ends before the record with which there may be more. 25 MiB of memory by default,
    /// 917,504: what a table of 2^20 places takes.
    pub keys_max: usize,
    /// Bytes that are read and committed at a time, unless one record is larger. Default 512 KiB.
    pub step_bytes: usize,
    /// Bytes that a pass has replaced when their space is to be given back, before its end. Default 64 MiB.
    pub reclaim_bytes: u64,
    /// How long a partition rests after a pass that met a damaged record. It rests no longer, and else as long as the pass took,
    /// after one that was not worth its reads, as it ended early for its keys. Default 1 hour.
    pub rest: Duration,
}

impl CompactionConfig {
    pub(crate) fn tombstones_for_ms(&self) -> u64 {
        u64::try_from(self.tombstones_for.as_millis()).unwrap_or(u64::MAX)
    }

    /// What was appended later is left alone.
    pub(crate) fn appended_before(&self, now: Timestamp) -> Timestamp {
        let age = u64::try_from(self.age_min.as_millis()).unwrap_or(u64::MAX);
        Timestamp(now.0.saturating_sub(age))
    }
}

impl Default for CompactionConfig {
    fn default() -> Self {
        let hour = Duration::from_secs(3_600);
        Self {
            age_min: hour / 6,
            tombstones_for: hour * 24,
            keys_max: (1 << 20) / 8 * 7,
            step_bytes: 512 << 10,
            reclaim_bytes: 64 << 20,
            rest: hour,
        }
    }
}

/// When producer groups are asked about their prepared transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckBackConfig {
    /// How long after it was prepared, unless the transaction says otherwise. Default 6 s.
    pub after: Duration,
    /// How long after a check that was not answered. Default 30 s.
    pub interval: Duration,
    /// How often; then the transaction is parked until a person decides. Default 15.
    pub checks_max: u16,
}

impl Default for CheckBackConfig {
    fn default() -> Self {
        Self { after: Duration::from_secs(6), interval: Duration::from_secs(30), checks_max: 15 }
    }
}
