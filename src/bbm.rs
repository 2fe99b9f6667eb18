//! The protocol as types: break, invalidate, make, in that order, or it does not compile.
//!
//! Why it exists: Xen 4.11 broke boards because a live descriptor was replaced without break-before-make. Here a store to a table goes
//! through [`Protocol`] alone, and each kind of store leaves the caller holding what is still owed:
//!
//! | token | what was done | what is owed |
//! |---|---|---|
//! | [`Filled`] | unused slots became valid | DSB, ISB |
//! | [`Laid`] | tables stand ready in slots without bit 0 | DSB, and then the links |
//! | [`Changed`] | leaves changed in place | DSB, TLBI, DSB, ISB |
//! | [`Broken`] | valid slots lost bit 0 | DSB, TLBI, DSB, ISB; only then make or reclaim |
//! | [`Detached`] | tables no longer linked | the same, before their frames are anyone's |
//!
//! A token that is dropped panics, naming the promise: nothing is forgotten by returning early. A token stands for any number of slots:
//! a request has one of each kind, and one invalidation.
//!
//! A store goes to a [`Place`], a slot to which a walk of the tables has led, or to a [`FreshTable`]. A place borrows the tables: who takes a
//! table away takes them for itself, and no place in it is left. A table is made of a [`FreeFrame`], which the supply has given out and no one
//! else has. A [`Slot`] and a [`Frame`] are names; by themselves they allow nothing.
//!
//! What must hold: a slot is made only on a proof that nothing translates through it: it reads as never used ([`UnusedSlots`]), or a
//! completed invalidation covered it ([`Invalidated`]). A broken slot remembers meanwhile, with bit 0 clear, what was there or what comes,
//! so that a request needs no list of what it does.

mod adopt;
mod fill;
mod free;
mod invalidate;
mod live;
mod pending;
mod tables;
mod tokens;

pub use adopt::{Adopted, Foreign, Ignored, Oddity};
pub use free::{FreeFrame, OwnedRam};
pub use live::{After, Settling};
pub(crate) use pending::Pending;
pub use tables::{FreeTables, FreshTable, Live, Offline, Place, State, Tables};
pub use tokens::{
    Broken, Changed, Detached, Filled, Invalidated, Laid, OpenAlias, Published, Released, Resize, UnusedSlots,
};

pub use crate::machine::{Permit, Reach};

use crate::addr::{Frame, Level, PhysAddr, VirtAddr};
use crate::aliases::Aliases;
use crate::descriptor::Entry;
use crate::errata::Errata;
use crate::features::{Features, OPTIONAL};
use crate::geometry::{Geometry, Slot};
use crate::machine::{Machine, Maintenance, Simulated};
use core::marker::PhantomData;

/// The geometry of a machine's tables.
pub(crate) type Geo<M> = <M as Machine>::Geometry;

/// What the protocol did to a machine, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Descriptors stored; zeroing a frame that nothing links to is not one, nor is the link of a list of free frames.
    pub stores: u32,
    /// Barriers and TLB maintenance.
    pub maintenance: Maintenance,
}

/// The only way to a table: a machine, how far its TLBs must be told, what its CPUs can do and what they get wrong.
#[derive(Debug)]
pub struct Protocol<M> {
    machine: M,
    permit: Permit,
    reach: Reach,
    errata: Errata,
    features: Features,
    output_bits: u8,
    /// Grows with each break: what an earlier invalidation proved, it does not prove of a later break.
    epoch: u64,
    /// Breaks that no invalidation has settled: while there are any, no slot that is broken is used again.
    breaks_owed: u64,
    counts: Counts,
    aliases: Aliases,
}

impl<M: Simulated> Protocol<M> {
    /// The protocol on a machine whose memory is simulated, for tables that only one PE has used, on CPUs with `errata`
    /// and none of the features that are optional.
    #[must_use]
    pub fn simulated(machine: M, errata: Errata) -> Self {
        Self::on(machine, errata)
    }
}

impl<M: Machine> Protocol<M> {
    /// The protocol on `machine`, for tables that only this PE has used, on CPUs with `errata` and none of the features
    /// that are optional. [`crate::bringup::Bringup`] makes one and keeps it to itself; this is for who brings a
    /// machine up in another way.
    ///
    /// # Safety
    /// It is the only one of `machine`, and comes into no hands but those of code that is trusted with all that the
    /// tables map: below the mapper nobody asks what a CPU or the manager itself stands on, nor where tokens come from
    /// that another protocol gave.
    #[must_use]
    #[expect(unsafe_code, reason = "what the tables of a machine hold up is more than this protocol knows")]
    pub unsafe fn new(machine: M, errata: Errata) -> Self {
        Self::on(machine, errata)
    }

