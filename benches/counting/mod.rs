//! An allocator that counts, for the benches: how often memory is asked for, and how much.
//!
//! All threads count into the same two numbers, so what is measured has to be the only thing that
//! allocates meanwhile. With [`watch`] it also keeps where each request for memory came from, which
//! takes far longer and is no time to measure anything else.

// Not every bench uses all of it.
#![allow(dead_code, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Allocations and bytes so far; giving back is not counted, growing counts as an allocation.
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
    /// Whether the thread is keeping a site, whose own allocations are nobody's.
    static IS_KEEPING: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call goes to the system's allocator as it came, and what that gives comes back as it
// is; counting touches nothing else. Keeping a site allocates, but does not enter itself.
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
    /// What was allocated since this was taken.
    pub(crate) fn since(self) -> Allocated {
        let now = allocated();
        Allocated {
            count: now.count - self.count,
            bytes: now.bytes - self.bytes,
        }
    }
}

/// Begins to keep the sites of allocations, or ends it and gives them with their numbers.
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

/// The innermost lines of our own in a backtrace, or all of it where there is none.
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
