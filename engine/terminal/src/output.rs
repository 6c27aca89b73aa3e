//! How results are printed: tables or JSON on stdout, remarks on stderr. The only file that writes to stdout.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
    thread,
};

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use levada_protocol::ids::Timestamp;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::choices::Format;

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
pub struct Unwritten(#[source] io::Error);

impl Unwritten {
    /// True if the reader of the output is gone (`levada read … | head`).
    pub fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

/// Where and how a command prints.
#[derive(Debug, Clone)]
pub struct Output {
    format: Format,
    quiet: bool,
}

impl Output {
    /// In this form; `quiet` leaves remarks and progress out.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// True if the user asked for JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// True if remarks are unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// One result: `text` for people or `value` as one line of JSON. With --quiet the text is left out.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Unwritten> {
        match self.format {
            Format::Json => self.json(value),
            Format::Text if self.quiet => Ok(()),
            Format::Text => self.line(&printable(&text())),
        }
    }

    /// Data that was asked for: `rows` as a table, or each of `values` as one line of JSON.
    pub fn rows<T: Serialize>(&self, values: &[T], table: impl FnOnce() -> Rows) -> Result<(), Unwritten> {
        match self.format {
            Format::Json => values.iter().try_for_each(|value| self.json(value)),
            Format::Text => self.line(&table().render()),
        }
    }

    /// One value as a line of JSON.
    pub fn json<T: Serialize>(&self, value: &T) -> Result<(), Unwritten> {
        let mut line = serde_json::to_vec(value).expect("the command's own values can be written as JSON");
        line.push(b'\n');
        write_all(&line)
    }

    /// Lines that were made already, their ends included.
    pub fn bytes(&self, lines: &[u8]) -> Result<(), Unwritten> {
        write_all(lines)
    }

    /// One line of text.
    pub fn line(&self, text: &str) -> Result<(), Unwritten> {
        write_all(format!("{text}\n").as_bytes())
    }

    /// Resolves when the reader of standard output is gone. A waiting command would notice it only with the next line
    /// that it prints.
    pub async fn closed(&self) {
        let (notify, gone) = oneshot::channel();
        // A thread of its own, left behind at the end: waiting cannot be called off.
        let watch = move || {
            let stdout = io::stdout();
            let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
            loop {
                match poll(&mut watched, None) {
                    Ok(_) => break,
                    Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            // There is no receiver any more if the command has ended by itself.
            let _ended = notify.send(());
        };
        if thread::Builder::new().name("stdout-watch".to_owned()).spawn(watch).is_err() || gone.await.is_err()
        {
            std::future::pending().await
        }
    }

    /// A remark for people, on stderr; with --output json an object, as everything there is then.
    pub fn remark(&self, text: &str) {
        if self.quiet {
            return;
        }
        let line = match self.format {
            Format::Json => serde_json::json!({ "remark": text }).to_string(),
            Format::Text => text.to_owned(),
        };
        // Remarks may be lost if stderr is not read.
        let _gone = writeln!(io::stderr(), "{line}");
    }

    /// What a command that prints data comes to, on stderr, so that the data stays alone: `text` for people or `value` as
    /// one line of JSON.
    pub fn summary<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        if self.quiet {
            return;
        }
        let line = match self.format {
            Format::Json => {
                serde_json::to_string(value).expect("the command's own values can be written as JSON")
            }
            Format::Text => text(),
        };
        // It may be lost if stderr is not read.
        let _gone = writeln!(io::stderr(), "{line}");
    }

    /// A progress bar over `len` steps, or over no known number of them: on a terminal only, hidden otherwise and
    /// with --quiet.
    pub fn progress(&self, len: Option<u64>, what: &'static str) -> ProgressBar {
        if self.quiet || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(len, ProgressDrawTarget::stderr_with_hz(10));
        let template = match len {
            Some(_) => "{msg:<12} {bar:32.cyan/blue} {human_pos}/{human_len} {per_sec} {eta}",
            None => "{msg:<12} {spinner} {human_pos} {per_sec} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(what)
    }
}

fn write_all(bytes: &[u8]) -> Result<(), Unwritten> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Rows under a heading, aligned when printed: numbers to the right, text to the left.
#[derive(Debug)]
pub struct Rows {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// No rows yet, under these headings.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell per heading.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell).into_owned()).collect());
    }

    /// The table as text without a line end.
    pub fn render(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(self.headings.iter().enumerate().map(|(column, heading)| {
            let cell = Cell::new(heading.to_uppercase());
            if self.is_numeric(column) { cell.set_alignment(CellAlignment::Right) } else { cell }
        }));
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(column, text)| {
                let cell = Cell::new(text);
                if self.is_numeric(column) { cell.set_alignment(CellAlignment::Right) } else { cell }
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    fn is_numeric(&self, column: usize) -> bool {
        let numeric = |text: &str| text.starts_with(|first: char| first.is_ascii_digit()) || text == "-";
        !self.rows.is_empty() && self.rows.iter().all(|row| row.get(column).is_some_and(|text| numeric(text)))
    }
}

/// `1 event`, `5 events`: a number and a word whose plural ends in s.
pub fn counted(number: u64, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// What was published, and how many duplicates were left out, if any.
pub fn with_left_out(published: String, duplicates: u64) -> String {
    match duplicates {
        0 => published,
        some => format!("{published} and left out {}", counted(some, "duplicate")),
    }
}

/// A count with thousands set apart: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, rounded, with thousands set apart; below 10 with one decimal, unless that is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive, and far below 2^63"
)]
pub fn rate(per_second: f64) -> String {
    let tenths = (per_second * 10.0).round() as u64;
    if tenths < 100 && !tenths.is_multiple_of(10) {
        return format!("{}.{}", tenths / 10, tenths % 10);
    }
    count(per_second.round() as u64)
}

/// Bytes with a binary unit: `1.5 GiB`.
pub fn bytes(number: u64) -> String {
    bytesize::ByteSize(number).display().iec().to_string()
}

/// Milliseconds as a duration that people read and flags take: `3d`, `1m30s`, `250ms`.
pub fn duration_ms(milliseconds: u64) -> String {
    duration_parts(milliseconds, usize::MAX)
}

/// How long ago something was: as a duration of its two largest units.
pub fn age_ms(milliseconds: u64) -> String {
    duration_parts(milliseconds, 2)
}

fn duration_parts(milliseconds: u64, parts_max: usize) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let mut rest = milliseconds;
    let parts = UNITS.iter().filter_map(|(unit, name)| {
        let whole = rest / unit;
        rest %= unit;
        (whole > 0).then(|| format!("{whole}{name}"))
    });
    match parts.take(parts_max).collect::<String>() {
        none if none.is_empty() => "0s".to_owned(),
        some => some,
    }
}

/// Text that does nothing to a terminal but show: control characters other than ends of lines are escaped, as in `\\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    let does_more = |character: char| character.is_control() && character != '\n';
    if !text.contains(does_more) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match does_more(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Text for a cell of a table: one line, and not too long a one.
pub fn brief(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = printable(&line);
    match line.char_indices().nth(CHARS_MAX) {
        Some(_) => line.chars().take(CHARS_MAX - 1).chain(['…']).collect(),
        None => line.into_owned(),
    }
}

/// Names and values, one pair a line; further lines of a value are indented under its first, and control characters are
/// escaped.
pub fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let line = |(name, value): (&str, String)| {
        let value = printable(&value).replace('\n', &format!("\n{:width$} ", ""));
        format!("{name:<width$} {value}")
    };
    fields.map(line).join("\n")
}

/// Microseconds with a unit that fits: `312 µs`, `4.5 ms`, `1.20 s`.
pub fn micros(microseconds: f64) -> String {
    match microseconds {
        small if small < 1_000.0 => format!("{small:.0} µs"),
        middle if middle < 1_000_000.0 => format!("{:.1} ms", middle / 1_000.0),
        large => format!("{:.2} s", large / 1_000_000.0),
    }
}

/// Milliseconds since the Unix epoch as RFC 3339, always with three decimals; the number itself if it is out of range.
pub fn time_ms(milliseconds: u64) -> String {
    let part = milliseconds % 1_000;
    match levada_json::time::format(Timestamp(milliseconds - part)) {
        Some(second) => format!("{}.{part:03}Z", second.trim_end_matches('Z')),
        None => milliseconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rates_have_a_decimal() {
        for (per_second, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.3, "0.3"),
            (2.0, "2"),
            (9.96, "10"),
            (12.4, "12"),
            (1_500.0, "1,500"),
        ] {
            assert_eq!(rate(per_second), text);
        }
    }

    #[test]
    fn counts_are_set_apart_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let mut rows = Rows::new(&["name", "events"]);
        rows.push(["orders".to_owned(), "7".to_owned()]);
        rows.push(["x".to_owned(), "1,000".to_owned()]);
        assert_eq!(rows.render(), "NAME    EVENTS\norders       7\nx        1,000");
    }

    #[test]
    fn durations_are_short_and_read_back_as_the_same() {
        use crate::values::DurationMs;

        for (milliseconds, text) in [
            (0, "0s"),
            (250, "250ms"),
            (90_000, "1m30s"),
            (72 * 3_600_000, "3d"),
            (400 * 86_400_000 + 1, "400d1ms"),
        ] {
            assert_eq!(duration_ms(milliseconds), text);
            assert_eq!(text.parse(), Ok(DurationMs(milliseconds)), "{text}");
        }
        assert_eq!(age_ms(3_600_000 * 25 + 61_001), "1d1h");
        assert_eq!(age_ms(61_001), "1m1s");
    }

    #[test]
    fn cells_are_one_short_line() {
        assert_eq!(brief("a\n  b"), "a b");
        assert_eq!(brief(&"ü".repeat(60)), "ü".repeat(60));
        assert_eq!(brief(&"ü".repeat(61)), "ü".repeat(59) + "…");
    }

    #[test]
    fn further_lines_of_a_field_stand_under_the_first() {
        let text = fields([("a", "1".to_owned()), ("long", "2\n3".to_owned())]);
        assert_eq!(text, "a     1\nlong  2\n      3");
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let sly = "no\u{1b}[2J\u{9b}1m\r\u{7}\nstock";
        assert_eq!(printable(sly), "no\\u{1b}[2J\\u{9b}1m\\r\\u{7}\nstock");
        assert_eq!(brief("a\u{1b}[31m b"), "a\\u{1b}[31m b");
        assert_eq!(fields([("a", sly.to_owned())]), "a  no\\u{1b}[2J\\u{9b}1m\\r\\u{7}\n   stock");
        let mut rows = Rows::new(&["error"]);
        rows.push(["\u{1b}[2J".to_owned()]);
        assert_eq!(rows.render(), "ERROR\n\\u{1b}[2J");
        assert!(matches!(printable("ü 猫\n"), Cow::Borrowed(_)), "what shows is left as it is");
    }

    #[test]
    fn times_are_rfc_3339_and_stand_under_each_other() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_769_860_800_120, "2026-01-31T12:00:00.120Z"),
            (1_769_860_800_123, "2026-01-31T12:00:00.123Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time_ms(milliseconds), text);
        }
        assert_eq!(time_ms(u64::MAX), u64::MAX.to_string());
    }
}
