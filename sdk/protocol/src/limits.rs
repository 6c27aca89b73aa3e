//! Every limit of the wire and of what may be stored, with its name and unit.
//!
//! The hello's answer repeats the ones that a client must obey, so that a client of another version can.

/// Largest event: its record inside a batch, key, headers and payload together. 1 MiB.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Largest key in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// Largest event id in bytes of UTF-8.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Most headers that one event may carry.
pub const HEADERS_MAX: usize = 64;
/// Longest header name in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// All headers of one event together, in bytes: 3 + name + value each.
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Largest body of a batch in bytes: one event of the largest size, or many small ones.
pub const BATCH_BODY_BYTES_MAX: usize = EVENT_BYTES_MAX;
/// Most events in one batch.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// The size in bytes that clients fill a batch to: large enough to amortise, small enough to seek into.
pub const BATCH_BYTES_TARGET: usize = 64 * 1024;
/// Most batches of one producer and partition that may be in flight, unacknowledged.
pub const PRODUCER_IN_FLIGHT_MAX: usize = 64;
/// Most names of producers that one topic may have.
pub const NAMED_PRODUCERS_MAX: usize = 10_000;
/// Most runs of offsets that an acknowledgement names for the duplicates of one batch.
pub const DUPLICATE_RUNS_MAX: usize = 256;
/// Longest dedup window of a topic in milliseconds: 7 days.
pub const DEDUP_WINDOW_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// How far ahead a delayed event may be due, in milliseconds: 365 days.
pub const DELAY_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// How long after its time a delayed event is known to have been cancelled, in milliseconds: 7 days.
pub const CANCEL_REMEMBERED_MS: u64 = 7 * 24 * 3_600_000;
/// Shortest time in milliseconds after which a subscription without consumers may be deleted: a minute.
pub const EXPIRE_AFTER_MS_MIN: u64 = 60_000;
/// Longest such time in milliseconds: 365 days.
pub const EXPIRE_AFTER_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// Most partitions of a topic.
pub const PARTITIONS_MAX: u16 = 1024;
/// Longest topic name in bytes that a user may choose.
pub const TOPIC_NAME_BYTES_MAX: usize = 128;
/// Longest topic name in bytes that the engine itself makes (dead-letter topics).
pub const TOPIC_NAME_BYTES_MAX_INTERNAL: usize = 255;
/// Longest name in bytes of a subscription, route, plugin, producer or producer group.
pub const NAME_BYTES_MAX: usize = 63;
/// Largest payload in bytes that a frame of any known type may have. A length over the limit of its type closes the
/// connection before anything is read.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Largest payload in bytes of a frame that opens a stream or carries a request.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of maps and arrays in a MessagePack message; the deepest of ours has eight levels.
pub const MESSAGE_DEPTH_MAX: usize = 32;
/// Most verbs in one verbs frame.
pub const VERBS_MAX: usize = 4096;
/// Longest reason text in bytes of a reject or of a refusal.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest name in bytes that a consumer may give itself.
pub const CONSUMER_NAME_BYTES_MAX: usize = 256;
/// Largest plugin artefact in bytes.
pub const ARTEFACT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest plugin configuration in bytes of text.
pub const PLUGIN_CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Most stages in one chain.
pub const CHAIN_STAGES_MAX: usize = 8;
/// Most memory in bytes that one instance of a plugin may be allowed.
pub const INSTANCE_MEMORY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most target topics of one route.
pub const ROUTE_TARGETS_MAX: usize = 64;
/// Most times an event may pass a route before it is refused as a loop.
pub const HOPS_MAX: u8 = 8;
/// Most events handed to a plugin in one call.
pub const CALL_EVENTS_MAX: usize = 512;
/// Most bytes handed to a plugin in one call, unless one event alone is larger.
pub const CALL_BYTES_MAX: usize = 256 * 1024;
/// Most bytes that a plugin may answer for one call.
pub const CALL_OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most events that a plugin may emit for one call.
pub const CALL_OUTPUT_EVENTS_MAX: usize = 10_000;
/// Headers that the engine may add to an event, on top of [`HEADERS_MAX`]: those of dead letters.
pub const ENGINE_HEADERS_MAX: usize = 16;
/// Bytes that those headers may add to an event, on top of every limit in bytes that they count towards.
pub const ENGINE_HEADERS_BYTES_MAX: usize = 4096;
/// Most times that an event may be redriven, over all dead letters that it becomes, unless it is forced.
pub const REDRIVES_MAX: u32 = 8;
/// Most dead letters that one redrive request names, or deals with.
pub const REDRIVE_EVENTS_MAX: usize = 1_000;
/// Most groups of dead letters in one response.
pub const DEAD_LETTER_GROUPS_MAX: usize = 256;
/// Longest id of a transaction in bytes.
pub const TRANSACTION_ID_BYTES_MAX: usize = 128;
/// All batches of one transaction together, in bytes: 4 MiB.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most events of one transaction.
pub const TRANSACTION_EVENTS_MAX: usize = 10_000;
/// Most batches of one transaction.
pub const TRANSACTION_BATCHES_MAX: usize = 1_000;
/// Most deliveries, or parts of them, that one transaction acknowledges.
pub const TRANSACTION_ACKS_MAX: usize = 2_048;
/// Bytes that the undecided transactions of one producer group may hold.
pub const PREPARED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most undecided transactions of one producer group.
pub const PREPARED_MAX: usize = 10_000;
/// How long a decision about a prepared transaction is remembered, in milliseconds: 7 days.
pub const DECISION_REMEMBERED_MS: u64 = 7 * 24 * 3_600_000;
/// How long a transaction that was committed at once is remembered, so that a repeat is known as one: 10 minutes.
pub const TRANSACTION_REMEMBERED_MS: u64 = 10 * 60_000;
/// How long after it was prepared a transaction is asked about for the first time, at most: a day.
pub const CHECK_AFTER_MS_MAX: u64 = 24 * 3_600_000;
/// Longest permission, as text.
pub const PERMISSION_BYTES_MAX: usize = 1024;
/// Most permissions of one principal.
pub const PERMISSIONS_MAX: usize = 256;
/// Most certificate names of one principal.
pub const CERTIFICATES_MAX: usize = 16;
/// Longest certificate name.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 512;
/// Most tokens of one principal that are neither revoked nor expired.
pub const TOKENS_MAX: usize = 64;
/// Longest description of a token.
pub const TOKEN_DESCRIPTION_BYTES_MAX: usize = 256;
/// Longest life of a token with an end, in milliseconds: ten years.
pub const TOKEN_EXPIRES_MS_MAX: u64 = 3_650 * 24 * 3_600_000;
/// Longest URL of a push.
pub const PUSH_URL_BYTES_MAX: usize = 2_048;
/// Most events that the receiver of a push has at a time.
pub const PUSH_IN_FLIGHT_MAX: u32 = 1_000;
/// Shortest time that the receiver of a push has to respond, in milliseconds.
pub const PUSH_TIMEOUT_MS_MIN: u32 = 100;
/// Longest time that the receiver of a push has to respond, in milliseconds: 2 minutes.
pub const PUSH_TIMEOUT_MS_MAX: u32 = 120_000;
/// For how long the secret before the current one of a push signs at most, in milliseconds: 30 days.
pub const PUSH_PREVIOUS_FOR_MS_MAX: u64 = 30 * 24 * 3_600_000;
