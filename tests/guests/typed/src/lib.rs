//! A plugin of the typed interface, as a language without the SDK's helper sees it: each event's payload says what
//! becomes of it.

pub mod bindings;

use bindings::exports::levada::plugin::events::{
    Change, Event, Failure, Guest, HeadersChange, Interest, Output, Patch, Setup, Verdict,
};
use bindings::levada::plugin::types::HeaderInterest;

/// The component.
#[derive(Debug)]
pub struct Typed;

impl Guest for Typed {
    /// The configuration is a list of header names with commas between them; `*` asks for everything, nothing for
    /// the payload alone.
    fn init(setup: Setup) -> Result<Interest, String> {
        let everything = setup.config == "*";
        let headers = match setup.config.as_str() {
            "*" => HeaderInterest::All,
            "" => HeaderInterest::None,
            names => HeaderInterest::Named(names.split(',').map(str::to_owned).collect()),
        };
        Ok(Interest { key: everything, headers, payload: true, tick_ms: None })
    }

    fn process(events: Vec<Event>) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts = Vec::new();
        for event in &events {
            match event.payload.as_deref() {
                Some(b"missing") => {}
                Some(b"retry") => return Err(Failure::Retry("come back later".to_owned())),
                Some(payload) => verdicts.push(verdict(event, payload)),
                None => verdicts.push(Verdict::Drop),
            }
        }
        Ok(verdicts)
    }
}

fn verdict(event: &Event, payload: &[u8]) -> Verdict {
    match payload {
        b"drop" => Verdict::Drop,
        b"reject" => Verdict::Reject("an event asked for it".to_owned()),
        b"flood" => Verdict::Emit((0..10_001).map(|_| kept()).collect()),
        b"huge" => Verdict::Emit(vec![Output { payload: Change::Set(vec![b'x'; 5 << 20]), ..kept() }]),
        b"long-key" => Verdict::Emit(vec![Output { key: Change::Set(vec![b'x'; 70_000]), ..kept() }]),
        b"echo" => {
            Verdict::Emit(vec![Output { payload: Change::Set(format!("{event:?}").into_bytes()), ..kept() }])
        }
        b"change" => Verdict::Emit(vec![
            Output {
                topic: Some("elsewhere".to_owned()),
                key: Change::Set(b"new".to_vec()),
                time: Some(42),
                id: Some("id-42".to_owned()),
                headers: HeadersChange::Replace(vec![("only".to_owned(), b"this".to_vec())]),
                payload: Change::Set(b"changed".to_vec()),
            },
            Output {
                key: Change::Remove,
                headers: HeadersChange::Patch(Patch {
                    set: vec![("set".to_owned(), b"value".to_vec())],
                    remove: vec!["gone".to_owned()],
                }),
                payload: Change::Remove,
                ..kept()
            },
        ]),
        _ => Verdict::Keep,
    }
}

/// An output that changes nothing.
fn kept() -> Output {
    Output {
        topic: None,
        key: Change::Keep,
        time: None,
        id: None,
        headers: HeadersChange::Keep,
        payload: Change::Keep,
    }
}
