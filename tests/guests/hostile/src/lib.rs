//! A plugin that does what each event's payload asks for, everything a plugin can do wrong included.
//!
//! It speaks to the engine without the SDK, which would keep it from answering nonsense. The configuration is a
//! word that says what `init` does wrong; empty for nothing.

pub mod bindings;

use std::hint::black_box;

use bindings::exports::levada::plugin::batch::{Failure, Guest, Interest, Setup};
use bindings::levada::plugin::{
    clock,
    log::{self, Level},
    types::HeaderInterest,
};
use levada_protocol::{
    batch::{BatchRef, EventRef},
    deliver::RunRef,
    verdict::{Change, Output, VerdictWriter},
};

/// The component.
#[derive(Debug)]
pub struct Hostile;

impl Guest for Hostile {
    fn init(setup: Setup) -> Result<Interest, String> {
        std::panic::set_hook(Box::new(|panic| log::write(Level::Error, &panic.to_string())));
        let mut tick_ms = None;
        match setup.config.as_str() {
            "refuse" => return Err("the configuration is not to my taste".to_owned()),
            "trap" => panic!("init was asked to panic"),
            "loop" => spin(),
            "memory" => eat(),
            "tick" => tick_ms = Some(100),
            "attributes" => {
                let facts: Vec<String> =
                    setup.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                return Err(facts.join(" "));
            }
            _ => {}
        }
        Ok(Interest { key: true, headers: HeaderInterest::All, payload: true, tick_ms })
    }

    fn process(events: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let mut verdicts = VerdictWriter::new();
        let mut runs = &events[..];
        while let Some(run) = RunRef::split_first(&mut runs) {
            let mut batches = run.batches;
            while let Some(batch) = BatchRef::split_first(&mut batches) {
                for event in batch.events() {
                    if let Some(answer) = act(&event, &mut verdicts)? {
                        return Ok(answer);
                    }
                }
            }
        }
        Ok(verdicts.finish())
    }
}

/// Does what the event asks for. An answer instead of a verdict ends the call with it.
fn act(event: &EventRef<'_>, verdicts: &mut VerdictWriter) -> Result<Option<Vec<u8>>, Failure> {
    match event.payload().unwrap_or_default() {
        b"trap" => panic!("an event asked for it"),
        b"abort" => std::process::abort(),
        b"warn-and-abort" => {
            log::write(Level::Warn, "the ice is thin");
            std::process::abort();
        }
        b"leak" => {
            std::mem::forget(black_box(vec![1_u8; 4 << 20]));
            verdicts.keep();
        }
        b"loop" => spin(),
        b"memory" => eat(),
        b"recurse" => verdicts.emit(&[payload(&deep(0).to_le_bytes())]),
        b"recurse-lean" => verdicts.emit(&[payload(&lean(u64::from(event.header_count())).to_le_bytes())]),
        b"fill" => verdicts.emit(&[payload(&vec![1; 8 << 20][..1])]),
        b"huge" => verdicts.emit(&[payload(&vec![b'x'; 5 << 20])]),
        b"immense" => return Ok(Some(vec![0; 24 << 20])),
        b"large-event" => verdicts.emit(&[payload(&vec![b'x'; (1 << 20) + 1])]),
        b"flood" => verdicts.emit(&vec![Output::default(); 10_001]),
        b"malformed" => return Ok(Some(vec![9, 9, 9, 9, 9])),
        b"missing" => {}
        b"double" => {
            verdicts.keep();
            verdicts.keep();
        }
        b"reject" => verdicts.reject("an event asked for it"),
        b"retry" => return Err(Failure::Retry("come back later".to_owned())),
        b"fail" => return Err(Failure::Reject("not these".to_owned())),
        b"long-reason" => return Err(Failure::Reject("x".repeat(1 << 20))),
        b"log" => {
            for line in 0..10_000 {
                log::write(Level::Info, &format!("line {line}"));
            }
            verdicts.keep();
        }
        b"clock" => verdicts.emit(&[payload(&clock::now().to_le_bytes())]),
        b"drop" => verdicts.drop_event(),
        _ => verdicts.keep(),
    }
    Ok(None)
}

fn payload(bytes: &[u8]) -> Output<'_> {
    Output { payload: Change::Set(bytes), ..Output::default() }
}

fn spin() -> ! {
    loop {
        black_box(0);
    }
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Goes down for ever, with a large frame on the stack that lies in the guest's memory.
fn deep(level: u64) -> u64 {
    let mut frame = [level; 64];
    black_box(&mut frame);
    if level == u64::MAX { 0 } else { deep(level + 1) ^ frame[7] }
}

/// Goes down for ever, without a frame in the guest's memory.
fn lean(level: u64) -> u64 {
    if level == u64::MAX { 0 } else { lean(level + 1).rotate_left(1) ^ level }
}
