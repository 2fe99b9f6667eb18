//! Requests that only fill: map, and populate (tables without leaves). Nothing that is valid changes, so nothing is invalidated.

use super::{Cost, Error, Mapper, Request, checked_pages, piece};
use crate::addr::{Frame, Level, PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
use crate::bbm::{Filled, FreshTable, State, UnusedSlots};
use crate::descriptor::{Attributes, Entry, Leaf};
use crate::machine::{Machine, Slot};

/// What leaves a fill puts in.
#[derive(Clone, Copy)]
struct Leaves {
    output: PhysAddr,
    attributes: Attributes,
    largest: Level,
}

/// A span to fill, and with what: nothing below tables for `populate`.
#[derive(Clone, Copy)]
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

    /// The run of leaves of `level` that starts at `virt`, up to the end of `span`, which lies in one table; or `None` when no leaf fits there.
    /// Where one fits, all that follow do: both addresses grow by the same step.
    fn run(&self, level: Level, virt: VirtAddr, span: VirtSpan) -> Option<Run> {
        let leaves = self.leaves.filter(|leaves| level >= leaves.largest)?;
        let count = (span.end_exclusive().raw() - virt.raw()) >> level.shift();
        if count == 0 || !virt.is_aligned(level.slot_bytes()) {
            return None;
        }
        let output = leaves.output.checked_add(virt.raw() - self.whole.start().raw())?;
        let leaf = Leaf::new(level, output, leaves.attributes)?;
        Some(Run { first: virt, leaf, count, end_exclusive: virt.checked_add(count << level.shift())? })
    }
}

/// A table that a fill writes to: one that is linked, whose slots must be looked at, or a fresh one, where all are unused.
#[derive(Clone, Copy)]
enum Place<'a> {
    Linked(Frame),
    Fresh(&'a FreshTable),
}

impl Place<'_> {
    fn slot(self, level: Level, virt: VirtAddr) -> Slot {
        let table = match self {
            Self::Linked(frame) => frame,
            Self::Fresh(table) => table.frame(),
        };
        Slot::new(table, level, virt)
    }
}

