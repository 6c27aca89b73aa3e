//! Settings of publishing, subscribing and plugins.

use std::time::Duration;

use bytesize::ByteSize;

use super::{
    Error,
    section::{duration, number, section, size},
};
use crate::units;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

section! {
    /// Publishing: what may wait for its commit, and what is remembered of producers.
    PublishConfig {
        /// Bytes of published batches that may wait for their commit.
        #[serde(with = "units::size")]
        bytes_max: ByteSize = ByteSize::mib(32);
        /// Unacknowledged publishes of one stream.
        stream_in_flight_max: usize = 4_096;
        /// Commands that may wait for the shard's writer.
        writer_queue_max: usize = 8_192;
        /// Bytes of one encoded commit, unless one publish or acknowledgement alone needs more.
        #[serde(with = "units::size")]
        commit_bytes_max: ByteSize = ByteSize::kib(960);
        /// Groups that may be written and not yet synced.
        groups_unsynced_max: usize = 4;
        /// Producers kept in memory; others are read from the store when they publish again.
        producers_max: usize = 65_536;
        /// How long a producer is remembered after its last publish, so that a repeat is recognised.
        #[serde(with = "units::duration")]
        producers_idle: Duration = Duration::from_secs(7 * 24 * 3_600);
        /// Event ids remembered for the dedup windows of all topics, about 32 bytes of memory each. Beyond it the
        /// partition with the most forgets its oldest, and `levada topic describe` says how short its window is.
        dedup_ids_max: usize = 8_000_000;
    }
}

section! {
    /// Prepared transactions: when their producer groups are asked about them.
    TransactionsConfig {
        /// How long after a transaction was prepared its group is asked about it, unless it says otherwise.
        #[serde(with = "units::duration")]
        check_after: Duration = Duration::from_secs(6);
        /// How long after a check that was not answered the group is asked again.
        #[serde(with = "units::duration")]
        check_interval: Duration = Duration::from_secs(30);
        /// How often it is asked; then the transaction is parked until a person decides.
        checks_max: usize = 15;
    }
}

section! {
    /// Subscribing and reading: what may be ready for slow consumers.
    SubscribeConfig {
        /// Bytes of deliveries that may be ready for one connection's streams and not yet taken by them.
        #[serde(with = "units::size")]
        connection_unread_bytes_max: ByteSize = ByteSize::mib(16);
        /// The same over all connections.
        #[serde(with = "units::size")]
        unread_bytes_max: ByteSize = ByteSize::mib(256);
        /// How long a stream may take nothing of the deliveries that it granted credit for: then it is reset with
        /// DEADLINE_EXCEEDED, and its consumer detached. After 2 seconds with LIMIT_EXCEEDED if its connection or the
        /// engine has no room left.
        #[serde(with = "units::duration")]
        unread_timeout: Duration = Duration::from_secs(30);
        /// How long a consumer's acknowledgement waits for a commit group to join before it starts one.
        #[serde(with = "units::duration")]
        progress_delay: Duration = Duration::from_millis(5);
        /// Bytes of the newest batches kept in memory, over all partitions.
        #[serde(with = "units::size")]
        tail_bytes_max: ByteSize = ByteSize::mib(64);
        /// Bytes of batches that subscriptions keep in memory until they are acknowledged, so that sending one again
        /// needs no read; over all subscriptions.
        #[serde(with = "units::size")]
        retained_bytes_max: ByteSize = ByteSize::mib(16);
        /// Bytes that one consumer may have unacknowledged, exceeded by one delivery at most.
        #[serde(with = "units::size")]
        consumer_bytes_max: ByteSize = ByteSize::mib(16);
        /// Memory that the events of one subscription may take which wait for an earlier event of their key; with as much,
        /// nothing new is delivered.
        #[serde(with = "units::size")]
        waiting_bytes_max: ByteSize = ByteSize::mib(80);
        /// Runs of neighbouring events of one subscription that failed alike and wait to be delivered again; with as many,
        /// nothing new is delivered. About 250 bytes of memory each.
        failed_runs_max: usize = 131_072;
        /// Stored bytes that one search may scan before it ends with a cursor to go on from.
        #[serde(with = "units::size")]
        scan_bytes_max: ByteSize = ByteSize::gib(1);
    }
}

