//! Lines that a thread of its own writes, so that no worker waits for whoever reads them.
//!
//! What waits to be written is bounded in bytes. What does not fit is dropped and counted, and so is what
//! cannot be written; the first failure of several is handed to a function that can log it. The crate
//! `tracing-appender` has such a thread, too, but it bounds lines whatever their length, takes 4 MiB for
//! the places of its queue, and ignores failures.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::label::{Label, labels};

/// How long the end of the process waits until what is queued is written.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

labels! {
    pub enum DropReason {
        /// The queue was full because the reader of the output is too slow.
        Queue => "queue",
        /// Writing failed.
        Write => "write",
    }
}

/// The way to the thread that writes. Copies lead to the same one.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    bytes_max: usize,
    /// By [`DropReason`].
    dropped: [AtomicU64; DropReason::ALL.len()],
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// The bytes that the thread has taken and is writing.
    writing_bytes: usize,
    is_closed: bool,
}

/// Keeps the thread alive; dropping it writes what is queued, for a second at most.
pub struct LinesGuard(Lines);

impl Lines {
    /// Lines to `writer`, from a thread called `name`; at most `bytes_max` bytes of them wait. The thread
    /// calls `on_change` when writing begins to fail, and when it works again.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        name: &str,
        bytes_max: usize,
        writer: impl Write + Send + 'static,
        on_change: impl FnMut(Result<(), &io::Error>) + Send + 'static,
    ) -> io::Result<(Lines, LinesGuard)> {
        let lines = Lines(Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            bytes_max,
            dropped: Default::default(),
        }));
        let shared = Arc::clone(&lines.0);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || shared.write_all(writer, on_change))?;
        Ok((lines.clone(), LinesGuard(lines)))
    }

    /// Queues a line, which has its line end already, or drops it.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.0.lock();
        let queued_bytes = queue.waiting.len() + queue.writing_bytes;
        if queued_bytes.saturating_add(line.len()) > self.0.bytes_max {
            drop(queue);
            self.0.drop_lines(DropReason::Queue, 1);
            return;
        }
        let was_empty = queue.waiting.is_empty();
        queue.waiting.extend_from_slice(line);
        drop(queue);
        if was_empty {
            self.0.changed.notify_all();
        }
    }

    /// How many lines were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let count = self.0.dropped.get(reason.index());
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Each call is one line.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_lines(&self, reason: DropReason, lines: u64) {
        if let Some(count) = self.dropped.get(reason.index()) {
            count.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Writes what is queued until the queue is closed and empty.
    fn write_all(&self, mut writer: impl Write, mut on_change: impl FnMut(Result<(), &io::Error>)) {
        let mut is_failing = false;
        let mut bytes = Vec::new();
        while self.take(&mut bytes) {
            let (written, result) = write_lines(&mut writer, &bytes);
            let rest = bytes.get(written..).unwrap_or_default();
            let lost = rest.iter().filter(|byte| **byte == b'\n').count();
            self.drop_lines(DropReason::Write, lost as u64);
            if result.is_err() != is_failing {
                is_failing = !is_failing;
                on_change(result.as_ref().copied());
            }
        }
    }

    /// Waits for lines and puts them into `bytes`, whose memory the queue gets; `false` at the end.
    fn take(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        let mut queue = self.lock();
        queue.writing_bytes = 0;
        // The end of the process may wait for this.
        self.changed.notify_all();
        while queue.waiting.is_empty() && !queue.is_closed {
            let woken = self.changed.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.waiting, bytes);
        queue.writing_bytes = bytes.len();
        !bytes.is_empty()
    }
}

impl Drop for LinesGuard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut queue = shared.lock();
        queue.is_closed = true;
        shared.changed.notify_all();
        let is_busy = |queue: &mut Queue| !queue.waiting.is_empty() || queue.writing_bytes > 0;
        let _ = shared
            .changed
            .wait_timeout_while(queue, LAST_PATIENCE, is_busy);
    }
}

/// Writes `bytes` and tells how many of them were written before the first failure.
fn write_lines(writer: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match writer.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, writer.flush())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A writer that tells of each write and does what it is told.
    struct Scripted {
        writes: Sender<Vec<u8>>,
        results: Receiver<io::Result<()>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.send(bytes.to_vec()).unwrap();
            self.results.recv().unwrap().map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Setup {
        lines: Lines,
        guard: LinesGuard,
        writes: Receiver<Vec<u8>>,
        results: Sender<io::Result<()>>,
        changes: Receiver<String>,
    }

    fn start(bytes_max: usize) -> Setup {
        let (written, writes) = channel();
        let (results, scripted) = channel();
        let (change, changes) = channel();
        let writer = Scripted {
            writes: written,
            results: scripted,
        };
        let on_change = move |result: Result<(), &io::Error>| {
            let text = result.map_or_else(ToString::to_string, |()| "works".to_owned());
            change.send(text).unwrap();
        };
        let (lines, guard) = Lines::start("lines", bytes_max, writer, on_change).unwrap();
        Setup {
            lines,
            guard,
            writes,
            results,
            changes,
        }
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_the_rest_is_counted() {
        let setup = start(100);
        setup.lines.push(b"first\n");
        // It is being written, and counts.
        assert_eq!(setup.writes.recv().unwrap(), b"first\n");
        let long = [b'x'; 50];
        setup.lines.push(&long);
        setup.lines.push(&long);
        assert_eq!(setup.lines.dropped(DropReason::Queue), 1);
        setup.lines.push(&[b'y'; 44]);
        setup.lines.push(b"z");
        assert_eq!(setup.lines.dropped(DropReason::Queue), 2);
        for _ in 0..2 {
            setup.results.send(Ok(())).unwrap();
        }
        drop(setup.guard);
        assert_eq!(setup.writes.recv().unwrap().len(), 94);
        assert_eq!(setup.lines.dropped(DropReason::Write), 0);
    }

    #[test]
    fn failures_are_counted_and_the_first_is_told() {
        let setup = start(100);
        let full = || Err(io::Error::other("full"));
        for result in [full(), full(), Ok(()), full()] {
            setup.lines.push(b"a\nb\n");
            setup.writes.recv().unwrap();
            setup.results.send(result).unwrap();
        }
        drop(setup.guard);
        assert_eq!(setup.lines.dropped(DropReason::Write), 6);
        let told: Vec<String> = setup.changes.iter().collect();
        assert_eq!(told, ["full", "works", "full"]);
    }

    #[test]
    fn the_end_waits_for_what_is_queued_but_not_for_ever() {
        let setup = start(100);
        setup.lines.push(b"never taken\n");
        setup.writes.recv().unwrap();
        drop(setup.guard);
        assert_eq!(setup.lines.dropped(DropReason::Queue), 0);
    }
}
