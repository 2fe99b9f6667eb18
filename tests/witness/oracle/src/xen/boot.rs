//! The boot, step by step.

use breakwater_trace::{MemoryKind, Record};

use super::image::{
    self, BOOT_FDT, BOOT_FIRST, BOOT_PGTABLE, BOOT_RELOC, BOOT_SECOND, BOOT_THIRD, CODE_BYTES, COPY_FROM_PADDR, FDT,
    FIXMAP, Image, ImagePage, LINE_BYTES, LINE_BYTES_BYTES, MODULE, RAM, RELOCATE_XEN, SET_FIXMAP, SETUP_PAGETABLES,
    SLOT_CONSOLE, SLOT_MISC, STACK, STACK_BYTES, TABLE_BYTES, UART, XEN, XEN_FIRST, XEN_FIXMAP, XEN_PGTABLE,
    XEN_SECOND, XEN_XENMAP,
};
use super::script::Script;
use super::{Rights, Story};

/// MAIR_EL2: 0 nGnRnE, 1 Non-cacheable, 4 nGnRE, 7 write-back.
const MAIR: u64 = 0xff00_0004_eeaa_4400;
/// TCR_EL2: 4 KiB granule, 48-bit input, 40-bit output, walks inner shareable and write-back.
const TCR: u64 = 0x8082_3510;
/// SCTLR_EL2 with M, C and I.
const SCTLR: u64 = 0x30c5_183d;
const SCTLR_WXN: u64 = 1 << 19;

/// Index of a level 2 entry.
const fn second_index(va: u64) -> u64 {
    va >> 21 & 511
}

/// Which copy of the image the running code writes and reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// As it was loaded, in pages.
    Loaded,
    /// The copy, under one block.
    Block,
    /// The copy, in pages.
    Pages,
}

/// A boot in the making.
pub(super) struct Boot {
    story: Story,
    rights: Rights,
    image: Image,
    script: Script,
    phase: Phase,
}

/// What of the image this boot needs: declared in the loaded image, and copied.
const KEPT: [(ImagePage, (u64, u64)); 11] = [
    (RELOCATE_XEN, CODE_BYTES),
    (SET_FIXMAP, CODE_BYTES),
    (LINE_BYTES, LINE_BYTES_BYTES),
    (COPY_FROM_PADDR, CODE_BYTES),
    (SETUP_PAGETABLES, CODE_BYTES),
    (STACK, STACK_BYTES),
    (XEN_PGTABLE, TABLE_BYTES),
    (XEN_FIRST, TABLE_BYTES),
    (XEN_SECOND, TABLE_BYTES),
    (XEN_FIXMAP, TABLE_BYTES),
    (XEN_XENMAP, TABLE_BYTES),
];

/// The tables of head.S, which nobody walks in the copy.
const BOOT_TABLES: [ImagePage; 4] = [BOOT_PGTABLE, BOOT_FIRST, BOOT_SECOND, BOOT_THIRD];

impl Boot {
    pub(super) fn new(story: Story, rights: Rights, page_offset: u16) -> Self {
        let image = Image { offset: page_offset.into() };
        Self { story, rights, image, script: Script::new(), phase: Phase::Loaded }
    }

    pub(super) fn run(mut self) -> Vec<Record> {
        self.declare();
        self.setup_pagetables();
        self.relocate_xen();
        self.protect();
        self.copy_from_paddr();
        self.script.end()
    }

    /// Virtual and physical address of a byte of the image, to read it.
    const fn read(&self, page: ImagePage, byte: u64) -> (u64, u64) {
        let pa = match self.phase {
            Phase::Loaded => self.image.loaded(page),
            Phase::Block | Phase::Pages => self.image.copy(page),
        };
        (self.image.va(page) + byte, pa + byte)
    }

    /// The same, to write it.
    fn write(&self, page: ImagePage, byte: u64) -> (u64, u64) {
        let (va, pa) = self.read(page, byte);
        if self.phase == Phase::Block && self.rights == Rights::Separate {
            (self.image.reloc_va(page) + byte, pa)
        } else {
            (va, pa)
        }
    }

    fn store(&mut self, page: ImagePage, byte: u64, value: u64) {
        let (va, pa) = self.write(page, byte);
        self.script.store(va, pa, value);
    }

