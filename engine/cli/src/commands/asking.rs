//! What the commands that take something away have in common: they ask a person at a terminal before they take what
//! something else needs.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use levada_client::Error;
use levada_protocol::error::ErrorCode;
use levada_terminal::{Failure, output::Output};

/// What a person is asked where the engine refuses.
pub(super) struct Question<'a> {
    /// The refusals that force overrules.
    pub(super) overruled: &'a [ErrorCode],
    /// Asked behind the refusal.
    pub(super) question: &'a str,
    /// Says that nothing was done.
    pub(super) declined: String,
    /// What a yes would do.
    pub(super) hint: &'a str,
}

/// Has the engine do something, forced or not. If it refuses because of something else, a person at a terminal is asked, and it
/// is forced if they agree.
pub(super) async fn unless_refused<T>(
    output: &Output,
    force: bool,
    question: &Question<'_>,
    ask_engine: impl AsyncFn(bool) -> Result<T, Error>,
) -> anyhow::Result<T> {
    let mut shown: Option<String> = None;
    loop {
        match ask_engine(force).await {
            Err(refused) if !force && question.overruled.contains(&refused.code()) && is_possible(output) => {
                let refusal = refused.to_string();
                // Only what the user agreed to is taken: something else may need it by now.
                if shown.as_ref() == Some(&refusal) {
                    return Ok(ask_engine(true).await?);
                }
                if !confirmed(&refusal, question.question).await? {
                    let declined = Failure::new(refused.code(), question.declined.clone());
                    return Err(declined.hint(question.hint).into());
                }
                shown = Some(refusal);
            }
            other => return Ok(other?),
        }
    }
}

/// True if a person can be asked.
pub(super) fn is_possible(output: &Output) -> bool {
    !output.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks whether to continue; anything but a yes is a no.
async fn confirmed(refusal: &str, question: &str) -> anyhow::Result<bool> {
    let question = format!("{refusal}\n{question} [y/N] ");
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        write!(io::stderr(), "{question}")?;
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    Ok(is_yes(&answer.await??))
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in
            [("y\n", true), (" Yes \n", true), ("\n", false), ("n\n", false), ("yea", false), ("", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }
}
