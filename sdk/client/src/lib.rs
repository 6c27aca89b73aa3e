//! The Rust client of Levada: publish, subscribe and read events over QUIC.
//!
//! ```no_run
//! use levada_client::{Client, ClientConfig, Event, PublisherOptions, SubscribeOptions, TopicSettings};
//!
//! # async fn quick_start() -> Result<(), levada_client::Error> {
//! let client = Client::connect(ClientConfig::new("localhost:7600").ca_file("levada-data/tls/ca.pem")).await?;
//! client.create_topic("orders", TopicSettings::default()).await?;
//!
//! // Publish: a ticket an event, resolved once the event is stored.
//! let publisher = client.publisher("orders", PublisherOptions::default()).await?;
//! let ticket = publisher.publish(Event::new("one coffee").with_key("order-42")).await?;
//! let receipt = ticket.await?;
//! println!("stored in partition {} at offset {:?}", receipt.partition, receipt.offset);
//!
//! // Subscribe: event by event, each acknowledged once it is processed.
//! let options = SubscribeOptions {
//!     options: Some(Default::default()), // make the subscription if there is none
//!     ..SubscribeOptions::new("orders", "payment")
//! };
//! let mut subscriber = client.subscribe(options).await?;
//! while let Some(event) = subscriber.next().await? {
//!     println!("{}: {:?}", event.offset(), event.payload);
//!     event.ack();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything reconnects by itself: a [`Publisher`] sends again what was not acknowledged, once each and in
//! order; a [`Subscriber`] attaches again; a [`Reader`] goes on where it was. Every error has a stable
//! [`ErrorCode`], and says whether to retry and whether anything happened.
//!
//! This crate knows the protocol and nothing of the engine behind it. Its tasks run on the tokio runtime of
//! the program.

mod client;
mod config;
mod error;

mod partition_counts;
mod publisher;

mod transaction;

mod delivered;
mod delivery;
mod subscriber;

mod reader;

mod admin;
mod dead_letters;
mod ensure;

mod clock;
mod credentials;
mod fetch;
mod link;
mod links;
mod probe;
mod retry;
mod session;
mod stream;
mod target;
mod tasks;
mod tls;
mod transport;

#[doc(hidden)]
pub mod bare;

pub use levada_protocol::{
    self as protocol,
    batch::EventRef,
    certificate_name::CertificateName,
    dead_letters::{DeadLetter, DeadLettersOf},
    error::{ErrorCode, Refusal},
    event::Event,
    ids::{
        DeliveryToken, GroupName, InvalidName, Offset, PartitionId, PluginName, PrincipalName, ProducerName,
        RouteName, SubscriptionName, Timestamp, TokenId, TopicName, TransactionId,
    },
    permission::{InvalidPermission, Permission},
    progress::Scanned,
    publish::Durability,
    request::{
        Alarm, BacklogInfo, ChangePrincipal, CreatePrincipal, DEDUP_WINDOW_MS_USUAL, DeadLetterGroup,
        DeadLetterTopic, DedupInfo, Deleted, EngineInfo, HelloAnswer, Holding, Interface, IssuedPush,
        IssuedToken, LostEvents, NewToken, Notice, OnError, OnFull, Order, PartitionInfo, PauseReason,
        PluginInfo, Position, PrincipalInfo, Purged, PurgedTopic, PushFailure, PushInfo, PushState,
        QuotaChanges, Quotas, RedriveInfo, RedriveOutcome, Request, Response, Retain, Retry, RouteInfo,
        RouteSpec, RunState, SetPush, StageSpec, Start, Subscribed, SubscriptionInfo, SubscriptionOptions,
        TokenInfo, TokenState, TopicChanges, TopicInfo, TopicSettings, TransactionBatch,
        TransactionDuplicate, TransactionInfo, TransactionState, WaitingFor,
    },
    schedule::{Due, ScheduledInfo},
};

pub use self::{
    admin::{DeleteOptions, PurgeOptions},
    client::Client,
    config::{BearerToken, Ca, ClientCertificate, ClientConfig, DEFAULT_PORT},
    dead_letters::{Grouping, Purge, RedriveOptions, RedriveSelection, RedriveTarget, Redriving},
    delivered::DeliveredEvent,
    delivery::Delivery,
    ensure::Ensured,
    error::{Cause, Error},
    fetch::{CaFingerprint, fetch_ca, shown_ca},
    publisher::{
        AfterFailure, Publisher, PublisherOptions, PublisherStats, Receipt, ScheduleReceipt, ScheduleTicket,
        Ticket, WhenFull,
    },
    reader::{
        Cursor, Found, InvalidCursor, ReadOptions, Reader, Search, SearchBound, SearchEnd, SearchOptions,
        SearchScope,
    },
    subscriber::{Prefetch, Pull, PullSubscriber, SubscribeOptions, Subscriber},
    transaction::{Check, CheckBacks, LastRefusal, Prepared, ProducerGroup, Transaction},
};
