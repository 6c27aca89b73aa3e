//! The table of error codes. Everything that is known about a code is one line of it: the enum, its numbers, names and
//! properties are made from that line, and `sdk/PROTOCOL.md` is compared with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything that is the same wherever a code occurs.
struct Row {
    number: u16,
    name: &'static str,
    is_retryable: bool,
    has_no_side_effects: bool,
    http_status: u16,
    meaning: &'static str,
}

/// What is assumed about a code of a newer version: nothing that would be a promise.
const UNKNOWN: Row = Row {
    number: 0,
    name: "UNKNOWN",
    is_retryable: false,
    has_no_side_effects: false,
    http_status: 500,
    meaning: "a code of a newer version",
};

/// Makes the enum and its table. Columns: number on the wire; variant; name; whether the same call may succeed later,
/// unchanged; what the refused call has changed, `none` if that is certain; the HTTP status; the meaning.
macro_rules! codes {
    ($($number:literal $code:ident $name:ident retry $retry:ident effect $effect:ident http $http:literal $meaning:literal;)+) => {
        /// A stable error code. Names and numbers are part of the protocol and never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", stringify!($name), "`, ", $number, ", HTTP ", $http, ": ", $meaning, ".")]
                $code,
            )+
            /// A code of a newer version, with its number. Neither retryable nor known to be without effect.
            Unknown(u16),
        }

        /// All codes of this version, in order of their numbers.
        const ALL: &[ErrorCode] = &[$(ErrorCode::$code,)+];

        impl ErrorCode {
            /// The code with this number; one that this version does not know is kept as it came.
            pub fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$code,)+
                    other => Self::Unknown(other),
                }
            }

            const fn row(self) -> Row {
                match self {
                    $(Self::$code => Row {
                        number: $number,
                        name: stringify!($name),
                        is_retryable: codes!(@retry $retry),
                        has_no_side_effects: codes!(@effect $effect),
                        http_status: $http,
                        meaning: $meaning,
                    },)+
                    Self::Unknown(number) => Row { number, ..UNKNOWN },
                }
            }
        }
    };
    (@retry yes) => { true };
    (@retry no) => { false };
    (@effect none) => { true };
    (@effect unknown) => { false };
}

