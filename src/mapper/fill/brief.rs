//! The commonest fill, briefly: pages of one table that exists, in tables that a walk may read.
//!
//! What must hold: the same stores and the same maintenance as the long way, and never a refusal: where anything is less plain, the request goes
//! the long way, which knows what to say.

#![forbid(unsafe_code)]

use crate::addr::Level;
use crate::bbm::{Filled, Geo, State};
use crate::descriptor::{Entry, Leaf};
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;
use crate::mapper::{Cost, Mapper, Request};

impl<M: Machine, S: State> Mapper<'_, M, S> {
    /// [`Self::map`], if it is as plain as that.
    #[inline(always)]
    pub(super) fn map_briefly(&mut self, request: &Request) -> Option<Cost> {
        let Request { virt, output, attributes, largest, contiguous } = *request;
        let is_brief = S::WALKED && !contiguous && virt.bytes() < Geo::<M>::slot_bytes(Level::L2);
        if !is_brief || self.check_span(virt).is_err() {
            return None;
        }
        let outputs = self.check_output(virt, output).ok()?;
        let first = self.page_slot(request, largest.max(Geo::<M>::LARGEST))?;
        let leaf = Leaf::new_in::<Geo<M>>(Level::L3, output, attributes)?;
        let count = virt.bytes() >> Geo::<M>::PAGE_SHIFT;
        if self.check_attributes(virt, attributes).is_err() || self.check_alias(virt, outputs, attributes).is_err() {
            return None;
        }
        if self.protocol.first_used(first, 0, count).is_some() {
            return None;
        }
        let slots = self.protocol.seen_unused(self.tables, first, count);
        self.protocol.aliases_mut().note(outputs, attributes.rights());
        let mut filled = Filled::<S>::none();
        self.protocol.fill(slots, leaf, &mut filled);
        self.protocol.complete(filled);
        self.protocol.claim_settled();
        Some(Cost { stores: count, dsbs: 1, isbs: 1, ..Cost::default() })
    }

    /// The slot of the first page of a request that lies in one table of level 3, unless a leaf of at most `largest` would hold all of it.
    #[inline(always)]
    fn page_slot(&self, request: &Request, largest: Level) -> Option<Slot> {
        let (start, last) = (request.virt.start().raw(), request.virt.end_exclusive().raw() - 1);
        let (mut table, mut level) = (self.tables.root(), Geo::<M>::ROOT);
        while level != Level::L3 {
            let raw = self.protocol.raw(Geo::<M>::slot(table, level, request.virt.start()));
            let shift = Geo::<M>::shift(level);
            let fits = level >= largest && request.virt.bytes() >> shift != 0;
            if fits || (start ^ last) >> shift != 0 {
                return None;
            }
            (table, level) = (Entry::table_in::<Geo<M>>(raw, level)?, level.next()?);
        }
        Some(Geo::<M>::slot(table, Level::L3, request.virt.start()))
    }
}
