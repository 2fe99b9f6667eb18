//! The plan of a change: from unit to unit, what it costs, and whether it may be.

#![forbid(unsafe_code)]

use super::change::{Change, ChangePlan, Target, Way};
use super::pieces::{Becomes, Old};
use super::unit::{Seen, Unit};
use super::{Cost, Error, Mapper};
use crate::addr::{Frame, Level, PhysAddr, PhysSpan, VirtSpan};
use crate::bbm::{After, Geo, Live, Pending};
use crate::descriptor::{Attributes, Leaf};
use crate::geometry::{Geometry, Slot};
use crate::machine::{Machine, Maintenance};

/// What a plan adds up.
struct Sum {
    cost: Cost,
    broken: Pending,
    changed: Pending,
    /// Whether something becomes valid.
    makes: bool,
}

impl<'a, M: Machine> Mapper<'a, M, Live> {
    pub(super) fn plan(&mut self, whole: VirtSpan, target: Target) -> Result<ChangePlan<'_, 'a, M>, Error> {
        self.check_span(whole)?;
        self.last = None;
        let change = Change { whole, target };
        let mut sum = Sum { cost: Cost::default(), broken: Pending::none(), changed: Pending::none(), makes: false };
        let (mut virt, mut single, mut seen) = (whole.start(), None, Seen::default());
        while virt < whole.end_exclusive() {
            let unit = self.unit_at(&change, virt, &mut seen)?;
            let way = self.way(&change, &unit);
            self.add_up(&change, &unit, way, &mut sum)?;
            let end = unit.span().end_exclusive();
            if virt == whole.start() && end >= whole.end_exclusive() {
                single = Some((unit, way));
            }
            virt = end;
        }
        self.check_frames(&sum.cost)?;
        if let Some(broken) = sum.broken.span() {
            self.check_window(broken)?;
        }
        let maintenance = self.protocol.maintenance_of(&sum.broken, &sum.changed);
        sum.cost.add(maintenance);
        sum.cost.add(Maintenance { tlbis: 0, dsbs: u32::from(sum.makes), isbs: u32::from(sum.makes) });
        let cost = sum.cost;
        Ok(ChangePlan { mapper: self, change, single, noted: sum.broken, cost })
    }
}

