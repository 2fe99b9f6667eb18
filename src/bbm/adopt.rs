//! Tables that somebody else made, adopted: from here on they are edited as if this protocol had made them.
//!
//! Why it exists: a hypervisor that hands over its page tables late has some in force already. What this core never
//! writes it never changes either ([`crate::change::Why::Foreign`]), so each such descriptor would be in its way for
//! ever, and it would be found one refused request at a time.
//!
//! What must hold: adoption looks at everything before it stores anything. A descriptor that says what one of ours
//! says, but for bits that the architecture ignores at EL2, is named, or made ours by one store in place; that changes
//! no translation (RWHZWS does not list it), and one invalidation of everything leaves no TLB with an entry of before.
//!
//! What it refuses, naming slot, descriptor and bits: see [`Oddity`]. To change any of that is no mending: it takes a
//! break, which whoever made the tables knows how to survive.

use super::invalidate::Everything;
use super::{Geo, Live, Protocol, Tables};
use crate::addr::{Frame, PhysSpan, VirtAddr};
use crate::descriptor::{Entry, Leaf};
use crate::geometry::{Geometry, Slot};
use crate::machine::{Machine, Simulated};
use core::fmt;

/// What becomes of bits that mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    /// The tables are not adopted.
    Refuse,
    /// They are stored as this core writes them.
    Mend,
}

/// What was adopted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Adopted {
    /// Tables, the root included.
    pub tables: u64,
    /// Blocks and pages.
    pub leaves: u64,
    /// Descriptors that were mended.
    pub mended: u64,
}

/// Why tables were not adopted. They are as before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// The first slot that stands in the way.
    pub slot: Slot,
    /// What it holds.
    pub descriptor: u64,
    /// What is wrong with it.
    pub why: Oddity,
}

/// What is odd about a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// Bits that the architecture ignores here are not as this core writes them: nG, NS, bit 53 and software's bits of
    /// a leaf; those and bits 11:2 of a table.
    Ignored(u64),
    /// Bits that mean something are not as this core writes them: shareability, AF, hierarchical rights, DBM, PBHA.
    Meant(u64),
    /// It maps, but by no leaf of this core: writable and executable, a memory type of another MAIR, or off its size.
    NoLeaf,
    /// Bit 0 is clear, and others are not.
    Broken,
    /// It says that it is one of a contiguous run, and there is no such run.
    TornRun,
    /// It leads to a table to which another way led.
    TableTwice,
    /// There are more tables than there was room to remember.
    TooManyTables,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, descriptor, why } = self;
        write!(f, "{slot} holds {descriptor:#x}: ")?;
        match why {
            Oddity::Ignored(bits) => write!(f, "bits {bits:#x} mean nothing, and are never written"),
            Oddity::Meant(bits) => write!(f, "bits {bits:#x} are never written so"),
            Oddity::NoLeaf => f.write_str("no leaf that is ever written"),
            Oddity::Broken => f.write_str("bit 0 is clear, others are not"),
            Oddity::TornRun => f.write_str("there is no such contiguous run"),
            Oddity::TableTwice => f.write_str("a table that another way leads to"),
            Oddity::TooManyTables => f.write_str("more tables than there is room for"),
        }
    }
}

impl core::error::Error for Foreign {}

/// The tables on all ways so far.
struct Seen<'s> {
    room: &'s mut [Option<Frame>],
    count: usize,
}

impl Seen<'_> {
    fn note(&mut self, table: Frame) -> Result<(), Oddity> {
        if self.room.iter().take(self.count).any(|seen| *seen == Some(table)) {
            return Err(Oddity::TableTwice);
        }
        *self.room.get_mut(self.count).ok_or(Oddity::TooManyTables)? = Some(table);
        self.count += 1;
        Ok(())
    }
}

impl<M: Simulated> Protocol<M> {
    /// [`Self::adopt`] of tables in a memory that is simulated: nobody else can be in the way.
    ///
    /// # Errors
    /// As for [`Self::adopt`].
    pub fn adopt_simulated(
        &mut self,
        root: Frame,
        ignored: Ignored,
        room: &mut [Option<Frame>],
    ) -> Result<(Tables<M, Live>, Adopted), Foreign> {
        self.adopt_tables(root, ignored, room)
    }
}

impl<M: Machine> Protocol<M> {
    /// Adopts the tables under `root`, which are in force. `room` holds one entry for each of them.
    ///
    /// # Errors
    /// [`Foreign`], with the tables as before.
    ///
    /// # Safety
    /// The tables are of this machine's geometry, translate its EL2 in Non-secure state with
    /// [`crate::descriptor::MAIR`], and nobody else edits them from here on. Their frames belong to them alone, as if
    /// they had been made of [`super::FreeFrame`]s: one that becomes empty goes to a supply. Nothing is owed for them:
    /// each earlier change is invalidated. The protocol knows of every PE that uses them ([`Self::share`]).
    #[expect(unsafe_code, reason = "whose frames tables lie in is a fact of the machine, which no type can check")]
    pub unsafe fn adopt(
        &mut self,
        root: Frame,
        ignored: Ignored,
        room: &mut [Option<Frame>],
    ) -> Result<(Tables<M, Live>, Adopted), Foreign> {
        self.adopt_tables(root, ignored, room)
    }