    pub(crate) fn on(machine: M, errata: Errata) -> Self {
        let (counts, features) = (Counts::default(), Features::empty());
        let output_bits = Geo::<M>::OUTPUT_BITS as u8;
        let (permit, reach, aliases) = (Permit::for_the_protocol(), Reach::ThisPe, Aliases::none());
        Self { machine, permit, reach, errata, features, output_bits, epoch: 0, breaks_owed: 0, counts, aliases }
    }

    /// From here on other PEs may use the tables: invalidations are broadcast. `errata` are those of every PE that may.
    pub fn share(&mut self, errata: Errata) {
        self.reach = Reach::Domain;
        self.errata |= errata;
    }

    /// Notes what this PE gets wrong, once that is known.
    pub fn note_errata(&mut self, errata: Errata) {
        self.errata |= errata;
    }

    /// Uses, of `features`, those that are optional ([`OPTIONAL`]). Every PE that uses the tables must have them, and every one that comes later.
    pub fn use_features(&mut self, features: Features) {
        self.features = features & OPTIONAL;
    }

    /// Notes how many bits of an output address the CPUs have; those of the geometry until then.
    pub fn limit_output(&mut self, bits: u8) {
        self.output_bits = self.output_bits.min(bits);
    }

    /// Bits of an output address that every CPU has.
    #[must_use]
    pub fn output_bits(&self) -> u8 {
        self.output_bits
    }

    /// How far invalidations reach.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Errata of the CPUs that share the tables.
    #[must_use]
    pub fn errata(&self) -> Errata {
        self.errata
    }

    /// Optional features in use.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The evidence for changes of size in place, where there is some.
    #[must_use]
    pub fn resize(&self) -> Option<Resize> {
        let may = self.features.contains(Features::RESIZE) && !self.errata.contains(Errata::BBM_ALWAYS);
        may.then_some(Resize(()))
    }

    /// Which frames may be writable, or executable, through the tables.
    #[must_use]
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// The same, to note a mapping.
    pub(crate) fn aliases_mut(&mut self) -> &mut Aliases {
        &mut self.aliases
    }

    /// What was done since the protocol began.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The machine, to read.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for what is no table: it cannot store or invalidate without a [`Permit`].
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Reads a slot.
    #[must_use]
    pub fn read(&self, slot: Slot) -> Entry {
        Entry::decode_in::<Geo<M>>(self.machine.load(slot), slot.level())
    }

    /// Reads a slot as it stands.
    #[must_use]
    #[inline(always)]
    pub fn raw(&self, slot: Slot) -> u64 {
        self.machine.load(slot)
    }

    /// [`Machine::first_used`], of slots that may be none.
    #[must_use]
    #[inline(always)]
    pub(crate) fn first_used(&self, first: Slot, from: u64, to: u64) -> Option<u64> {
        let found = (from < to).then(|| self.machine.first_used(first.step(from), to - from)).flatten();
        found.map(|ahead| from + ahead)
    }

    /// How many slots from the one `from` behind `first` on, up to the one `to` behind it, read as `bits` where `mask` has ones.
    #[must_use]
    #[inline(always)]
    pub(crate) fn alike(&self, first: Slot, from: u64, to: u64, (mask, bits): (u64, u64)) -> u64 {
        if from < to { self.machine.alike(first.step(from), to - from, mask, bits) } else { 0 }
    }

    /// The table that a slot leads to, if it holds a table descriptor as the manager writes them.
    #[must_use]
    #[inline]
    pub fn child(&self, slot: Slot) -> Option<Frame> {
        Entry::table_in::<Geo<M>>(self.machine.load(slot), slot.level())
    }

