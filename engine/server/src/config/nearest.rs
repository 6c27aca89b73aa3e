//! Which known word somebody may have meant.
//!
//! Pure.

/// The known word that takes the fewest changes of one letter, if those are few for its length.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = known.into_iter().map(|known| (distance(word, known), known)).min()?;
    (found.0 <= 1 + found.1.chars().count() / 4).then_some(found.1)
}

/// How many letters must be added, taken away or changed.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (at, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["data_dir", "listen", "http", "log_format"];
        for (word, found) in [
            ("lisen", Some("listen")),
            ("datadir", Some("data_dir")),
            ("data-dir", Some("data_dir")),
            ("https", Some("http")),
            ("logformat", Some("log_format")),
            ("retention", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), found, "{word}");
        }
    }
}
