//! Requests that only fill: map, and populate (tables without leaves). Nothing that is valid changes, so nothing is invalidated.

#![forbid(unsafe_code)]

use super::{Cost, Error, Mapper, Request, piece};
use crate::addr::{Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::{Filled, FreshTable, Geo, Laid, State};
use crate::descriptor::{Attributes, BrokenBits, Entry, Leaf};
use crate::frames::{FrameSupply, Supply};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// What leaves a fill puts in.
#[derive(Clone, Copy, Debug)]
struct LeafKind {
    output: PhysAddr,
    attributes: Attributes,
    largest: Level,
    contiguous: bool,
}

/// A span to fill, and with what: nothing below tables for `populate`.
#[derive(Clone, Copy, Debug)]
struct Fill {
    whole: VirtSpan,
    leaves: Option<LeafKind>,
    /// The level of the tables that must exist at least: 3 for a map by pages; for populate, as asked.
    deepest: Level,
}

/// LeafKind of one level side by side in one table, all of whose slots the request covers wholly.
#[derive(Clone, Copy)]
struct LeafRun {
    leaf: Leaf,
    count: u64,
    end_exclusive: VirtAddr,
}

impl Fill {
    /// What `request` asks for.
    #[inline(always)]
    fn of<G: Geometry>(request: &Request) -> Self {
        let Request { virt, output, attributes, largest, contiguous } = *request;
        let leaves = Some(LeafKind { output, attributes, largest: largest.max(G::LARGEST), contiguous });
        Self { whole: virt, leaves, deepest: Level::L3 }
    }

    /// Whether it goes on below `slot`, where no leaf fits.
    fn descends_from(&self, slot: Slot) -> bool {
        slot.level() < self.deepest
    }

    /// Whether a table of `level` stays when it is empty: it was asked for.
    fn keeps(&self, level: Level) -> bool {
        self.leaves.is_none() && level == self.deepest
    }

    /// The run of leaves from `slot` on, which translates `virt`, up to the end of `span`, which lies in its table; or `None` when no leaf fits
    /// there. Where one fits, all that follow do: both addresses grow by the same step. LeafKind of a contiguous run have runs of their own.
    #[inline(always)]
    fn run<G: Geometry>(&self, slot: Slot, virt: VirtAddr, span: VirtSpan) -> Option<LeafRun> {
        let leaves = self.leaves.filter(|leaves| slot.level() >= leaves.largest)?;
        let mut count = (span.end_exclusive().raw() - virt.raw()) >> slot.shift();
        if count == 0 || slot.virt() != virt {
            return None;
        }
        let output = leaves.output.checked_add(virt.raw() - self.whole.start().raw())?;
        let mut leaf = Leaf::new_in::<G>(slot.level(), output, leaves.attributes)?;
        if leaves.contiguous {
            (leaf, count) = contiguous::<G>(slot.level(), virt, leaf, count);
        }
        Some(LeafRun { leaf, count, end_exclusive: virt.checked_add(count << slot.shift())? })
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

/// What a fill does to tables that a walk may read.
struct Doing<S: State> {
    filled: Filled<S>,
    /// Tables that wait for one DSB, when several are linked.
    laid: Option<Laid>,
}

/// What a plan adds up.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    cost: Cost,
    /// Links into tables that exist.
    links: u64,
}

/// A fill that cannot fail any more. Dropping it does nothing.
#[must_use = "a plan does nothing until it is committed"]
#[derive(Debug)]
pub struct FillPlan<'p, 'a, M, S, F = FrameSupply<M>> {
    mapper: &'p mut Mapper<'a, M, S, F>,
    fill: Fill,
    /// What is mapped, to note what may be written or executed.
    output: Option<PhysSpan>,
    /// Where it begins in the lowest table that translates all of it.
    first: Slot,
    sum: Sum,
}

impl<'a, M: Machine, S: State, F: Supply<M>> Mapper<'a, M, S, F> {
    /// Maps a span that nothing is mapped in, with the largest leaves that alignment and the request allow.
    ///
    /// # Errors
    /// Any [`Error`] that says why not; tables, frames and counters are then as before.
    pub fn map(&mut self, request: Request) -> Result<Cost, Error> {
        let outputs = self.check_map(&request)?;
        let fill = Fill::of::<Geo<M>>(&request);
        let first = self.lowest_slot(&fill);
        // The fast path: all of the request is one run of a table that exists.
        match fill.run::<Geo<M>>(first, request.virt.start(), request.virt) {
            Some(run) if run.end_exclusive == request.virt.end_exclusive() => {
                self.plan_run(first, run.count).map_err(|slot| self.occupied(&fill, slot))?;
                Ok(self.map_run(first, &run, request.virt, outputs))
            }
            _ => {
                let mut sum = Sum::default();
                self.sum_up(&fill, first, &mut sum)?;
                Ok(self.commit_sum(&fill, first, Some(outputs), sum))
            }
        }
    }

    /// Plans [`Self::map`].
    ///
    /// # Errors
    /// As for [`Self::map`].
    pub fn plan_map(&mut self, request: Request) -> Result<FillPlan<'_, 'a, M, S, F>, Error> {
        let outputs = self.check_map(&request)?;
        let fill = Fill::of::<Geo<M>>(&request);
        self.plan_fill(fill, Some(outputs))
    }

    /// Refuses what no table is needed to refuse; yields what is mapped.
    #[inline(always)]
    fn check_map(&self, request: &Request) -> Result<PhysSpan, Error> {
        let Request { virt, output, attributes, .. } = *request;
        self.check_span(virt)?;
        let outputs = self.check_output(virt, output)?;
        self.check_attributes(virt, attributes)?;
        if S::WALKED {
            self.check_shows(virt, outputs)?;
        }
        self.check_alias(virt, outputs, attributes)?;
        Ok(outputs)
    }

    /// Maps `run`, which is all of `virt` and maps `outputs`, from `first` on, where nothing is.
    #[inline(always)]
    fn map_run(&mut self, first: Slot, run: &LeafRun, virt: VirtSpan, outputs: PhysSpan) -> Cost {
        self.protocol.aliases_mut().note(outputs, virt, run.leaf.attributes().rights());
        let mut filled = Filled::<S>::none();
        let slots = self.protocol.seen_unused(self.tables, first, run.count);
        self.protocol.fill(slots, run.leaf, &mut filled);
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        let barriers = u32::from(S::WALKED);
        Cost { stores: run.count, dsbs: barriers, isbs: barriers, ..Cost::default() }
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
    pub fn plan_populate(&mut self, virt: VirtSpan, deepest: Level) -> Result<FillPlan<'_, 'a, M, S, F>, Error> {
        self.check_span(virt)?;
        let fill = Fill { whole: virt, leaves: None, deepest };
        self.plan_fill(fill, None)
    }

    fn plan_fill(&mut self, fill: Fill, output: Option<PhysSpan>) -> Result<FillPlan<'_, 'a, M, S, F>, Error> {
        let first = self.lowest_slot(&fill);
        let mut sum = Sum::default();
        self.sum_up(&fill, first, &mut sum)?;
        Ok(FillPlan { mapper: self, fill, output, first, sum })
    }

    /// Adds up what the whole fill costs, if it may be and there are frames.
    #[inline(always)]
    fn sum_up(&mut self, fill: &Fill, first: Slot, sum: &mut Sum) -> Result<(), Error> {
        self.add_up_fill(fill, first, true, fill.whole, sum).map_err(|slot| self.occupied(fill, slot))?;
        self.check_frames(&sum.cost)?;
        if S::WALKED {
            self.add_maintenance(fill, sum.links, &mut sum.cost);
        }
        Ok(())
    }

    /// What walks must be told: of the contents of tables before their links, once however many, and of what became valid.
    fn add_maintenance(&self, fill: &Fill, links: u64, cost: &mut Cost) {
        if links > 1 {
            cost.stores += links; // laid first, linked later
        }
        let fills = fill.leaves.is_some() || links > 0;
        (cost.dsbs, cost.isbs) = (u32::from(links > 0) + u32::from(fills), u32::from(fills));
    }

    /// Where the request begins in the lowest table there is that translates all of it: plan and commit need look at nothing above.
    #[inline(always)]
    fn lowest_slot(&self, fill: &Fill) -> Slot {
        let (start, last) = (fill.whole.start(), VirtAddr::within(fill.whole.end_exclusive().raw() - 1));
        let mut slot = self.root_slot(start);
        // Where a leaf fits, it is for the plan to find that a table is in its place.
        while fill.descends_from(slot)
            && !slot.level().next().is_some_and(|next| fill.keeps(next))
            && slot.translates(last)
            && fill.run::<Geo<M>>(slot, start, fill.whole).is_none()
            && let Some(below) = self.protocol.child(slot).and_then(|child| slot.below(child, start))
        {
            slot = below;
        }
        slot
    }

    /// Adds up what filling `span` from `first` on costs, in a table that exists or, where the commit makes it, in one whose slots are unused.
    /// Refuses by naming a slot that is occupied.
    #[inline(always)]
    fn add_up_fill(&self, fill: &Fill, first: Slot, exists: bool, span: VirtSpan, sum: &mut Sum) -> Result<(), Slot> {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            let slot = first.beside(virt);
            if let Some(run) = fill.run::<Geo<M>>(slot, virt, span) {
                if exists {
                    self.plan_run(slot, run.count)?;
                }
                sum.cost.stores += run.count;
                virt = run.end_exclusive;
                continue;
            }
            if !fill.descends_from(slot) {
                break;
            }
            let part = piece(span, virt, slot);
            self.add_up_part(fill, slot, exists, part, sum)?;
            virt = part.end_exclusive();
        }
        Ok(())
    }

    /// The same for `part`, which lies in `slot`, by the table that it leads to.
    #[inline(never)] // apart from the common case, a run of one table
    fn add_up_part(&self, fill: &Fill, slot: Slot, exists: bool, part: VirtSpan, sum: &mut Sum) -> Result<(), Slot> {
        let raw = if exists { self.protocol.raw(slot) } else { 0 };
        let child = Entry::table_in::<Geo<M>>(raw, slot.level());
        let Some(mut below) = slot.below(child.unwrap_or(slot.table()), part.start()) else { return Ok(()) };
        if raw == 0 {
            (sum.cost.stores, sum.cost.frames) = (sum.cost.stores + 1, sum.cost.frames + 1);
            sum.links += u64::from(exists);
            // Nothing is to be looked at in new tables: one after the other, while one slot leads on to all of it.
            let last = VirtAddr::within(part.end_exclusive().raw() - 1);
            while fill.descends_from(below)
                && below.translates(last)
                && fill.run::<Geo<M>>(below, part.start(), part).is_none()
                && let Some(next) = below.below(below.table(), part.start())
            {
                (sum.cost.stores, sum.cost.frames) = (sum.cost.stores + 1, sum.cost.frames + 1);
                below = next;
            }
        } else if child.is_none() {
            return Err(slot);
        } else if fill.keeps(below.level()) && !Entry::keeps(raw) {
            sum.cost.stores += 1;
        }
        self.add_up_fill(fill, below, child.is_some(), part, sum)
    }

    /// Looks at a run of a table that exists.
    #[inline(always)]
    fn plan_run(&self, first: Slot, count: u64) -> Result<(), Slot> {
        self.protocol.unused_run(self.protocol.vouch(self.tables, first), count).map(drop)
    }

    /// The refusal to fill what `slot` holds already.
    #[cold]
    #[inline(never)]
    fn occupied(&self, fill: &Fill, slot: Slot) -> Error {
        // A contiguous run says what its first leaf says.
        let leaves = if fill.leaves.is_some_and(|leaves| leaves.contiguous) { slot.run_slots() } else { 1 };
        let start = slot.virt().align_down(leaves << slot.shift()).max(fill.whole.start());
        // No leaf where the request begins or ends within the slot.
        let requested = slot.virt().raw().checked_sub(start.raw()).and_then(|ahead| {
            let run = fill.run::<Geo<M>>(slot.beside(start), start, fill.whole)?;
            Some(run.leaf.advanced(ahead).encode_in::<Geo<M>>(slot.level()))
        });
        Error::Occupied { slot, descriptor: self.protocol.raw(slot), requested }
    }
}

impl<M: Machine, S: State, F: Supply<M>> FillPlan<'_, '_, M, S, F> {
    /// What the commit will cost.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.sum.cost
    }

    /// Does what was planned.
    pub fn commit(self) -> Cost {
        let Self { mapper, fill, output, first, sum } = self;
        mapper.commit_sum(&fill, first, output, sum)
    }
}

impl<M: Machine, S: State, F: Supply<M>> Mapper<'_, M, S, F> {
    /// Does what the plan saw and added up.
    #[inline(always)]
    fn commit_sum(&mut self, fill: &Fill, first: Slot, output: Option<PhysSpan>, sum: Sum) -> Cost {
        if let (Some(span), Some(leaves)) = (output, fill.leaves) {
            self.protocol.aliases_mut().note(span, fill.whole, leaves.attributes.rights());
        }
        let laid = (S::WALKED && sum.links > 1).then(Laid::none);
        let mut doing = Doing::<S> { filled: Filled::none(), laid };
        self.commit_fill(fill, None, first, fill.whole, &mut doing);
        let Doing { mut filled, laid } = doing;
        if let Some(laid) = laid {
            self.link_all(laid, fill.whole, &mut filled);
        }
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        sum.cost
    }

    /// Does what the plan saw, from `first` on: in a table that exists, whose slots must be looked at, or in a fresh one.
    #[inline(always)]
    fn commit_fill(
        &mut self,
        fill: &Fill,
        fresh: Option<&FreshTable<M>>,
        first: Slot,
        span: VirtSpan,
        doing: &mut Doing<S>,
    ) {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            let slot = first.beside(virt);
            if let Some(run) = fill.run::<Geo<M>>(slot, virt, span) {
                match fresh {
                    Some(table) => self.protocol.fill_fresh(table, virt, run.count, run.leaf),
                    None => {
                        let slots = self.protocol.seen_unused(self.tables, slot, run.count);
                        self.protocol.fill(slots, run.leaf, &mut doing.filled);
                    }
                }
                virt = run.end_exclusive;
                continue;
            }
            if !fill.descends_from(slot) {
                break;
            }
            let part = piece(span, virt, slot);
            self.commit_part(fill, fresh, slot, part, doing);
            virt = part.end_exclusive();
        }
    }

    /// The same for `part`, which lies in `slot`, in the table that it leads to. A new one is filled while nothing can walk it, and linked then.
    #[inline(never)] // apart from the common case, a run of one table
    fn commit_part(
        &mut self,
        fill: &Fill,
        fresh: Option<&FreshTable<M>>,
        slot: Slot,
        part: VirtSpan,
        doing: &mut Doing<S>,
    ) {
        let Some(next) = slot.level().next() else { return };
        let raw = if fresh.is_some() { 0 } else { self.protocol.raw(slot) };
        let (linked, kept) = (Entry::table_in::<Geo<M>>(raw, slot.level()), fill.keeps(next));
        if linked.is_some() && kept && !Entry::keeps(raw) {
            self.protocol.keep(self.protocol.vouch(self.tables, slot));
        }
        let made = match linked {
            Some(_) => None,
            None => {
                let frame = self.take_frame();
                Some(self.protocol.new_table(frame, next, part.start()))
            }
        };
        let table = linked.or(made.as_ref().map(FreshTable::frame));
        if let Some(below) = table.and_then(|table| slot.below(table, part.start())) {
            self.commit_fill(fill, made.as_ref(), below, part, doing);
        }
        let Some(made) = made else { return };
        match (fresh, &mut doing.laid) {
            (Some(parent), _) => self.protocol.link_fresh(parent, made, kept),
            (None, laid) => {
                let slot = self.protocol.seen_unused(self.tables, slot, 1);
                match laid {
                    Some(laid) => self.protocol.lay(slot, made, kept, laid),
                    None => self.protocol.link(slot, made, kept, &mut doing.filled),
                }
            }
        }
    }

    /// Links the tables that were laid ready in `span`, after one DSB for all.
    fn link_all(&mut self, laid: Laid, span: VirtSpan, filled: &mut Filled<S>) {
        let mut published = self.protocol.publish(laid);
        self.each_run_of_slots(span, |mapper, first, count| {
            for slot in (0..count).map(|index| first.step(index)) {
                if BrokenBits::read(mapper.protocol.raw(slot)).is_some() {
                    mapper.protocol.link_laid(mapper.protocol.vouch(mapper.tables, slot), &mut published, filled);
                }
            }
        });
        published.done();
    }
}
