//! Returns freed memory to the system in time.
//!
//! Budgets limit what requests hold, but the kernel counts all pages that the process has touched and not
//! returned. An allocator returns only contiguous free memory. If bodies grow in size and every other
//! one is freed, they leave holes that are too small for the next ones, and each size adds to the last. So
//! a worker checks the resident memory each time its budget has reserved or released some more, and once a
//! second. If the process has much more than its budgets have reserved, the pages of all holes are returned.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::sys;

/// How much a budget reserves and releases between two checks. A check takes 1 to 2 µs; receiving this much data
/// takes a hundred times that.
const CHECK_BYTES: usize = 1024 * 1024;

/// How much free memory the process may keep for each budget. It is a part of the 32 MiB per worker in
/// docs/limits.md.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

static PROCESS: Mutex<Process> = Mutex::new(Process::new());

struct Process {
    budgets: usize,
    /// The sum of what the budgets last reported.
    reserved_bytes: usize,
    /// The memory of the process beside that when memory was last returned, or less if it had less since. It is in
    /// use, or cannot be returned.
    floor_bytes: usize,
}

impl Process {
    const fn new() -> Process {
        Process {
            budgets: 0,
            reserved_bytes: 0,
            floor_bytes: 0,
        }
    }

    /// Whether a process with `resident_bytes` should return memory.
    fn has_too_much(&mut self, resident_bytes: usize) -> bool {
        let other_bytes = resident_bytes.saturating_sub(self.reserved_bytes);
        self.floor_bytes = self.floor_bytes.min(other_bytes);
        other_bytes - self.floor_bytes > KEPT_BYTES * self.budgets
    }

    /// Records that the process still has `resident_bytes` after it returned what it could.
    fn record_returned(&mut self, resident_bytes: usize) {
        self.floor_bytes = resident_bytes.saturating_sub(self.reserved_bytes);
    }
}

/// What one budget has reported of its reservations.
pub(crate) struct ReservedMemory {
    reported_bytes: Cell<usize>,
    unreported_bytes: Cell<usize>,
}

impl ReservedMemory {
    /// Registers a budget without reservations.
    pub(crate) fn new() -> ReservedMemory {
        process().budgets += 1;
        ReservedMemory {
            reported_bytes: Cell::new(0),
            unreported_bytes: Cell::new(0),
        }
    }

    /// Records that the budget has reserved or released `bytes`, after which `total_bytes` are reserved.
    /// Checks the resident memory now and then.
    #[inline]
    pub(crate) fn change(&self, bytes: usize, total_bytes: usize) {
        let unreported_bytes = self.unreported_bytes.get() + bytes;
        self.unreported_bytes.set(unreported_bytes);
        if unreported_bytes >= CHECK_BYTES {
            self.check(total_bytes);
        }
    }

    /// Reports that the budget has reserved `total_bytes`. Returns memory to the system if the process has
    /// much more than all budgets together.
    #[cold]
    pub(crate) fn check(&self, total_bytes: usize) {
        // Another worker is checking.
        let Ok(mut process) = PROCESS.try_lock() else {
            return;
        };
        self.unreported_bytes.set(0);
        process.reserved_bytes += total_bytes;
        process.reserved_bytes -= self.reported_bytes.replace(total_bytes);
        if resident_bytes().is_some_and(|bytes| process.has_too_much(bytes)) {
            sys::return_freed_memory();
            process.record_returned(resident_bytes().unwrap_or(0));
        }
    }
}

impl Default for ReservedMemory {
    fn default() -> ReservedMemory {
        ReservedMemory::new()
    }
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        let mut process = process();
        process.budgets -= 1;
        process.reserved_bytes -= self.reported_bytes.get();
    }
}

fn process() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the file that is read later, when the process may have no descriptors left.
pub(crate) fn prepare() {
    let _ = resident_bytes();
}

/// The resident memory of the process; `None` without `/proc`.
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
    fn the_free_memory_of_a_process_is_bounded_for_each_budget() {
        let mut process = Process {
            budgets: 2,
            reserved_bytes: 100 * MIB,
            floor_bytes: 8 * MIB,
        };
        assert!(!process.has_too_much(140 * MIB));
        assert!(process.has_too_much(140 * MIB + 1));
        process.reserved_bytes = 0;
        assert!(process.has_too_much(41 * MIB));
    }

    #[test]
    fn memory_that_cannot_be_returned_is_not_asked_for_again() {
        let mut process = Process::new();
        process.budgets = 1;
        process.reserved_bytes = 100 * MIB;
        assert!(process.has_too_much(200 * MIB));
        // Connections use it.
        process.record_returned(190 * MIB);
        assert!(!process.has_too_much(206 * MIB));
        assert!(process.has_too_much(207 * MIB));
        // Once they have ended, the same amount is too much.
        assert!(!process.has_too_much(110 * MIB));
        assert!(process.has_too_much(190 * MIB));
    }

    #[test]
    fn touched_memory_is_resident() {
        let touched = vec![1_u8; 64 * MIB];
        let bytes = resident_bytes().unwrap();
        assert!(bytes > touched.len(), "{bytes}");
        assert_eq!(touched.last(), Some(&1));
    }
}
