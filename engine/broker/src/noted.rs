//! What is told of things that are no changes of the catalogue.

use levada_protocol::{error::ErrorCode, request::Request};
use serde::Serialize;
use serde_json::{Value, value::to_value};

use crate::rows::SubscriptionRecord;

/// What was refused.
const REFUSED_KIND: &str = "call";

/// Something that was asked for and is no change of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Noted {
    pub(crate) action: String,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) detail: Value,
}

impl Noted {
    /// What is noted about a request before it is executed; `None` if there is nothing, or its commit says it.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let detail = |what: Result<Value, serde_json::Error>| what.unwrap_or(Value::Null);
        let note = |action: &str, kind, name: String, detail| {
            Some(Self { action: action.to_owned(), kind, name, detail })
        };
        match request {
            // The steps that go on are of the same redrive.
            Request::Redrive(asked) if asked.until.is_none() => {
                note("redrive", "topic", asked.topic.to_string(), detail(to_value(asked)))
            }
            Request::PurgeDeadLetters(asked) => {
                note("purge_dead_letters", "topic", asked.topic.to_string(), detail(to_value(asked)))
            }
            Request::PurgeTopic(asked) => {
                note("purge_topic", "topic", asked.topic.to_string(), detail(to_value(asked)))
            }
            Request::ResumeRoute { name } => note("resume_route", "route", name.to_string(), Value::Null),
            _ => None,
        }
    }

    /// What is noted of a subscription that goes on after it had stopped by itself.
    pub(crate) fn resumed(record: &SubscriptionRecord) -> Self {
        let name = format!("{}/{}", record.topic, record.name);
        Self { action: "resume_subscription".to_owned(), kind: "subscription", name, detail: Value::Null }
    }

    /// What a decision of a transaction is noted as.
    pub(crate) fn decision(transaction: String, commit: bool) -> Self {
        let action = if commit { "commit_transaction" } else { "roll_back_transaction" };
        Self { action: action.to_owned(), kind: "transaction", name: transaction, detail: Value::Null }
    }

    /// True of a refusal, which is told only where there is room to spare.
    pub(crate) fn is_refusal(&self) -> bool {
        self.kind == REFUSED_KIND
    }

    /// What calls that were refused are noted as; `times` are those since the last note.
    pub(crate) fn refused(required: String, code: ErrorCode, times: u64) -> Self {
        let detail = serde_json::json!({ "code": code.as_str(), "times": times });
        Self { action: "refused".to_owned(), kind: REFUSED_KIND, name: required, detail }
    }
}
