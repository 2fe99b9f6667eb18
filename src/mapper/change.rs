//! Requests that take away or change what is mapped: unmap, protect, remap, split, merge. This file says what each unit
//! needs; `plan.rs` adds up and refuses; `commit.rs` does it.

#![forbid(unsafe_code)]

use super::unit::Unit;
use super::{Cost, Error, Mapper};
use crate::addr::{Level, PhysAddr, PhysSpan, VirtSpan};
use crate::bbm::{After, Geo, Invalidated, Live, Pending};
use crate::change::{Change as Needs, decide};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// What becomes of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Nothing,
    Attributes(Attributes),
    Output { output: PhysAddr, attributes: Attributes },
    Split(Level),
    Merge { largest: Level, contiguous: bool },
}

/// A span, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) whole: VirtSpan,
    pub(super) target: Target,
}

/// What a unit needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Nothing: it is so already.
    Keep,
    /// One store over each old leaf.
    InPlace { attributes: Attributes, contiguous: bool },
    /// Break and make, or break and reclaim.
    Break(After),
    /// Into pieces, by break and make.
    Remake,
    /// Into pieces, in place.
    Resize,
    /// The table goes; when the request merges, a block comes.
    Detach,
    /// A block in the table's place, in place.
    Replace(Leaf),
}

impl Change {
    /// Whether leaves must map memory side by side to be of one unit: where the first says what the others become.
    pub(super) fn needs_order(&self) -> bool {
        matches!(self.target, Target::Output { .. } | Target::Split(_) | Target::Merge { .. })
    }

    /// How many leaves from `slot` on may be of one unit: all, but for merging into contiguous runs, which begin where they begin.
    pub(super) fn boundary<G: Geometry>(&self, slot: Slot, leaf: Leaf) -> u64 {
        let run = G::run_slots(slot.level());
        match self.target {
            Target::Merge { contiguous: true, .. } if run > 1 && !leaf.contiguous() => run - slot.index() as u64 % run,
            _ => u64::MAX,
        }
    }
}

/// An unmap that is complete: the proof that no TLB translates through the span.
#[derive(Debug)]
pub struct Unmapped {
    /// What it did.
    pub cost: Cost,
    /// The proof, for whoever reuses the frames.
    pub proof: Invalidated,
}

/// A change that cannot fail any more. Dropping it does nothing.
#[must_use = "a plan does nothing until it is committed"]
#[derive(Debug)]
pub struct ChangePlan<'p, 'a, M> {
    pub(super) mapper: &'p mut Mapper<'a, M, Live>,
    pub(super) change: Change,
    /// A request that is one unit: what the plan found, the commit uses.
    pub(super) single: Option<(Unit, Way)>,
    /// What the plan noted that the commit will break.
    pub(super) noted: Pending,
    pub(super) cost: Cost,
}

impl<M> ChangePlan<'_, '_, M> {
    /// What the commit will cost.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

impl<'a, M: Machine> Mapper<'a, M, Live> {
    /// Unmaps every page of `virt`: breaks, invalidates, and gives the slots back as unused. Tables that become empty are freed, but for those
    /// that [`Self::populate`] made.
    ///
    /// # Errors
    /// [`Error::NotMapped`] when a page is not mapped, and others; the tables are then as before.
    pub fn unmap(&mut self, virt: VirtSpan) -> Result<Unmapped, Error> {
        self.check_span(virt)?;
        match self.pages_to_unmap(virt) {
            Some((first, count)) => Ok(self.unmap_pages(first, count)),
            None => self.unmap_at_length(virt),
        }
    }

    #[inline(never)]
    fn unmap_at_length(&mut self, virt: VirtSpan) -> Result<Unmapped, Error> {
        match self.unmap_briefly(virt) {
            Some(unmapped) => Ok(unmapped),
            None => self.plan_unmap(virt).map(ChangePlan::commit),
        }
    }

    /// Plans [`Self::unmap`].
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn plan_unmap(&mut self, virt: VirtSpan) -> Result<ChangePlan<'_, 'a, M>, Error> {
        self.plan(virt, Target::Nothing)
    }

    /// Gives every page of `virt` these attributes. In place where memory type, errata and size allow it, otherwise by break-before-make.
    ///
    /// # Errors
    /// As for [`Self::unmap`]; [`Error::Aliased`] and [`Error::Unsupported`] besides.
    pub fn protect(&mut self, virt: VirtSpan, attributes: Attributes) -> Result<Cost, Error> {
        self.check_attributes(virt, attributes)?;
        self.check_span(virt)?;
        match self.protect_briefly(virt, attributes) {
            Some(cost) => Ok(cost),
            None => self.plan_protect(virt, attributes).map(|plan| plan.commit().cost),
        }
    }

    /// Plans [`Self::protect`].
    ///
    /// # Errors
    /// As for [`Self::protect`].
    pub fn plan_protect(&mut self, virt: VirtSpan, attributes: Attributes) -> Result<ChangePlan<'_, 'a, M>, Error> {
        self.check_attributes(virt, attributes)?;
        self.plan(virt, Target::Attributes(attributes))
    }

    /// Maps every page of `virt`, which is mapped, to as many bytes from `output` on instead. Leaves keep their size where the new output
    /// allows it. Where it is by break-before-make, `virt` is not mapped for a moment.
    ///
    /// # Errors
    /// As for [`Self::protect`], and those of an output address.
    pub fn remap(&mut self, virt: VirtSpan, output: PhysAddr, attributes: Attributes) -> Result<Cost, Error> {
        let outputs = self.check_remap(virt, output, attributes)?;
        match self.remap_briefly(virt, outputs, attributes) {
            Some(cost) => Ok(cost),
            None => self.plan(virt, Target::Output { output, attributes }).map(|plan| plan.commit().cost),
        }
    }

