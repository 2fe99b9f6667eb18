//! The words of a change, without a machine: what is asked of a span, what it meets there, and the pieces into which it cuts a block.

#![forbid(unsafe_code)]

use super::Cost;
use crate::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::After;
use crate::descriptor::{Attributes, Leaf};
use crate::geometry::{Geometry, Slot};

/// What a request asks of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// That nothing is mapped; with `holes`, also where nothing is before.
    Nothing {
        holes: bool,
    },
    Attributes(Attributes),
    Output {
        output: PhysAddr,
        attributes: Attributes,
    },
    Split(Level),
    Merge {
        largest: Level,
        contiguous: bool,
    },
}

/// A span, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) whole: VirtSpan,
    pub(super) target: Target,
}

/// What a request meets at an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// `count` leaves side by side in one table, alike but for their outputs, all of which the request covers wholly; of contiguous ones,
    /// whole runs.
    Leaves { first: Slot, count: u64, leaf: Leaf },
    /// A block, or a contiguous run of `count` leaves, that the request covers in part.
    Part { first: Slot, count: u64, leaf: Leaf },
    /// `count` slots side by side in one table that hold nothing, where the request lets that be.
    Hole { first: Slot, count: u64 },
    /// A table all of whose contents the request covers, or that it leaves empty.
    Table { slot: Slot, child: Frame },
}

impl Unit {
    /// What it translates.
    pub(super) fn span(&self) -> VirtSpan {
        match *self {
            Self::Leaves { first, count, .. } | Self::Part { first, count, .. } | Self::Hole { first, count } => {
                first.span_of(count)
            }
            Self::Table { slot, .. } => slot.span(),
        }
    }
}

/// What was mapped before: the first leaf, where it stood, and what it and those that follow translate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    pub(super) leaf: Leaf,
    pub(super) start: VirtAddr,
}

/// Slots of one level side by side, and what they become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) virt: VirtAddr,
    pub(super) count: u64,
    /// None for tables: their contents differ, or leaves of this level cannot say it.
    pub(super) after: Option<After>,
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
    /// Whether what is mapped goes.
    pub(super) fn removes(&self) -> bool {
        matches!(self.target, Target::Nothing { .. })
    }

    /// Whether it lets be that nothing is mapped.
    pub(super) fn lets_holes_be(&self) -> bool {
        self.target == Target::Nothing { holes: true }
    }

    /// Whether leaves must map memory side by side to be of one unit: where the first says what the others become.
    pub(super) fn needs_order(&self) -> bool {
        matches!(self.target, Target::Output { .. } | Target::Split(_) | Target::Merge { .. })
    }

    /// How many leaves from `slot` on may be of one unit: all, but for merging into contiguous runs, which begin where they begin.
    pub(super) fn boundary(&self, slot: Slot, leaf: Leaf) -> u64 {
        let run = slot.run_slots();
        match self.target {
            Target::Merge { contiguous: true, .. } if run > 1 && !leaf.contiguous() => run - slot.index() as u64 % run,
            _ => u64::MAX,
        }
    }

    /// What becomes of `span`, whole slots of `level`, all of which `old` maps.
    pub(super) fn pieces<G: Geometry>(&self, old: &Old, level: Level, span: VirtSpan) -> Pieces {
        let bytes = G::slot_bytes(level);
        let stays = |start, end| piece::<G>(level, start, end, self.stays::<G>(old, level, start));
        let tables = |start, end| piece::<G>(level, start, end, None);
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

    fn stays<G: Geometry>(&self, old: &Old, level: Level, virt: VirtAddr) -> Option<After> {
        old.at::<G>(level, virt).map(After::Leaf)
    }

    fn inside<G: Geometry>(&self, old: &Old, level: Level, virt: VirtAddr) -> Option<After> {
        let leaf = match self.target {
            Target::Nothing { .. } => return Some(After::Nothing),
            Target::Attributes(attributes) => old.at::<G>(level, virt).map(|leaf| leaf.with(attributes)),
            Target::Output { output, attributes } => {
                let output = output.checked_add(virt.raw() - self.whole.start().raw());
                output.and_then(|output| Leaf::new_in::<G>(level, output, attributes))
            }
            Target::Split(largest) => old.at::<G>(level, virt).filter(|_| level >= largest),
            Target::Merge { .. } => old.at::<G>(level, virt),
        };
        leaf.map(After::Leaf)
    }

    /// What the tables of a piece cost: frames and stores, the stores of their links not counted.
    pub(super) fn tables_cost<G: Geometry>(&self, old: &Old, level: Level, piece: &Piece) -> Cost {
        let Some(next) = level.next() else { return Cost::default() };
        // Those inside are all alike; those that the request begins or ends in come one by one.
        let span = VirtSpan::of(piece.virt, G::slot_bytes(level)).unwrap_or(self.whole);
        let mut one = Cost { frames: 1, ..Cost::default() };
        for piece in self.pieces::<G>(old, next, span).iter().flatten() {
            match piece.after {
                Some(After::Nothing) => {}
                Some(_) => one.stores += piece.count,
                None => {
                    let below = self.tables_cost::<G>(old, next, piece);
                    one.frames += below.frames;
                    one.stores += below.stores + piece.count;
                }
            }
        }
        Cost { frames: one.frames * piece.count, stores: one.stores * piece.count, ..Cost::default() }
    }
}

fn piece<G: Geometry>(level: Level, start: VirtAddr, end: VirtAddr, after: Option<After>) -> Option<Piece> {
    let count = end.raw().checked_sub(start.raw()).map(|bytes| bytes >> G::shift(level)).filter(|&count| count > 0)?;
    Some(Piece { virt: start, count, after })
}

/// The frames of the part that `change` covers of `span`, which `leaf` and those that follow it map.
pub(super) fn part_of(change: &Change, span: VirtSpan, first: Slot, leaf: Leaf) -> Option<PhysSpan> {
    let inside = span.intersection(change.whole)?;
    let output = leaf.output().checked_add(inside.start().raw() - first.virt().raw())?;
    PhysSpan::of(output, inside.bytes())
}
