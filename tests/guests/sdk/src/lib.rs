//! A plugin that uses all that the SDK offers, each event saying what.

use levada_plugin::{
    Answer, Answered, Change, Failure, HeadersChange, Incoming, Output, Plugin, Setup, log_error, log_info,
    log_warn,
};

/// The plugin.
#[derive(Debug)]
pub struct Everything {
    topic: String,
    seen: u64,
}

impl Plugin for Everything {
    fn init(setup: &Setup) -> Result<Self, String> {
        if setup.config == "refuse" {
            return Err("the configuration is not to my taste".to_owned());
        }
        let topic = setup.attribute("topic").unwrap_or("nowhere").to_owned();
        Ok(Self { topic, seen: 0 })
    }

    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
        self.seen += 1;
        match event.payload() {
            None => Ok(answer.drop()),
            Some(b"panic") => panic!("event {} asked for it", event.offset()),
            Some(b"retry") => Err(Failure::Retry("come back later".to_owned())),
            Some(b"reject-all") => Err(Failure::Reject("not these".to_owned())),
            Some(b"reject") => Ok(answer.reject("an event asked for it")),
            Some(b"log") => {
                log_info!("seen {}", self.seen);
                log_warn!("that is odd");
                log_error!("that is wrong");
                Ok(answer.keep())
            }
            Some(b"describe") => {
                let text = self.describe(event);
                let payload = Change::Set(text.as_bytes());
                Ok(answer.emit(&Output { payload, ..Output::default() }))
            }
            Some(b"fan-out") => Ok(answer.emit_all(&[
                Output { target: Some("a"), key: Change::Remove, ..Output::default() },
                Output {
                    target: Some("b"),
                    time: Some(9),
                    headers: HeadersChange::Patch(vec![("set", b"x")], vec!["gone"]),
                    ..Output::default()
                },
            ])),
            Some(_) => Ok(answer.keep()),
        }
    }
}

impl Everything {
    fn describe(&self, event: &Incoming<'_>) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers: Vec<String> =
            event.headers().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
        format!(
            "{}/{} at {} appended {} key {:?} id {:?} headers {} region {:?}",
            self.topic,
            event.offset(),
            event.time(),
            event.append_time(),
            event.key().map(text),
            event.id(),
            headers.join(","),
            event.header("region").map(text),
        )
    }
}

levada_plugin::export!(Everything);