    fn load(&mut self, page: ImagePage, byte: u64) {
        let (va, pa) = self.read(page, byte);
        self.script.load(va, pa);
    }

    /// `write_pte` of entry `index` of the table in `page`.
    fn write_pte(&mut self, page: ImagePage, index: u64, value: u64) {
        let (va, pa) = self.write(page, 8 * index);
        self.script.write_pte(va, pa, value);
    }

    fn print(&mut self) {
        self.script.print(FIXMAP + 4096 * SLOT_CONSOLE, UART);
    }

    /// What is there when head.S branches to C: memory, tables, registers.
    fn declare(&mut self) {
        self.script.record(Record::Memory { start: RAM.0, end_exclusive: RAM.1, kind: MemoryKind::Ram });
        for page in BOOT_TABLES {
            self.declare_page(page, TABLE_BYTES);
        }
        for (page, bytes) in KEPT {
            self.declare_page(page, bytes);
        }
        for page in MODULE {
            (0..8).for_each(|word| self.script.word(page + 8 * word, page + word));
        }
        self.script.word(FDT, 0xedfe_0dd0);
        let registers = [
            ("hcr_el2", 0),
            ("mair_el2", MAIR),
            ("tcr_el2", TCR),
            ("ttbr0_el2", self.image.loaded(BOOT_PGTABLE)),
            ("sctlr_el2", SCTLR),
            ("dczid_el0", 4),
        ];
        self.script.found(self.image.va(SETUP_PAGETABLES), &registers);
    }

    fn declare_page(&mut self, page: ImagePage, (first, end): (u64, u64)) {
        let pa = self.image.loaded(page);
        for byte in (first..end).step_by(8) {
            let value = self.initially(page, byte);
            self.script.word(pa + byte, value);
        }
    }

    /// A word of the image as head.S leaves it.
    fn initially(&self, page: ImagePage, byte: u64) -> u64 {
        let (index, image) = (byte / 8, self.image);
        match page {
            BOOT_PGTABLE if index == 0 => image::table(image.loaded(BOOT_FIRST)),
            BOOT_FIRST if index == 0 => image::table(image.loaded(BOOT_SECOND)),
            BOOT_SECOND if index == second_index(XEN) => image::table(image.loaded(BOOT_THIRD)),
            BOOT_SECOND if index == second_index(FIXMAP) => image::table(image.loaded(XEN_FIXMAP)),
            BOOT_SECOND if index == second_index(BOOT_FDT) => image::data_block(FDT),
            BOOT_THIRD => {
                let which = image.page_at(index);
                image::first(which, image.loaded(which), self.rights)
            }
            XEN_FIXMAP if index == SLOT_CONSOLE => image::device(UART),
            // MOVZ of something that tells one place from another; its low half is never 0.
            RELOCATE_XEN | SET_FIXMAP | COPY_FROM_PADDR | SETUP_PAGETABLES => {
                let movz = |place: u64| 0xd280_0000 | (page.0 << 8 | place & 0xff) << 5;
                movz(2 * index) | movz(2 * index + 1) << 32
            }
            LINE_BYTES if index == 0 => 64,
            _ => 0,
        }
    }

    /// `setup_pagetables` up to the call of `relocate_xen`: the new tables in the loaded image, the place of the copy
    /// mapped.
    fn setup_pagetables(&mut self) {
        let (image, code) = (self.image, self.image.va(SETUP_PAGETABLES));
        self.script.fetch(code, 32);
        self.store(STACK, 0xfe0, code);
        self.print();
        self.store(XEN_PGTABLE, 0, image::table(image.copy(XEN_FIRST)));
        self.store(XEN_FIRST, 0, image::table(image.copy(XEN_SECOND)));
        let of_xen = match self.story {
            Story::Xen411 => image.copy_block(self.rights),
            Story::Xen00c96d77422a => {
                let top = self.script.pc();
                for index in 0..512 {
                    let which = image.page_at(index);
                    self.script.again(top);
                    self.store(XEN_XENMAP, 8 * index, image::protected(which, image.copy(which)));
                }
                image::table(image.copy(XEN_XENMAP))
            }
        };
        self.store(XEN_SECOND, 8 * second_index(XEN), of_xen);
        self.store(XEN_SECOND, 8 * second_index(FIXMAP), image::table(image.copy(XEN_FIXMAP)));
        self.load(BOOT_SECOND, 8 * second_index(BOOT_FDT));
        self.store(XEN_SECOND, 8 * second_index(BOOT_FDT), image::data_block(FDT));
        self.store(XEN_SECOND, 8 * second_index(BOOT_RELOC), image.reloc_block());
        self.write_pte(BOOT_SECOND, second_index(BOOT_RELOC), image.reloc_block());
        self.script.flush_data_tlb("vae2", BOOT_RELOC, 512, 4);
    }

