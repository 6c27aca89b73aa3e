//! The arguments as clap found them: parsed, and what they name.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::{Args, minus};

/// What a command names, so that a hint can name it too.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    topic: Option<String>,
    subscription: Option<String>,
    /// It only shows something.
    shows: bool,
}

impl Named {
    /// Parses a command line.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for; with the usage of the command that was meant.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<(Args, Self), clap::Error> {
        let mut command = minus::taken(Args::command());
        let matches = command.try_get_matches_from_mut(arguments)?;
        let named = Self::of(&matches);
        let mut leaf = &mut command;
        let mut below = &matches;
        while let Some((name, inner)) = below.subcommand()
            && leaf.find_subcommand(name).is_some()
        {
            leaf = leaf.find_subcommand_mut(name).expect("it was just found");
            below = inner;
        }
        match Args::from_arg_matches_mut(&mut matches.clone()) {
            Ok(args) => Ok((args, named)),
            Err(error) => Err(error.format(leaf)),
        }
    }

    fn of(matches: &ArgMatches) -> Self {
        let (mut leaf, mut shows) = (matches, false);
        while let Some((name, below)) = leaf.subcommand() {
            leaf = below;
            shows = matches!(name, "list" | "describe" | "show" | "read" | "fetch");
        }
        let typed = |id: &str| {
            let first = leaf.try_get_raw(id).ok()??.next()?;
            first.to_str().map(str::to_owned)
        };
        let path = typed("path").or_else(|| typed("of"));
        let (topic, subscription) = match path.as_deref().and_then(|path| path.split_once('/')) {
            Some((topic, subscription)) => (Some(topic.to_owned()), Some(subscription.to_owned())),
            None => (path.or_else(|| typed("topic")), typed("subscription")),
        };
        Self { topic, subscription, shows }
    }

    /// True if the command may change something.
    pub(crate) fn changes(&self) -> bool {
        !self.shows
    }

    /// A hint in which TOPIC and SUBSCRIPTION are what the command named, as far as it did.
    pub(crate) fn filled_in(&self, hint: &str) -> String {
        let filled = |hint: String, place: &str, name: &Option<String>| match name {
            Some(name) => hint.replace(place, name),
            None => hint,
        };
        let hint = filled(hint.to_owned(), "SUBSCRIPTION", &self.subscription);
        filled(hint, "TOPIC", &self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Args, Named), clap::Error> {
        Named::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_hint_names_what_the_command_named() {
        for (line, filled) in [
            ("levada topic describe orders", "`orders` `orders/SUBSCRIPTION`"),
            ("levada subscription describe orders/payment", "`orders` `orders/payment`"),
            ("levada subscription describe orders -s payment", "`orders` `orders/payment`"),
            ("levada subscribe orders/payment", "`orders` `orders/payment`"),
            ("levada dlq show orders/payment", "`orders` `orders/payment`"),
            ("levada publish orders x", "`orders` `orders/SUBSCRIPTION`"),
            ("levada route list", "`TOPIC` `TOPIC/SUBSCRIPTION`"),
        ] {
            let (_, named) = parse(line).unwrap();
            assert_eq!(named.filled_in("`TOPIC` `TOPIC/SUBSCRIPTION`"), filled, "{line}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_shown_the_usage_of_the_command_that_was_meant() {
        let error = parse("levada subscription describe orders/payment -s other").unwrap_err().to_string();
        assert!(
            error.contains("expected one subscription, got orders/payment and --subscription other"),
            "{error}"
        );
        assert!(error.contains("Usage: levada subscription describe"), "{error}");
    }
}
