//! Requests that only fill: map, and populate (tables without leaves). Nothing that is valid changes, so nothing is invalidated.

#![forbid(unsafe_code)]

mod brief;
mod link;

use super::{Cost, Error, Mapper, Request, piece};
use crate::addr::{Frame, Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::{Filled, FreshTable, Geo, Laid, State};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// What leaves a fill puts in.
#[derive(Clone, Copy, Debug)]
struct Leaves {
    output: PhysAddr,
    attributes: Attributes,
    largest: Level,
    contiguous: bool,
}

/// A span to fill, and with what: nothing below tables for `populate`.
#[derive(Clone, Copy, Debug)]
struct Fill {
    whole: VirtSpan,
    leaves: Option<Leaves>,
    /// The level of the tables that must exist at least: 3 for a map by pages; for populate, as asked.
    deepest: Level,
}

/// Leaves of one level side by side in one table, all of whose slots the request covers wholly.
#[derive(Clone, Copy)]
struct Run {
    first: VirtAddr,
    leaf: Leaf,
    count: u64,
    end_exclusive: VirtAddr,
}

impl Fill {
    fn descends(&self, next: Level) -> bool {
        next <= self.deepest
    }

    /// Whether a table of `level` stays when it is empty: it was asked for.
    fn keeps(&self, level: Level) -> bool {
        self.leaves.is_none() && level == self.deepest
    }

    /// What a new table of `level` holds for `span`, where that is one run of leaves or nothing.
    #[inline(always)]
    fn all_of_table<G: Geometry>(&self, level: Level, span: VirtSpan) -> Option<Option<Run>> {
        if self.leaves.is_none() && level == self.deepest {
            return Some(None);
        }
        let run = self.run::<G>(level, span.start(), span)?;
        (run.end_exclusive == span.end_exclusive()).then_some(Some(run))
    }

    /// The run of leaves of `level` that starts at `virt`, up to the end of `span`, which lies in one table; or `None` when no leaf fits there.
    /// Where one fits, all that follow do: both addresses grow by the same step. Leaves of a contiguous run have runs of their own.
    #[inline(always)]
    fn run<G: Geometry>(&self, level: Level, virt: VirtAddr, span: VirtSpan) -> Option<Run> {
        let leaves = self.leaves.filter(|leaves| level >= leaves.largest)?;
        let mut count = (span.end_exclusive().raw() - virt.raw()) >> G::shift(level);
        if count == 0 || !virt.is_aligned(G::slot_bytes(level)) {
            return None;
        }
        let output = leaves.output.checked_add(virt.raw() - self.whole.start().raw())?;
        let mut leaf = Leaf::new_in::<G>(level, output, leaves.attributes)?;
        if leaves.contiguous {
            (leaf, count) = contiguous::<G>(level, virt, leaf, count);
        }
        Some(Run { first: virt, leaf, count, end_exclusive: virt.checked_add(count << G::shift(level))? })
    }
}

/// Of `count` leaves from `leaf` at `virt` on, those that come before the next boundary of a contiguous run, or all whole runs from here on.
#[inline(never)] // apart from the common case, which boot counts
fn contiguous<G: Geometry>(level: Level, virt: VirtAddr, leaf: Leaf, count: u64) -> (Leaf, u64) {
    let slots = G::run_slots(level);
    let bytes = slots << G::shift(level);
    let past = virt.raw() & (bytes - 1);
    if slots == 1 || leaf.output().raw() & (bytes - 1) != past {
        return (leaf, count); // no run anywhere: both addresses grow by the same step
    }
    match (past, count / slots) {
        (0, 0) => (leaf, count),
        (0, runs) => (leaf.with_contiguous(true), runs * slots),
        _ => (leaf, count.min((bytes - past) >> G::shift(level))),
    }
}

/// A table that a fill writes to: one that is linked, whose slots must be looked at, or a fresh one, where all are unused.
#[derive(Clone, Copy)]
enum Place<'a> {
    Linked(Frame),
    Fresh(&'a FreshTable),
}

/// What a fill does to tables that a walk may read.
struct Doing<S: State> {
    filled: Filled<S>,
    /// Tables that wait for one DSB, when several are linked.
    laid: Option<Laid>,
}

/// A fill that cannot fail any more. Dropping it does nothing.
#[must_use = "a plan does nothing until it is committed"]
#[derive(Debug)]
pub struct FillPlan<'p, 'a, M, S> {
    mapper: &'p mut Mapper<'a, M, S>,
    fill: Fill,
    /// What is mapped, to note what may be written or executed.
    output: Option<PhysSpan>,
    table: Frame,
    level: Level,
    /// A request that is one run of a table that exists: what the plan saw, the commit uses.
    single: Option<(Slot, u64, Leaf)>,
    links: u64,
    cost: Cost,
}

impl<'a, M: Machine, S: State> Mapper<'a, M, S> {
    /// Maps a span that nothing is mapped in, with the largest leaves that alignment and the request allow.
    ///
    /// # Errors
    /// Any [`Error`] that says why not; tables, frames and counters are then as before.
    pub fn map(&mut self, request: Request) -> Result<Cost, Error> {
        match self.map_briefly(&request) {
            Some(cost) => Ok(cost),
            None => self.plan_map(request).map(FillPlan::commit),
        }
    }

    /// Plans [`Self::map`].
    ///
    /// # Errors
    /// As for [`Self::map`].
    #[inline(always)] // with the commit, where both are asked for at once: a plan is larger than what it is made of
    pub fn plan_map(&mut self, request: Request) -> Result<FillPlan<'_, 'a, M, S>, Error> {
        let Request { virt, output, attributes, largest, contiguous } = request;
        self.check_span(virt)?;
        let outputs = self.check_output(virt, output)?;
        self.check_attributes(virt, attributes)?;
        self.check_alias(virt, outputs, attributes)?;
        let leaves = Some(Leaves { output, attributes, largest: largest.max(Geo::<M>::LARGEST), contiguous });
        self.plan_fill(Fill { whole: virt, leaves, deepest: Level::L3 }, Some(outputs))
    }

    /// Makes sure that tables down to `deepest` exist for every page of `virt`, and maps nothing. Those of `deepest` stay from here on,
    /// even when they are empty.
    ///
    /// # Errors
    /// As for [`Self::map`].
    pub fn populate(&mut self, virt: VirtSpan, deepest: Level) -> Result<Cost, Error> {
        self.plan_populate(virt, deepest).map(FillPlan::commit)
    }

    /// Plans [`Self::populate`].
    ///
    /// # Errors
    /// As for [`Self::map`].
    #[inline(always)]
    pub fn plan_populate(&mut self, virt: VirtSpan, deepest: Level) -> Result<FillPlan<'_, 'a, M, S>, Error> {
        self.check_span(virt)?;
        self.plan_fill(Fill { whole: virt, leaves: None, deepest }, None)
    }

    #[inline(always)]
    fn plan_fill(&mut self, fill: Fill, output: Option<PhysSpan>) -> Result<FillPlan<'_, 'a, M, S>, Error> {
        let (table, level) = self.lowest_table(&fill);
        let (mut cost, mut links, mut single) = (Cost::default(), 0, None);
        match fill.run::<Geo<M>>(level, fill.whole.start(), fill.whole) {
            Some(run) if run.end_exclusive == fill.whole.end_exclusive() => {
                let first = Geo::<M>::slot(table, level, run.first);
                self.plan_run(first, &run)?;
                (single, cost.stores) = (Some((first, run.count, run.leaf)), run.count);
            }
            _ => {
                self.add_up_fill(&fill, Some(table), level, fill.whole, &mut cost, &mut links)?;
                self.check_frames(&cost)?;
            }
        }
        if S::WALKED {
            self.add_maintenance(&fill, links, &mut cost);
        }
        Ok(FillPlan { mapper: self, fill, output, table, level, single, links, cost })
    }

    /// What walks must be told: of the contents of tables before their links, once however many, and of what became valid.
    fn add_maintenance(&self, fill: &Fill, links: u64, cost: &mut Cost) {
        if links > 1 {
            cost.stores += links; // laid first, linked later
        }
        let fills = fill.leaves.is_some() || links > 0;
        (cost.dsbs, cost.isbs) = (u32::from(links > 0) + u32::from(fills), u32::from(fills));
    }

    /// The lowest table there is that translates all of the request: plan and commit need look at nothing above it.
    fn lowest_table(&mut self, fill: &Fill) -> (Frame, Level) {
        if fill.leaves.is_some()
            && let Some((span, table, level)) = self.last
            && span.covers(fill.whole)
            && fill.whole.bytes() < span.bytes()
            && level == fill.deepest
        {
            return (table, level);
        }
        let (mut table, mut level) = (self.tables.root(), self.tables.level());
        let last = VirtAddr::within(fill.whole.end_exclusive().raw() - 1);
        while let Some(next) = level.next().filter(|&next| fill.descends(next) && !fill.keeps(next)) {
            if fill.run::<Geo<M>>(level, fill.whole.start(), fill.whole).is_some() {
                break; // a leaf fits here: that a table is in its place is for the plan to find
            }
            let slot = Geo::<M>::slot(table, level, fill.whole.start());
            match self.protocol.child(slot) {
                Some(child) if slot.span().contains(last) => {
                    (table, level) = (child, next);
                    if next == fill.deepest {
                        self.last = Some((slot.span(), child, next));
                    }
                }
                _ => break,
            }
        }
        (table, level)
    }

    /// Adds up what filling `span` below `table` costs, and the links into tables that exist; no table is one that the commit will have
    /// made, where every slot is unused.
    fn add_up_fill(
        &self,
        fill: &Fill,
        table: Option<Frame>,
        level: Level,
        span: VirtSpan,
        cost: &mut Cost,
        links: &mut u64,
    ) -> Result<(), Error> {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            if let Some(run) = fill.run::<Geo<M>>(level, virt, span) {
                if let Some(table) = table {
                    self.plan_run(Geo::<M>::slot(table, level, virt), &run)?;
                }
                cost.stores += run.count;
                virt = run.end_exclusive;
                continue;
            }
            let Some(next) = level.next().filter(|&next| fill.descends(next)) else { break };
            let part = piece(span, virt, Geo::<M>::slot(self.tables.root(), level, virt));
            virt = part.end_exclusive();
            let child = match table {
                None => None,
                Some(table) => self.add_up_link(fill, Geo::<M>::slot(table, level, part.start()), next, cost, links)?,
            };
            if child.is_none() {
                (cost.stores, cost.frames) = (cost.stores + 1, cost.frames + 1);
                if let Some(leaves) = fill.all_of_table::<Geo<M>>(next, part) {
                    cost.stores += leaves.map_or(0, |run| run.count);
                    continue;
                }
            }
            self.add_up_fill(fill, child, next, part, cost, links)?;
        }
        Ok(())
    }

    /// The table of `next` that `slot` leads to, or none where the commit will link one.
    #[inline(always)]
    fn add_up_link(
        &self,
        fill: &Fill,
        slot: Slot,
        next: Level,
        cost: &mut Cost,
        links: &mut u64,
    ) -> Result<Option<Frame>, Error> {
        let raw = self.protocol.raw(slot);
        let child = Entry::table_in::<Geo<M>>(raw, slot.level());
        if raw == 0 {
            *links += 1;
        } else if child.is_none() {
            return Err(Error::Occupied { slot, descriptor: raw, requested: None });
        } else if fill.keeps(next) && !Entry::keeps(raw) {
            cost.stores += 1;
        }
        Ok(child)
    }

    /// Looks at a run of a table that exists. Inlined, and its refusal not: an error is large.
    #[inline(always)]
    fn plan_run(&self, first: Slot, run: &Run) -> Result<(), Error> {
        match self.protocol.unused_run(self.protocol.vouch(self.tables, first), run.count) {
            Ok(_) => Ok(()),
            Err(slot) => Err(self.occupied(slot, first, run)),
        }
    }

    #[cold]
    #[inline(never)]
    fn occupied(&self, slot: Slot, first: Slot, run: &Run) -> Error {
        let ahead = slot.virt().raw() - first.virt().raw();
        let requested = Some(run.leaf.advanced(ahead).encode_in::<Geo<M>>(slot.level()));
        Error::Occupied { slot, descriptor: self.protocol.raw(slot), requested }
    }
}

impl<M: Machine, S: State> FillPlan<'_, '_, M, S> {
    /// What the commit will cost.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Does what was planned.
    #[inline(always)]
    pub fn commit(self) -> Cost {
        let Self { mapper, fill, output, table, level, single, links, cost } = self;
        if let (Some(span), Some(leaves)) = (output, fill.leaves) {
            mapper.protocol.aliases_mut().note(span, leaves.attributes.rights());
        }
        let laid = (S::WALKED && links > 1).then(Laid::none);
        let mut doing = Doing::<S> { filled: Filled::none(), laid };
        match single {
            Some((first, count, leaf)) => {
                let slots = mapper.protocol.seen_unused(mapper.tables, first, count);
                mapper.protocol.fill(slots, leaf, &mut doing.filled);
            }
            None => mapper.commit_fill(&fill, Place::Linked(table), level, fill.whole, &mut doing),
        }
        let Doing { mut filled, laid } = doing;
        if let Some(laid) = laid {
            mapper.link_all(laid, fill.whole, &mut filled);
        }
        mapper.protocol.complete(filled);
        mapper.protocol.claim_settled();
        cost
    }
}
