//! Requests that take away or change what is mapped, and their plans: unmap, clear, protect, remap, split, merge. From
//! unit to unit, what it becomes, what that costs, and whether it may be.

#![forbid(unsafe_code)]

use super::change::{Change, Old, Target, Unit, part_of};
use super::unit::Seen;
use super::{Cost, Error, Mapper};
use crate::addr::{Frame, Level, PhysAddr, PhysSpan, VirtSpan};
use crate::bbm::{After, Geo, Invalidated, Live, Pending};
use crate::change::{Needs, decide};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::frames::{FrameSupply, Supply};
use crate::geometry::{Geometry, Slot};
use crate::machine::{Machine, Maintenance};

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
pub struct ChangePlan<'p, 'a, M, F = FrameSupply<M>> {
    pub(super) mapper: &'p mut Mapper<'a, M, Live, F>,
    pub(super) change: Change,
    pub(super) cost: Cost,
    /// What is done first: a request of one unit looks for it once.
    pub(super) first: Option<(Unit, Decision)>,
}

impl<M, F> ChangePlan<'_, '_, M, F> {
    /// What the commit will cost.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

impl<'a, M: Machine, F: Supply<M>> Mapper<'a, M, Live, F> {
    /// Unmaps every page of `virt`: breaks, invalidates, and gives the slots back as unused. Tables that become empty are freed, but for those
    /// that [`Self::populate`] made.
    ///
    /// # Errors
    /// [`Error::NotMapped`] when a page is not mapped, and others; the tables are then as before.
    pub fn unmap(&mut self, virt: VirtSpan) -> Result<Unmapped, Error> {
        self.check_span(virt)?;
        match self.unmap_plainly(virt) {
            Some(unmapped) => Ok(unmapped),
            None => self.plan_unmap(virt).map(ChangePlan::commit),
        }
    }

    /// Plans [`Self::unmap`].
    ///
    /// # Errors
    /// As for [`Self::unmap`].
    pub fn plan_unmap(&mut self, virt: VirtSpan) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
        self.plan(virt, Target::Nothing { holes: false })
    }

    /// Unmaps what is mapped in `virt`, as [`Self::unmap`] does, and lets be that nothing is: the holes may be
    /// anywhere.
    ///
    /// # Errors
    /// As for [`Self::unmap`], but for [`Error::NotMapped`].
    pub fn clear(&mut self, virt: VirtSpan) -> Result<Unmapped, Error> {
        self.check_span(virt)?;
        match self.unmap_plainly(virt) {
            Some(unmapped) => Ok(unmapped),
            None => self.plan_clear(virt).map(ChangePlan::commit),
        }
    }

    /// Plans [`Self::clear`].
    ///
    /// # Errors
    /// As for [`Self::clear`].
    pub fn plan_clear(&mut self, virt: VirtSpan) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
        self.plan(virt, Target::Nothing { holes: true })
    }

    /// Gives every page of `virt` these attributes. In place where memory type, errata and size allow it, otherwise by break-before-make.
    ///
    /// # Errors
    /// As for [`Self::unmap`]; [`Error::Aliased`] and [`Error::Unsupported`] besides.
    pub fn protect(&mut self, virt: VirtSpan, attributes: Attributes) -> Result<Cost, Error> {
        self.check_attributes(virt, attributes)?;
        self.check_span(virt)?;
        match self.protect_plainly(virt, attributes) {
            Some(cost) => Ok(cost),
            None => self.plan_protect(virt, attributes).map(|plan| plan.commit().cost),
        }
    }

    /// Plans [`Self::protect`].
    ///
    /// # Errors
    /// As for [`Self::protect`].
    pub fn plan_protect(&mut self, virt: VirtSpan, attributes: Attributes) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
        self.check_attributes(virt, attributes)?;
        self.plan(virt, Target::Attributes(attributes))
    }

    /// Maps every page of `virt`, which is mapped, to as many bytes from `output` on instead. Leaves keep their size where the new output
    /// allows it. Where it is by break-before-make, `virt` is not mapped for a moment.
    ///
    /// # Errors
    /// As for [`Self::protect`], and those of an output address.
    pub fn remap(&mut self, virt: VirtSpan, output: PhysAddr, attributes: Attributes) -> Result<Cost, Error> {
        self.plan_remap(virt, output, attributes).map(|plan| plan.commit().cost)
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
    ) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
        self.check_span(virt)?;
        let outputs = self.check_output(virt, output)?;
        self.check_attributes(virt, attributes)?;
        self.check_alias(virt, outputs, attributes)?;
        self.plan(virt, Target::Output { output, attributes })
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
    pub fn plan_split(&mut self, virt: VirtSpan, largest: Level) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
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
    ) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
        self.plan(virt, Target::Merge { largest, contiguous })
    }
}

