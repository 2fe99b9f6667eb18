//! [`Machine`] on the target.

use super::window::Window;
use super::{assembly, barrier, instruction};
use crate::addr::{Frame, PAGE_BYTES};
use crate::bbm::Permit;
use crate::machine::{Machine, Maintenance, Slot, Tlbi};

/// This machine, whose memory is reached through a [`Window`].
#[derive(Debug)]
pub struct El2 {
    window: Window,
}

impl El2 {
    /// The machine behind `window`.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self { window }
    }

    /// How physical memory is reached now.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Reaches physical memory through `window` from here on.
    pub fn set_window(&mut self, window: Window) {
        self.window = window;
        window.publish();
    }
}

impl Machine for El2 {
    #[inline]
    fn load(&self, slot: Slot) -> u64 {
        let address = self.window.address(slot.table()) + 8 * slot.index();
        // SAFETY: the window yields mapped Normal memory; a slot is 8-byte aligned within its frame.
        unsafe { instruction::load(address) }
    }

    #[inline]
    fn store(&mut self, _permit: &Permit, slot: Slot, descriptor: u64) {
        let address = self.window.address(slot.table()) + 8 * slot.index();
        // SAFETY: the window yields mapped, writable Normal memory; table frames come from the supply, where no Rust object lives.
        unsafe { instruction::store(address, descriptor) }
    }

    fn zero_frame(&mut self, _permit: &Permit, frame: Frame) {
        zero(self.window.address(frame));
    }

    fn dsb_ishst(&mut self) {
        barrier::dsb_ishst();
    }

    fn dsb_ish(&mut self) {
        barrier::dsb_ish();
    }

    fn dsb_nsh(&mut self) {
        barrier::dsb_nsh();
    }

    fn isb(&mut self) {
        barrier::isb();
    }

    fn tlbi(&mut self, _permit: &Permit, operation: Tlbi) {
        match operation {
            Tlbi::All => instruction::tlbi_alle2(),
            Tlbi::AllBroadcast => instruction::tlbi_alle2is(),
            Tlbi::LeafVa(operand) => instruction::tlbi_vale2(operand),
            Tlbi::LeafVaBroadcast(operand) => instruction::tlbi_vale2is(operand),
        }
    }

    fn switch_root(&mut self, _permit: &Permit, root: Frame) -> Maintenance {
        // SAFETY: this PE alone uses the tables (Protocol checks), and both roots map the identity page, the image and this stack alike.
        let done = unsafe { assembly::switch_root(root.start().raw(), self.window.link_offset()) };
        let count = |shift: u32| ((done >> shift) & 0xff) as u32;
        Maintenance { isbs: count(0), dsbs: count(8), tlbis: count(16) }
    }
}

macro_rules! store_zero_pairs {
    ($address:ident, $($offset:literal)*) => {$(
        // SAFETY: the window yields mapped, writable Normal memory of a frame that no Rust object lives in.
        unsafe { instruction::store_zero_pair::<$offset>($address) }
    )*};
}

/// Zeroes the page at `address`, which the window has given: 32 pairs an iteration, so that a table costs few instructions.
fn zero(address: usize) {
    let mut at = address;
    while at < address + PAGE_BYTES as usize {
        store_zero_pairs!(at, 0 16 32 48 64 80 96 112 128 144 160 176 192 208 224 240);
        store_zero_pairs!(at, 256 272 288 304 320 336 352 368 384 400 416 432 448 464 480 496);
        at += 512;
    }
}
