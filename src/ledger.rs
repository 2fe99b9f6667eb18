//! What each phase of boot did, counted: descriptor stores, maintenance, frames, instructions. The phases add up to the total.

#![forbid(unsafe_code)]

use crate::bbm::Counts;
use crate::machine::Maintenance;

/// Phases that can be noted.
const MAX_PHASES: usize = 16;

/// One phase of boot and what it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// Descriptor stores and maintenance.
    pub counts: Counts,
    /// Frames taken.
    pub frames: u64,
    /// Instructions retired, where they can be counted: by all CPUs together.
    pub instructions: Option<u32>,
}

/// Readings that only grow, taken at the end of a phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// [`crate::bbm::Protocol::counts`].
    pub counts: Counts,
    /// [`crate::frames::FrameSupply::taken`].
    pub frames: u64,
    /// Instructions retired modulo 2^32, where they can be counted.
    pub instructions: Option<u32>,
}

/// The phases so far.
#[derive(Debug)]
pub struct Ledger {
    phases: [Option<Phase>; MAX_PHASES],
    count: usize,
    last: Reading,
}

impl Ledger {
    /// No phase yet; everything counted from zero.
    #[must_use]
    pub const fn new() -> Self {
        let maintenance = Maintenance { tlbis: 0, dsbs: 0, isbs: 0 };
        let last = Reading { counts: Counts { stores: 0, maintenance }, frames: 0, instructions: Some(0) };
        Self { phases: [None; MAX_PHASES], count: 0, last }
    }

    /// Ends the phase that began at the end of the one before. Phases beyond the sixteenth are added to the sixteenth.
    pub fn close(&mut self, name: &'static str, now: Reading) {
        let (before, then) = (self.last.counts, now.counts);
        let counts = Counts {
            stores: then.stores - before.stores,
            maintenance: Maintenance {
                tlbis: then.maintenance.tlbis - before.maintenance.tlbis,
                dsbs: then.maintenance.dsbs - before.maintenance.dsbs,
                isbs: then.maintenance.isbs - before.maintenance.isbs,
            },
        };
        let instructions = now.instructions.zip(self.last.instructions).map(|(now, last)| now.wrapping_sub(last));
        let phase = Phase { name, counts, frames: now.frames - self.last.frames, instructions };
        if let Some(place) = self.phases.get_mut(self.count) {
            *place = Some(phase);
            self.count += 1;
        } else if let Some(Some(last)) = self.phases.last_mut() {
            *last = sum(*last, phase);
        }
        self.last = now;
    }

    /// The phases in order.
    pub fn phases(&self) -> impl Iterator<Item = &Phase> {
        self.phases.iter().flatten()
    }

    /// All phases together.
    #[must_use]
    pub fn total(&self) -> Phase {
        let none = Phase { name: "total", counts: Counts::default(), frames: 0, instructions: Some(0) };
        self.phases().fold(none, |total, &phase| sum(total, phase))
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

fn sum(one: Phase, two: Phase) -> Phase {
    let (a, b) = (one.counts.maintenance, two.counts.maintenance);
    Phase {
        name: one.name,
        counts: Counts {
            stores: one.counts.stores + two.counts.stores,
            maintenance: Maintenance { tlbis: a.tlbis + b.tlbis, dsbs: a.dsbs + b.dsbs, isbs: a.isbs + b.isbs },
        },
        frames: one.frames + two.frames,
        instructions: one.instructions.zip(two.instructions).map(|(a, b)| a.wrapping_add(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(stores: u32, frames: u64, instructions: Option<u32>) -> Reading {
        let maintenance = Maintenance { tlbis: stores, dsbs: 2 * stores, isbs: 3 * stores };
        Reading { counts: Counts { stores, maintenance }, frames, instructions }
    }

    #[test]
    fn good_phases_add_up() {
        let mut ledger = Ledger::new();
        (1..=20).for_each(|step| ledger.close("phase", reading(step * step, step.into(), Some(100 * step))));
        assert_eq!(ledger.phases().count(), MAX_PHASES);
        let total = ledger.total();
        assert_eq!((total.counts, total.frames), (reading(400, 20, None).counts, 20));
        assert_eq!(total.instructions, Some(2000));
        assert_eq!(ledger.phases().nth(1).unwrap().counts.stores, 3);
    }

    #[test]
    fn good_uncounted_instructions_stay_uncounted() {
        let mut ledger = Ledger::new();
        ledger.close("phase", reading(1, 1, None));
        assert_eq!(ledger.total().instructions, None);
    }
}
