//! The virtual address map, which is Xen's (arm64, 48 bits, 4 KiB granule).
//!
//! ```text
//!  L0 slot   address                    what
//!   0..=19   0 .. 10 TiB                reserved for the identity page, wherever the image was loaded
//!      20    0x0a00_0000_0000           XEN_BASE
//!              +  2 MiB .. 10 MiB       IMAGE        text, rodata, sealed data, data, stacks: 4 KiB pages, final rights
//!              + 10 MiB .. 12 MiB       FIXMAP       console, then named slots of a page, each with a page after it that is never mapped
//!              + 12 MiB .. 16 MiB       DEVICE_TREE  read-only, at most 2 MiB, may straddle
//!              + 16 MiB .. 18 MiB       LIVEPATCH    when configured
//!              + 16 MiB .. 24 MiB       (temporary image copy of cache colouring; not at boot)
//!              +  1 GiB ..  2 GiB       VMAP         from its start: ioremap and vmap, with guard pages (VMAP_AREAS);
//!                                                    its last 40 MiB: pages for frames outside the directmap, a few for each
//!                                                    CPU (WINDOW, 8 MiB), and the stacks of the secondaries (STACKS, 32 MiB)
//!              + 32 GiB .. 64 GiB       FRAMETABLE   one FrameInfo for each frame of RAM
//! 256..=265    0x8000_0000_0000         DIRECTMAP    RAM at a constant distance, the image left out
//! ```

#![forbid(unsafe_code)]

use crate::addr::{ADDRESS_BITS, Level, PAGE_BYTES, PhysSpan, VirtAddr, VirtSpan};
use static_assertions::const_assert;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// L0 slot of the hypervisor's own map: Xen's, 20, or what the environment variable `BREAKWATER_XEN_SLOT` says when
/// this crate is compiled, from 1 to 255. The link address is 2 MiB into it, and the image runs from any physical
/// address below it: for the identity page.
pub const XEN_SLOT: usize = match option_env!("BREAKWATER_XEN_SLOT") {
    None => 20,
    Some(text) => match usize::from_str_radix(text, 10) {
        Ok(slot @ 1..=255) => slot,
        _ => panic!("BREAKWATER_XEN_SLOT is a decimal number from 1 to 255"),
    },
};
/// Where that slot begins, in bytes.
pub const XEN_BASE: u64 = (XEN_SLOT as u64) << 39;

const fn part(start: u64, bytes: u64) -> VirtSpan {
    match VirtSpan::of(VirtAddr::at(start), bytes) {
        Some(span) => span,
        None => panic!("a part of the map has at most 48 bits"),
    }
}

/// No byte at all.
pub const NOWHERE: VirtSpan = part(0, 0);
/// The identity page may fall anywhere here, and nothing else may.
pub const IDENTITY: VirtSpan = part(0, XEN_BASE);
/// The image, linked at the first byte.
pub const IMAGE: VirtSpan = part(XEN_BASE + 2 * MIB, 8 * MIB);
/// Single pages for devices and passing needs.
pub const FIXMAP: VirtSpan = part(XEN_BASE + 10 * MIB, 2 * MIB);
/// The device tree.
pub const DEVICE_TREE: VirtSpan = part(XEN_BASE + 12 * MIB, 4 * MIB);
/// Code that is patched in at run time.
pub const LIVEPATCH: VirtSpan = part(XEN_BASE + 16 * MIB, 2 * MIB);
/// Mappings made on demand.
pub const VMAP: VirtSpan = part(XEN_BASE + GIB, GIB);
/// Where vmap and ioremap give out addresses.
pub const VMAP_AREAS: VirtSpan = part(VMAP.start().raw(), GIB - 40 * MIB);
/// Where frames outside the directmap are shown, [`WINDOW_SLOTS`] for each CPU: one level 3 table for 128 CPUs.
pub const WINDOW: VirtSpan = part(VMAP_AREAS.end_exclusive().raw(), 8 * MIB);
/// Stacks of the secondaries.
pub const STACKS: VirtSpan = part(WINDOW.end_exclusive().raw(), 32 * MIB);
/// One [`FRAME_INFO_BYTES`] for each frame that the directmap can hold.
pub const FRAMETABLE: VirtSpan = part(XEN_BASE + 32 * GIB, 32 * GIB);
/// RAM.
pub const DIRECTMAP: VirtSpan = part(256 << 39, 10 << 39);

/// The parts, as the report names them.
pub const AREAS: [(&str, VirtSpan); 8] = [
    ("identity", IDENTITY),
    ("image", IMAGE),
    ("fixmap", FIXMAP),
    ("device tree", DEVICE_TREE),
    ("livepatch", LIVEPATCH),
    ("vmap", VMAP),
    ("frametable", FRAMETABLE),
    ("directmap", DIRECTMAP),
];

