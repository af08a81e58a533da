//! A table with one small number per request, written by many threads.
//!
//! Its size is fixed from the beginning, so that marking is one atomic addition and nothing grows while
//! memory is watched.

use std::sync::atomic::{AtomicU8, Ordering};

pub struct Tally(Vec<AtomicU8>);

impl Tally {
    pub fn new(size: usize) -> Tally {
        Tally((0..size).map(|_| AtomicU8::new(0)).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn mark(&self, number: usize) {
        if let Some(count) = self.0.get(number) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn of(&self, number: usize) -> u8 {
        self.0
            .get(number)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many have been marked.
    pub fn count(&self) -> usize {
        let marked = |count: &&AtomicU8| count.load(Ordering::Relaxed) != 0;
        self.0.iter().filter(marked).count()
    }
}

/// Compares what was promised with what arrived.
pub fn compare(name: &str, promised: &Tally, arrived: &Tally) -> Result<(), String> {
    let (mut lost, mut doubled, mut unasked) = (0, 0, 0);
    for number in 0..promised.len() {
        match (promised.of(number), arrived.of(number)) {
            (1, 0) => lost += 1,
            (1, 1) | (0, 0) => {}
            (1, _) => doubled += 1,
            (_, _) => unasked += 1,
        }
    }
    if (lost, doubled, unasked) == (0, 0, 0) {
        return Ok(());
    }
    Err(format!(
        "{name}: {lost} lost, {doubled} doubled, {unasked} that nobody was promised"
    ))
}
