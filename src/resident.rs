//! Memory that nothing uses any more goes back to the system in time.
//!
//! Budgets bound what requests hold, but the kernel counts what the process has touched and not given
//! back. An allocator gives back only what is free in one stretch. Where bodies grow in size and every
//! other one is closed, they leave holes that are too small for the next ones, and each size adds to the
//! last. So a worker looks each time its budget has granted or got back some more, and once a second: where
//! the process has much more than its budgets have granted, the pages of all holes go back.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::sys;

/// How much a budget grants and gets back between two looks. A look takes 1 to 2 µs; to receive as much
/// takes a hundred times that.
const LOOK_BYTES: usize = 1024 * 1024;

/// How much that nothing uses may stay with the process, for each budget. It is a part of the 32 MiB of a
/// worker that the README states.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

static PROCESS: Mutex<Process> = Mutex::new(Process::new());

/// What is known of the memory of a process.
struct Process {
    budgets: usize,
    /// What the budgets have told that they have granted.
    granted_bytes: usize,
    /// What the process had besides when memory was last given back, or less if it had less since. It is
    /// in use, or cannot be given back.
    floor_bytes: usize,
}

impl Process {
    const fn new() -> Process {
        Process {
            budgets: 0,
            granted_bytes: 0,
            floor_bytes: 0,
        }
    }

    /// Whether a process that has `resident_bytes` should give some back.
    fn has_too_much(&mut self, resident_bytes: usize) -> bool {
        let other_bytes = resident_bytes.saturating_sub(self.granted_bytes);
        self.floor_bytes = self.floor_bytes.min(other_bytes);
        other_bytes - self.floor_bytes > KEPT_BYTES * self.budgets
    }

    /// Takes note that the process has `resident_bytes` right after it has given back what it could.
    fn has_given_back(&mut self, resident_bytes: usize) {
        self.floor_bytes = resident_bytes.saturating_sub(self.granted_bytes);
    }
}

/// What one budget has told about what it has granted.
pub(crate) struct Granted {
    told_bytes: Cell<usize>,
    untold_bytes: Cell<usize>,
}

impl Granted {
    /// Tells of a budget that has granted nothing yet.
    pub(crate) fn new() -> Granted {
        process().budgets += 1;
        Granted {
            told_bytes: Cell::new(0),
            untold_bytes: Cell::new(0),
        }
    }

    /// Takes note of `bytes` more or fewer, with which the budget has granted `total_bytes`; now and then
    /// it looks.
    #[inline]
    pub(crate) fn change(&self, bytes: usize, total_bytes: usize) {
        let untold_bytes = self.untold_bytes.get() + bytes;
        self.untold_bytes.set(untold_bytes);
        if untold_bytes >= LOOK_BYTES {
            self.look(total_bytes);
        }
    }

    /// Tells that the budget has granted `total_bytes`, and sees to it that the process has not much more
    /// memory than all budgets together.
    #[cold]
    pub(crate) fn look(&self, total_bytes: usize) {
        // Where another worker is at it, this one has better things to do.
        let Ok(mut process) = PROCESS.try_lock() else {
            return;
        };
        self.untold_bytes.set(0);
        process.granted_bytes += total_bytes;
        process.granted_bytes -= self.told_bytes.replace(total_bytes);
        if resident_bytes().is_some_and(|bytes| process.has_too_much(bytes)) {
            sys::give_back_freed_memory();
            process.has_given_back(resident_bytes().unwrap_or(0));
        }
    }
}

impl Default for Granted {
    fn default() -> Granted {
        Granted::new()
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let mut process = process();
        process.budgets -= 1;
        process.granted_bytes -= self.told_bytes.get();
    }
}

fn process() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens what is read later, when there may be no descriptor left.
pub(crate) fn prepare() {
    let _ = resident_bytes();
}

/// The memory that the process has, as the kernel counts it; `None` where there is no `/proc`.
fn resident_bytes() -> Option<usize> {
    static STATM: OnceLock<Option<File>> = OnceLock::new();
    let statm = STATM.get_or_init(|| File::open("/proc/self/statm").ok());
    let mut text = [0; 128];
    let length = statm.as_ref()?.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let pages: usize = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * sys::page_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn what_is_kept_beside_the_budgets_is_bounded_for_each_of_them() {
        let mut process = Process {
            budgets: 2,
            granted_bytes: 100 * MIB,
            floor_bytes: 8 * MIB,
        };
        assert!(!process.has_too_much(140 * MIB));
        assert!(process.has_too_much(140 * MIB + 1));
        process.granted_bytes = 0;
        assert!(process.has_too_much(41 * MIB));
    }

    #[test]
    fn what_cannot_be_given_back_is_not_asked_for_again() {
        let mut process = Process::new();
        process.budgets = 1;
        process.granted_bytes = 100 * MIB;
        assert!(process.has_too_much(200 * MIB));
        // Connections have it.
        process.has_given_back(190 * MIB);
        assert!(!process.has_too_much(206 * MIB));
        assert!(process.has_too_much(207 * MIB));
        // They end, and from then on it would be too much.
        assert!(!process.has_too_much(110 * MIB));
        assert!(process.has_too_much(190 * MIB));
    }

    #[test]
    fn a_process_has_as_much_as_it_touches() {
        let touched = vec![1_u8; 64 * MIB];
        let bytes = resident_bytes().unwrap();
        assert!(bytes > touched.len(), "{bytes}");
        assert_eq!(touched.last(), Some(&1));
    }
}
