//! Break-before-make in its simplest form: was a live descriptor replaced without an invalid one in between, or before the
//! invalidation of the broken one was complete?
//!
//! A first, coarse check, so that no image of ours ever goes without one: any TLBI of the EL2 regime followed by a full DSB of the same
//! CPU counts, whatever its address, scope and level. The oracle judges those.

use rustc_hash::FxHashMap;

use breakwater_trace::Step;

use breakwater_oracle::descriptor::{Descriptor, Format};
use breakwater_oracle::tables::WordChange;

/// A change of a live descriptor that lacks a step of break-before-make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveChange {
    /// The CPU that stored the new descriptor.
    pub cpu: u32,
    /// The ordinal of its instruction.
    pub instruction: u64,
    /// The address of its instruction.
    pub pc: u64,
    /// Physical address of the descriptor.
    pub slot: u64,
    /// The last valid descriptor before the change.
    pub old: u64,
    /// The new one.
    pub new: u64,
    /// What should have come between the two.
    pub missing: &'static str,
}

/// How far the invalidation of a broken descriptor has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalidation {
    Owed,
    IssuedBy(u32),
    Complete,
}

/// The descriptors that are broken, and what was found.
#[derive(Default)]
pub(super) struct Live {
    broken: FxHashMap<u64, (u64, Invalidation)>,
    /// The invalidation of one may wait for its DSB.
    waits: bool,
    pub(super) found: Vec<LiveChange>,
}

impl Live {
    /// Judges a store to a slot that walks of a CPU with its MMU on read at `level`.
    pub(super) fn changed(&mut self, step: &Step, change: WordChange, format: &Format, level: i8) {
        let WordChange { pa, old, new } = change;
        let valid = |word| format.may_be_cached(format.decode(word, level));
        let broken = self.broken.get(&pa).copied();
        let (old, missing) = match (valid(old), valid(new), broken) {
            (true, true, _) => (old, "an invalid descriptor, TLBI and DSB"),
            (true, false, _) => {
                self.broken.insert(pa, (old, Invalidation::Owed));
                return;
            }
            (false, true, Some((before, invalidation))) => {
                self.broken.remove(&pa);
                match invalidation {
                    Invalidation::Owed => (before, "TLBI and DSB after the invalid descriptor"),
                    Invalidation::IssuedBy(_) => (before, "DSB after the TLBI"),
                    Invalidation::Complete => return,
                }
            }
            _ => return,
        };
        if needs_break(format.decode(old, level), format.decode(new, level)) {
            let Step { cpu, instruction, pc, .. } = *step;
            self.found.push(LiveChange { cpu, instruction, pc, slot: pa, old, new, missing });
        }
    }

    /// A TLBI of the EL2 regime was issued.
    pub(super) fn invalidated(&mut self, cpu: u32) {
        for (_, invalidation) in self.broken.values_mut() {
            if *invalidation == Invalidation::Owed {
                *invalidation = Invalidation::IssuedBy(cpu);
                self.waits = true;
            }
        }
    }

    /// A DSB of loads and stores was executed.
    pub(super) fn synchronised(&mut self, cpu: u32) {
        // Nearly no DSB is for a TLBI, and there may be thousands of slots.
        if !std::mem::take(&mut self.waits) {
            return;
        }
        for (_, invalidation) in self.broken.values_mut() {
            match invalidation {
                Invalidation::IssuedBy(issuer) if *issuer == cpu => *invalidation = Invalidation::Complete,
                Invalidation::IssuedBy(_) => self.waits = true,
                Invalidation::Owed | Invalidation::Complete => {}
            }
        }
    }
}

/// True if going from one valid descriptor to the other needs break-before-make: address, size, type, shareability, the
/// contiguous bit, hierarchical controls. Leaf rights and software bits do not.
fn needs_break(old: Descriptor, new: Descriptor) -> bool {
    match (old, new) {
        (Descriptor::Leaf(old), Descriptor::Leaf(new)) => {
            (old.output, old.attr_index, old.shareability, old.contiguous)
                != (new.output, new.attr_index, new.shareability, new.contiguous)
        }
        _ => old != new,
    }
}