/// How a unit changes: by a break or in place, and into what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    pub(super) needs: Needs,
    /// What comes; of a table that goes, in the table's place. None for pieces, which become different things.
    pub(super) after: Option<After>,
}

impl Decision {
    /// It is so already.
    pub(super) const KEEP: Self = Self { needs: Needs::Nothing, after: None };
    /// The table goes; when the request merges, a block comes once its invalidation is complete.
    const DETACH: Self = Self { needs: Needs::Break, after: Some(After::Nothing) };

    const fn of(needs: Needs, after: After) -> Self {
        Self { needs, after: Some(after) }
    }

    const fn in_pieces(needs: Needs) -> Self {
        Self { needs, after: None }
    }
}

impl<M: Machine, F: Supply<M>> Mapper<'_, M, Live, F> {
    /// How `unit` changes.
    pub(super) fn decision(&self, change: &Change, unit: &Unit) -> Decision {
        match *unit {
            Unit::Table { slot, child } => match (change.target, self.protocol.resize()) {
                (Target::Merge { .. }, Some(_)) => self
                    .block_for(slot, child)
                    .map_or(Decision::DETACH, |leaf| Decision::of(Needs::InPlace, After::Leaf(leaf))),
                _ => Decision::DETACH,
            },
            Unit::Leaves { first, count, leaf } => self.decision_of_leaves(change, first, count, leaf),
            Unit::Part { first, leaf, .. } => self.decision_of_part(change, first, leaf),
            Unit::Hole { .. } => Decision::KEEP,
        }
    }

    fn decision_of_part(&self, change: &Change, first: Slot, leaf: Leaf) -> Decision {
        let same = match change.target {
            Target::Attributes(attributes) => attributes == leaf.attributes(),
            Target::Output { output, attributes } => {
                let ahead = change.whole.start().raw().wrapping_sub(first.virt().raw());
                attributes == leaf.attributes() && output.raw() == leaf.output().raw().wrapping_add(ahead)
            }
            Target::Split(largest) => first.level() >= largest && !leaf.contiguous(),
            Target::Nothing { .. } => false,
            Target::Merge { .. } => true,
        };
        let removes_or_splits = change.removes() || matches!(change.target, Target::Split(_));
        match self.protocol.resize() {
            _ if same => Decision::KEEP,
            Some(_) if removes_or_splits => Decision::in_pieces(Needs::InPlace),
            _ => Decision::in_pieces(Needs::Break),
        }
    }

    fn decision_of_leaves(&self, change: &Change, first: Slot, count: u64, leaf: Leaf) -> Decision {
        let level = first.level();
        let run_bytes = first.run_slots() << first.shift();
        let (new, after) = match change.target {
            Target::Nothing { .. } => return Decision::of(Needs::Break, After::Nothing),
            Target::Attributes(attributes) => {
                let contiguous = leaf.contiguous();
                (leaf.with(attributes), After::Same { attributes, contiguous })
            }
            Target::Output { output, attributes } => {
                let output = output.checked_add(first.virt().raw() - change.whole.start().raw());
                let new = output.and_then(|output| Leaf::new_in::<Geo<M>>(level, output, attributes));
                let Some(new) = new else { return Decision::in_pieces(Needs::Break) };
                let new = new.with_contiguous(leaf.contiguous() && new.output().is_aligned(run_bytes));
                (new, After::Leaf(new))
            }
            Target::Split(largest) if level < largest => {
                let evidence = self.protocol.resize();
                return Decision::in_pieces(if evidence.is_some() { Needs::InPlace } else { Needs::Break });
            }
            Target::Split(_) => {
                let attributes = leaf.attributes();
                (leaf.with_contiguous(false), After::Same { attributes, contiguous: false })
            }
            Target::Merge { contiguous, .. } => {
                let whole_run = count.is_multiple_of(first.run_slots()) && first.virt().is_aligned(run_bytes);
                let fits = first.run_slots() > 1 && whole_run && leaf.output().is_aligned(run_bytes);
                let attributes = leaf.attributes();
                let contiguous = leaf.contiguous() || contiguous && fits;
                (leaf.with_contiguous(contiguous), After::Same { attributes, contiguous })
            }
        };
        match decide(Entry::Leaf(leaf), Entry::Leaf(new), self.protocol.errata(), self.protocol.resize().is_some()) {
            Needs::Nothing => Decision::KEEP,
            Needs::InPlace => {
                let (attributes, contiguous) = (new.attributes(), new.contiguous());
                Decision::of(Needs::InPlace, After::Same { attributes, contiguous })
            }
            _ => Decision::of(Needs::Break, after),
        }
    }
}

