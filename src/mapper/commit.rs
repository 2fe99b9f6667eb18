//! The commit of a change: one pass that changes in place and breaks, one invalidation, one pass that settles what was broken.

#![forbid(unsafe_code)]

use super::Mapper;
use super::change::{Change, ChangePlan, Target, Unmapped, Way};
use super::pieces::{Becomes, Old};
use super::plan::part_of;
use super::unit::{Seen, Unit};
use crate::addr::PhysSpan;
use crate::bbm::{After, Broken, Changed, Detached, Filled, Geo, Live, Settling};
use crate::descriptor::Leaf;
use crate::geometry::Slot;
use crate::machine::Machine;

/// What a commit owes between its passes.
struct Owed {
    broken: Broken,
    changed: Changed,
    detached: Detached,
}

impl<M: Machine> ChangePlan<'_, '_, M> {
    /// Does what was planned. What comes back proves that no TLB holds anything of before.
    pub fn commit(self) -> Unmapped {
        let Self { mapper, change, single, noted, cost } = self;
        let mut owed = Owed { broken: Broken::none(), changed: Changed::none(), detached: Detached::none() };
        if let Some((Unit::Table { slot, .. }, Way::Detach)) = single {
            mapper.protocol.break_table_noted(mapper.tables, slot, noted, &mut owed.broken, &mut owed.detached);
        } else if let Some((unit, way)) = &single {
            mapper.apply(&change, unit, *way, &mut owed);
        } else {
            let (mut virt, mut seen) = (change.whole.start(), Seen::default());
            while virt < change.whole.end_exclusive() {
                let unit = mapper.unit_at(&change, virt, &mut seen).expect("the plan has seen every unit");
                mapper.apply(&change, &unit, mapper.way(&change, &unit), &mut owed);
                virt = unit.span().end_exclusive();
            }
        }
        let Owed { broken, changed, mut detached } = owed;
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
        Unmapped { cost, proof }
    }
}

impl<M: Machine> Mapper<'_, M, Live> {
    fn apply(&mut self, change: &Change, unit: &Unit, way: Way, owed: &mut Owed) {
        if way == Way::Keep {
            return;
        }
        self.note_rights(change, unit);
        match (*unit, way) {
            (Unit::Table { slot, .. }, Way::Replace(leaf)) => {
                let Some(evidence) = self.protocol.resize() else { return };
                self.protocol.replace_table(self.tables, slot, leaf, evidence, self.frames.tables_mut());
            }
            (Unit::Table { slot, .. }, _) => {
                self.protocol.break_table(self.tables, slot, &mut owed.broken, &mut owed.detached);
            }
            (Unit::Leaves { first, count, .. }, Way::InPlace { attributes, contiguous }) => {
                self.protocol.change_run(
                    self.protocol.vouch(self.tables, first),
                    count,
                    attributes,
                    contiguous,
                    &mut owed.changed,
                );
            }
            (Unit::Leaves { first, count, .. }, Way::Break(after)) => {
                self.protocol.break_run(self.protocol.vouch(self.tables, first), count, after, &mut owed.broken);
            }
            (Unit::Leaves { first, count, leaf } | Unit::Part { first, count, leaf }, _) => {
                self.apply_pieces(change, first, count, leaf, way, owed);
            }
        }
    }

    fn apply_pieces(&mut self, change: &Change, first: Slot, count: u64, leaf: Leaf, way: Way, owed: &mut Owed) {
        let (level, old) = (first.level(), Old { leaf, start: first.virt() });
        let in_place = self.protocol.resize().filter(|_| way == Way::Resize);
        for piece in change.pieces::<Geo<M>>(&old, level, first.span_of(count)).into_iter().flatten() {
            let slot = first.beside(piece.virt);
            match (piece.becomes, in_place) {
                (Becomes::Nothing, _) => {
                    self.protocol.break_run(
                        self.protocol.vouch(self.tables, slot),
                        piece.count,
                        After::Nothing,
                        &mut owed.broken,
                    );
                }
                (Becomes::Leaves(leaf), None) => {
                    self.protocol.break_run(
                        self.protocol.vouch(self.tables, slot),
                        piece.count,
                        After::Leaf(leaf),
                        &mut owed.broken,
                    );
                }
                (Becomes::Leaves(leaf), Some(_)) => {
                    self.protocol.change_run(
                        self.protocol.vouch(self.tables, slot),
                        piece.count,
                        leaf.attributes(),
                        false,
                        &mut owed.changed,
                    );
                }
                (Becomes::Tables, _) => {
                    let Some(next) = level.next() else { continue };
                    for slot in (0..piece.count).map(|index| slot.step(index)) {
                        let table = self.table_for(change, &old, next, slot.span());
                        match in_place {
                            None => self.protocol.break_into(
                                self.protocol.vouch(self.tables, slot),
                                table,
                                &mut owed.broken,
                            ),
                            Some(evidence) => self.protocol.replace_block(
                                self.protocol.vouch(self.tables, slot),
                                table,
                                evidence,
                                &mut owed.changed,
                            ),
                        }
                    }
                }
            }
        }
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
            self.protocol.aliases_mut().note(frames, attributes.rights());
        }
    }
}
