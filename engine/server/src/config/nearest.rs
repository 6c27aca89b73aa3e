//! The known word that was probably meant.
//!
//! Pure.

/// The known word that takes the fewest changes of one letter or swaps of two, if those are few for its length, and
/// fewer than either word has letters: two words of one letter are not alike.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = known.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known)).min()?;
    let (typed, meant) = (word.chars().count(), found.1.chars().count());
    (found.0 <= 1 + meant / 4 && found.0 < typed.min(meant)).then_some(found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["data_dir", "listen", "http", "log_format", "a"];
        for (word, found) in [
            ("lisen", Some("listen")),
            ("htpt", Some("http")),
            ("datadir", Some("data_dir")),
            ("data-dir", Some("data_dir")),
            ("https", Some("http")),
            ("logformat", Some("log_format")),
            ("retention", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), found, "{word}");
        }
    }
}