/// What a plan adds up.
struct Sum {
    cost: Cost,
    broken: Pending,
    changed: Pending,
    /// Whether something becomes valid.
    makes: bool,
}

impl<'a, M: Machine, F: Supply<M>> Mapper<'a, M, Live, F> {
    pub(super) fn plan(&mut self, whole: VirtSpan, target: Target) -> Result<ChangePlan<'_, 'a, M, F>, Error> {
        self.check_span(whole)?;
        let change = Change { whole, target };
        let mut sum = Sum { cost: Cost::default(), broken: Pending::none(), changed: Pending::none(), makes: false };
        let (mut virt, mut seen, mut first) = (whole.start(), Seen::default(), None);
        while virt < whole.end_exclusive() {
            let unit = self.unit_at(&change, virt, &mut seen)?;
            let decision = self.decision(&change, &unit);
            self.add_up(&change, &unit, &decision, &mut sum)?;
            virt = unit.span().end_exclusive();
            if first.is_none() {
                first = Some((unit, decision));
            }
        }
        self.check_frames(&sum.cost)?;
        if let Some(broken) = sum.broken.span() {
            self.check_window(broken)?;
        }
        if change.removes() && sum.cost.stores > 0 {
            self.check_window(whole)?; // what goes from a block in place was never broken
        }
        if let Target::Output { output, .. } = target {
            self.check_shows(whole, self.check_output(whole, output)?)?;
        }
        let maintenance = self.protocol.maintenance_of(&sum.broken, &sum.changed);
        sum.cost.add(maintenance);
        sum.cost.add(Maintenance { tlbis: 0, dsbs: u32::from(sum.makes), isbs: u32::from(sum.makes) });
        Ok(ChangePlan { mapper: self, change, cost: sum.cost, first })
    }
}

