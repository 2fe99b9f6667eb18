//! The commit of a fill: new tables are filled while nothing can walk them, and linked once their contents are visible.

#![forbid(unsafe_code)]

use super::{Doing, Fill, Place, Run};
use crate::addr::{Frame, Level, VirtAddr, VirtSpan};
use crate::bbm::{Filled, Geo, Laid, State};
use crate::descriptor::{Entry, Waiting};
use crate::geometry::Geometry;
use crate::machine::Machine;
use crate::mapper::{Mapper, piece};

impl<M: Machine, S: State> Mapper<'_, M, S> {
    /// Does what the plan saw. A new table is filled before it is linked.
    pub(super) fn commit_fill(
        &mut self,
        fill: &Fill,
        place: Place<'_>,
        level: Level,
        span: VirtSpan,
        doing: &mut Doing<S>,
    ) {
        let mut virt = span.start();
        while virt < span.end_exclusive() {
            if let Some(run) = fill.run::<Geo<M>>(level, virt, span) {
                self.commit_run(place, level, run, &mut doing.filled);
                virt = run.end_exclusive;
                continue;
            }
            let Some(next) = level.next().filter(|&next| fill.descends(next)) else { break };
            let part = piece(span, virt, Geo::<M>::slot(self.tables.root(), level, virt));
            virt = part.end_exclusive();
            match self.linked_child(fill, place, level, part.start()) {
                Some(child) => self.commit_fill(fill, Place::Linked(child), next, part, doing),
                None => self.commit_child(fill, place, level, next, part, doing),
            }
        }
    }

    fn commit_run(&mut self, place: Place<'_>, level: Level, run: Run, filled: &mut Filled<S>) {
        match place {
            Place::Fresh(table) => {
                self.protocol.fill_fresh(table, run.first, run.count, run.leaf);
            }
            Place::Linked(table) => {
                let first = Geo::<M>::slot(table, level, run.first);
                let slots = self.protocol.seen_unused(self.tables, first, run.count);
                self.protocol.fill(slots, run.leaf, filled);
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
        doing: &mut Doing<S>,
    ) {
        let frame = self.take_frame();
        let child = self.protocol.new_table(frame, next, span.start());
        let frame = child.frame();
        if next == fill.deepest {
            self.last = Some((Geo::<M>::slot(frame, level, span.start()).span(), frame, next));
        }
        match fill.all_of_table::<Geo<M>>(next, span) {
            Some(Some(run)) => self.commit_run(Place::Fresh(&child), next, run, &mut doing.filled),
            Some(None) => {}
            None => self.commit_fill(fill, Place::Fresh(&child), next, span, doing),
        }
        let kept = fill.keeps(next);
        match place {
            Place::Fresh(parent) => {
                self.protocol.link_fresh(parent, child, kept);
            }
            Place::Linked(table) => {
                let slot = self.protocol.seen_unused(self.tables, Geo::<M>::slot(table, level, span.start()), 1);
                match &mut doing.laid {
                    Some(laid) => self.protocol.lay(slot, child, kept, laid),
                    None => self.protocol.link(slot, child, kept, &mut doing.filled),
                }
            }
        }
    }

    fn linked_child(&mut self, fill: &Fill, place: Place<'_>, level: Level, virt: VirtAddr) -> Option<Frame> {
        let Place::Linked(table) = place else { return None };
        let slot = Geo::<M>::slot(table, level, virt);
        let raw = self.protocol.raw(slot);
        let child = Entry::table_in::<Geo<M>>(raw, level);
        if child.is_some() && !Entry::keeps(raw) && level.next().is_some_and(|next| fill.keeps(next)) {
            self.protocol.keep(self.protocol.vouch(self.tables, slot));
        }
        child
    }

    /// Links the tables that were laid ready in `span`, after one DSB for all.
    pub(super) fn link_all(&mut self, laid: Laid, span: VirtSpan, filled: &mut Filled<S>) {
        let mut published = self.protocol.publish(laid);
        self.each_run_of_slots(span, |mapper, first, count| {
            for slot in (0..count).map(|index| first.step(index)) {
                if Waiting::read(mapper.protocol.raw(slot)).is_some() {
                    mapper.protocol.link_laid(mapper.protocol.vouch(mapper.tables, slot), &mut published, filled);
                }
            }
        });
        published.done();
    }
}
