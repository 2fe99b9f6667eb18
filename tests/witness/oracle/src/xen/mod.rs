//! The Xen story: how Xen 4.11 changed its own tables while it ran from them, as traces to be judged.
//!
//! Xen 4.11 booted on one board and not on another. `setup_pagetables` (xen/arch/arm/mm.c) and `relocate_xen`
//! (arch/arm/arm64) there
//! 1. copy the image to the top of memory, the new tables in it;
//! 2. write TTBR0_EL2 with the MMU on, from tables of 4 KiB pages to tables with one 2 MiB block for the same
//!    addresses, two ALLE2 around it;
//! 3. put a table of 4 KiB pages in the place of that block, valid to valid, and invalidate only after SCTLR_EL2.WXN is
//!    set too;
//! 4. later, `copy_from_paddr` points the fixmap slot MISC from one page of a module to the next, valid to valid,
//!    clearing it at the end.
//!
//! Commit 00c96d77422a ("Set-up page permission for Xen mappings earlier on") fills the 4 KiB pages before the switch:
//! step 3 is gone, 2 and 4 stay.
//!
//! What is exact: the order of table writes, DSBs, ISBs, TLBIs and register writes, the address map, attributes and
//! descriptors' low bits. What is left out: what maps or touches nothing of this (the second level 2 table, the
//! identity page, most of the image's pages, the console's other stores); of every page of the image only what is
//! executed, walked or loaded is declared and copied.
//!
//! Where a routine lies in the image is a matter of the build. A scenario takes the page of the 2 MiB that holds
//! `relocate_xen`; everything else in the image keeps its distance from it, wrapping at the end of the 2 MiB. The copy
//! that was loaded is as many pages above a 2 MiB boundary.

mod boot;
mod image;
mod script;
mod table;

use breakwater_trace::Record;

pub use image::{BOOT_RELOC, FIXMAP, XEN};
pub use table::{StoryTable, table};

/// Which Xen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Story {
    /// The release 4.11.
    Xen411,
    /// After commit 00c96d77422a: no 2 MiB block, so nothing to shatter.
    Xen00c96d77422a,
}

/// What the image's mappings allow before the final ones are in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rights {
    /// Never both writable and executable: code read-only, data execute-never; the 2 MiB block read-only and
    /// executable, and what Xen writes through it written through the relocation area instead, which maps the same
    /// memory. So only the order of changes is left to judge.
    Separate,
    /// As Xen wrote them: the first pages and the block are writable and executable. Step 2 and 3 are what they are
    /// without that; W^X violations come on top.
    AsWritten,
}

/// Pages in the 2 MiB that hold the image: a page offset is below it.
pub const PAGES: u16 = 512;

/// The boot from just before `setup_pagetables`, its MMU on and nothing owed, to the second use of a fixmap slot.
///
/// # Panics
/// `page_offset` is not below [`PAGES`].
#[must_use]
pub fn scenario(story: Story, page_offset: u16) -> Vec<Record> {
    scenario_with(story, page_offset, Rights::Separate)
}

/// [`scenario`] under other rights.
///
/// # Panics
/// `page_offset` is not below [`PAGES`].
#[must_use]
pub fn scenario_with(story: Story, page_offset: u16, rights: Rights) -> Vec<Record> {
    assert!(page_offset < PAGES, "page {page_offset} is not in the 2 MiB of the image");
    boot::Boot::new(story, rights, page_offset).run()
}
