//! A small map with all that boot makes: image with guard, identity page, console, directmap by 2 MiB and 1 GiB blocks.

use super::*;

/// The tables lie in the image's data, from here on, in the order of their numbers.
pub(super) const FIRST_TABLE: u64 = 0x4020_6000;
pub(super) const ROOT: usize = 0;
pub(super) const XEN_L1: usize = 1;
pub(super) const XEN_L2: usize = 2;
pub(super) const IMAGE_L3: usize = 3;
pub(super) const FIXMAP_L3: usize = 4;
pub(super) const DIRECTMAP_L1: usize = 5;
pub(super) const DIRECTMAP_L2: usize = 6;
pub(super) const IDENTITY_L1: usize = 7;
pub(super) const IDENTITY_L2: usize = 8;
pub(super) const IDENTITY_L3: usize = 9;
pub(super) const TABLES: usize = 10;
/// Identity page, text, rodata, data, tables, console, and the directmap on both sides of the image.
pub(super) const RUNS: usize = 8;

const IMAGE_START: u64 = 0x4020_0000;

pub(super) struct World {
    tables: Vec<[u64; SLOTS]>,
    pub(super) declared: Vec<Declared>,
    pub(super) ram: Vec<PhysSpan>,
    pub(super) no_map: Vec<PhysSpan>,
}

impl ReadTable for World {
    fn descriptor(&self, table: Frame, index: usize) -> u64 {
        let number = table.start().raw().checked_sub(FIRST_TABLE).map(|offset| (offset / PAGE_BYTES) as usize);
        number.and_then(|number| self.tables.get(number)).map_or(0, |table| table[index])
    }
}

impl World {
    pub(super) fn good() -> Self {
        let ram = Vec::from([PhysSpan::of(PhysAddr::at(0x4000_0000), 2 << 30).unwrap()]);
        let mut world = Self { tables: std::vec![[0; SLOTS]; TABLES], declared: Vec::new(), ram, no_map: Vec::new() };
        world.map_image();
        world.map_directmap();
        world.map_identity_page();
        world
    }

    fn map_image(&mut self) {
        self.link(ROOT, layout::XEN_SLOT, XEN_L1);
        self.link(XEN_L1, 0, XEN_L2);
        self.link(XEN_L2, 1, IMAGE_L3);
        self.link(XEN_L2, 5, FIXMAP_L3);
        // Pages 0 and 1 text, 2 rodata, 3 and 4 data, 5 guard, 6 to 15 the tables, 16 one more page of data.
        let parts = [("text", 0, 2, CODE), ("rodata", 2, 1, CONSTANTS), ("data", 3, 2, DATA), ("tables", 6, 11, DATA)];
        for (name, first, pages, attributes) in parts {
            for page in first..first + pages {
                self.map(IMAGE_L3, page as usize, IMAGE_START + page * PAGE_BYTES, attributes);
            }
            let offset = first * PAGE_BYTES;
            self.declare(name, layout::LINK_ADDRESS + offset, IMAGE_START + offset, pages, attributes);
        }
        let virt = VirtSpan::of(VirtAddr::at(layout::LINK_ADDRESS + 5 * PAGE_BYTES), PAGE_BYTES).unwrap();
        self.declared.push(Declared { name: "guard", virt, output: None, attributes: DATA });
        self.map(FIXMAP_L3, 0, 0x0900_0000, CONSOLE);
        self.declare("console", layout::FIXMAP.start().raw(), 0x0900_0000, 1, CONSOLE);
    }

    /// 1 GiB by 2 MiB blocks, the image's left out, sixteen of them a contiguous run, and 1 GiB by one block.
    fn map_directmap(&mut self) {
        let base = layout::DIRECTMAP.start().raw();
        self.link(ROOT, 256, DIRECTMAP_L1);
        self.link(DIRECTMAP_L1, 0, DIRECTMAP_L2);
        for index in (0..SLOTS).filter(|index| *index != 1) {
            let output = 0x4000_0000 + ((index as u64) << 21);
            let run = if (16..32).contains(&index) { 1 << 52 } else { 0 };
            self.set(DIRECTMAP_L2, index, output | leaf_bits(DATA, Level::L2) | run);
        }
        self.set(DIRECTMAP_L1, 1, 0x8000_0000 | leaf_bits(DATA, Level::L1));
        self.declare("directmap", base, 0x4000_0000, 512, DATA);
        self.declare("directmap", base + (4 << 20), 0x4040_0000, (2 << 18) - 1024, DATA);
    }

    fn map_identity_page(&mut self) {
        self.link(ROOT, 0, IDENTITY_L1);
        self.link(IDENTITY_L1, 1, IDENTITY_L2);
        self.link(IDENTITY_L2, 1, IDENTITY_L3);
        self.map(IDENTITY_L3, 1, IMAGE_START + PAGE_BYTES, CODE);
        self.declare("identity page", IMAGE_START + PAGE_BYTES, IMAGE_START + PAGE_BYTES, 1, CODE);
    }

    fn link(&mut self, table: usize, index: usize, next: usize) {
        self.set(table, index, (FIRST_TABLE + next as u64 * PAGE_BYTES) | 3);
    }

    pub(super) fn get(&self, table: usize, index: usize) -> u64 {
        self.tables[table][index]
    }

    pub(super) fn set(&mut self, table: usize, index: usize, raw: u64) {
        self.tables[table][index] = raw;
    }

    /// Maps a page, undeclared.
    pub(super) fn map(&mut self, table: usize, index: usize, output: u64, attributes: Attributes) {
        self.set(table, index, output | leaf_bits(attributes, Level::L3));
    }

    pub(super) fn declare(&mut self, name: &'static str, virt: u64, output: u64, pages: u64, attributes: Attributes) {
        let virt = VirtSpan::of(VirtAddr::at(virt), pages * PAGE_BYTES).unwrap();
        self.declared.push(Declared { name, virt, output: Some(PhysAddr::at(output)), attributes });
    }

    pub(super) fn withdraw(&mut self, name: &str) {
        self.declared.retain(|declared| declared.name != name);
    }

    pub(super) fn audit(&self) -> Audit {
        self.audit_with(64)
    }

    pub(super) fn audit_with(&self, capacity: usize) -> Audit {
        let mut scratch = [Scratch::EMPTY; 64];
        let root = Frame::containing(PhysAddr::at(FIRST_TABLE));
        super::audit(root, self, &self.declared, &self.ram, &self.no_map, &mut scratch[..capacity])
    }

    /// The lines of all findings: each judge by itself, since an audit keeps only the first.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut scratch = [Scratch::EMPTY; 64];
        let memory = Memory { ram: &self.ram, no_map: &self.no_map };
        let mut walker = walker::Walker::new(self, memory, &mut scratch);
        walker.walk(Frame::containing(PhysAddr::at(FIRST_TABLE)));
        let (walked, runs, tables) = walker.into_parts();
        let mut lines: Vec<String> = walked.first.iter().map(ToString::to_string).collect();
        let mut judge = |judge: &mut dyn FnMut(&mut Audit)| {
            let mut audit = Audit::default();
            judge(&mut audit);
            lines.extend(audit.first.iter().map(ToString::to_string));
        };
        judge(&mut |audit| judge::against_declarations(audit, runs, &self.declared));
        judge(&mut |audit| judge::rights_and_memory(audit, runs, memory));
        judge(&mut |audit| judge::aliases(audit, runs));
        judge(&mut |audit| judge::tables(audit, runs, tables));
        lines
    }
}
