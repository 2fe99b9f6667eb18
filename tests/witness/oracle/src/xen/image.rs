//! Where things are: Xen 4.11's address map on Arm64, the pages of its image, and its descriptors.

use super::Rights;

/// `XEN_VIRT_START`: 2 MiB for the image.
pub const XEN: u64 = 0x20_0000;
/// `FIXMAP_ADDR(0)`.
pub const FIXMAP: u64 = 0x40_0000;
/// `BOOT_FDT_VIRT_START`.
pub(super) const BOOT_FDT: u64 = 0x60_0000;
/// `BOOT_RELOC_VIRT_START`: where the copy is mapped to be written.
pub const BOOT_RELOC: u64 = 0x80_0000;

/// 2 MiB boundary below the image as it was loaded.
const LOADED: u64 = 0x4020_0000;
/// Where the copy goes: the highest 2 MiB of memory.
const COPY: u64 = 0x7fe0_0000;
/// First byte of RAM, and first beyond.
pub(super) const RAM: (u64, u64) = (0x4000_0000, 0x8000_0000);
/// Physical address of the device tree's 2 MiB.
pub(super) const FDT: u64 = 0x4800_0000;
/// Two pages of a module, mapped at the same fixmap slot one after the other.
pub(super) const MODULE: [u64; 2] = [0x5000_0000, 0x5000_1000];
/// Physical address of the UART.
pub(super) const UART: u64 = 0x0900_0000;
/// `FIXMAP_CONSOLE` and `FIXMAP_MISC`.
pub(super) const SLOT_CONSOLE: u64 = 0;
pub(super) const SLOT_MISC: u64 = 1;

const PAGE: u64 = 4096;
const TABLE_PAGES: u64 = 512;

/// A page of the image, by what is in it: pages from the one that holds `relocate_xen`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ImagePage(pub(super) u64);

/// Of .text.
pub(super) const RELOCATE_XEN: ImagePage = ImagePage(0);
/// `set_fixmap`, of .text.
pub(super) const SET_FIXMAP: ImagePage = ImagePage(37);
/// `dcache_line_bytes`, of .data.
pub(super) const LINE_BYTES: ImagePage = ImagePage(118);
/// `setup_pagetables`, of .init.text.
pub(super) const SETUP_PAGETABLES: ImagePage = ImagePage(153);
/// `copy_from_paddr`, of .init.text.
pub(super) const COPY_FROM_PADDR: ImagePage = ImagePage(149);
/// The stack of the boot CPU.
pub(super) const STACK: ImagePage = ImagePage(186);
/// The tables of head.S.
pub(super) const BOOT_PGTABLE: ImagePage = ImagePage(192);
pub(super) const BOOT_FIRST: ImagePage = ImagePage(193);
pub(super) const BOOT_SECOND: ImagePage = ImagePage(195);
pub(super) const BOOT_THIRD: ImagePage = ImagePage(196);
/// The tables of mm.c.
pub(super) const XEN_PGTABLE: ImagePage = ImagePage(200);
pub(super) const XEN_FIRST: ImagePage = ImagePage(201);
pub(super) const XEN_SECOND: ImagePage = ImagePage(202);
pub(super) const XEN_FIXMAP: ImagePage = ImagePage(204);
pub(super) const XEN_XENMAP: ImagePage = ImagePage(205);

/// Pages of code, of .text and .init.text.
const CODE: [core::ops::Range<u64>; 2] = [0..90, 140..165];
/// .rodata.
const CONSTANTS: core::ops::Range<u64> = 90..115;

/// What of a page is declared, and copied: first byte, and first beyond.
pub(super) const CODE_BYTES: (u64, u64) = (0, 0x400);
pub(super) const STACK_BYTES: (u64, u64) = (0xf00, 0x1000);
pub(super) const TABLE_BYTES: (u64, u64) = (0, 0x1000);
pub(super) const LINE_BYTES_BYTES: (u64, u64) = (0, 0x10);

/// Where an image is whose `relocate_xen` is in the given page of its 2 MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub(super) offset: u64,
}

impl Image {
    /// The page's index in the 2 MiB.
    pub(super) const fn index(self, page: ImagePage) -> u64 {
        (self.offset + page.0) % TABLE_PAGES
    }

    /// The page at an index in the 2 MiB.
    pub(super) const fn page_at(self, index: u64) -> ImagePage {
        ImagePage((index + TABLE_PAGES - self.offset) % TABLE_PAGES)
    }

    pub(super) const fn va(self, page: ImagePage) -> u64 {
        XEN + PAGE * self.index(page)
    }

    /// Where the copy's page is mapped to be written.
    pub(super) const fn reloc_va(self, page: ImagePage) -> u64 {
        BOOT_RELOC + PAGE * self.index(page)
    }

    /// Physical address in the image as it was loaded.
    pub(super) const fn loaded(self, page: ImagePage) -> u64 {
        LOADED + PAGE * self.offset + PAGE * self.index(page)
    }

    /// Physical address in the copy.
    pub(super) const fn copy(self, page: ImagePage) -> u64 {
        COPY + PAGE * self.index(page)
    }

    /// The block that holds the whole copy.
    pub(super) const fn copy_block(self, rights: Rights) -> u64 {
        match rights {
            Rights::Separate => block(COPY) | READ_ONLY,
            Rights::AsWritten => block(COPY),
        }
    }

    /// The copy again, for the relocation area.
    pub(super) const fn reloc_block(self) -> u64 {
        block(COPY) | EXECUTE_NEVER
    }
}

/// AP\[2\].
const READ_ONLY: u64 = 1 << 7;
/// XN.
const EXECUTE_NEVER: u64 = 1 << 54;

/// A table descriptor as Xen writes it.
pub(super) const fn table(pa: u64) -> u64 {
    pa | 0xf7f
}

/// A 2 MiB block of Normal memory, writable and executable: MT_NORMAL, inner shareable.
pub(super) const fn block(pa: u64) -> u64 {
    pa | 0xf7d
}

/// [`block`], never executed.
pub(super) const fn data_block(pa: u64) -> u64 {
    block(pa) | EXECUTE_NEVER
}

/// A page of Normal memory, writable and executable: what head.S makes of the whole image.
const fn page(pa: u64) -> u64 {
    pa | 0xf7f
}

/// A page with the rights that it has in the end.
pub(super) fn protected(which: ImagePage, pa: u64) -> u64 {
    if CODE.iter().any(|code| code.contains(&which.0)) {
        page(pa) | READ_ONLY
    } else if CONSTANTS.contains(&which.0) {
        page(pa) | READ_ONLY | EXECUTE_NEVER
    } else {
        page(pa) | EXECUTE_NEVER
    }
}

/// A page as head.S maps it.
pub(super) fn first(which: ImagePage, pa: u64, rights: Rights) -> u64 {
    match rights {
        Rights::Separate => protected(which, pa),
        Rights::AsWritten => page(pa),
    }
}

/// A fixmap page of Normal memory that is not cacheable: MT_NORMAL_NC, outer shareable.
pub(super) const fn uncached(pa: u64) -> u64 {
    pa | 0xe67 | EXECUTE_NEVER
}

/// A fixmap page of a device: MT_DEVICE_nGnRE.
pub(super) const fn device(pa: u64) -> u64 {
    pa | 0xe73 | EXECUTE_NEVER
}
