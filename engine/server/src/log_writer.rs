//! Log lines are written by a thread of their own, which alone waits for their reader.
//!
//! A reader that has gone, a full disk behind the file, a terminal that was stopped: each costs log lines, which are
//! counted, and never holds up or ends who writes them. It must not know what the lines say.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait for their reader. Those beyond are lost.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// The wait before the next try of a sink that takes nothing now.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Log lines of this process that were not written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Log lines lost since the process began.
pub(crate) fn lines_lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The standard error stream for who may wait for its reader: lines that it does not take are lost, and counted.
#[derive(Debug, Default, Clone, Copy)]
pub struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_out(&mut io::stderr(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends lines to the thread that writes them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    /// Some are being written at this moment.
    under_way: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `sink`.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self { shared: Arc::default() };
        let shared = Arc::clone(&writer.shared);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || shared.write_all_to(sink))?;
        Ok(writer)
    }

    /// Waits until every line so far was written or lost, but no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let lines = self.shared.lock();
        let waits = |lines: &mut Lines| lines.under_way || !lines.waiting.is_empty();
        // Whether it took too long makes no difference: the lines are given up then.
        drop(self.shared.changed.wait_timeout_while(lines, timeout, waits));
    }
}

impl Write for LogWriter {
    /// Takes a whole line, or loses it. It neither waits nor fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.shared.lock();
        if lines.waiting.len() + line.len() > WAITING_BYTES_MAX {
            LOST.fetch_add(1, Ordering::Relaxed);
        } else {
            lines.waiting.extend_from_slice(line);
            drop(lines);
            self.shared.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs as long as the process does.
    fn write_all_to(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut lines = self.lock();
            lines.under_way = false;
            self.changed.notify_all();
            while lines.waiting.is_empty() {
                lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
            }
            batch.clear();
            std::mem::swap(&mut batch, &mut lines.waiting);
            lines.under_way = true;
            drop(lines);
            write_out(&mut sink, &batch);
        }
    }
}

/// Writes lines as far as the sink takes them, and counts those that it does not take whole.
fn write_out(sink: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match sink.write(lines) {
            Ok(written) if written > 0 => lines = &lines[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that has the stream open made it non-blocking; it will take more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_AFTER),
            Ok(_) | Err(_) => {
                let lost = lines.iter().filter(|byte| **byte == b'\n').count().max(1);
                LOST.fetch_add(lost as u64, Ordering::Relaxed);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Takes nothing until `open` is sent, and then everything; sends what it got.
    struct Stopped {
        go: mpsc::Receiver<()>,
        got: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stopped {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            // Once the other end is gone it takes whatever comes.
            let _ = self.go.recv();
            self.got.send(lines.to_vec()).unwrap();
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up_and_costs_lines() {
        let (go, stopped) = mpsc::channel();
        let (got, taken) = mpsc::channel();
        let mut log = LogWriter::start(Stopped { go: stopped, got }).unwrap();
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        let before = lines_lost();
        for _ in 0..3 * WAITING_BYTES_MAX / line.len() {
            log.write_all(&line).unwrap();
        }
        assert!(lines_lost() - before > 900, "what nobody reads is not kept for ever");
        drop(go);
        log.flush(SOON);
        let written: usize = taken.try_iter().map(|lines| lines.len()).sum();
        assert!(written >= WAITING_BYTES_MAX - line.len(), "what was kept is written: {written} bytes");
        assert_eq!(written % line.len(), 0, "lines are whole");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_forgotten() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut log = LogWriter::start(full).unwrap();
        let before = lines_lost();
        for _ in 0..5 {
            log.write_all(b"a line\n").unwrap();
        }
        log.flush(SOON);
        assert!(lines_lost() - before >= 5);
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = LogWriter::start(writer).unwrap();
        for number in 0..1_000 {
            writeln!(&mut log, "line {number}").unwrap();
        }
        let expected: String = (0..1_000).map(|number| format!("line {number}\n")).collect();
        let mut got = vec![0; expected.len()];
        io::Read::read_exact(&mut reader, &mut got).unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), expected);
    }
}
