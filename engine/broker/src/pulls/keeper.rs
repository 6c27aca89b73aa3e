//! What keeps a pull while anything of it is in flight.

use std::sync::Arc;

use levada_protocol::{error::ErrorCode, verbs::RefusedVerb};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    attached::Attached,
    event::PulledEvent,
    places::{Ask, Outcomes, Place},
};
use crate::{
    access::{Conditions, Principal},
    authentication::Authentication,
};

/// Keeps a pull.
pub(crate) struct Keeper {
    place: Place,
    asked: mpsc::Receiver<Ask>,
}

impl Keeper {
    /// The keeper of a pull.
    pub(crate) fn new(place: Place) -> Self {
        Self { asked: place.keep(), place }
    }

    /// Runs until nothing of the pull is in flight, its subscription or the engine ends, or the principal may not do all this any
    /// more; what is in flight then is given back.
    pub(crate) async fn run(
        self,
        attached: Attached,
        authentication: Arc<Authentication>,
        (principal, conditions): (Principal, Conditions),
        cancelled: CancellationToken,
    ) {
        let Self { mut asked, place } = self;
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            refusal = authentication.until_denied(&principal, &conditions) => {
                tracing::debug!(%refusal, "what was pulled is given back");
            }
            () = serve(attached, &mut asked) => {}
        }
        // Nobody finds it any more; those who did are told so.
        drop(place);
        asked.close();
        while let Some(ask) = asked.recv().await {
            ask.refuse(ErrorCode::DeliveryExpired);
        }
    }
}

/// Does what is asked, one after the other, until the consumer ends.
async fn serve(mut attached: Attached, asked: &mut mpsc::Receiver<Ask>) {
    loop {
        let ask = tokio::select! {
            biased;
            () = attached.ended() => return,
            ask = asked.recv() => match ask {
                Some(ask) => ask,
                None => return,
            },
        };
        match attached.settle(ask.verbs()).await {
            Ok(Some(refused)) => {
                let refused = |event: &PulledEvent| Some((*event, code_of(&refused, event)?));
                let outcomes: Outcomes = ask.events.iter().filter_map(refused).collect();
                // Whoever asked may have gone.
                let _ = ask.reply.send(outcomes);
            }
            Ok(None) => return ask.refuse(ErrorCode::DeliveryExpired),
            Err(error) => {
                tracing::debug!(%error, "a pull ends");
                return ask.refuse(ErrorCode::OutcomeUnknown);
            }
        }
    }
}

/// Why what was said of an event took no effect; `None` if it did.
fn code_of(refused: &[RefusedVerb], event: &PulledEvent) -> Option<ErrorCode> {
    let is_of =
        |it: &&RefusedVerb| it.partition == event.partition && (it.first..=it.last).contains(&event.offset);
    refused.iter().find(is_of).map(|it| it.code)
}