    fn adopt_tables(
        &mut self,
        root: Frame,
        ignored: Ignored,
        room: &mut [Option<Frame>],
    ) -> Result<(Tables<M, Live>, Adopted), Foreign> {
        let first = Geo::<M>::slot(root, Geo::<M>::ROOT, VirtAddr::at(0));
        let (mut seen, mut adopted) = (Seen { room, count: 0 }, Adopted::default());
        self.look_through(first, first, ignored, &mut seen, &mut adopted)?;
        self.take_over(first);
        if adopted.mended > 0 {
            self.invalidate_owed(Everything);
        }
        Ok((Tables::in_force(first), adopted))
    }

    /// Refuses the table of slot `zero`, to which `by` leads, and those below it, if anything in them cannot be
    /// adopted.
    fn look_through(
        &self,
        zero: Slot,
        by: Slot,
        ignored: Ignored,
        seen: &mut Seen<'_>,
        adopted: &mut Adopted,
    ) -> Result<(), Foreign> {
        let foreign = |slot: Slot, why| Foreign { slot, descriptor: self.raw(slot), why };
        seen.note(zero.table()).map_err(|why| foreign(by, why))?;
        adopted.tables += 1;
        let mut at = 0;
        while let Some(used) = self.first_used(zero, at, zero.slots()) {
            let slot = zero.step(used);
            at = used + 1;
            let odd = match self.oddity(slot) {
                None => None,
                Some(Oddity::Ignored(_) | Oddity::Broken) if ignored == Ignored::Mend => Some(()),
                Some(why) => return Err(foreign(slot, why)),
            };
            adopted.mended += u64::from(odd.is_some());
            match self.nearest(slot) {
                Some((Entry::Table { frame, .. }, _)) => {
                    if let Some(below) = slot.below(frame, slot.virt()) {
                        self.look_through(below, slot, ignored, seen, adopted)?;
                    }
                }
                Some((Entry::Leaf(_), _)) => adopted.leaves += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// What is odd about `slot`, which is used.
    fn oddity(&self, slot: Slot) -> Option<Oddity> {
        if self.raw(slot) & 1 == 0 {
            return Some(Oddity::Broken);
        }
        let Some((entry, odd)) = self.nearest(slot) else { return Some(Oddity::NoLeaf) };
        let meant = odd & !entry.ignored_bits();
        match entry {
            _ if meant != 0 => Some(Oddity::Meant(meant)),
            Entry::Leaf(leaf) if leaf.contiguous() && !self.is_of_run(slot, leaf) => Some(Oddity::TornRun),
            _ => (odd != 0).then_some(Oddity::Ignored(odd)),
        }
    }

    /// The entry of ours that a valid slot comes nearest to, and the bits in which it differs.
    fn nearest(&self, slot: Slot) -> Option<(Entry, u64)> {
        Entry::nearest_in::<Geo<M>>(self.raw(slot), slot.level()).filter(|_| self.raw(slot) & 1 != 0)
    }

    /// Whether the contiguous `leaf` in `slot` is one of a whole run.
    fn is_of_run(&self, slot: Slot, leaf: Leaf) -> bool {
        let (run, bytes) = (slot.run_slots(), slot.bytes());
        let own = slot.index() as u64 % run;
        let Some(start) = leaf.output().raw().checked_sub(own * bytes) else { return false };
        let base = slot.first().step(slot.index() as u64 - own);
        let is_member = |index: u64| match self.nearest(base.step(index)) {
            Some((Entry::Leaf(other), _)) => {
                let beside = (other.attributes(), other.contiguous()) == (leaf.attributes(), true);
                beside && other.output().raw() == start + index * bytes
            }
            _ => false,
        };
        start.is_multiple_of(run * bytes) && (0..run).all(is_member)
    }

    /// Mends what is odd in the table of slot `zero` and those below it, and notes what they map.
    fn take_over(&mut self, zero: Slot) {
        let mut at = 0;
        while let Some(used) = self.first_used(zero, at, zero.slots()) {
            let slot = zero.step(used);
            at = used + 1;
            let Some((entry, odd)) = self.nearest(slot) else {
                self.store(slot, 0);
                continue;
            };
            if odd != 0 {
                self.store(slot, entry.encode_in::<Geo<M>>(slot.level()));
            }
            match entry {
                Entry::Table { frame, .. } => {
                    if let Some(below) = slot.below(frame, slot.virt()) {
                        self.take_over(below);
                    }
                }
                Entry::Leaf(leaf) => {
                    if let Some(frames) = PhysSpan::of(leaf.output(), slot.bytes()) {
                        self.aliases.note(frames, slot.span(), leaf.attributes().rights());
                    }
                }
                _ => {}
            }
        }
    }
}