impl<M: Machine> Mapper<'_, M, Live> {
    /// Adds what `unit` costs, and refuses what may not be done to it.
    fn add_up(&self, change: &Change, unit: &Unit, way: Way, sum: &mut Sum) -> Result<(), Error> {
        if way == Way::Keep {
            return Ok(());
        }
        self.check_unit(change, unit, way)?;
        match (*unit, way) {
            (Unit::Table { slot, child }, _) => self.add_up_table(change, slot, child, way, sum),
            (Unit::Leaves { first, count, .. }, Way::InPlace { .. }) => {
                sum.cost.stores += count;
                sum.changed.add::<Geo<M>>(first, count, false);
            }
            (Unit::Leaves { first, count, .. }, Way::Break(after)) => {
                sum.cost.stores += 2 * count;
                sum.broken.add::<Geo<M>>(first, count, false);
                sum.makes |= after != After::Nothing;
            }
            (Unit::Leaves { first, count, leaf } | Unit::Part { first, count, leaf }, _) => {
                self.add_up_pieces(change, first, count, leaf, way, sum);
            }
        }
        Ok(())
    }

    fn check_unit(&self, change: &Change, unit: &Unit, way: Way) -> Result<(), Error> {
        let span = unit.span();
        match way {
            // Outside of the request nothing is mapped that would go.
            Way::Resize | Way::Detach if change.target == Target::Nothing => {
                self.check_footing(span.intersection(change.whole).unwrap_or(span))?;
            }
            Way::Break(_) | Way::Remake | Way::Detach => self.check_footing(span)?,
            Way::InPlace { attributes, .. } => self.check_lost(unit, span, attributes)?,
            Way::Keep | Way::Resize | Way::Replace(_) => {}
        }
        // What is remapped by a break has no old mapping left when the new one is made; what changes in place has.
        let attributes = match (change.target, way) {
            (Target::Attributes(attributes), _) | (Target::Output { .. }, Way::InPlace { attributes, .. }) => {
                attributes
            }
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
        let bytes = Geo::<M>::slot_bytes(first.level());
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
    fn check_lost(&self, unit: &Unit, virt: VirtSpan, attributes: Attributes) -> Result<(), Error> {
        let Unit::Leaves { leaf, .. } = unit else { return Ok(()) };
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
        let end_exclusive = PhysAddr::new(high + Geo::<M>::slot_bytes(first.level()))?;
        PhysSpan::new(PhysAddr::new(low)?, end_exclusive)
    }

    fn add_up_table(&self, change: &Change, slot: Slot, child: Frame, way: Way, sum: &mut Sum) {
        let Some(zero) = slot.below(child, slot.virt()) else { return };
        if let Way::Replace(_) = way {
            let mut changed = Pending::none();
            sum.cost.freed += self.note_hanging(zero, change.whole, &mut changed);
            sum.cost.stores += 1;
            sum.cost.add(self.protocol.maintenance_of(&Pending::none(), &changed));
            return;
        }
        sum.cost.freed += self.note_hanging(zero, change.whole, &mut sum.broken);
        sum.cost.stores += 2;
        sum.makes |= matches!(change.target, Target::Merge { .. });
    }

    /// Notes what hangs from the table of slot `zero`, of which nothing stays when `whole` goes, as [`crate::bbm::Protocol::break_table`] does;
    /// yields how many tables that are. In a table of pages the look that told so has seen that every page of `whole` is mapped, and no other.
    fn note_hanging(&self, zero: Slot, whole: VirtSpan, pending: &mut Pending) -> u64 {
        let slots = zero.slots();
        if zero.level() == Level::L3 {
            if let Some(pages) = zero.span_of(slots).intersection(whole) {
                pending.add::<Geo<M>>(zero.beside(pages.start()), pages.bytes() >> zero.shift(), true);
            }
            return 1;
        }
        let (mut at, mut tables) = (0, 1);
        while let Some(used) = self.protocol.first_used(zero, at, slots) {
            let slot = zero.step(used);
            at = used + 1;
            if let Some(below) = self.protocol.child(slot).and_then(|child| slot.below(child, slot.virt())) {
                tables += self.note_hanging(below, whole, pending);
            } else {
                // Valid and no table.
                let run = self.protocol.alike(zero, used, slots, (3, 1)).max(1);
                pending.add::<Geo<M>>(slot, run, true);
                at = used + run;
            }
        }
        tables
    }

    fn add_up_pieces(&self, change: &Change, first: Slot, count: u64, leaf: Leaf, way: Way, sum: &mut Sum) {
        let (level, old) = (first.level(), Old { leaf, start: first.virt() });
        let in_place = way == Way::Resize;
        for piece in change.pieces::<Geo<M>>(&old, level, first.span_of(count)).iter().flatten() {
            let slot = first.beside(piece.virt);
            let is_nothing = piece.becomes == Becomes::Nothing;
            if piece.becomes == Becomes::Tables {
                let tables = change.tables_cost::<Geo<M>>(&old, level, piece);
                sum.cost.frames += tables.frames;
                sum.cost.stores += tables.stores;
                sum.cost.dsbs += if in_place { piece.count as u32 } else { 0 };
            }
            let breaks = !in_place || is_nothing;
            sum.cost.stores += if breaks { 2 * piece.count } else { piece.count };
            sum.makes |= breaks && !is_nothing;
            let pending = if breaks { &mut sum.broken } else { &mut sum.changed };
            pending.add::<Geo<M>>(slot, piece.count, false);
        }
    }

    fn check_footing(&self, virt: VirtSpan) -> Result<(), Error> {
        match self.protocol.machine().footing(virt) {
            Some(footing) => Err(Error::WouldBreakSelf { virt, footing }),
            None => Ok(()),
        }
    }
}

/// The frames of the part that `change` covers of `span`, which `leaf` and those that follow it map.
pub(super) fn part_of(change: &Change, span: VirtSpan, first: Slot, leaf: Leaf) -> Option<PhysSpan> {
    let inside = span.intersection(change.whole)?;
    let output = leaf.output().checked_add(inside.start().raw() - first.virt().raw())?;
    PhysSpan::of(output, inside.bytes())
}

impl Cost {
    fn add(&mut self, done: Maintenance) {
        self.tlbis += done.tlbis;
        self.dsbs += done.dsbs;
        self.isbs += done.isbs;
    }
}
