//! The seam between the manager and the machine: memory that holds tables, barriers, TLB maintenance.
//!
//! Why it exists: everything above this file is the same code on the target, in host tests and under the model. The target's
//! implementation is `el2`, one instruction a function; a host's may be a map that remembers every step.
//!
//! What must hold: [`Machine::store`], [`Machine::zero_frame`] and [`Machine::tlbi`] take a [`Permit`], which only `bbm` can make: no
//! other module can touch a table or drop an invalidation.

#![forbid(unsafe_code)]

use crate::addr::{Frame, Level, PAGE_SHIFT, PhysAddr, SLOTS, VirtAddr};
use crate::bbm::Permit;
use core::fmt;

/// A slot of a table: where a descriptor lives and which input address it translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    table: Frame,
    level: Level,
    index: u16,
    virt: u64,
}

impl Slot {
    /// The slot of `table`, a table of `level`, that translates `virt`.
    #[must_use]
    pub const fn new(table: Frame, level: Level, virt: VirtAddr) -> Self {
        Self { table, level, index: virt.slot(level) as u16, virt: virt.align_down(level.slot_bytes()).raw() }
    }

    /// The table's frame.
    #[must_use]
    pub const fn table(self) -> Frame {
        self.table
    }

    /// The table's level.
    #[must_use]
    pub const fn level(self) -> Level {
        self.level
    }

    /// The first byte that the slot translates.
    #[must_use]
    pub const fn virt(self) -> VirtAddr {
        VirtAddr::at(self.virt)
    }

    /// Where the descriptor stands in its table, 0 to 511.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The slot `count` further on in the same table.
    ///
    /// # Panics
    /// In a debug build, when the table ends before.
    #[must_use]
    #[inline(always)]
    pub const fn step(self, count: u64) -> Self {
        debug_assert!(self.index as u64 + count < SLOTS as u64);
        Self { index: self.index + count as u16, virt: self.virt + (count << self.level.shift()), ..self }
    }

    /// The descriptor's physical address.
    #[must_use]
    pub const fn address(self) -> PhysAddr {
        // Within a frame, so it cannot pass 2^48.
        PhysAddr::at(self.table.start().raw() + 8 * self.index as u64)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} slot {} of table {} (va {})", self.level, self.index, self.table.start(), self.virt())
    }
}

/// A TLB maintenance instruction of the EL2 regime. Only leaves are ever broken, so the forms by address are those of the last level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// ALLE2: everything of EL2, on this PE.
    All,
    /// ALLE2IS: everything of EL2, on every PE of the Inner Shareable domain.
    AllBroadcast,
    /// VALE2: the last level of the walk of one address, on this PE.
    LeafVa(VaOperand),
    /// VALE2IS: the same by broadcast.
    LeafVaBroadcast(VaOperand),
}

impl Tlbi {
    /// Whether other PEs do it too.
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        matches!(self, Self::AllBroadcast | Self::LeafVaBroadcast(_))
    }
}

/// The operand of a TLBI by VA: VA\[55:12\] in bits 43:0, TTL 0 (any level) in 47:44, 63:48 RES0 (arm-rules: RSQXYZ, RXKMMX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VaOperand(u64);

impl VaOperand {
    /// The operand for the page that holds `virt`. At most 36 bits of it are set, so nothing can land in TTL.
    #[must_use]
    pub const fn new(virt: VirtAddr) -> Self {
        Self(virt.raw() >> PAGE_SHIFT)
    }

    /// The register's value.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// What the manager needs of a machine. Scopes are the Inner Shareable domain unless a name says otherwise.
pub trait Machine {
    /// Reads the descriptor at `slot`, in one 64-bit access.
    fn load(&self, slot: Slot) -> u64;

    /// Writes the descriptor at `slot`, in one 64-bit access.
    fn store(&mut self, permit: &Permit, slot: Slot, descriptor: u64);

    /// Zeroes a frame that no table links to.
    fn zero_frame(&mut self, permit: &Permit, frame: Frame);

    /// DSB ISHST: stores before are visible to every walk of the domain.
    fn dsb_ishst(&mut self);

    /// DSB ISH: the same for loads and stores, and broadcast TLBIs before are complete.
    fn dsb_ish(&mut self);

    /// DSB NSH: local TLBIs before are complete.
    fn dsb_nsh(&mut self);

    /// ISB: what follows is fetched and translated anew.
    fn isb(&mut self);

    /// One TLB maintenance instruction.
    fn tlbi(&mut self, permit: &Permit, operation: Tlbi);

    /// Puts `root` in force with the MMU off in between (arm-rules.md, Root switch), invalidating everything on this PE, and says what
    /// that took. Only while this PE is the only one that uses the tables.
    fn switch_root(&mut self, permit: &Permit, root: Frame) -> Maintenance;

    /// A request has returned: the manager claims that nothing is owed. No instruction; a machine that judges holds it to the claim.
    #[inline(always)]
    fn settled(&mut self) {}
}

/// Maintenance that was done, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Maintenance {
    /// TLBI instructions.
    pub tlbis: u32,
    /// DSB instructions.
    pub dsbs: u32,
    /// ISB instructions.
    pub isbs: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_operand_of_the_highest_address_leaves_ttl_clear() {
        let operand = VaOperand::new(VirtAddr::at((1 << 48) - 1));
        assert_eq!(operand.raw(), (1 << 36) - 1);
    }

    #[test]
    fn good_slot_address() {
        let slot = Slot::new(Frame::containing(PhysAddr::at(0x4000_0000)), Level::L2, VirtAddr::at(0x0a00_0020_1234));
        assert_eq!((slot.index(), slot.address()), (1, PhysAddr::at(0x4000_0008)));
        assert_eq!(slot.virt(), VirtAddr::at(0x0a00_0020_0000));
    }
}
