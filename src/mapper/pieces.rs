//! A leaf, or a run of leaves, in pieces: those that a request covers and those that it does not; and the tables that take a block's place.

#![forbid(unsafe_code)]

use super::change::{Change, Target};
use super::{Cost, Mapper};
use crate::addr::{Level, VirtAddr, VirtSpan};
use crate::bbm::{FreshTable, Geo, Live};
use crate::descriptor::Leaf;
use crate::geometry::Geometry;
use crate::machine::Machine;

/// What was mapped before: the first leaf, where it stood, and what it and those that follow translate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    pub(super) leaf: Leaf,
    pub(super) start: VirtAddr,
}

/// What becomes of slots side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Becomes {
    /// Nothing.
    Nothing,
    /// Leaves, the first of which is this.
    Leaves(Leaf),
    /// Tables: their contents differ, or leaves of this level cannot say it.
    Tables,
}

/// Slots of one level side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) virt: VirtAddr,
    pub(super) count: u64,
    pub(super) becomes: Becomes,
}

/// At most: what lies before, a slot that begins in the request, those inside, one that ends in it, what lies behind.
pub(super) type Pieces = [Option<Piece>; 5];

impl Old {
    /// The leaf of `level` that maps at `virt` what was mapped there, on its own.
    fn at<G: Geometry>(&self, level: Level, virt: VirtAddr) -> Option<Leaf> {
        let output = self.leaf.output().checked_add(virt.raw() - self.start.raw())?;
        Leaf::new_in::<G>(level, output, self.leaf.attributes())
    }
}

impl Change {
    /// What becomes of `span`, whole slots of `level`, all of which `old` maps.
    pub(super) fn pieces<G: Geometry>(&self, old: &Old, level: Level, span: VirtSpan) -> Pieces {
        let bytes = G::slot_bytes(level);
        let stays = |start, end| piece::<G>(level, start, end, self.stays::<G>(old, level, start));
        let tables = |start, end| piece::<G>(level, start, end, Becomes::Tables);
        let (start, end) = (span.start(), span.end_exclusive());
        let Some(inside) = span.intersection(self.whole) else { return [stays(start, end), None, None, None, None] };
        let (first, last) = (inside.start().align_down(bytes), inside.end_exclusive().align_up(bytes));
        let (from, to) = (inside.start().align_up(bytes), inside.end_exclusive().align_down(bytes));
        if from > to {
            return [stays(start, first), tables(first, last), None, None, stays(last, end)];
        }
        let within = piece::<G>(level, from, to, self.inside::<G>(old, level, from));
        [stays(start, first), tables(first, from), within, tables(to, last), stays(last, end)]
    }

    fn stays<G: Geometry>(&self, old: &Old, level: Level, virt: VirtAddr) -> Becomes {
        old.at::<G>(level, virt).map_or(Becomes::Tables, Becomes::Leaves)
    }

    fn inside<G: Geometry>(&self, old: &Old, level: Level, virt: VirtAddr) -> Becomes {
        let leaf = match self.target {
            Target::Nothing => return Becomes::Nothing,
            Target::Attributes(attributes) => old.at::<G>(level, virt).map(|leaf| leaf.with(attributes)),
            Target::Output { output, attributes } => {
                let output = output.checked_add(virt.raw() - self.whole.start().raw());
                output.and_then(|output| Leaf::new_in::<G>(level, output, attributes))
            }
            Target::Split(largest) => old.at::<G>(level, virt).filter(|_| level >= largest),
            Target::Merge { .. } => old.at::<G>(level, virt),
        };
        leaf.map_or(Becomes::Tables, Becomes::Leaves)
    }

    /// What the tables of a piece cost: frames and stores, the stores of their links not counted.
    pub(super) fn tables_cost<G: Geometry>(&self, old: &Old, level: Level, piece: &Piece) -> Cost {
        let Some(next) = level.next() else { return Cost::default() };
        // Those inside are all alike; those that the request begins or ends in come one by one.
        let span = VirtSpan::of(piece.virt, G::slot_bytes(level)).unwrap_or(self.whole);
        let mut one = Cost { frames: 1, ..Cost::default() };
        for piece in self.pieces::<G>(old, next, span).iter().flatten() {
            match piece.becomes {
                Becomes::Nothing => {}
                Becomes::Leaves(_) => one.stores += piece.count,
                Becomes::Tables => {
                    let below = self.tables_cost::<G>(old, next, piece);
                    one.frames += below.frames;
                    one.stores += below.stores + piece.count;
                }
            }
        }
        Cost { frames: one.frames * piece.count, stores: one.stores * piece.count, ..Cost::default() }
    }
}

fn piece<G: Geometry>(level: Level, start: VirtAddr, end: VirtAddr, becomes: Becomes) -> Option<Piece> {
    let count = end.raw().checked_sub(start.raw()).map(|bytes| bytes >> G::shift(level)).filter(|&count| count > 0)?;
    Some(Piece { virt: start, count, becomes })
}

impl<M: Machine> Mapper<'_, M, Live> {
    /// A table of `level`, which nothing links to yet, that maps what becomes of `span`, a slot of the level above.
    pub(super) fn table_for(&mut self, change: &Change, old: &Old, level: Level, span: VirtSpan) -> FreshTable {
        let frame = self.take_frame();
        let table = self.protocol.new_table(frame, level, span.start());
        for piece in change.pieces::<Geo<M>>(old, level, span).into_iter().flatten() {
            match (piece.becomes, level.next()) {
                (Becomes::Leaves(leaf), _) => self.protocol.fill_fresh(&table, piece.virt, piece.count, leaf),
                (Becomes::Tables, Some(next)) => {
                    let first = Geo::<M>::slot(table.frame(), level, piece.virt);
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
}