    /// `relocate_xen`: copies, cleans, switches.
    fn relocate_xen(&mut self) {
        self.script.fetch(self.image.va(RELOCATE_XEN), 8);
        let top = self.script.pc();
        for (page, (first, end)) in KEPT {
            for byte in (first..end).step_by(16) {
                self.script.again(top);
                let to = (self.image.reloc_va(page) + byte, self.image.copy(page) + byte);
                self.script.move_pair(self.read(page, byte), to);
            }
        }
        self.script.refetch(24);
        self.script.dsb_sy();
        self.load(LINE_BYTES, 0);
        let top = self.script.pc();
        for (page, (first, end)) in KEPT {
            for byte in (first..end).step_by(64) {
                self.script.again(top);
                self.script.maintain("cvac", self.image.reloc_va(page) + byte);
            }
        }
        self.script.dsb_sy();
        self.script.flush_text_tlb_local(2);
        self.script.msr("ttbr0_el2", self.image.copy(XEN_PGTABLE));
        self.phase = match self.story {
            Story::Xen411 => Phase::Block,
            Story::Xen00c96d77422a => Phase::Pages,
        };
        self.script.flush_text_tlb_local(1);
    }

    /// The rest of `setup_pagetables`: the copy's boot tables cleared (a line for each), the block shattered, WXN.
    fn protect(&mut self) {
        let image = self.image;
        self.script.fetch(image.va(SETUP_PAGETABLES) + 0x100, 24);
        for page in BOOT_TABLES {
            let (va, _) = self.write(page, 0);
            self.script.maintain("zva", va);
        }
        if self.story == Story::Xen411 {
            let top = self.script.pc();
            for index in 0..512 {
                let which = image.page_at(index);
                self.script.again(top);
                self.write_pte(XEN_XENMAP, index, image::protected(which, image.copy(which)));
            }
            self.write_pte(XEN_SECOND, second_index(XEN), image::table(image.copy(XEN_XENMAP)));
            self.phase = Phase::Pages;
        }
        // "TLBFLUSH and ISB would be needed here, but wait until we set WXN".
        self.script.fetch(image.va(SETUP_PAGETABLES) + 0x180, 12);
        self.script.mrs("sctlr_el2");
        self.script.msr("sctlr_el2", SCTLR | SCTLR_WXN);
        self.script.flush_text_tlb_local(4);
        self.script.settled();
        self.load(STACK, 0xfe0);
        self.print();
    }

    /// `copy_from_paddr`: the pages of a module, one after the other, at the same fixmap slot.
    fn copy_from_paddr(&mut self) {
        let code = self.image.va(COPY_FROM_PADDR);
        self.script.fetch(code, 8);
        self.store(STACK, 0xfd0, code);
        for pa in MODULE {
            self.set_fixmap(image::uncached(pa));
            self.script.fetch(code + 0x40, 16);
            (0..8).for_each(|word| self.script.load(FIXMAP + 4096 * SLOT_MISC + 8 * word, pa + 8 * word));
        }
        self.set_fixmap(0);
        self.script.fetch(code + 0x80, 4);
        self.load(STACK, 0xfd0);
    }

    /// `set_fixmap`, and with 0 `clear_fixmap`.
    fn set_fixmap(&mut self, value: u64) {
        self.script.fetch(self.image.va(SET_FIXMAP), 16);
        self.store(STACK, 0xfc0, value);
        self.write_pte(XEN_FIXMAP, SLOT_MISC, value);
        self.script.flush_data_tlb("vae2is", FIXMAP + 4096 * SLOT_MISC, 1, 4);
        self.script.settled();
        self.load(STACK, 0xfc0);
    }
}
