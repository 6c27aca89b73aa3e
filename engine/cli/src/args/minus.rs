//! Values that begin with a minus: an option takes them as its value, to say what it expects instead.

use std::{any::TypeId, path::PathBuf};

use clap::{Arg, Command};

/// The command, of which every argument takes a value that begins with a minus unless any text is one: there `--key --raw`
/// more likely means that a value is missing.
pub(super) fn taken(command: Command) -> Command {
    command.mut_args(take).mut_subcommands(taken)
}

fn take(arg: Arg) -> Arg {
    if !arg.get_action().takes_values() || takes_any_text(&arg) {
        return arg;
    }
    // What follows an option whose value may be left out, or stands for an argument by its place, may be a flag.
    let may_be_flag =
        arg.is_positional() || arg.get_num_args().is_some_and(|values| values.min_values() == 0);
    if may_be_flag { arg.allow_negative_numbers(true) } else { arg.allow_hyphen_values(true) }
}

/// True if the argument refuses no text: words, files, headers.
pub(super) fn takes_any_text(arg: &Arg) -> bool {
    let texts = [TypeId::of::<String>(), TypeId::of::<PathBuf>(), TypeId::of::<(String, String)>()];
    let id = arg.get_value_parser().type_id();
    texts.iter().any(|text| id == *text)
}
