//! [`Machine`] on the target.

use super::phys_to_virt::PhysToVirt;
use super::{footing, instruction, registers};
use breakwater::addr::{Frame, PAGE_BYTES, PhysAddr, VirtSpan};
use breakwater::bbm::Permit;
use breakwater::features::zeroed_block_bytes;
use breakwater::geometry::{Granule4K, Slot};
use breakwater::machine::{Footing, Machine, Maintenance, Reach, Reached, Scope, Tlbi};

/// This machine, whose memory is reached by a [`PhysToVirt`]. There is one, which [`super::Start::bring_up`] makes.
#[derive(Debug)]
pub struct El2 {
    phys_to_virt: PhysToVirt,
}

impl El2 {
    /// The machine whose memory is reached by `phys_to_virt`: for [`super::Start::bring_up`], once.
    pub(super) fn new(phys_to_virt: PhysToVirt) -> Self {
        Self { phys_to_virt }
    }

    /// How physical memory is reached now.
    #[must_use]
    pub(crate) fn phys_to_virt(&self) -> PhysToVirt {
        self.phys_to_virt
    }

    /// Reaches memory by `phys_to_virt` from here on: what that adds is not mapped yet, what it leaves out is about to be
    /// unmapped.
    pub(crate) fn reach_by(&mut self, phys_to_virt: PhysToVirt) {
        self.phys_to_virt = phys_to_virt;
        self.phys_to_virt.publish();
    }
}

impl Machine for El2 {
    type Geometry = Granule4K;

    #[inline]
    fn load(&self, slot: Slot) -> u64 {
        let address = self.phys_to_virt.address(slot.table()) + 8 * slot.index();
        // SAFETY: `phys_to_virt` yields mapped Normal memory; a slot is 8-byte aligned within its frame.
        unsafe { instruction::load(address) }
    }

    #[inline]
    fn first_used(&self, first: Slot, count: u64) -> Option<u64> {
        let start = self.phys_to_virt.address(first.table()) + 8 * first.index();
        let end = start + 8 * count as usize;
        let mut address = start;
        // Eight at a time: boot counts instructions.
        while address + 64 <= end && eight(address).iter().fold(0, |all, word| all | word) == 0 {
            address += 64;
        }
        while address < end {
            if word(address) != 0 {
                return Some((address - start) as u64 / 8);
            }
            address += 8;
        }
        None
    }

    #[inline]
    fn alike(&self, first: Slot, count: u64, mask: u64, bits: u64) -> u64 {
        let start = self.phys_to_virt.address(first.table()) + 8 * first.index();
        let end = start + 8 * count as usize;
        let mut address = start;
        // Eight at a time, as above.
        while address + 64 <= end && eight(address).iter().fold(0, |all, word| all | word ^ bits) & mask == 0 {
            address += 64;
        }
        while address < end && (word(address) ^ bits) & mask == 0 {
            address += 8;
        }
        (address - start) as u64 / 8
    }

    #[inline]
    fn store(&mut self, _permit: &Permit, slot: Slot, descriptor: u64) {
        let address = self.phys_to_virt.address(slot.table()) + 8 * slot.index();
        // SAFETY: `phys_to_virt` yields mapped, writable Normal memory; table frames come from the supply, where no Rust object lives.
        unsafe { instruction::store(address, descriptor) }
    }

    #[inline]
    fn store_run(&mut self, _permit: &Permit, first: Slot, count: u64, descriptor: u64, step: u64) {
        let mut address = self.phys_to_virt.address(first.table()) + 8 * first.index();
        let end = address + 8 * count as usize;
        let mut descriptor = descriptor;
        let mut next = || {
            let this = descriptor;
            descriptor = descriptor.wrapping_add(step);
            this
        };
        while address + 64 <= end {
            // SAFETY: as for `store`; the run stays in its table.
            unsafe { instruction::store_pair::<0>(address, next(), next()) }
            // SAFETY: the same.
            unsafe { instruction::store_pair::<16>(address, next(), next()) }
            // SAFETY: the same.
            unsafe { instruction::store_pair::<32>(address, next(), next()) }
            // SAFETY: the same.
            unsafe { instruction::store_pair::<48>(address, next(), next()) }
            address += 64;
        }
        while address < end {
            // SAFETY: the same.
            unsafe { instruction::store(address, next()) }
            address += 8;
        }
    }

    fn zero_frame(&mut self, permit: &Permit, frame: Frame) {
        self.zero_frames(permit, frame, 1);
    }

    fn zero_frames(&mut self, _permit: &Permit, first: Frame, count: u64) {
        let phys_to_virt = self.phys_to_virt;
        let starts = (0..count).map(|index| PhysAddr::at(first.start().raw() + index * PAGE_BYTES));
        let pages = starts.map(|start| phys_to_virt.address(Frame::containing(start)));
        match zeroed_block_bytes(registers::dczid()) {
            Some(block) => pages.for_each(|page| zero_by_blocks(page, block)),
            None => pages.for_each(zero_by_pairs),
        }
    }

