//! The commit of a change: one pass that changes in place and breaks, one invalidation, one pass that settles what was broken.

#![forbid(unsafe_code)]

use super::Mapper;
use super::change::{Change, Old, Target, Unit, part_of};
use super::plan::{ChangePlan, Decision, Unmapped};
use super::unit::Seen;
use crate::addr::{Level, PhysSpan, VirtSpan};
use crate::bbm::{After, Broken, Changed, Detached, Filled, FreshTable, Geo, Live, Resize, Settling};
use crate::change::Needs;
use crate::descriptor::Leaf;
use crate::frames::Supply;
use crate::geometry::Slot;
use crate::machine::Machine;

/// Where a commit notes what it owes between its passes. The debts themselves stay where they are: to move one costs
/// the target a hundred instructions.
struct Owed<'d> {
    broken: &'d mut Broken,
    changed: &'d mut Changed,
    detached: &'d mut Detached,
}

impl<M: Machine, F: Supply<M>> ChangePlan<'_, '_, M, F> {
    /// Does what was planned. What comes back proves that no TLB holds anything of before.
    pub fn commit(self) -> Unmapped {
        let (mapper, change) = (self.mapper, &self.change);
        let (mut broken, mut changed, mut detached) = (Broken::none(), Changed::none(), Detached::none());
        let mut owed = Owed { broken: &mut broken, changed: &mut changed, detached: &mut detached };
        let (start, end_exclusive) = (change.whole.start(), change.whole.end_exclusive());
        let mut virt = start;
        if let Some((unit, decision)) = &self.first {
            mapper.apply(change, unit, decision, &mut owed);
            virt = unit.span().end_exclusive();
        }
        let mut seen = Seen::default();
        while virt < end_exclusive {
            let unit = mapper.unit_at(change, virt, &mut seen).expect("the plan has seen every unit");
            mapper.apply(change, &unit, &mapper.decision(change, &unit), &mut owed);
            virt = unit.span().end_exclusive();
        }
        let proof = mapper.protocol.invalidate_all(broken, changed);
        if let Some(span) = proof.span() {
            let mut filled = Filled::<Live>::none();
            let merges = matches!(change.target, Target::Merge { .. });
            mapper.each_run_of_slots(span, |mapper, first, count| {
                let (filled, detached, free) = (&mut filled, &mut detached, mapper.frames.tables_mut());
                let mut settling = Settling { proof: &proof, filled, detached, free, merges };
                mapper.protocol.settle_run(mapper.protocol.vouch(mapper.tables, first), count, &mut settling);
            });
            mapper.protocol.complete(filled);
        }
        detached.done();
        mapper.protocol.claim_settled();
        Unmapped { cost: self.cost, proof }
    }
}

impl<M: Machine, F: Supply<M>> Mapper<'_, M, Live, F> {
    fn apply(&mut self, change: &Change, unit: &Unit, decision: &Decision, owed: &mut Owed<'_>) {
        if *decision == Decision::KEEP {
            return;
        }
        self.note_rights(change, unit);
        let evidence = self.protocol.resize().filter(|_| decision.needs == Needs::InPlace);
        match (unit, decision.after) {
            (&Unit::Table { slot, .. }, Some(After::Leaf(leaf))) => {
                let Some(evidence) = evidence else { return };
                self.protocol.replace_table(self.tables, slot, leaf, evidence, self.frames.tables_mut());
            }
            (&Unit::Table { slot, .. }, _) => {
                self.protocol.break_table(self.tables, slot, owed.broken, owed.detached);
            }
            (&Unit::Leaves { first, count, .. }, Some(after)) => {
                let place = self.protocol.vouch(self.tables, first);
                match (decision.needs, after) {
                    (Needs::InPlace, After::Same { attributes, contiguous }) => {
                        self.protocol.change_run(place, count, attributes, contiguous, owed.changed);
                    }
                    _ => self.protocol.break_run(place, count, after, owed.broken),
                }
            }
            (&(Unit::Leaves { first, count, leaf } | Unit::Part { first, count, leaf }), _) => {
                self.apply_pieces(change, first, count, leaf, evidence, owed);
            }
            (Unit::Hole { .. }, _) => {}
        }
    }

    /// Puts each piece of `count` leaves from `first` on in its place: with `evidence` in place, but for what goes.
    fn apply_pieces(
        &mut self,
        change: &Change,
        first: Slot,
        count: u64,
        leaf: Leaf,
        evidence: Option<Resize>,
        owed: &mut Owed<'_>,
    ) {
        let (level, old) = (first.level(), Old { leaf, start: first.virt() });
        for piece in change.pieces::<Geo<M>>(&old, level, first.span_of(count)).into_iter().flatten() {
            let slot = first.beside(piece.virt);
            match (piece.after, evidence) {
                (Some(After::Leaf(leaf)), Some(_)) => {
                    let place = self.protocol.vouch(self.tables, slot);
                    self.protocol.change_run(place, piece.count, leaf.attributes(), false, owed.changed);
                }
                (Some(after), _) => {
                    let place = self.protocol.vouch(self.tables, slot);
                    self.protocol.break_run(place, piece.count, after, owed.broken);
                }
                (None, _) => {
                    let Some(next) = level.next() else { continue };
                    for slot in (0..piece.count).map(|index| slot.step(index)) {
                        let table = self.table_for(change, &old, next, slot.span());
                        let place = self.protocol.vouch(self.tables, slot);
                        match evidence {
                            None => self.protocol.break_into(place, table, owed.broken),
                            Some(evidence) => {
                                self.protocol.replace_block(place, table, evidence, owed.changed);
                            }
                        }
                    }
                }
            }
        }
    }

    /// A table of `level`, which nothing links to yet, that maps what becomes of `span`, a slot of the level above.
    pub(super) fn table_for(&mut self, change: &Change, old: &Old, level: Level, span: VirtSpan) -> FreshTable<M> {
        let frame = self.take_frame();
        let table = self.protocol.new_table(frame, level, span.start());
        for piece in change.pieces::<Geo<M>>(old, level, span).into_iter().flatten() {
            match (piece.after, level.next()) {
                (Some(After::Leaf(leaf)), _) => self.protocol.fill_fresh(&table, piece.virt, piece.count, leaf),
                (None, Some(next)) => {
                    let first = table.slot(piece.virt);
                    for slot in (0..piece.count).map(|index| first.step(index)) {
                        let child = self.table_for(change, old, next, slot.span());
                        self.protocol.link_fresh(&table, child, false);
                    }
                }
                _ => {}
            }
        }
        table
    }

    /// Notes which frames may be written or executed from here on.
    fn note_rights(&mut self, change: &Change, unit: &Unit) {
        let (frames, attributes) = match (change.target, *unit) {
            (Target::Attributes(attributes), Unit::Leaves { first, count, leaf }) => {
                let gains = !(attributes.rights() - leaf.attributes().rights()).is_empty();
                (gains.then(|| self.outputs(first, count)).flatten(), attributes)
            }
            (Target::Attributes(attributes), Unit::Part { first, leaf, .. }) => {
                (part_of(change, unit.span(), first, leaf), attributes)
            }
            (Target::Output { output, attributes }, _) => (PhysSpan::of(output, change.whole.bytes()), attributes),
            _ => return,
        };
        if let Some(frames) = frames {
            let virt = unit.span().intersection(change.whole).unwrap_or(change.whole);
            self.protocol.aliases_mut().note(frames, virt, attributes.rights());
        }
    }
}
