//! A plugin that does next to nothing: passes a fixed share of the events, or changes every payload without
//! changing its size. Benches measure the engine with it, and it is the shortest example of a plugin.

use levada_plugin::{Answer, Answered, Change, Failure, Incoming, Output, Plugin, Setup};
use serde::Deserialize;

/// The configuration. Without any field every event passes as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The share of the events that pass, from 0 to 1; all if not given.
    pass: Option<f64>,
    /// What happens to the payload of those that pass.
    transform: Option<Transform>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transform {
    /// The bytes in opposite order.
    Reverse,
    /// ASCII letters in upper case.
    Upper,
}

/// The plugin.
#[derive(Debug)]
pub struct Sample {
    /// Events whose mixed offset is below this pass; all, if there is none.
    below: Option<u64>,
    transform: Option<Transform>,
    changed: Vec<u8>,
}

impl Plugin for Sample {
    fn init(setup: &Setup) -> Result<Self, String> {
        let config: Config = match setup.config.trim() {
            "" => Config::default(),
            text => serde_json::from_str(text).map_err(|error| format!("the configuration: {error}"))?,
        };
        let below = config.pass.map(share).transpose()?.flatten();
        Ok(Self { below, transform: config.transform, changed: Vec::new() })
    }

    #[inline]
    fn process(&mut self, event: &Incoming<'_>, answer: Answer<'_>) -> Result<Answered, Failure> {
        if self.below.is_some_and(|below| mix(event.offset()) >= below) {
            return Ok(answer.drop());
        }
        let (Some(transform), Some(payload)) = (self.transform, event.payload()) else {
            return Ok(answer.keep());
        };
        self.changed.clear();
        match transform {
            Transform::Reverse => self.changed.extend(payload.iter().rev()),
            Transform::Upper => self.changed.extend(payload.iter().map(u8::to_ascii_uppercase)),
        }
        Ok(answer.emit(&Output { id: event.id(), payload: Change::Set(&self.changed), ..Output::default() }))
    }
}

levada_plugin::export!(Sample);

/// How many of all 64-bit numbers are `pass` of them; `None` for all.
fn share(pass: f64) -> Result<Option<u64>, String> {
    if !(0.0..=1.0).contains(&pass) {
        return Err(format!("pass: expected a share from 0 to 1, got {pass}"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the product is in 0..2^64")]
    Ok((pass < 1.0).then(|| (pass * 2_f64.powi(64)) as u64))
}

/// Spreads offsets evenly over all 64-bit numbers (a bijection with good avalanche), so that which events pass
/// depends on nothing but their offset.
#[inline]
fn mix(offset: u64) -> u64 {
    let mut mixed = offset.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_offsets_passes() {
        let below = share(0.1).unwrap().unwrap();
        let passed = (0..100_000).filter(|offset| mix(*offset) < below).count();
        assert!((9_700..10_300).contains(&passed), "{passed}");
    }

    #[test]
    fn shares_outside_0_to_1_are_refused() {
        assert!(share(1.5).is_err());
        assert!(share(-0.1).is_err());
        assert!(share(f64::NAN).is_err());
        assert_eq!(share(0.0), Ok(Some(0)));
        assert_eq!(share(1.0), Ok(None));
    }

    #[test]
    fn unknown_settings_are_refused() {
        let refused = Sample::init(&Setup::with_config(r#"{"share": 0.1}"#)).err().unwrap();
        assert!(refused.contains("share"), "{refused}");
    }
}
