//! The machine under Xen: `breakwater-boot`'s own instructions and its [`El2`], assembled and compiled for Xen's image.
//!
//! Why it exists: a second implementation of stores, barriers and TLB maintenance would be one more to believe. So the
//! files are those of `boot/`; this crate adds start.S, where Xen's physical memory is reached ([`phys_to_virt`])
//! and what Xen's CPUs stand on ([`image`]).

#[path = "../../../../boot/src/el2/control.rs"]
#[allow(dead_code, reason = "an image that starts by itself needs more of them")]
mod control;
#[path = "../../../../boot/src/el2/instruction.rs"]
#[allow(dead_code, reason = "an image that starts by itself needs more of them")]
mod instruction;
#[path = "../../../../boot/src/el2/memory.rs"]
#[allow(unreachable_pub, reason = "a hypervisor that boot/ starts is handed one")]
mod memory;
#[path = "../../../../boot/src/el2/registers.rs"]
#[allow(dead_code, unreachable_pub, reason = "an image that starts by itself needs more of them")]
mod registers;

mod image;
mod phys_to_virt;

use image as footing;

pub(crate) use image::bounds;
pub(crate) use memory::El2;
pub(crate) use phys_to_virt::PhysToVirt;
pub(crate) use registers::id_registers;

use breakwater::addr::{Level, PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
use breakwater::descriptor::{Attributes, DataAccess, DeviceKind, MAIR, TABLE_BITS, leaf_bits};
use breakwater::layout;
use control::{CODE, CONSTANT_DATA, DATA, HCR, SCTLR_M, SCTLR_OFF, SCTLR_ON};
use core::arch::global_asm;

/// The fixmap slot of the early console: Xen's first.
pub(crate) const FIXMAP_CONSOLE: VirtSpan = page(layout::FIXMAP.start());
/// Table frames in the image: the runtime root with the paths to image, fixmap and identity page (8), and the directmap
/// until all of it is mapped: for each bank two ragged ends of two levels, and the hole of the image, of two more.
const POOL_FRAMES: usize = 64;

/// The registers on which an early-printk build of Xen speaks: the environment variable `BREAKWATER_XEN_EARLY_UART` when
/// this crate is compiled, in hexadecimal digits.
pub(crate) const EARLY_UART: Option<PhysAddr> = match option_env!("BREAKWATER_XEN_EARLY_UART") {
    None => None,
    Some(digits) => match u64::from_str_radix(digits, 16) {
        Ok(registers) => Some(PhysAddr::at(registers)),
        Err(_) => panic!("BREAKWATER_XEN_EARLY_UART is an address in hexadecimal digits"),
    },
};

const fn page(virt: VirtAddr) -> VirtSpan {
    match VirtSpan::of(virt, PAGE_BYTES) {
        Some(page) => page,
        None => panic!("a page of the map"),
    }
}

/// The machine, whose memory is reached by `phys_to_virt`.
pub(crate) fn machine(phys_to_virt: PhysToVirt) -> El2 {
    El2::new(phys_to_virt)
}

/// A page of registers.
const REGISTERS: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);

global_asm!(
    include_str!("../../../../boot/macros.S"),
    include_str!("../start.S"),
    include_str!("../../../../boot/tables.S"),
    include_str!("../../../../boot/mmu.S"),
    HCR = const HCR,
    SCTLR_OFF = const SCTLR_OFF,
    SCTLR_ON = const SCTLR_ON,
    SCTLR_M = const SCTLR_M,
    MAIR = const MAIR,
    IDENTITY_LIMIT = const layout::IDENTITY.end_exclusive().raw(),
    LINK_ADDRESS = const layout::LINK_ADDRESS,
    IMAGE_L0_SLOT = const layout::IMAGE.start().slot(Level::L0),
    IMAGE_L1_SLOT = const layout::IMAGE.start().slot(Level::L1),
    IMAGE_L2_SLOT = const layout::IMAGE.start().slot(Level::L2),
    TABLE_BITS = const TABLE_BITS,
    LEAF_RX = const CODE,
    LEAF_RO = const CONSTANT_DATA,
    LEAF_RW = const DATA,
    LEAF_REGISTERS = const leaf_bits(REGISTERS, Level::L3),
    EARLYCON_UART = const EARLY_UART.is_some() as u64,
    EARLYCON_ADDRESS = const match EARLY_UART {
        None => 0,
        Some(registers) => registers.raw(),
    },
    FIXMAP_L2_SLOT = const FIXMAP_CONSOLE.start().slot(Level::L2),
    EARLYCON_L3_SLOT = const FIXMAP_CONSOLE.start().slot(Level::L3),
    POOL_BYTES = const POOL_FRAMES * PAGE_BYTES as usize,
);