    /// Plans [`Self::remap`].
    ///
    /// # Errors
    /// As for [`Self::remap`].
    pub fn plan_remap(
        &mut self,
        virt: VirtSpan,
        output: PhysAddr,
        attributes: Attributes,
    ) -> Result<ChangePlan<'_, 'a, M>, Error> {
        self.check_remap(virt, output, attributes)?;
        self.plan(virt, Target::Output { output, attributes })
    }

    /// Refuses what no table is needed to refuse; yields what `virt` would map to.
    fn check_remap(&self, virt: VirtSpan, output: PhysAddr, attributes: Attributes) -> Result<PhysSpan, Error> {
        self.check_span(virt)?;
        let outputs = self.check_output(virt, output)?;
        self.check_attributes(virt, attributes)?;
        self.check_alias(virt, outputs, attributes)?;
        Ok(outputs)
    }

    /// Makes every leaf of `virt` one of at most `largest`, without contiguous hints. What is mapped stays so, but for a moment where it is
    /// by break-before-make.
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn split(&mut self, virt: VirtSpan, largest: Level) -> Result<Cost, Error> {
        self.plan_split(virt, largest).map(|plan| plan.commit().cost)
    }

    /// Plans [`Self::split`].
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn plan_split(&mut self, virt: VirtSpan, largest: Level) -> Result<ChangePlan<'_, 'a, M>, Error> {
        self.plan(virt, Target::Split(largest))
    }

    /// Puts one block in the place of each table within `virt` whose leaves one block of at most `largest` can say, and with `contiguous`
    /// sets the hint on runs of alike leaves; on blocks that this request has made, a second one does. What cannot be merged stays. The
    /// tables are freed.
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn merge(&mut self, virt: VirtSpan, largest: Level, contiguous: bool) -> Result<Cost, Error> {
        self.plan_merge(virt, largest, contiguous).map(|plan| plan.commit().cost)
    }

    /// Plans [`Self::merge`].
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn plan_merge(
        &mut self,
        virt: VirtSpan,
        largest: Level,
        contiguous: bool,
    ) -> Result<ChangePlan<'_, 'a, M>, Error> {
        self.plan(virt, Target::Merge { largest, contiguous })
    }
}

impl<M: Machine> Mapper<'_, M, Live> {
    /// What `unit` needs.
    pub(super) fn way(&self, change: &Change, unit: &Unit) -> Way {
        match *unit {
            Unit::Table { slot, child } => match (change.target, self.protocol.resize()) {
                (Target::Merge { .. }, Some(_)) => self.block_for(slot, child).map_or(Way::Detach, Way::Replace),
                _ => Way::Detach,
            },
            Unit::Leaves { first, count, leaf } => self.way_of_leaves(change, first, count, leaf),
            Unit::Part { first, leaf, .. } => self.way_of_part(change, first, leaf),
        }
    }

    fn way_of_part(&self, change: &Change, first: Slot, leaf: Leaf) -> Way {
        let same = match change.target {
            Target::Attributes(attributes) => attributes == leaf.attributes(),
            Target::Output { output, attributes } => {
                let ahead = change.whole.start().raw().wrapping_sub(first.virt().raw());
                attributes == leaf.attributes() && output.raw() == leaf.output().raw().wrapping_add(ahead)
            }
            Target::Split(largest) => first.level() >= largest && !leaf.contiguous(),
            Target::Nothing => false,
            Target::Merge { .. } => true,
        };
        let removes_or_splits = matches!(change.target, Target::Nothing | Target::Split(_));
        match self.protocol.resize() {
            _ if same => Way::Keep,
            Some(_) if removes_or_splits => Way::Resize,
            _ => Way::Remake,
        }
    }

    fn way_of_leaves(&self, change: &Change, first: Slot, count: u64, leaf: Leaf) -> Way {
        let level = first.level();
        let run_bytes = Geo::<M>::run_slots(level) << Geo::<M>::shift(level);
        let (new, after) = match change.target {
            Target::Nothing => return Way::Break(After::Nothing),
            Target::Attributes(attributes) => {
                let contiguous = leaf.contiguous();
                (leaf.with(attributes), After::Same { attributes, contiguous })
            }
            Target::Output { output, attributes } => {
                let output = output.checked_add(first.virt().raw() - change.whole.start().raw());
                let new = output.and_then(|output| Leaf::new_in::<Geo<M>>(level, output, attributes));
                let Some(new) = new else { return Way::Remake };
                let new = new.with_contiguous(leaf.contiguous() && new.output().is_aligned(run_bytes));
                (new, After::Leaf(new))
            }
            Target::Split(largest) if level < largest => {
                return if self.protocol.resize().is_some() { Way::Resize } else { Way::Remake };
            }
            Target::Split(_) => {
                let attributes = leaf.attributes();
                (leaf.with_contiguous(false), After::Same { attributes, contiguous: false })
            }
            Target::Merge { contiguous, .. } => {
                let whole_run = count.is_multiple_of(Geo::<M>::run_slots(level)) && first.virt().is_aligned(run_bytes);
                let fits = Geo::<M>::run_slots(level) > 1 && whole_run && leaf.output().is_aligned(run_bytes);
                let attributes = leaf.attributes();
                let contiguous = leaf.contiguous() || contiguous && fits;
                (leaf.with_contiguous(contiguous), After::Same { attributes, contiguous })
            }
        };
        match decide(Entry::Leaf(leaf), Entry::Leaf(new), self.protocol.errata(), self.protocol.resize().is_some()) {
            Needs::Nothing => Way::Keep,
            Needs::InPlace => Way::InPlace { attributes: new.attributes(), contiguous: new.contiguous() },
            _ => Way::Break(after),
        }
    }
}