section! {
    /// Plugins: threads and limits of calls, and the upload of artefacts.
    PluginsConfig {
        /// Threads that run plugins; 0 means as many as there are processors. Long calls have threads of their own, one
        /// fewer.
        workers: usize = 0;
        /// How often the deadlines of running plugins are checked.
        #[serde(with = "units::duration")]
        tick: Duration = Duration::from_millis(1);
        /// Calls of one chain stage that may wait for a thread.
        queue_calls_max: usize = 16;
        /// Processor time that making an instance may take, `init` included.
        #[serde(with = "units::duration")]
        init_deadline: Duration = Duration::from_secs(2);
        /// Artefacts received at once; the next waits.
        uploads_max: usize = 2;
        /// How long one artefact may take to arrive.
        #[serde(with = "units::duration")]
        upload_timeout: Duration = Duration::from_secs(120);
        /// How long an artefact may bring less than 64 KiB while another waits for its slot.
        #[serde(with = "units::duration")]
        upload_stall_timeout: Duration = Duration::from_secs(10);
    }
}

impl PublishConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bytes = ByteSize::kib(64)..=ByteSize::gib(1);
        size("publish.bytes_max", self.bytes_max, bytes.clone())?;
        size("publish.commit_bytes_max", self.commit_bytes_max, bytes)?;
        number("publish.stream_in_flight_max", self.stream_in_flight_max, 1..=1_000_000)?;
        number("publish.writer_queue_max", self.writer_queue_max, 1..=1_000_000)?;
        number("publish.groups_unsynced_max", self.groups_unsynced_max, 1..=1_024)?;
        number("publish.producers_max", self.producers_max, 1..=100_000_000)?;
        number("publish.dedup_ids_max", self.dedup_ids_max, 1..=1_000_000_000)?;
        let (got, least, most) = (self.producers_idle, SECOND, Duration::from_secs(3_650 * 86_400));
        if (least..=most).contains(&got) {
            return Ok(());
        }
        let (got, expected) = (humantime::format_duration(got).to_string(), "1s to 3650days".to_owned());
        Err(Error::Range { key: "publish.producers_idle", got, expected })
    }
}

impl TransactionsConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        duration("transactions.check_after", self.check_after, MILLISECOND)?;
        duration("transactions.check_interval", self.check_interval, MILLISECOND)?;
        number("transactions.checks_max", self.checks_max, 1..=1_000)
    }
}

impl SubscribeConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bytes = ByteSize::kib(64)..=ByteSize::gib(1);
        size("subscribe.connection_unread_bytes_max", self.connection_unread_bytes_max, bytes.clone())?;
        size("subscribe.unread_bytes_max", self.unread_bytes_max, bytes)?;
        size("subscribe.tail_bytes_max", self.tail_bytes_max, ByteSize::b(0)..=ByteSize::tib(1))?;
        size("subscribe.retained_bytes_max", self.retained_bytes_max, ByteSize::b(0)..=ByteSize::tib(1))?;
        let memory = ByteSize::mib(2)..=ByteSize::tib(1);
        size("subscribe.consumer_bytes_max", self.consumer_bytes_max, ByteSize::kib(64)..=ByteSize::tib(1))?;
        size("subscribe.waiting_bytes_max", self.waiting_bytes_max, memory)?;
        number("subscribe.failed_runs_max", self.failed_runs_max, 1_024..=1_000_000)?;
        size("subscribe.scan_bytes_max", self.scan_bytes_max, ByteSize::kib(64)..=ByteSize::tib(1_024))?;
        duration("subscribe.unread_timeout", self.unread_timeout, MILLISECOND)?;
        duration("subscribe.progress_delay", self.progress_delay, Duration::ZERO)
    }
}

impl PluginsConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        number("plugins.workers", self.workers, 0..=1_024)?;
        number("plugins.queue_calls_max", self.queue_calls_max, 1..=10_000)?;
        number("plugins.uploads_max", self.uploads_max, 1..=1_000_000)?;
        duration("plugins.tick", self.tick, MILLISECOND)?;
        duration("plugins.init_deadline", self.init_deadline, MILLISECOND)?;
        duration("plugins.upload_timeout", self.upload_timeout, SECOND)?;
        duration("plugins.upload_stall_timeout", self.upload_stall_timeout, MILLISECOND)
    }
}