    fn dsb_ishst(&mut self) {
        instruction::dsb_ishst();
    }

    fn dsb_ish(&mut self) {
        instruction::dsb_ish();
    }

    fn dsb_nsh(&mut self) {
        instruction::dsb_nsh();
    }

    fn isb(&mut self) {
        instruction::isb();
    }

    fn tlbi(&mut self, _permit: &Permit, operation: Tlbi) {
        match (operation.scope, operation.reach) {
            (Scope::All, Reach::ThisPe) => instruction::tlbi_alle2(),
            (Scope::All, Reach::Domain) => instruction::tlbi_alle2is(),
            (Scope::Leaf(operand), Reach::ThisPe) => instruction::tlbi_vale2(operand),
            (Scope::Leaf(operand), Reach::Domain) => instruction::tlbi_vale2is(operand),
            (Scope::Walk(operand), Reach::ThisPe) => instruction::tlbi_vae2(operand),
            (Scope::Walk(operand), Reach::Domain) => instruction::tlbi_vae2is(operand),
            (Scope::LeafRange(operand), Reach::ThisPe) => instruction::tlbi_rvale2(operand),
            (Scope::LeafRange(operand), Reach::Domain) => instruction::tlbi_rvale2is(operand),
            (Scope::WalkRange(operand), Reach::ThisPe) => instruction::tlbi_rvae2(operand),
            (Scope::WalkRange(operand), Reach::Domain) => instruction::tlbi_rvae2is(operand),
        }
    }

    fn footing(&self, span: VirtSpan) -> Option<Footing> {
        footing::of(span)
    }

    fn reached(&self, span: VirtSpan) -> impl Iterator<Item = Reached> + '_ {
        self.phys_to_virt.reached(span)
    }

    #[inline(always)]
    fn is_reached(&self, span: VirtSpan) -> bool {
        self.phys_to_virt.meets(span) || footing::meets_stacks(span)
    }

    fn guard(&self, span: VirtSpan) -> Option<Footing> {
        footing::guard_in(span)
    }

    fn switch_root(&mut self, _permit: &Permit, root: Frame) -> Maintenance {
        // SAFETY: this PE alone uses the tables (Protocol checks), and both roots map the identity page, the image and this stack alike.
        let done = unsafe { switch_root(root.start().raw(), self.phys_to_virt.link_offset()) };
        let count = |shift: u32| ((done >> shift) & 0xff) as u32;
        Maintenance { isbs: count(0), dsbs: count(8), tlbis: count(16) }
    }
}

unsafe extern "C" {
    /// mmu.S. In: physical address of the root, link address - physical address. Out: maintenance counts.
    ///
    /// # Safety
    /// Both roots map the identity page, the image and the stack alike, and no other PE uses the old one.
    fn switch_root(root: u64, link_offset: u64) -> u64;
}

/// The word at `address`, in a table that `phys_to_virt` has given.
#[inline(always)]
fn word(address: usize) -> u64 {
    // SAFETY: `phys_to_virt` yields mapped Normal memory; the address is 8-byte aligned within a table.
    unsafe { instruction::load(address) }
}

/// The eight words from `address` on, in a table that `phys_to_virt` has given.
#[inline(always)]
fn eight(address: usize) -> [u64; 8] {
    // SAFETY: as for `word`, for each of them.
    unsafe { instruction::load_eight(address) }
}

macro_rules! store_zero_pairs {
    ($address:ident, $($offset:literal)*) => {$(
        // SAFETY: `phys_to_virt` yields mapped, writable Normal memory of a frame that no Rust object lives in.
        unsafe { instruction::store_zero_pair::<$offset>($address) }
    )*};
}

macro_rules! eight_times {
    ($do:expr) => {{
        $do;
        $do;
        $do;
        $do;
        $do;
        $do;
        $do;
        $do;
    }};
}

/// Zeroes the page at `address`, which `phys_to_virt` has given, by DC ZVA of `block` bytes: 64 times an iteration, a page
/// where a block has 64 bytes, so that the loop costs next to nothing.
#[inline(always)]
fn zero_by_blocks(address: usize, block: usize) {
    let mut at = address;
    let mut zero_next = || {
        // SAFETY: `phys_to_virt` yields mapped, writable Normal memory of a frame that no Rust object lives in, and it is
        // used with the MMU on; a block divides the frame.
        unsafe { instruction::dc_zva(at) }
        at += block;
    };
    let blocks = PAGE_BYTES as usize / block;
    for _ in 0..blocks / 64 {
        eight_times!(eight_times!(zero_next()));
    }
    for _ in 0..blocks % 64 {
        zero_next();
    }
}

/// The same by stores, where DC ZVA may not be used: 32 pairs an iteration.
fn zero_by_pairs(address: usize) {
    let mut at = address;
    while at < address + PAGE_BYTES as usize {
        store_zero_pairs!(at, 0 16 32 48 64 80 96 112 128 144 160 176 192 208 224 240);
        store_zero_pairs!(at, 256 272 288 304 320 336 352 368 384 400 416 432 448 464 480 496);
        at += 512;
    }
}