codes! {
     1 Malformed            MALFORMED              retry no  effect none    http 400 "bytes that are not what the protocol says";
     2 FrameTooLarge        FRAME_TOO_LARGE        retry no  effect none    http 413 "a frame length over the limit of its type";
     3 UnknownFrame         UNKNOWN_FRAME          retry no  effect none    http 400 "a frame type that this version does not know";
     4 UnsupportedVersion   UNSUPPORTED_VERSION    retry no  effect none    http 426 "no protocol version in common";
     5 HelloRequired        HELLO_REQUIRED         retry no  effect none    http 426 "the first stream of a connection is no hello, or none came in time";
     6 Unsupported          UNSUPPORTED            retry no  effect none    http 404 "a request or option that this version does not serve";
     7 NotOwner             NOT_OWNER              retry yes effect none    http 421 "another engine owns this shard; reserved, a client retries at the address given";
     8 DeadlineExceeded     DEADLINE_EXCEEDED      retry yes effect unknown http 504 "the request's deadline passed; whether it took effect is unknown";
     9 ShuttingDown         SHUTTING_DOWN          retry yes effect none    http 503 "the engine is going away; nothing happened";
    10 LimitExceeded        LIMIT_EXCEEDED         retry yes effect none    http 429 "one connection, stream, consumer or request too many, or more unread than may wait";
    11 Internal             INTERNAL               retry no  effect unknown http 500 "a fault of the engine's own; its log says more";
    12 InvalidArgument      INVALID_ARGUMENT       retry no  effect none    http 400 "a value outside its range or of the wrong form";
    13 InvalidName          INVALID_NAME           retry no  effect none    http 400 "a name that does not obey its grammar";
    14 PermissionDenied     PERMISSION_DENIED      retry no  effect none    http 403 "the caller is not allowed to do this";
    15 Unauthenticated      UNAUTHENTICATED        retry no  effect none    http 401 "no token or certificate of a principal, or one that is unknown, expired or revoked";
    16 PrincipalNotFound    PRINCIPAL_NOT_FOUND    retry no  effect none    http 404 "no such principal";
    17 PrincipalExists      PRINCIPAL_EXISTS       retry no  effect none    http 409 "a principal of this name exists, or has this certificate name";
    18 TokenNotFound        TOKEN_NOT_FOUND        retry no  effect none    http 404 "no token of this id";
    19 LastAdministrator    LAST_ADMINISTRATOR     retry no  effect none    http 409 "nobody would be left who may administrate the engine";
    20 TopicNotFound        TOPIC_NOT_FOUND        retry no  effect none    http 404 "no such topic, or none that the caller may see";
    21 TopicExists          TOPIC_EXISTS           retry no  effect none    http 409 "a topic of this name exists";
    22 TopicInUse           TOPIC_IN_USE           retry no  effect none    http 409 "a route or subscription still needs the topic";
    23 PartitionNotFound    PARTITION_NOT_FOUND    retry no  effect none    http 404 "the topic has fewer partitions";
    24 OffsetOutOfRange     OFFSET_OUT_OF_RANGE    retry no  effect none    http 416 "the offset is outside what the partition holds";
    25 RedriveLoop          REDRIVE_LOOP           retry no  effect none    http 409 "a redrive to a topic of the engine's own, such as the dead-letter topic itself";
    26 NotRedriven          NOT_REDRIVEN           retry no  effect none    http 409 "a purge of dead letters of which some were never redriven, and that was not forced";
    27 Quota                QUOTA                  retry yes effect none    http 429 "the principal has used up one of its quotas; retry later";
    28 PrincipalInUse       PRINCIPAL_IN_USE       retry no  effect none    http 409 "the principal is a role of others";
    29 ViewChanged          VIEW_CHANGED           retry yes effect none    http 409 "the permissions that say through which plugins a topic is read have changed: read again";
    30 BatchInvalid         BATCH_INVALID          retry no  effect none    http 400 "a batch whose length, count, checksum or layout is wrong";
    31 EventTooLarge        EVENT_TOO_LARGE        retry no  effect none    http 413 "an event over one of the limits";
    32 SequenceGap          SEQUENCE_GAP           retry no  effect none    http 409 "a producer's sequence skips events that were never seen";
    33 ProducerFenced       PRODUCER_FENCED        retry no  effect none    http 409 "another publisher has taken over the name of this one";
    34 ProducerUnknown      PRODUCER_UNKNOWN       retry no  effect none    http 409 "the engine no longer knows this producer, or its name; begin again at sequence 0, or open the name again";
    35 OffsetMismatch       OFFSET_MISMATCH        retry no  effect none    http 409 "the partition's next offset is not the expected one";
    36 BacklogFull          BACKLOG_FULL           retry yes effect none    http 429 "the slowest subscription or route of the topic is too far behind for its quota; retry later";
    37 StorageFull          STORAGE_FULL           retry yes effect none    http 507 "free disk space is under the reserve; retry later";
    38 OutcomeUnknown       OUTCOME_UNKNOWN        retry yes effect unknown http 503 "storage failed before the outcome was durable; retry with the same sequence";
    39 TooManyInFlight      TOO_MANY_IN_FLIGHT     retry yes effect none    http 429 "more batches of one producer and partition in flight than the hello allows (not sent by this version)";
    40 Rejected             REJECTED               retry no  effect none    http 422 "a plugin refused the event at publish (not sent by this version)";
    41 PluginFailed         PLUGIN_FAILED          retry yes effect none    http 503 "a plugin failed at publish (not sent by this version)";
    42 ChainPaused          CHAIN_PAUSED           retry yes effect none    http 503 "the subscription or route is paused until it is resumed (not sent by this version)";
    43 HeaderReserved       HEADER_RESERVED        retry no  effect none    http 400 "a header whose name only the engine gives: one that begins with `lv-`";
    44 DelayTooLong         DELAY_TOO_LONG         retry no  effect none    http 400 "a delayed event would be due in more than 365 days";
    45 ScheduleNotFound     SCHEDULE_NOT_FOUND     retry no  effect none    http 404 "no event was ever scheduled under this id in the topic; from `describe_scheduled`, it may have been cancelled, too";
    46 AlreadyDue           ALREADY_DUE            retry no  effect none    http 409 "the scheduled event's time has come, and it was not cancelled before";
    50 SubscriptionNotFound SUBSCRIPTION_NOT_FOUND retry no  effect none    http 404 "no such subscription";
    51 SubscriptionExists   SUBSCRIPTION_EXISTS    retry no  effect none    http 409 "a subscription of this name exists on the topic";
    52 SubscriptionMismatch SUBSCRIPTION_MISMATCH  retry no  effect none    http 409 "the subscription exists, and an option that was given is another there";
    53 DeliveryExpired      DELIVERY_EXPIRED       retry no  effect none    http 409 "the delivery is no longer this consumer's: it expired or was given back";
    54 WindowFull           WINDOW_FULL            retry yes effect none    http 429 "too many offsets above the oldest unacknowledged one (not sent by this version)";
    55 SubscriptionInUse    SUBSCRIPTION_IN_USE    retry no  effect none    http 409 "consumers are attached to the subscription";
    56 SubscriptionMoved    SUBSCRIPTION_MOVED     retry yes effect none    http 409 "the subscription was moved or changed so that deliveries were taken back: attach again";
    57 PushNotFound         PUSH_NOT_FOUND         retry no  effect none    http 404 "the subscription has no push";
    58 PushRefused          PUSH_REFUSED           retry no  effect none    http 400 "a URL that the engine does not push to: not https, or an address that is not public and not allowed";
    60 PluginNotFound       PLUGIN_NOT_FOUND       retry no  effect none    http 404 "no such plugin or version";
    61 PluginInvalid        PLUGIN_INVALID         retry no  effect none    http 400 "the bytes are no WebAssembly component, or not one that this engine runs";
    62 PluginExportMissing  PLUGIN_EXPORT_MISSING  retry no  effect none    http 400 "the component exports none of the interfaces of levada:plugin";
    63 PluginImportDenied   PLUGIN_IMPORT_DENIED   retry no  effect none    http 400 "the component imports something that is not granted";
    64 PluginInitRefused    PLUGIN_INIT_REFUSED    retry no  effect none    http 400 "the plugin refused its configuration";
    65 PluginInUse          PLUGIN_IN_USE          retry no  effect none    http 409 "a subscription or route still uses the plugin";
    66 PluginTooLarge       PLUGIN_TOO_LARGE       retry no  effect none    http 413 "the artefact is over the limit";
    70 RouteNotFound        ROUTE_NOT_FOUND        retry no  effect none    http 404 "no such route";
    71 RouteExists          ROUTE_EXISTS           retry no  effect none    http 409 "a route of this name exists";
    72 RouteCycle           ROUTE_CYCLE            retry no  effect none    http 400 "the route would lead events back to where they came from";
    74 TransactionNotFound  TRANSACTION_NOT_FOUND  retry no  effect none    http 404 "no transaction of this id in the group, or none that is still remembered";
    75 TransactionExists    TRANSACTION_EXISTS     retry no  effect none    http 409 "a transaction of this id with other events exists in the group";
    76 AlreadyDecided       ALREADY_DECIDED        retry no  effect none    http 409 "the transaction was decided the other way before";
    77 TransactionTooLarge  TRANSACTION_TOO_LARGE  retry no  effect none    http 413 "a transaction of too many events, batches, bytes or acknowledgements";
    78 TooManyPrepared      TOO_MANY_PREPARED      retry yes effect none    http 429 "the producer group has as many undecided transactions as it may, or as many bytes in them";
    80 StorageFailed        STORAGE_FAILED         retry no  effect none    http 503 "a write or sync failed; the engine takes no writes until it is restarted";
    81 StorageCorrupt       STORAGE_CORRUPT        retry no  effect none    http 500 "stored bytes are damaged or missing";
    82 StorageInUse         STORAGE_IN_USE         retry no  effect none    http 409 "another engine has the data directory open (when the engine starts)";
    83 StorageNewer         STORAGE_NEWER          retry no  effect none    http 500 "the data directory was written by a newer format (when the engine starts)";
    84 AddressInUse         ADDRESS_IN_USE         retry no  effect none    http 409 "the address to listen on is taken (when the engine starts)";
    85 ConfigInvalid        CONFIG_INVALID         retry no  effect none    http 400 "a configuration value is missing or wrong (when the engine starts)";
    86 StorageOlder         STORAGE_OLDER          retry no  effect none    http 500 "the data directory was written by an older format, which this release does not read (when the engine starts)";
    87 StorageDiverged      STORAGE_DIVERGED       retry no  effect none    http 500 "the store holds another history of commits than the one that it is given";
    88 StorageFenced        STORAGE_FENCED         retry no  effect none    http 500 "another writer has taken over; this one has stopped writing";
    90 ConnectionLost       CONNECTION_LOST        retry yes effect unknown http 503 "the connection ended; whether what was in flight took effect is unknown (made by the client)";
    91 ConnectFailed        CONNECT_FAILED         retry yes effect none    http 503 "no connection could be made (made by the client)";
    92 TlsFailed            TLS_FAILED             retry no  effect none    http 500 "the peer's certificate is not trusted, or the handshake failed (made by the client)";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self.row().number
    }

    /// The stable name, such as `TOPIC_NOT_FOUND`; `UNKNOWN` for a code of a newer version.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// What the code means, in lower case and without a full stop.
    pub const fn meaning(self) -> &'static str {
        self.row().meaning
    }

    /// True if the same call may succeed later, unchanged.
    pub const fn is_retryable(self) -> bool {
        self.row().is_retryable
    }

    /// True if it is certain that nothing was changed.
    pub const fn has_no_side_effects(self) -> bool {
        self.row().has_no_side_effects
    }

    /// The HTTP status of a response with this code, from 400 to 599.
    pub const fn http_status(self) -> u16 {
        self.row().http_status
    }

    /// All codes of this version, in order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().copied()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "UNKNOWN_{number}"),
            known => f.write_str(known.as_str()),
        }
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let (mut names, mut last) = (HashSet::new(), 0);
        for code in ErrorCode::all() {
            assert!(code.number() > last, "{code} is in order of its number");
            last = code.number();
            assert!(names.insert(code.as_str()), "{code} shares its name");
            assert_eq!(ErrorCode::from_number(code.number()), code);
        }
    }

    #[test]
    fn a_code_of_a_newer_version_keeps_its_number_and_promises_nothing() {
        let code = ErrorCode::from_number(9_999);
        assert_eq!((code, code.number()), (ErrorCode::Unknown(9_999), 9_999));
        assert_eq!(code.to_string(), "UNKNOWN_9999");
        assert!(!code.is_retryable() && !code.has_no_side_effects());
    }

    #[test]
    fn statuses_are_errors_and_meanings_have_the_form_of_messages() {
        for code in ErrorCode::all() {
            assert!((400..600).contains(&code.http_status()), "{code}");
            assert!(!code.meaning().ends_with('.') && !code.meaning().contains('|'), "{code}");
        }
    }
}
