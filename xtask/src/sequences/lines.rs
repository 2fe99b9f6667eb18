//! Cache lines: what is written with the MMU off and read cacheably later, and what is written cacheably and read with the MMU off.

use std::collections::{HashMap, HashSet};

use breakwater_trace::{Barrier, Operation, Step};

use super::Findings;
use super::barriers::{Domain, is_full};

const FRAME_BYTES: u64 = 0x1000;

/// Moments at which something happened, first to last.
type Moments = Vec<u64>;

fn between(moments: &Moments, after: u64, before: u64) -> Option<u64> {
    let next = moments.get(moments.partition_point(|moment| *moment <= after)).copied()?;
    (next < before).then_some(next)
}

/// What the first CPU did before it turned its MMU on.
#[derive(Default)]
struct Uncached {
    /// DC IVAC, by line.
    invalidated: HashMap<u64, Moments>,
    /// First and last store, by frame.
    frames: HashMap<u64, (u64, u64)>,
    stored_lines: HashSet<u64>,
    /// Lines that were cleaned; nothing stands for all of them (by set and way).
    cleaned: HashSet<Option<u64>>,
    /// DSB of loads and stores, Outer Shareable or wider: Device and Non-cacheable accesses are in that domain.
    dsb: Moments,
    /// The same of the full system.
    dsb_system: Moments,
    /// DMB or DSB of loads and stores, Outer Shareable or wider.
    ordered: Moments,
}

/// Where a line stands that was written cacheably.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    Dirty,
    /// Cleaned by this CPU, not known to be complete.
    Cleaned(u32),
    /// In memory since this moment.
    InMemory(u64),
}

/// All lines.
pub(super) struct Lines {
    line_bytes: u64,
    uncached: Option<Uncached>,
    cacheable: HashMap<u64, Line>,
    /// Lines in [`Line::Cleaned`].
    cleaning: Vec<u64>,
}

impl Lines {
    /// Nothing is cached that matters.
    pub(super) fn new(line_bytes: u64) -> Self {
        let uncached = Some(Uncached::default());
        Self { line_bytes, uncached, cacheable: HashMap::new(), cleaning: Vec::new() }
    }

    const fn line(&self, pa: u64) -> u64 {
        pa & !(self.line_bytes - 1)
    }

    /// A store with the MMU on.
    pub(super) fn stored_cacheably(&mut self, pa: u64, bytes: u64) {
        for line in [self.line(pa), self.line(pa + bytes.max(1) - 1)] {
            self.cacheable.insert(line, Line::Dirty);
        }
    }

    /// A store with the MMU off, by the first CPU before its first enable or by another.
    pub(super) fn stored_uncached(&mut self, step: &Step, now: u64, pa: u64, first_cpu: bool, findings: &mut Findings) {
        let line = self.line(pa);
        if let Some(Line::Dirty | Line::Cleaned(_)) = self.cacheable.get(&line) {
            findings.add(step, "no store with M = 0 into a line that may be dirty in a cache", format!("{pa:#x}"));
        }
        let Some(uncached) = self.uncached.as_mut().filter(|_| first_cpu) else { return };
        uncached.stored_lines.insert(line);
        let span = uncached.frames.entry(pa & !(FRAME_BYTES - 1)).or_insert((now, now));
        span.1 = now;
    }

    /// A load with the MMU off, by a CPU that was released at `released`.
    pub(super) fn loaded_uncached(&self, step: &Step, pa: u64, released: u64, findings: &mut Findings) {
        let visible = match self.cacheable.get(&self.line(pa)) {
            None => true,
            Some(Line::InMemory(since)) => *since < released,
            Some(_) => false,
        };
        if !visible {
            let rule = "what a CPU loads with M = 0 is cleaned to the point of coherency, DSB SY, before its release";
            findings.add(step, rule, format!("{pa:#x}"));
        }
    }