impl<M: Machine, F: Supply<M>> Mapper<'_, M, Live, F> {
    /// Adds what `unit` costs, and refuses what may not be done to it.
    fn add_up(&self, change: &Change, unit: &Unit, decision: &Decision, sum: &mut Sum) -> Result<(), Error> {
        if *decision == Decision::KEEP {
            return Ok(());
        }
        self.check_unit(change, unit, decision)?;
        match (unit, decision.after) {
            (&Unit::Table { slot, child }, _) => self.add_up_table(change, slot, child, decision, sum),
            (&Unit::Leaves { first, count, .. }, Some(after)) => {
                let breaks = decision.needs == Needs::Break;
                sum.cost.stores += if breaks { 2 * count } else { count };
                sum.makes |= breaks && after != After::Nothing;
                let pending = if breaks { &mut sum.broken } else { &mut sum.changed };
                pending.add::<Geo<M>>(first, count, false);
            }
            (&(Unit::Leaves { first, count, leaf } | Unit::Part { first, count, leaf }), _) => {
                self.add_up_pieces(change, first, count, leaf, decision, sum);
            }
            (Unit::Hole { .. }, _) => {}
        }
        Ok(())
    }

    fn check_unit(&self, change: &Change, unit: &Unit, decision: &Decision) -> Result<(), Error> {
        let (span, removes) = (unit.span(), change.removes());
        match (decision.needs, decision.after, unit) {
            // Outside of the request nothing is mapped that would go.
            (Needs::InPlace, None, _) | (_, _, Unit::Table { .. }) if removes => {
                self.check_footing(span.intersection(change.whole).unwrap_or(span))?;
            }
            (Needs::Break, ..) => self.check_footing(span)?,
            (_, Some(After::Same { attributes, .. }), Unit::Leaves { leaf, .. }) => {
                self.check_lost(*leaf, span, attributes)?;
            }
            _ => {}
        }
        // What is remapped by a break has no old mapping left when the new one is made; what changes in place has.
        let attributes = match (change.target, decision) {
            (Target::Attributes(attributes), _) => attributes,
            (Target::Output { attributes, .. }, Decision { needs: Needs::InPlace, .. }) => attributes,
            _ => return Ok(()),
        };
        self.check_gained(change, unit, attributes)
    }

    /// Refuses rights that leaves gain where they make an alias.
    fn check_gained(&self, change: &Change, unit: &Unit, attributes: Attributes) -> Result<(), Error> {
        let (Unit::Leaves { first, leaf, .. } | Unit::Part { first, leaf, .. }) = *unit else { return Ok(()) };
        let gained = attributes.rights() - leaf.attributes().rights();
        if gained.is_empty() {
            return Ok(());
        }
        if let Unit::Leaves { count, .. } = *unit {
            let may = |frames| self.protocol.aliases().may_conflict(frames, gained);
            let may = self.outputs(first, count).is_some_and(may);
            return if may { self.check_gained_in_order(first, count, attributes) } else { Ok(()) };
        }
        let span = unit.span();
        let inside = span.intersection(change.whole).unwrap_or(span);
        let frames = part_of(change, span, first, leaf);
        frames.map_or(Ok(()), |frames| self.check_alias(inside, frames, attributes))
    }

    /// Refuses rights that `count` leaves from `first` on gain where they make an alias, by runs of those that map memory side by side: two
    /// leaves of one request may map one frame, and change one after the other.
    fn check_gained_in_order(&self, first: Slot, count: u64, attributes: Attributes) -> Result<(), Error> {
        let bytes = first.bytes();
        let output = |index| Geo::<M>::decode_output(self.protocol.raw(first.step(index)));
        let mut from = 0;
        while from < count {
            let follows = |index: &u64| output(*index) == output(from) + (index - from) * bytes;
            let run = (from..count).take_while(follows).count() as u64;
            let slot = first.step(from);
            if let Some(frames) = self.outputs(slot, run) {
                self.check_alias(slot.span_of(run), frames, attributes)?;
            }
            from += run;
        }
        Ok(())
    }

    /// Refuses to take rights, even in place, from what CPUs or the manager stand on.
    fn check_lost(&self, leaf: Leaf, virt: VirtSpan, attributes: Attributes) -> Result<(), Error> {
        if (leaf.attributes().rights() - attributes.rights()).is_empty() {
            return Ok(());
        }
        self.check_footing(virt)?;
        self.check_window(virt)
    }

    /// The frames from the lowest to the highest that `count` leaves from `first` on map.
    pub(super) fn outputs(&self, first: Slot, count: u64) -> Option<PhysSpan> {
        let output = |index| Geo::<M>::decode_output(self.protocol.raw(first.step(index)));
        let (low, high) = (0..count).map(output).fold((u64::MAX, 0), |(low, high), at| (low.min(at), high.max(at)));
        let end_exclusive = PhysAddr::new(high + first.bytes())?;
        PhysSpan::new(PhysAddr::new(low)?, end_exclusive)
    }

    fn add_up_table(&self, change: &Change, slot: Slot, child: Frame, decision: &Decision, sum: &mut Sum) {
        if decision.needs == Needs::InPlace {
            let mut changed = Pending::none();
            sum.cost.freed += self.protocol.note_below(child, slot, &mut changed);
            sum.cost.stores += 1;
            sum.cost.add(self.protocol.maintenance_of(&Pending::none(), &changed));
            return;
        }
        sum.cost.freed += self.protocol.note_below(child, slot, &mut sum.broken);
        sum.cost.stores += 2;
        sum.makes |= matches!(change.target, Target::Merge { .. });
    }

    fn add_up_pieces(&self, change: &Change, first: Slot, count: u64, leaf: Leaf, decision: &Decision, sum: &mut Sum) {
        let (level, old) = (first.level(), Old { leaf, start: first.virt() });
        let in_place = decision.needs == Needs::InPlace;
        for piece in change.pieces::<Geo<M>>(&old, level, first.span_of(count)).iter().flatten() {
            let is_nothing = piece.after == Some(After::Nothing);
            if piece.after.is_none() {
                let tables = change.tables_cost::<Geo<M>>(&old, level, piece);
                sum.cost.frames += tables.frames;
                sum.cost.stores += tables.stores;
                sum.cost.dsbs += if in_place { piece.count as u32 } else { 0 };
            }
            let breaks = !in_place || is_nothing;
            sum.cost.stores += if breaks { 2 * piece.count } else { piece.count };
            sum.makes |= breaks && !is_nothing;
            let pending = if breaks { &mut sum.broken } else { &mut sum.changed };
            pending.add::<Geo<M>>(first.beside(piece.virt), piece.count, false);
        }
    }

    fn check_footing(&self, virt: VirtSpan) -> Result<(), Error> {
        match self.protocol.machine().footing(virt) {
            Some(footing) => Err(Error::WouldBreakSelf { virt, footing }),
            None => Ok(()),
        }
    }
}

impl Cost {
    fn add(&mut self, done: Maintenance) {
        self.tlbis += done.tlbis;
        self.dsbs += done.dsbs;
        self.isbs += done.isbs;
    }
}