/// Where the image is linked: linker.ld takes the number from here.
pub const LINK_ADDRESS: u64 = IMAGE.start().raw();
/// Where the fixmap keeps the console's registers.
pub const FIXMAP_CONSOLE: VirtSpan = part(FIXMAP.start().raw(), 16 * PAGE_BYTES);
/// Where the fixmap keeps the page of a UART that the image was built to speak on: nothing is mapped beside it.
pub const FIXMAP_EARLYCON: VirtSpan = part(FIXMAP.start().raw() + 24 * PAGE_BYTES, PAGE_BYTES);
/// Where the fixmap's named slots are, one every [`FIXMAP_SLOT_STRIDE`].
pub const FIXMAP_SLOTS: VirtSpan = part(FIXMAP.start().raw() + 32 * PAGE_BYTES, 64 * PAGE_BYTES);
/// From one named slot of the fixmap to the next: its page, and one that is never mapped.
pub const FIXMAP_SLOT_STRIDE: u64 = 2 * PAGE_BYTES;
/// Frames outside the directmap that each CPU can have shown at once.
pub const WINDOW_SLOTS: usize = 4;
/// The most a device tree may have, in bytes.
pub const DEVICE_TREE_BYTES_MAX: u64 = 2 * MIB;
/// What the frametable keeps for a frame, in bytes.
pub const FRAME_INFO_BYTES: u64 = 16;
/// CPUs that one image can bring up. What each of them needs comes from RAM; addresses are set aside for this many.
pub const MAX_CPUS: usize = 512;
/// Frames in the link-time pool of the image.
pub const POOL_FRAMES: usize = 32;

/// Frames the pool must be good for before RAM is mapped: the runtime root with the paths to image (2 MiB), fixmap and
/// identity page; two level 3 tables for a device tree that straddles; and the first span of the directmap at its
/// worst.
pub const POOL_FRAMES_WORST_CASE: usize = (1 + 3 + 1 + 3) + 2 + FIRST_SPAN_FRAMES;
/// The directmap's ten L0 slots may each want a level 1 table; a span has two ragged ends, each wanting levels 2 and 3.
const FIRST_SPAN_FRAMES: usize = 10 + 2 * 2;

/// Whether the identity page of an image at `image` stays clear of the hypervisor's own map. head.S decides the same
/// before the MMU is on, from the same constant ([`IDENTITY`]'s end).
#[must_use]
pub const fn allows_identity_page(image: PhysSpan) -> bool {
    image.end_exclusive().raw() <= IDENTITY.end_exclusive().raw()
}

const_assert!(POOL_FRAMES >= POOL_FRAMES_WORST_CASE);
const_assert!(IMAGE.start().slot(Level::L0) == XEN_SLOT);
const_assert!(IMAGE.start().slot(Level::L3) == 0);
const_assert!(IMAGE.end_exclusive().raw() == FIXMAP.start().raw());
const_assert!(FIXMAP.end_exclusive().raw() == DEVICE_TREE.start().raw());
const_assert!(DEVICE_TREE.end_exclusive().raw() == LIVEPATCH.start().raw());
const_assert!(FIXMAP.covers(FIXMAP_CONSOLE) && FIXMAP.covers(FIXMAP_SLOTS));
// The page before the first slot is never mapped either.
const_assert!(FIXMAP_CONSOLE.end_exclusive().raw() < FIXMAP_EARLYCON.start().raw());
const_assert!(FIXMAP_EARLYCON.end_exclusive().raw() < FIXMAP_SLOTS.start().raw());
const_assert!(VMAP.end_exclusive().raw() <= FRAMETABLE.start().raw());
const_assert!(STACKS.end_exclusive().raw() == VMAP.end_exclusive().raw());
const_assert!(WINDOW.bytes() == (MAX_CPUS * WINDOW_SLOTS) as u64 * PAGE_BYTES);
const_assert!(
    WINDOW.start().is_aligned(Level::L2.slot_bytes()) && WINDOW.bytes().is_multiple_of(Level::L2.slot_bytes())
);
const_assert!(IDENTITY.end_exclusive().raw() == 10 * TIB || XEN_SLOT != 20);
const_assert!(IDENTITY.end_exclusive().raw() == XEN_BASE && VMAP.end_exclusive().raw() < DIRECTMAP.start().raw());
// The pool is good for the tables of an image that takes the whole of its part.
const_assert!(POOL_FRAMES >= POOL_FRAMES_WORST_CASE + (IMAGE.bytes() / Level::L2.slot_bytes()) as usize - 1);
const_assert!(DIRECTMAP.bytes() == 5 * TIB);
const_assert!(DIRECTMAP.end_exclusive().raw() <= 1 << ADDRESS_BITS);
// A device tree of the greatest size, at any offset within its first page, fits in its part.
const_assert!(DEVICE_TREE_BYTES_MAX + PAGE_BYTES <= DEVICE_TREE.bytes());
// Each frame of the directmap has its place in the frametable.
const_assert!(DIRECTMAP.bytes() / PAGE_BYTES * FRAME_INFO_BYTES <= FRAMETABLE.bytes());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PhysAddr;

    fn image_at(start: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), 2 * MIB).unwrap()
    }

    #[test]
    fn good_image_up_to_ten_tib() {
        assert!(allows_identity_page(image_at(0)));
        assert!(allows_identity_page(image_at(10 * TIB - 2 * MIB)));
    }

    #[test]
    fn bad_image_that_ends_above_ten_tib() {
        assert!(!allows_identity_page(image_at(10 * TIB - 2 * MIB + PAGE_BYTES)));
        assert!(!allows_identity_page(image_at(10 * TIB)));
    }
}
