//! What a plugin host promises, and what its callers promise in return.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;

use crate::{Artefact, AttachError, AttachSpec, CallInput, CallOutcome, Inspected, StageStats};

/// A future that can be kept in a struct and sent to another thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// A plugin host.
///
/// The contract:
/// - Both methods return at once. The work, which can take seconds for a compilation, is done while the future is
///   awaited and never on the thread that polls it.
/// - Dropping a future abandons the work; only caches remain of it.
pub trait Plugins: Send + Sync + 'static {
    /// Validates an artefact: it must be a component, export an interface and import only what is granted.
    ///
    /// # Errors
    /// One of the `PLUGIN_` codes if it is not a plugin.
    fn inspect(&self, artefact: Bytes) -> BoxFuture<Result<Inspected, AttachError>>;

    /// Loads an artefact, creates an instance and initialises it with its configuration.
    ///
    /// # Errors
    /// As for [`Plugins::inspect`]; if the artefact cannot be read, or the plugin refuses its configuration.
    fn attach(&self, artefact: Artefact, spec: AttachSpec) -> BoxFuture<Result<Arc<dyn Stage>, AttachError>>;
}

/// A plugin that is attached at one point with one configuration.
///
/// The contract for every stage:
/// - The answer has the layout of [`levada_protocol::verdict`] and at most
///   [`CALL_OUTPUT_BYTES_MAX`](levada_protocol::limits::CALL_OUTPUT_BYTES_MAX) bytes. Its content is not trusted: the
///   stage checks lengths only, and the caller validates the rest.
/// - A call ends within the attachment's deadline, plus the time in which other attachments have their turn and the
///   time that creating an instance takes. It never panics.
/// - Attachments share the host's time equally, however long their calls are.
/// - [`Stage::stats`] can be read at any time, also while a call runs.
/// - Dropping the future of a call abandons the call; its answer is not used.
///
/// What the caller of a stateless stage may do ([`Stage::is_stateful`] is false):
/// - call it several times at once, and take the answers in any order;
/// - give the same events again, alone or together with others, and use the answer for some of them only.
///
/// What the caller of a stateful stage must do:
/// - Call it one at a time for each partition of the attachment, in the order of the events.
/// - Pass [`CallInput::state`], which shows every write of earlier calls that count, and no other.
/// - Count an answer whole or not at all. If all its verdicts take effect, its writes do too, in the same commit. If
///   only the events before some position can take effect, the answer and its writes are discarded, and the stage is
///   called again with those events alone and the state as it was before.
/// - A call that fails has written nothing.
pub trait Stage: Send + Sync + 'static {
    /// Hands events to the plugin.
    fn call(&self, input: CallInput) -> BoxFuture<CallOutcome>;

    /// Whether a call reads and writes state. It never changes for an attachment.
    fn is_stateful(&self) -> bool {
        false
    }

    /// What this attachment has cost since it was made.
    fn stats(&self) -> StageStats;
}
