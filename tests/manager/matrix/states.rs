//! What a request may find in a slot, at each level, and the spans by which it may cover it.

use super::super::bench::{Bench, CONSTANTS, Cpus, DATA, virt};
use super::super::judged::{Judged, slot_in};
use breakwater::addr::{Level, PhysAddr};
use breakwater::bbm::{Live, Offline};
use breakwater::descriptor::Attributes;
use breakwater::geometry::Geometry;
use breakwater::machine::Machine;
use breakwater::mapper::Request;

macro_rules! holds {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a slot holds; of a run, what all of its slots hold.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(super) enum Holds {
            $($(#[$doc])* $name,)*
        }
        use Holds::{$($name),*};
        const HOLDS: &[Holds] = &[$($name),*];
    };
}

holds! {
    Nothing,
    Leaf,
    Run,
    /// A table full of leaves that one block could say.
    Uniform,
    /// The same in contiguous runs.
    UniformRuns,
    /// A table full of leaves, one of which has other rights.
    Mixed,
    /// The same, one of which maps to another place.
    Disordered,
    /// A table of which a part is used.
    Partly,
    /// An empty table that stays.
    EmptyKept,
    /// One that stays, full of leaves.
    FullKept,
    /// An empty table that does not.
    EmptyLoose,
    /// Bit 0 is clear, others are not.
    Broken,
    /// A leaf with a bit that the manager never sets.
    Foreign,
    /// A table descriptor with one.
    ForeignTable,
}

/// A state: objects side by side, the first of which holds what it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) level: Level,
    pub(super) holds: Holds,
    /// The first object is the last of its tables, the second the first of others; nothing else is mapped. Otherwise both are of one table,
    /// which maps something else, too.
    pub(super) at_edge: bool,
    /// What the second object holds, and then there is a leaf as a third; without this, the second holds the same as the first (but
    /// a leaf beside a slot that is broken or foreign).
    pub(super) second: Option<Holds>,
}

/// All that a slot of `level` may hold.
fn holds<G: Geometry>(level: Level) -> impl Iterator<Item = Holds> + Clone {
    let needs_table = |holds| !matches!(holds, Nothing | Leaf | Run | Broken | Foreign);
    HOLDS.iter().copied().filter(move |&holds| {
        let run_level = if holds == UniformRuns { level.next() } else { Some(level) };
        let has_run = run_level.is_some_and(|level| G::run_slots(level) > 1);
        let below_root = level > G::ROOT;
        (level < Level::L3 || !needs_table(holds))
            && (has_run || !matches!(holds, Run | UniformRuns))
            && (G::allows_leaf(level) || needs_table(holds) || holds == Nothing)
            && (below_root || holds != Broken)
    })
}

/// Every state of `level` with objects alike.
pub(super) fn states<G: Geometry>(level: Level) -> Vec<State> {
    let state = |holds| [false, true].map(|at_edge| State { at_edge, ..State::of(level, holds) });
    let both = holds::<G>(level).flat_map(state);
    both.filter(|state| !state.at_edge || state.holds != Broken).collect()
}

/// Every two things that slots of `level` may hold side by side, of one slot each.
pub(super) fn neighbours<G: Geometry>(level: Level) -> Vec<State> {
    let single = holds::<G>(level).filter(|&holds| holds != Run);
    let pair = |one| single.clone().map(move |two| State { second: Some(two), ..State::of(level, one) });
    single.clone().flat_map(pair).collect()
}

impl State {
    /// A state whose tables map something else, too.
    pub(super) fn of(level: Level, holds: Holds) -> Self {
        Self { level, holds, at_edge: false, second: None }
    }

    /// What its objects hold.
    fn objects(&self) -> Vec<Holds> {
        match (self.second, self.holds) {
            (Some(second), first) => vec![first, second, Leaf],
            (None, Broken | Foreign) => vec![self.holds, Leaf],
            (None, ForeignTable) => vec![ForeignTable, Uniform],
            (None, EmptyLoose) => vec![EmptyLoose, EmptyKept],
            (None, holds) => vec![holds, holds],
        }
    }

    /// The bytes of one object.
    pub(super) fn bytes<G: Geometry>(&self) -> u64 {
        let slots = if self.holds == Run { G::run_slots(self.level) } else { 1 };
        slots * G::slot_bytes(self.level)
    }

    /// Where the first object begins.
    pub(super) fn base<G: Geometry>(&self) -> u64 {
        let root_slot = G::slot_bytes(G::ROOT);
        let first = if G::slots(G::ROOT) > 4 { root_slot } else { 0 };
        if self.at_edge { first + root_slot - self.bytes::<G>() } else { first + 4 * self.bytes::<G>() }
    }

    /// What the first object maps to; the second follows.
    pub(super) fn output<G: Geometry>() -> u64 {
        high::<G>() + (1 << 44)
    }

