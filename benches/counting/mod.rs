//! An allocator for benches that counts allocations and their bytes.
//!
//! All threads share two counters, so nothing else may allocate during a measurement. [`watch`] also
//! records where each allocation happens, which is far slower; do not measure time meanwhile.

// Each bench uses a part of it.
#![allow(dead_code, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Allocations and their bytes so far. A reallocation counts as one; deallocations do not count.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static IS_WATCHING: AtomicBool = AtomicBool::new(false);
static SITES: Mutex<Option<HashMap<String, u64>>> = Mutex::new(None);

thread_local! {
    /// Whether the thread is recording a site, whose own allocations do not count.
    static IS_KEEPING: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call and its result pass to and from the system allocator unchanged, and counting does not
// touch the memory. Recording a site allocates, but does not record itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the pointer came from the system's allocator, with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What all threads have allocated so far.
pub(crate) fn allocated() -> Allocated {
    Allocated {
        count: COUNT.load(Ordering::Relaxed),
        bytes: BYTES.load(Ordering::Relaxed),
    }
}

impl Allocated {
    /// The allocations since this snapshot.
    pub(crate) fn since(self) -> Allocated {
        let now = allocated();
        Allocated {
            count: now.count - self.count,
            bytes: now.bytes - self.bytes,
        }
    }
}

/// Starts recording the sites of allocations, or stops and gives them with their counts.
pub(crate) fn watch(on: bool) -> Vec<(String, u64)> {
    IS_WATCHING.store(on, Ordering::SeqCst);
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = sites.take().unwrap_or_default();
    let mut kept: Vec<_> = kept.into_iter().collect();
    kept.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    kept
}

fn count(size: usize) {
    if IS_KEEPING.get() {
        return;
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(size as u64, Ordering::Relaxed);
    if IS_WATCHING.load(Ordering::Relaxed) {
        IS_KEEPING.set(true);
        let site = site(&Backtrace::force_capture().to_string());
        let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
        *sites.get_or_insert_default().entry(site).or_insert(0) += 1;
        drop(sites);
        IS_KEEPING.set(false);
    }
}

/// The innermost lines of this crate or monoio in a backtrace.
fn site(backtrace: &str) -> String {
    let lines: Vec<&str> = backtrace.lines().map(str::trim).collect();
    let own = lines
        .windows(2)
        .filter(|pair| pair[1].starts_with("at ") && pair[1].contains("/src/"))
        .filter(|pair| pair[0].contains("sentry_mirror::") || pair[0].contains("monoio::"))
        .filter(|pair| !pair[1].contains("/rustc/"))
        .take(2)
        .map(|pair| pair[1].rsplit("/src/").next().unwrap_or(pair[1]));
    own.collect::<Vec<_>>().join(" < ")
}
