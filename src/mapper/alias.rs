//! W^X by physical address: what may be written through one address is not executed through another.
//!
//! Why there is a way out: a hypervisor patches its own text, and does it while no CPU executes what it patches. It
//! declares so: within one span, and for those frames alone, a right to write is granted. It ends by
//! [`Mapper::close_alias`], which finds nothing of it left. The audit knows of no declared alias: it complains of one
//! as of any other.

#![forbid(unsafe_code)]

use super::{Error, Mapper};
use crate::addr::{Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use crate::bbm::{Geo, OpenAlias};
use crate::descriptor::{Attributes, Entry, Leaf, Rights};
use crate::frames::Supply;
use crate::geometry::{Geometry, Slot};
use crate::machine::Machine;

/// What another mapping may not be.
struct Wanted {
    frames: PhysSpan,
    /// The right that it must not have; with none, it must not be.
    opposite: Rights,
    /// What the request replaces: mappings there go, or become the same.
    except: VirtSpan,
    /// The only place to look at.
    within: VirtSpan,
}

impl<M: Machine, S, F: Supply<M>> Mapper<'_, M, S, F> {
    /// Refuses to give `virt`, which maps `frames`, attributes that make one of them both writable and executable.
    #[inline(always)]
    pub(super) fn check_alias(&self, virt: VirtSpan, frames: PhysSpan, attributes: Attributes) -> Result<(), Error> {
        if !self.protocol.aliases().may_conflict(frames, attributes.rights()) {
            return Ok(());
        }
        self.look_for_alias(virt, frames, attributes)
    }

    #[inline(never)]
    fn look_for_alias(&self, virt: VirtSpan, frames: PhysSpan, attributes: Attributes) -> Result<(), Error> {
        let executes = attributes.rights().contains(Rights::EXECUTE);
        if !executes && self.protocol.aliases().is_declared(frames, virt) {
            return Ok(());
        }
        let opposite = if executes { Rights::WRITE } else { Rights::EXECUTE };
        let mut places = self.protocol.aliases().opposite(frames, attributes.rights());
        let found = places.find_map(|within| {
            let wanted = Wanted { frames, opposite, except: virt, within };
            self.find_alias(&wanted, self.root_slot(VirtAddr::at(0)))
        });
        match found {
            None => Ok(()),
            Some((slot, frames)) => {
                Err(Error::Aliased { virt, frames, slot, descriptor: self.protocol.raw(slot), attributes })
            }
        }
    }

    /// Declares that `virt` is about to map `frames`, or some of them, to be written, although they are executed
    /// through other addresses. Nobody executes them meanwhile, which is the caller's to see to. Requests beyond
    /// `virt`, or for other frames, are refused as before, and so are those to execute `frames` anew.
    ///
    /// # Errors
    /// [`Error::AliasOpen`] while another is open; and those of a span, or an output address, that is none.
    pub fn open_alias(&mut self, virt: VirtSpan, frames: PhysSpan) -> Result<OpenAlias<M>, Error> {
        self.check_span(virt)?;
        let is_whole = !frames.is_empty() && frames.bytes().is_multiple_of(Geo::<M>::PAGE_BYTES);
        if !is_whole || !frames.start().is_aligned(Geo::<M>::PAGE_BYTES) {
            return Err(Error::Misaligned { virt, output: Some(frames.start()) });
        }
        if let Some((virt, frames)) = self.protocol.aliases().declared() {
            return Err(Error::AliasOpen { virt, frames, mapped: None });
        }
        self.protocol.aliases_mut().declare(Some((virt, frames)));
        Ok(OpenAlias::of(virt, frames))
    }

    /// Ends what was declared: nothing of it is mapped any more.
    ///
    /// # Errors
    /// The alias, which stays open, and [`Error::AliasOpen`] with the slot that maps it.
    ///
    /// # Panics
    /// When the protocol has declared no such alias.
    pub fn close_alias(&mut self, alias: OpenAlias<M>) -> Result<(), (OpenAlias<M>, Error)> {
        let (virt, frames) = (alias.virt(), alias.frames());
        assert!(self.protocol.aliases().declared() == Some((virt, frames)), "an alias is closed where it was declared");
        let wanted = Wanted { frames, opposite: Rights::empty(), except: VirtSpan::EMPTY, within: virt };
        if let Some((slot, _)) = self.find_alias(&wanted, self.root_slot(VirtAddr::at(0))) {
            let mapped = Some((slot, self.protocol.raw(slot)));
            return Err((alias, Error::AliasOpen { virt, frames, mapped }));
        }
        self.protocol.aliases_mut().declare(None);
        alias.settle();
        Ok(())
    }

    /// The first leaf outside of `except` that maps one of `frames`, and which of them.
    #[must_use]
    pub fn maps(&self, frames: PhysSpan, except: VirtSpan) -> Option<(Slot, PhysSpan)> {
        let within = VirtSpan::of(VirtAddr::at(0), 1 << Geo::<M>::INPUT_BITS)?;
        let wanted = Wanted { frames, opposite: Rights::empty(), except, within };
        self.find_alias(&wanted, self.root_slot(VirtAddr::at(0)))
    }

    /// The first leaf of the subtree that is what it must not be, and the frames that it shares.
    fn find_alias(&self, wanted: &Wanted, first: Slot) -> Option<(Slot, PhysSpan)> {
        let (mut index, end) = wanted.slots_of(first);
        while let Some(used) = self.protocol.first_used(first, index, end) {
            let slot = first.step(used);
            index = used + 1;
            if wanted.except.covers(slot.span()) {
                continue;
            }
            let raw = self.protocol.raw(slot);
            // Most leaves map something else, which their address alone tells.
            if first.level() == Level::L3 && !wanted.meets(Geo::<M>::decode_output(raw), slot) {
                continue;
            }
            let found = match Entry::decode_in::<Geo<M>>(raw, slot.level()) {
                Entry::Table { frame, .. } => {
                    slot.below(frame, slot.virt()).and_then(|below| self.find_alias(wanted, below))
                }
                Entry::Leaf(leaf) => wanted.shared(slot, leaf).map(|frames| (slot, frames)),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Wanted {
    /// Which slots of the table of slot `first` translate some of where to look, counted from there.
    fn slots_of(&self, first: Slot) -> (u64, u64) {
        let base = first.virt().raw();
        let ahead = |at: VirtAddr| at.raw().saturating_sub(base);
        let from = ahead(self.within.start()) >> first.shift();
        let end = ahead(self.within.end_exclusive()).div_ceil(first.bytes()).min(first.slots());
        (from, end)
    }

    /// Whether a page at `output`, in `slot`, is one of the frames.
    #[inline(always)]
    fn meets(&self, output: u64, slot: Slot) -> bool {
        output < self.frames.end_exclusive().raw() && self.frames.start().raw() < output + slot.bytes()
    }

    /// The frames that `leaf` shares, of its part where to look and outside of what the request replaces.
    fn shared(&self, slot: Slot, leaf: Leaf) -> Option<PhysSpan> {
        if !leaf.attributes().rights().contains(self.opposite) {
            return None;
        }
        let own = slot.span().intersection(self.within)?;
        let inside = own.intersection(self.except);
        let before = VirtSpan::new(own.start(), inside.map_or(own.end_exclusive(), VirtSpan::start));
        let after = inside.and_then(|inside| VirtSpan::new(inside.end_exclusive(), own.end_exclusive()));
        [before, after].into_iter().flatten().find_map(|part| {
            let ahead = part.start().raw() - slot.virt().raw();
            let output = PhysSpan::of(PhysAddr::at(leaf.output().raw() + ahead), part.bytes())?;
            output.intersection(self.frames)
        })
    }
}