    /// The slot of the table of `level` that a walk of `tables` for `virt` leads to, or none when the walk ends above.
    #[must_use]
    pub fn place<'t, S: State>(
        &self,
        tables: &'t Tables<M, S>,
        level: Level,
        virt: VirtAddr,
    ) -> Option<Place<'t, M, S>> {
        let slot = self.slot_at(tables, level, virt)?;
        Some(Place { slot, tables: PhantomData })
    }

    /// The same for a slot that a walk of `tables` has led to before: for the mapper, which has walked. A debug build walks again.
    #[must_use]
    #[inline(always)]
    pub(crate) fn vouch<'t, S>(&self, tables: &'t Tables<M, S>, slot: Slot) -> Place<'t, M, S> {
        debug_assert!(self.leads_to(tables, slot), "{slot} is none of these tables");
        Place { slot, tables: PhantomData }
    }

    /// The slot, which is about to lead nowhere, of live tables that the caller has for itself: no [`Place`] below it is left.
    ///
    /// # Panics
    /// When no walk of `tables` leads to it.
    fn last_place<'t>(&self, tables: &'t mut Tables<M, Live>, slot: Slot) -> Place<'t, M, Live> {
        assert!(self.leads_to(tables, slot), "{slot} is none of these tables");
        Place { slot, tables: PhantomData }
    }

    fn leads_to<S>(&self, tables: &Tables<M, S>, slot: Slot) -> bool {
        self.slot_at(tables, slot.level(), slot.virt()) == Some(slot)
    }

    /// The slot of the table of `level` on the walk for `virt`.
    fn slot_at<S>(&self, tables: &Tables<M, S>, level: Level, virt: VirtAddr) -> Option<Slot> {
        let mut slot = tables.slot(virt);
        while slot.level() < level {
            slot = slot.below(self.child(slot)?, virt)?;
        }
        (slot.level() == level && virt.raw() >> Geo::<M>::INPUT_BITS == 0).then_some(slot)
    }

    /// Zeroes `frame` and makes it a table of `level` for what `virt` lies in; nothing links to it yet.
    pub fn new_table(&mut self, frame: FreeFrame<M>, level: Level, virt: VirtAddr) -> FreshTable<M> {
        let frame = frame.frame();
        self.machine.zero_frame(&self.permit, frame);
        FreshTable::new(Geo::<M>::slot(frame, level, virt))
    }

    /// A root for these tables, in `frame`, which is zeroed.
    pub fn new_root(&mut self, frame: FreeFrame<M>) -> Tables<M, Offline> {
        Tables::new(self.new_table(frame, Geo::<M>::ROOT, VirtAddr::at(0)))
    }

    /// Zeroes the whole frames of `ram`: for data, not for tables.
    pub fn zero_frames(&mut self, ram: &OwnedRam<M>) {
        let whole = ram.whole_frames();
        let count = whole.bytes() >> Geo::<M>::PAGE_SHIFT;
        self.machine.zero_frames(&self.permit, Frame::containing(whole.start()), count);
    }

    /// Takes the free frame that came last: to be a table again, or for any other use. Its contents are unknown.
    pub fn take_free(&mut self, free: &mut FreeTables<M>) -> Option<FreeFrame<M>> {
        let frame = free.head?;
        let link = self.machine.load(first_word::<M>(frame));
        free.count -= 1;
        // What is in the list was put there by `push_free`, and nobody else has the frame.
        free.head = (free.count > 0).then(|| Frame::containing(PhysAddr::at(link)));
        Some(FreeFrame::new(frame))
    }

    /// The frames of `free` in the order in which [`Self::take_free`] takes them.
    pub(crate) fn upcoming_free(&self, free: &FreeTables<M>) -> impl Iterator<Item = Frame> + '_ {
        let next = |frame: &Frame| Some(Frame::containing(PhysAddr::at(self.machine.load(first_word::<M>(*frame)))));
        core::iter::successors(free.head, next).take(free.count as usize)
    }

    /// Adds a frame to those that are free.
    pub fn add_free(&mut self, frame: FreeFrame<M>, free: &mut FreeTables<M>) {
        self.push_free(frame.frame(), free);
    }

    /// Frees the frame of a former table.
    fn put_free(&mut self, frame: Frame, free: &mut FreeTables<M>) {
        self.machine.released(frame);
        self.push_free(frame, free);
    }

    fn push_free(&mut self, frame: Frame, free: &mut FreeTables<M>) {
        let link = free.head.map_or(0, |next| next.start().raw());
        self.machine.store(&self.permit, first_word::<M>(frame), link);
        free.head = Some(frame);
        free.count += 1;
    }

    /// A request has returned: nothing is owed.
    #[inline(always)]
    pub(crate) fn claim_settled(&mut self) {
        self.machine.settled();
    }

    /// Puts `next` in force instead of the tables whose frames `old` holds, with the MMU off in between. The frames come back released: the
    /// switch invalidates everything, on the only PE that has used them.
    ///
    /// # Panics
    /// When other PEs use the old tables.
    pub fn switch_root(&mut self, next: Tables<M, Offline>, old: Detached) -> (Tables<M, Live>, Released<M>) {
        assert!(self.reach == Reach::ThisPe, "a root is switched while one PE uses the tables");
        assert!(next.level() == Geo::<M>::ROOT, "a root is a table of the level at which walks begin");
        let done = self.machine.switch_root(&self.permit, next.root());
        let sum = &mut self.counts.maintenance;
        sum.tlbis += done.tlbis;
        sum.dsbs += done.dsbs;
        sum.isbs += done.isbs;
        (next.into_live(), old.settle())
    }

    #[inline]
    fn store(&mut self, slot: Slot, raw: u64) {
        self.counts.stores += 1;
        self.machine.store(&self.permit, slot, raw);
    }
}

/// Where a free frame keeps the link to the next.
fn first_word<M: Machine>(frame: Frame) -> Slot {
    Geo::<M>::slot(frame, Level::L3, VirtAddr::at(0))
}