    /// Live tables in this state.
    pub(super) fn made<G: Geometry>(&self, machine: Judged<G>, cpus: Cpus, frames: u64) -> Bench<G, Live> {
        let mut bench = Bench::offline(machine, cpus, frames);
        if !self.at_edge {
            let neighbour = self.base::<G>() - 4 * self.bytes::<G>();
            let level = self.level.max(G::LARGEST);
            let bytes = G::slot_bytes(level);
            map(&mut bench, (neighbour, bytes), high::<G>() + (1 << 46), DATA, level);
        }
        let objects = self.objects();
        for (index, &holds) in (0..).zip(&objects) {
            self.furnish(&mut bench, index, holds);
        }
        let mut bench = bench.switch(cpus);
        for (index, &holds) in (0..).zip(&objects) {
            self.plant(&mut bench, self.base::<G>() + index * self.bytes::<G>(), holds);
        }
        bench
    }

    fn furnish<G: Geometry>(&self, bench: &mut Bench<G, Offline>, index: u64, holds: Holds) {
        let bytes = self.bytes::<G>();
        let (start, output) = (self.base::<G>() + index * bytes, Self::output::<G>() + index * bytes);
        let next = self.level.next().unwrap_or(Level::L3);
        let leaves = next.max(G::LARGEST);
        let (small, half) = (G::slot_bytes(leaves), bytes / 2);
        let whole = |largest| Request::new(virt(start, bytes), PhysAddr::at(output), DATA, largest);
        if matches!(holds, EmptyKept | FullKept | EmptyLoose) {
            bench.mapper().populate(virt(start, bytes), next).expect("a table");
        }
        match holds {
            Nothing | Broken | EmptyKept | EmptyLoose => {}
            Leaf | Foreign => map(bench, (start, bytes), output, DATA, self.level),
            Uniform | ForeignTable | FullKept => map(bench, (start, bytes), output, DATA, leaves),
            Run => drop(bench.mapper().map(whole(self.level).with_contiguous()).expect("a run")),
            UniformRuns => drop(bench.mapper().map(whole(leaves).with_contiguous()).expect("runs")),
            Mixed | Disordered => {
                let (other, kind) = match holds {
                    Mixed => (output + half, CONSTANTS),
                    _ => (high::<G>() + (1 << 47) + index * bytes, DATA),
                };
                map(bench, (start, half), output, DATA, leaves);
                map(bench, (start + half, small), other, kind, leaves);
                map(bench, (start + half + small, half - small), output + half + small, DATA, leaves);
            }
            Partly => {
                map(bench, (start, small), output, DATA, leaves);
                map(bench, (start + half, half), output + half, DATA, leaves);
            }
        }
    }

    /// What no request does, to the slot for `at`.
    fn plant<G: Geometry>(&self, bench: &mut Bench<G, Live>, at: u64, holds: Holds) {
        if !matches!(holds, Broken | Foreign | ForeignTable | EmptyLoose) {
            return;
        }
        let slot = slot_in(bench.machine(), bench.tables.root(), self.level, at);
        let word = bench.machine().load(slot);
        let planted = match holds {
            Broken => Self::output::<G>() & ((1 << 48) - 1) | 0x702,
            EmptyLoose => word & !(1 << 55),
            _ => word | 1 << 56,
        };
        bench.protocol.machine_mut().plant(slot, planted);
    }

    /// The spans that cover it: wholly, in part, and across both objects.
    pub(super) fn coverages<G: Geometry>(&self) -> Vec<(&'static str, u64, u64)> {
        let (base, bytes, page) = (self.base::<G>(), self.bytes::<G>(), G::PAGE_BYTES);
        let mut all = vec![("both", base, 2 * bytes)];
        all.push(if self.second.is_some() { ("all three", base, 3 * bytes) } else { ("whole", base, bytes) });
        if bytes > page {
            let (half, quarter) = (bytes / 2, bytes / 4);
            if self.second.is_some() {
                all.extend([
                    ("a page of each", base + bytes - page, 2 * page),
                    ("half of each", base + half, bytes),
                    ("the second and halves of its neighbours", base + half, 2 * bytes),
                ]);
                return all;
            }
            // The leaves of which one may be unlike the others, so few that a split of them takes few frames.
            let small =
                G::slot_bytes(if self.holds == Run { self.level } else { self.level.next().unwrap_or(Level::L3) });
            all.extend([
                ("around the middle", base + half - small, 3 * small),
                ("first page", base, page),
                ("first half", base, half),
                ("last page", base + bytes - page, page),
                ("last half", base + half, half),
                ("a page in the middle", base + half, page),
                ("the middle", base + quarter, half),
                ("all but the ends", base + page, bytes - 2 * page),
                ("a page of each", base + bytes - page, 2 * page),
                ("half of each", base + half, bytes),
            ]);
        }
        all
    }
}

/// High bits of output addresses, where a format has some that stand apart.
pub(super) fn high<G: Geometry>() -> u64 {
    if G::OUTPUT_BITS == 52 { 5 << 48 } else { 0 }
}

fn map<G: Geometry>(
    bench: &mut Bench<G, Offline>,
    (start, bytes): (u64, u64),
    output: u64,
    attributes: Attributes,
    largest: Level,
) {
    let request = Request::new(virt(start, bytes), PhysAddr::at(output), attributes, largest);
    bench.mapper().map(request).expect("furniture");
}