impl<M: Machine, S: State> Mapper<'_, M, S> {
    /// Maps a span that nothing is mapped in, with the largest leaves that alignment and the request allow.
    ///
    /// # Errors
    /// Any [`Error`] that says why not; tables, frames and counters are then as before.
    pub fn map(&mut self, request: Request) -> Result<Cost, Error> {
        let whole = checked_pages(request.virt)?;
        let Request { virt, output, attributes, largest } = request;
        if !output.is_aligned(PAGE_BYTES) {
            return Err(Error::Misaligned { virt, output: Some(output) });
        }
        self.check_output(virt, output)?;
        let leaves = Some(Leaves { output, attributes, largest });
        self.fill(Fill { whole, leaves, deepest: Level::L3 })
    }

    /// Makes sure that tables down to `deepest` exist for every page of `virt`, and maps nothing.
    ///
    /// # Errors
    /// As for [`Self::map`].
    pub fn populate(&mut self, virt: VirtSpan, deepest: Level) -> Result<Cost, Error> {
        self.fill(Fill { whole: checked_pages(virt)?, leaves: None, deepest })
    }

    fn fill(&mut self, fill: Fill) -> Result<Cost, Error> {
        let (table, level) = self.lowest_table(&fill);
        if let Some(run) = fill.run(level, fill.whole.start(), fill.whole)
            && run.end_exclusive == fill.whole.end_exclusive()
        {
            return self.fill_run(table, level, run);
        }
        let mut cost = Cost::default();
        self.plan_fill(&fill, Some(table), level, fill.whole, &mut cost)?;
        if !self.frames.has(cost.frames) {
            return Err(Error::OutOfFrames { needed: cost.frames, available: self.frames.available() });
        }
        let mut filled = Filled::none();
        self.commit_fill(&fill, Place::Linked(table), level, fill.whole, &mut filled);
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        Ok(cost)
    }

    /// A request that is one run of a table that exists: what the plan proves, the commit uses.
    fn fill_run(&mut self, table: Frame, level: Level, run: Run) -> Result<Cost, Error> {
        let slots = self.plan_run(Slot::new(table, level, run.first), run.count)?;
        let mut filled = Filled::<S>::none();
        self.protocol.fill(slots, run.leaf, &mut filled);
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        Ok(Cost { stores: run.count, frames: 0 })
    }

    /// The lowest table there is that translates all of the request: plan and commit need look at nothing above it.
    fn lowest_table(&self, fill: &Fill) -> (Frame, Level) {
        let (mut table, mut level) = (self.tables.root(), Level::L0);
        let last = VirtAddr::at(fill.whole.end_exclusive().raw() - 1);
        while let Some(next) = level.next().filter(|&next| fill.descends(next)) {
            if fill.run(level, fill.whole.start(), fill.whole).is_some() {
                break; // a leaf fits here: that a table is in its place is for the plan to find
            }
            let slot = Slot::new(table, level, fill.whole.start());
            match self.protocol.child(slot) {
                Some(child) if last.slot(level) == slot.index() => (table, level) = (child, next),
                _ => break,
            }
        }
        (table, level)
    }

    /// Adds up what filling `span` below `table` costs; no table is one that the commit will have made, where every slot is unused.
    fn plan_fill(
        &self,
        fill: &Fill,
        table: Option<Frame>,
        level: Level,
        span: VirtSpan,
        cost: &mut Cost,
    ) -> Result<(), Error> {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            if let Some(run) = fill.run(level, virt, span) {
                if let Some(table) = table {
                    let _seen = self.plan_run(Slot::new(table, level, virt), run.count)?;
                }
                cost.stores += run.count;
                virt = run.end_exclusive;
                continue;
            }
            let Some(next) = level.next().filter(|&next| fill.descends(next)) else { break };
            let (part, _) = piece(span, virt, level);
            virt = part.end_exclusive();
            match table.map(|table| Slot::new(table, level, part.start())).map(|slot| (slot, self.protocol.read(slot)))
            {
                None | Some((_, Entry::Unused)) => {
                    cost.stores += 1;
                    cost.frames += 1;
                    self.plan_fill(fill, None, next, part, cost)?;
                }
                Some((_, Entry::Table(child))) => self.plan_fill(fill, Some(child), next, part, cost)?,
                Some((slot, entry)) => return Err(Error::Occupied { slot, descriptor: entry.encode(level) }),
            }
        }
        Ok(())
    }

    fn plan_run(&self, first: Slot, count: u64) -> Result<UnusedSlots, Error> {
        self.protocol.unused_run(first, count).map_err(|slot| {
            let descriptor = self.protocol.read(slot).encode(slot.level());
            Error::Occupied { slot, descriptor }
        })
    }

    /// Does what the plan saw. A new table is filled before it is linked.
    fn commit_fill(&mut self, fill: &Fill, place: Place<'_>, level: Level, span: VirtSpan, filled: &mut Filled<S>) {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            if let Some(run) = fill.run(level, virt, span) {
                let slots = self.unused(place, level, run.first, run.count);
                self.protocol.fill(slots, run.leaf, filled);
                virt = run.end_exclusive;
                continue;
            }
            let Some(next) = level.next().filter(|&next| fill.descends(next)) else { break };
            let (part, _) = piece(span, virt, level);
            virt = part.end_exclusive();
            match self.linked_child(place, level, part.start()) {
                Some(child) => self.commit_fill(fill, Place::Linked(child), next, part, filled),
                None => self.commit_child(fill, place, level, next, part, filled),
            }
        }
    }

    /// Makes the table of `next` that the slot of `place` for `span` lacks, fills it while nothing can walk it, and links it.
    fn commit_child(
        &mut self,
        fill: &Fill,
        place: Place<'_>,
        level: Level,
        next: Level,
        span: VirtSpan,
        filled: &mut Filled<S>,
    ) {
        let frame = self.frames.take().expect("the plan made sure of every frame");
        let child = self.protocol.new_table(frame, next, span.start());
        self.commit_fill(fill, Place::Fresh(&child), next, span, filled);
        let slot = self.unused(place, level, span.start(), 1);
        match place {
            // Tables that nothing walks owe no barrier either way.
            Place::Fresh(parent) if S::WALKED => self.protocol.link_unreached(parent, slot, child),
            _ => self.protocol.link(slot, child, filled),
        }
    }

    fn linked_child(&self, place: Place<'_>, level: Level, virt: VirtAddr) -> Option<Frame> {
        match place {
            Place::Fresh(_) => None,
            Place::Linked(table) => self.protocol.child(Slot::new(table, level, virt)),
        }
    }

    fn unused(&self, place: Place<'_>, level: Level, virt: VirtAddr, count: u64) -> UnusedSlots {
        let first = place.slot(level, virt);
        match place {
            Place::Fresh(table) => table.unused_run(first, count),
            Place::Linked(_) => {
                self.protocol.unused_run(first, count).expect("the plan saw that these slots are unused")
            }
        }
    }
}
