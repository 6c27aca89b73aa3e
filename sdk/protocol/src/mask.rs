//! Masks: the plugins that stored events pass before a reader sees them, as a permission names them behind `via`.
//!
//! The idea is that of masking policies and row access policies in data warehouses: what is hidden follows from who reads, and
//! what is stored stays whole.

use std::{fmt, str::FromStr, sync::Arc};

use serde::de::IgnoredAny;
use serde_json::StreamDeserializer;

use crate::{ids::PluginName, limits::CHAIN_STAGES_MAX, request::StageSpec};

/// What is before each plugin.
const VIA: &str = "via";

/// Plugins in order, at least one: `via json-project:{"drop":["card"]}`, and more of the same behind it.
///
/// Each is `NAME[@VERSION][:CONFIG]`; without a version it is the active one at the time of the reading. The configuration is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mask(Arc<[MaskStage]>);

/// One plugin of a mask.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct MaskStage {
    /// `NAME` or `NAME@VERSION`.
    plugin: String,
    /// JSON, as it was written.
    config: Option<String>,
}

/// Why a text is no mask: what was expected, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidMask(String);

impl Mask {
    /// The stages of the chain that events pass. An event on which one of them fails is withheld.
    pub fn stages(&self) -> impl Iterator<Item = StageSpec> + '_ {
        self.0.iter().map(|MaskStage { plugin, config }| {
            let default = StageSpec::default();
            StageSpec {
                plugin: plugin.clone(),
                config: config.clone().unwrap_or_else(|| default.config.clone()),
                ..default
            }
        })
    }
}

impl MaskStage {
    /// Takes one from the front of a text; what is behind it is returned.
    fn take(text: &str) -> Result<(Self, &str), InvalidMask> {
        let expected = |got: &str| {
            let got: String = got.chars().take(60).collect();
            InvalidMask(format!(
                "expected behind {VIA} a plugin such as json-project:{{\"drop\":[\"card\"]}}, got {got:?}"
            ))
        };
        let rest = text.strip_prefix(VIA).filter(|rest| rest.starts_with(char::is_whitespace));
        let rest = rest
            .ok_or_else(|| InvalidMask(format!("expected {VIA} and a plugin, got {text:?}")))?
            .trim_start();
        let end = rest.find(|next: char| next == ':' || next.is_whitespace()).unwrap_or(rest.len());
        let (plugin, rest) = rest.split_at(end);
        let (name, version) =
            plugin.split_once('@').map_or((plugin, None), |(name, version)| (name, Some(version)));
        let is_number =
            |version: &str| version.parse::<u32>().is_ok_and(|number| number.to_string() == version);
        if name.parse::<PluginName>().is_err() || !version.is_none_or(is_number) {
            return Err(expected(plugin));
        }
        let (config, rest) = match rest.strip_prefix(':') {
            None => (None, rest),
            Some(config) => {
                let end = json_end(config).ok_or_else(|| {
                    InvalidMask(format!(
                        "expected JSON behind {plugin}:, got {:?}",
                        config.chars().take(60).collect::<String>()
                    ))
                })?;
                let (config, rest) = config.split_at(end);
                (Some(config.trim().to_owned()), rest)
            }
        };
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            return Err(expected(rest));
        }
        Ok((Self { plugin: plugin.to_owned(), config }, rest.trim_start()))
    }
}

/// Where the one JSON value at the beginning of a text ends.
fn json_end(text: &str) -> Option<usize> {
    let mut values: StreamDeserializer<'_, _, IgnoredAny> =
        serde_json::Deserializer::from_str(text).into_iter();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

impl FromStr for Mask {
    type Err = InvalidMask;

    fn from_str(text: &str) -> Result<Self, InvalidMask> {
        let (mut stages, mut rest) = (Vec::new(), text.trim());
        loop {
            let (stage, behind) = MaskStage::take(rest)?;
            stages.push(stage);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        if stages.len() > CHAIN_STAGES_MAX {
            return Err(InvalidMask(format!(
                "expected at most {CHAIN_STAGES_MAX} plugins, got {}",
                stages.len()
            )));
        }
        Ok(Self(stages.into()))
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, MaskStage { plugin, config }) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " " })?;
            write!(f, "{VIA} {plugin}")?;
            if let Some(config) = config {
                write!(f, ":{config}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn stages(text: &str) -> Vec<(String, String)> {
        let mask: Mask = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        mask.stages().map(|stage| (stage.plugin, stage.config)).collect()
    }

    #[test]
    fn plugins_come_in_order_with_their_configuration_whatever_is_in_it() {
        let of = |plugin: &str, config: &str| (plugin.to_owned(), config.to_owned());
        assert_eq!(stages("via mask"), [of("mask", "{}")]);
        assert_eq!(stages("via mask@3 via other:7"), [of("mask@3", "{}"), of("other", "7")]);
        let config = r#"{"where": "note = \" via b:{}\""}"#;
        assert_eq!(stages(&format!("via a:{config} via b:[1, 2]")), [of("a", config), of("b", "[1, 2]")]);
    }

    #[test]
    fn what_is_no_mask_says_what_was_expected() {
        for (text, expected) in [
            ("", "expected via and a plugin"),
            ("via", "expected via and a plugin"),
            ("with mask", "expected via and a plugin"),
            ("via Mask", "expected behind via a plugin"),
            ("via mask@", "expected behind via a plugin"),
            ("via mask@03", "expected behind via a plugin"),
            ("via mask@newest", "expected behind via a plugin"),
            ("via mask:", "expected JSON behind mask:"),
            ("via mask:{\"drop\"", "expected JSON behind mask:"),
            ("via mask:{drop: card}", "expected JSON behind mask:"),
            ("via mask:{}via other", "expected behind via a plugin"),
            ("via mask other", "expected via and a plugin"),
        ] {
            let error = text.parse::<Mask>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let long = ["via a"; CHAIN_STAGES_MAX + 1].join(" ");
        assert!(long.parse::<Mask>().unwrap_err().to_string().contains("at most 8"));
        assert_eq!(stages(&["via a"; CHAIN_STAGES_MAX].join(" ")).len(), CHAIN_STAGES_MAX);
    }

    proptest! {
        #[test]
        fn a_mask_is_read_back_as_it_was_written(
            stages in vec(("[a-c]{1,4}(@[1-9])?", option::of(r#"(\{"a":("x"|\[1, 2\])\}|7| "via b" )"#)), 1..=CHAIN_STAGES_MAX),
        ) {
            let one = |(plugin, config): &(String, Option<String>)| match config {
                None => format!("via {plugin}"),
                Some(config) => format!("via {plugin}:{config}"),
            };
            let mask: Mask = stages.iter().map(one).collect::<Vec<_>>().join("  ").parse().unwrap();
            prop_assert_eq!(mask.stages().count(), stages.len());
            prop_assert_eq!(mask.to_string().parse::<Mask>().unwrap(), mask);
        }
    }
}
