//! `fetches=pages`: which straight runs of instructions could be judged.
//!
//! What a fetch may find wrong changes with an event that anybody executes (a system register, a TLBI, a barrier, an exception), or with the page
//! that it is from. A run from the page of the one before, with none of that in between, tells nothing new: left out, nearly all of them
//! are, and a loop costs no line.
//!
//! Asked before every run of every CPU, so there is no lock: the page of a run is looked up by the run's number, and each CPU has a line of
//! cache of its own for what it wrote last. A run whose number is beyond the list is written.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use breakwater_trace::Event;

/// Runs whose page is remembered.
const RUNS: usize = 1 << 20;

/// Page and age of the run that a CPU wrote last.
#[repr(align(64))]
struct Last(AtomicU64);

/// What has been written, by CPU.
pub(crate) struct Fetches {
    /// How many events there were that change what a fetch may find.
    age: AtomicU32,
    /// By the number of a run.
    pages: Vec<AtomicU32>,
    last: Vec<Last>,
}

impl Fetches {
    /// Nothing written.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            age: AtomicU32::new(1),
            pages: (0..RUNS).map(|_| AtomicU32::new(0)).collect(),
            last: (0..cpus).map(|_| Last(AtomicU64::new(0))).collect(),
        }
    }

    /// The run `site` begins at `pc`.
    pub(crate) fn begins(&self, site: u32, pc: u64) {
        if let Some(page) = self.pages.get(site as usize) {
            // Enough of the page's number: nobody goes from one page to another that is 2^44 bytes away by a branch alone.
            page.store((pc >> 12) as u32 ^ (pc >> 44) as u32, Ordering::Relaxed);
        }
    }

    /// A CPU is about to do this: whether a fetch after it may find something else than one before.
    pub(crate) fn happened(&self, event: &Event) {
        let changes = match event {
            Event::Maintain { operation, .. } => operation.invalidates_el2(),
            Event::Start { .. } | Event::Msr { .. } | Event::Dsb(_) | Event::Isb => true,
            Event::Eret | Event::Exception { .. } => true,
            _ => false,
        };
        if changes {
            self.age.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the run `site`, which `cpu` is about to execute, is to be written; it then counts as written.
    pub(crate) fn tells(&self, cpu: u32, site: u32) -> bool {
        let (Some(page), Some(last)) = (self.pages.get(site as usize), self.last.get(cpu as usize)) else {
            return true;
        };
        let age = self.age.load(Ordering::Relaxed);
        let now = u64::from(age) << 32 | u64::from(page.load(Ordering::Relaxed));
        let told = last.0.load(Ordering::Relaxed) == now;
        if !told {
            last.0.store(now, Ordering::Relaxed);
        }
        !told
    }
}