    /// A DC by address, whose operand leads to `pa`, or by set and way.
    pub(super) fn maintained(&mut self, step: &Step, now: u64, operation: Operation, pa: Option<u64>) {
        let name = operation.name().unwrap_or_default();
        let line = pa.map(|pa| self.line(pa));
        match (name, line) {
            ("ivac", Some(line)) => {
                if let Some(uncached) = &mut self.uncached {
                    uncached.invalidated.entry(line).or_default().push(now);
                }
            }
            ("cvac" | "civac" | "cvau" | "cvap" | "cvadp", Some(line)) => {
                if let Some(uncached) = &mut self.uncached {
                    uncached.cleaned.insert(Some(line));
                }
                if name != "cvau" && self.cacheable.get(&line) == Some(&Line::Dirty) {
                    self.cacheable.insert(line, Line::Cleaned(step.cpu));
                    self.cleaning.push(line);
                }
            }
            ("csw" | "cisw", _) => {
                if let Some(uncached) = &mut self.uncached {
                    uncached.cleaned.insert(None);
                }
            }
            _ => {}
        }
    }

    /// A DSB or DMB.
    pub(super) fn barrier(&mut self, cpu: u32, now: u64, barrier: Barrier, dsb: bool, first_cpu: bool) {
        if let Some(uncached) = self.uncached.as_mut().filter(|_| first_cpu && is_full(barrier, Domain::Outer)) {
            uncached.ordered.push(now);
            if dsb {
                uncached.dsb.push(now);
            }
            if dsb && is_full(barrier, Domain::System) {
                uncached.dsb_system.push(now);
            }
        }
        if dsb && is_full(barrier, Domain::System) {
            let cacheable = &mut self.cacheable;
            self.cleaning.retain(|line| match cacheable.get(line) {
                Some(Line::Cleaned(by)) if *by == cpu => {
                    cacheable.insert(*line, Line::InMemory(now));
                    false
                }
                Some(Line::Cleaned(_)) => true,
                _ => false,
            });
        }
    }

    /// The first CPU turns its MMU on for the first time; `tables` are the frames that its root reaches.
    pub(super) fn first_enable(&mut self, step: &Step, now: u64, tables: &HashSet<u64>, findings: &mut Findings) {
        let Some(uncached) = self.uncached.take() else { return };
        let mut frames: Vec<_> = uncached.frames.iter().map(|(frame, span)| (*frame, *span)).collect();
        frames.sort_unstable();
        for (frame, span) in frames {
            for line in (frame..frame + FRAME_BYTES).step_by(self.line_bytes as usize) {
                if tables.contains(&frame) || uncached.stored_lines.contains(&line) {
                    uncached.judge(step, now, line, span, findings);
                }
            }
        }
    }
}

impl Uncached {
    fn judge(&self, step: &Step, now: u64, line: u64, (first, last): (u64, u64), findings: &mut Findings) {
        const BEFORE: &str = "a line written with M = 0 is invalidated, DSB, before the first store to its page";
        const AFTER: &str = "a line written with M = 0 gets DMB, DC IVAC, DSB SY after the last store to its page";
        const CLEAN: &str = "a line written with M = 0 is never cleaned: that pushes stale data over it";
        let evidence = || format!("line {line:#x}");
        let none = Moments::new();
        let moments = self.invalidated.get(&line).unwrap_or(&none);
        let before = moments.iter().any(|invalidated| between(&self.dsb, *invalidated, first).is_some());
        if !before {
            findings.add(step, BEFORE, evidence());
        }
        let ordered = between(&self.ordered, last, now);
        let after = ordered.and_then(|ordered| between(moments, ordered, now));
        if after.and_then(|after| between(&self.dsb_system, after, now)).is_none() {
            findings.add(step, AFTER, evidence());
        }
        if self.cleaned.contains(&Some(line)) || self.cleaned.contains(&None) {
            findings.add(step, CLEAN, evidence());
        }
    }
}
