//! The command that goes on where one has stopped, as it is printed.

use std::borrow::Cow;

use crate::args::ClientArgs;

/// A command in the making, each word as a shell takes it.
pub(super) struct CommandLine(Vec<String>);

impl CommandLine {
    pub(super) fn new(words: &[&str]) -> Self {
        let levada = std::iter::once("levada".to_owned());
        Self(levada.chain(words.iter().map(|word| quoted(word).into_owned())).collect())
    }

    /// Adds a flag with its value, if there is one. The form with = takes values that begin with a dash, too.
    pub(super) fn flag(mut self, name: &str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| format!("--{name}={}", quoted(&value.to_string()))));
        self
    }

    /// Adds a flag without a value.
    pub(super) fn switch(mut self, name: &str, on: bool) -> Self {
        self.0.extend(on.then(|| format!("--{name}")));
        self
    }

    /// Adds the flags that say which engine is talked to, and how it is printed. What the environment and contexts
    /// say, they say again.
    pub(super) fn like(self, client: &ClientArgs, json: bool) -> Self {
        self.flag("context", client.context.as_ref())
            .flag("addr", client.addr.as_ref())
            .flag("ca", client.ca.as_ref().map(|ca| ca.display()))
            .flag("token-file", client.token_file.as_ref().map(|file| file.display()))
            .flag("output", json.then_some("json"))
    }

    pub(super) fn finish(self) -> String {
        self.0.join(" ")
    }
}

/// A word as a POSIX shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:,/@%+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        for (word, expected) in [
            ("0:1,3:0", "0:1,3:0"),
            ("", "''"),
            ("a > 1", "'a > 1'"),
            ("it's", r"'it'\''s'"),
            (r#"a = "$x""#, r#"'a = "$x"'"#),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
