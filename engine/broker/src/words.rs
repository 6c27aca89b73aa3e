//! Words of messages.

/// `1 event`, `5 events`: a number and a word whose plural ends in s.
pub(crate) fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_many() {
        let said = [0, 1, 2].map(|number| counted(number, "event"));
        assert_eq!(said, ["0 events", "1 event", "2 events"]);
    }
}
