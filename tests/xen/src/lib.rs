//! Breakwater's core in the place of Xen's own arm64 boot tables and page-table editor, behind a C interface.
//!
//! Why it exists: the core was made because Xen's boot breaks the architecture; here Debian's Xen itself is started by
//! it. README.md says what was wrong, what replaces it and how to run it. `host` is tested by tests/manager, under the
//! oracle.

#![cfg_attr(target_os = "none", no_std)]
#![deny(unsafe_code)]

#[cfg(target_os = "none")]
#[allow(unsafe_code)]
mod c;
#[cfg(target_os = "none")]
#[allow(unsafe_code)]
mod el2;
#[cfg(target_os = "none")]
mod flags;
#[cfg(target_os = "none")]
mod host;
#[cfg(test)]
#[path = "el2/phys_to_virt.rs"]
#[allow(dead_code, reason = "the rest of it is asked by `Machine`")]
mod phys_to_virt;

#[cfg(target_os = "none")]
use breakwater::addr::{PAGE_BYTES, PhysAddr, VirtAddr, VirtSpan};
#[cfg(target_os = "none")]
use breakwater::layout;

/// The fixmap slot of the early console: Xen's first.
#[cfg(target_os = "none")]
pub(crate) const FIXMAP_CONSOLE: VirtSpan = page(layout::FIXMAP.start());
/// Table frames in the image: the runtime root with the paths to image, fixmap and identity page (8), and the directmap
/// until all of it is mapped: for each bank two ragged ends of two levels, and the hole of the image, of two more.
#[cfg(target_os = "none")]
pub(crate) const POOL_FRAMES: usize = 64;

/// The registers on which an early-printk build of Xen speaks: the environment variable `BREAKWATER_XEN_EARLY_UART` when
/// this crate is compiled, in hexadecimal digits.
#[cfg(target_os = "none")]
pub(crate) const EARLY_UART: Option<PhysAddr> = match option_env!("BREAKWATER_XEN_EARLY_UART") {
    None => None,
    Some(digits) => match u64::from_str_radix(digits, 16) {
        Ok(registers) => Some(PhysAddr::at(registers)),
        Err(_) => panic!("BREAKWATER_XEN_EARLY_UART is an address in hexadecimal digits"),
    },
};

#[cfg(target_os = "none")]
const fn page(virt: VirtAddr) -> VirtSpan {
    match VirtSpan::of(virt, PAGE_BYTES) {
        Some(page) => page,
        None => panic!("a page of the map"),
    }
}
