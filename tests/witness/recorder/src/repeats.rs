//! A CPU that waits repeats itself: barrier, load, branch, a million times. What of it is written is what could ever matter.
//!
//! Why it exists: how many turns a loop takes is the host's affair. While the CPU that a loop waits for has no host CPU, the loop would fill the
//! trace up to its largest size. So an event is left out if the same instruction of the same CPU did the same before, and nothing has
//! happened since that it could tell apart:
//!
//! * A DSB or DMB waits for what came before it: left out until some CPU does what changes something (a store, a write of a register,
//!   maintenance, an exception, a call).
//! * An ISB lets its CPU see what is complete: left out until something changes, or some CPU completes something by a DSB. So the ISB before
//!   another CPU's DSB and the one after it are both written.
//! * A use (load, fetch, read of a register) changes nothing and is judged by what is in force: left out until something changes, some CPU
//!   completes something, or its own CPU had a barrier that was written. A load that finds another value than before is another event.
//!
//! What is written is therefore bounded by what all CPUs do besides waiting, whatever the host does. What stands directly before an event is
//! judged as well (an ISB before the MMU is turned off): so a barrier that was left out is held, and written if its CPU's next event
//! is, or before anything happens that it must not be mistaken to come after.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use breakwater_trace::{Event, Step};

/// Events of a CPU that are remembered. A loop of more is none that waits.
const REMEMBERED: usize = 32;

/// What an event may be left out for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeatable {
    Change,
    /// DSB: completes what others wait for.
    Completion,
    /// DMB.
    Ordering,
    /// ISB.
    Synchronisation,
    Use,
}

impl Repeatable {
    fn of(event: &Event) -> Self {
        match event {
            Event::Dsb(_) => Self::Completion,
            Event::Dmb(_) => Self::Ordering,
            Event::Isb => Self::Synchronisation,
            Event::Load(_) | Event::Fetch { .. } | Event::Mrs { .. } => Self::Use,
            _ => Self::Change,
        }
    }

    /// Stays as good as it was when another CPU completes something.
    fn outlives_completion(self) -> bool {
        matches!(self, Self::Completion | Self::Ordering)
    }
}

/// What one CPU did lately.
#[derive(Clone, Default)]
struct RecentSteps {
    /// How many changes and completions there were when this was last looked at.
    as_of: Age,
    /// By address, what it did since.
    done: VecDeque<(u64, Event)>,
    /// Its last event, if that is a barrier that was left out.
    held: Option<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Age {
    changes: u64,
    completions: u64,
}

/// What all CPUs did lately.
pub(crate) struct Repeats {
    now: Age,
    cpus: Vec<RecentSteps>,
    /// A CPU may hold a barrier back.
    holds: bool,
    /// CPUs that have started.
    started: usize,
    /// Every fetch counts for as long as one CPU runs.
    all_fetches: bool,
}

impl Repeats {
    /// Nothing done. With `all_fetches`, none is left out before a second CPU starts: until then there is nobody to wait for, and a profile
    /// is made of them.
    pub(crate) fn new(cpus: usize, all_fetches: bool) -> Self {
        Self { now: Age::default(), cpus: vec![RecentSteps::default(); cpus], holds: false, started: 0, all_fetches }
    }

    /// Whether all that becomes of `event` is that it is written: it changes something, and no barrier is held back.
    /// Then it counts as done.
    pub(crate) fn only_changes(&mut self, event: &Event) -> bool {
        let only = !self.holds && Repeatable::of(event) == Repeatable::Change && !matches!(event, Event::Start { .. });
        self.now.changes += u64::from(only);
        only
    }

    /// `step` happens: calls `write` with what is to be written by now, which may be nothing.
    pub(crate) fn happens(&mut self, step: Step, mut write: impl FnMut(&Step)) {
        self.started += usize::from(matches!(step.event, Event::Start { .. }));
        let kind = Repeatable::of(&step.event);
        if kind == Repeatable::Change {
            self.let_go(&mut write);
            self.now.changes += 1;
            return write(&step);
        }
        let always = matches!(step.event, Event::Fetch { .. }) && self.all_fetches && self.started < 2;
        let Some(cpu) = self.cpus.get_mut(step.cpu as usize) else { return write(&step) };
        cpu.age(self.now);
        let this = (step.pc, step.event);
        if !always && cpu.done.contains(&this) {
            cpu.held = (kind != Repeatable::Use).then_some(step);
            self.holds |= cpu.held.is_some();
            return;
        }
        if kind == Repeatable::Completion {
            self.let_go(&mut write);
            self.now.completions += 1;
        }
        let Some(cpu) = self.cpus.get_mut(step.cpu as usize) else { return };
        cpu.held.take().iter().for_each(&mut write);
        write(&step);
        cpu.age(self.now);
        match step.event {
            // Of what it found there, the last counts.
            Event::Load(load) => {
                let found = |event: &Event| matches!(event, Event::Load(other) if other.va == load.va);
                cpu.done.retain(|(pc, event)| *pc != step.pc || !found(event));
            }
            _ if kind == Repeatable::Use => {}
            _ => cpu.done.retain(|(_, event)| Repeatable::of(event) != Repeatable::Use),
        }
        if cpu.done.len() == REMEMBERED {
            cpu.done.pop_front();
        }
        cpu.done.push_back(this);
    }

    /// Writes what is held.
    pub(crate) fn let_go(&mut self, write: impl FnMut(&Step)) {
        self.holds = false;
        self.cpus.iter_mut().filter_map(|cpu| cpu.held.take()).collect::<Vec<_>>().iter().for_each(write);
    }
}

impl RecentSteps {
    /// Forgets what `now` may tell apart.
    fn age(&mut self, now: Age) {
        if self.as_of.changes != now.changes {
            self.done.clear();
        } else if self.as_of != now {
            self.done.retain(|(_, event)| Repeatable::of(event).outlives_completion());
        }
        self.as_of = now;
    }
}

// `fetches=pages`: which straight runs of instructions could be judged.
//
// What a fetch may find wrong changes with an event that anybody executes (a system register, a TLBI, a barrier, an exception), or with the page
// that it is from. A run from the page of the one before, with none of that in between, tells nothing new: left out, nearly all of them
// are, and a loop costs no line.
//
// Asked before every run of every CPU, so there is no lock: the page of a run is looked up by the run's number, and each CPU has a line of
// cache of its own for what it wrote last. A run whose number is beyond the list is written.

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
            Event::Start { .. } | Event::Enter { .. } | Event::Msr { .. } | Event::Dsb(_) | Event::Isb => true,
            Event::Eret { .. } | Event::Exception { .. } => true,
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
