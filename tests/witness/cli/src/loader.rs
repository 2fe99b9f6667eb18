//! Ways into the image: QEMU's own loader at any load address, or a shim that hands over any tree at any exception level; and what then lies
//! where in memory.

use crate::machine::{Level, Machine, RAM_BASE};
use anyhow::{Context, Result, bail, ensure};
use breakwater_oracle::tables::Memory;
use std::fs;
use std::path::{Path, PathBuf};

/// Of the Linux arm64 image header: where the image wants to be, from the start of memory.
const TEXT_OFFSET: usize = 8;
/// Of the same header: how much memory the image uses.
const IMAGE_SIZE: usize = 16;

/// Where the shim stands; the others are far from it, in any machine with 256 MiB.
const SHIM_AT: u64 = RAM_BASE + 0x10_0000;
/// The start of memory: QEMU's own tree, then the shim, the pen and tables.
const BELOW: (&str, u64, u64) = ("QEMU's tree and the shim", RAM_BASE, SHIM_AT + 0x3000 - RAM_BASE);
/// Where the shim finds the image, for trees that must or must not meet it.
pub const IMAGE_AT: u64 = RAM_BASE + 0x400_0000;
/// A page where the other CPUs wait, if the tree says that they have spin tables: the code that polls is at its start.
pub const PEN_AT: u64 = SHIM_AT + 0x1000;
/// Where a tree goes unless its mutation says otherwise.
pub const TREE_AT: u64 = RAM_BASE + 0x800_0000;

/// How QEMU is told to start the image.
#[derive(Debug, Clone)]
pub enum Loading {
    /// `-kernel`, with QEMU's own tree and this command line.
    Kernel {
        /// Where the image is loaded, if not where its header asks for.
        load_address: Option<u64>,
        /// The command line.
        append: String,
    },
    /// A shim sets x0 to a tree and jumps. Where the tree speaks of spin tables, it first lets each other CPU poll its
    /// [`release_address`].
    Shim {
        /// The device tree; empty for none.
        tree: Vec<u8>,
        /// Where it lies.
        tree_at: u64,
        /// Where the image lies.
        image_at: u64,
        /// In which state the CPUs come.
        state: State,
    },
    /// Options that bring the image along: by firmware, for one.
    Given(Vec<String>),
}

/// How a CPU is when it enters the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As the boot protocol has it.
    #[default]
    AsProtocol,
    /// On the stack of EL0: PSTATE.SP is 0.
    StackOfEl0,
    /// Data is big-endian: SCTLR_EL2.EE is set.
    BigEndian,
    /// MMU and caches on, in tables that map memory flat; the boot CPU alone.
    FlatMap,
    /// The same in tables that are big-endian themselves.
    FlatMapBigEndian,
    /// MMU and caches on, and the image entered where it does not lie; the boot CPU alone.
    MovedMap,
}

/// Where the shim's tables lie.
const TABLE_AT: u64 = SHIM_AT + 0x2000;
/// Where they show memory besides.
const MOVED_TO: u64 = 4 << 30;
const SCTLR_EE: u64 = 1 << 25;

impl State {
    const fn is_mapped(self) -> bool {
        matches!(self, Self::FlatMap | Self::FlatMapBigEndian | Self::MovedMap)
    }

    const fn is_big_endian(self) -> bool {
        matches!(self, Self::BigEndian | Self::FlatMapBigEndian)
    }

    /// The instructions that bring the boot CPU into it. They clobber x9.
    fn of_boot_cpu(self) -> Vec<u32> {
        const MAIR: u64 = 0xff00; // Device-nGnRnE, then Normal write-back
        const TCR: u64 = 0x8082_3519; // 39 bits, 4 KiB granule, 40-bit output, walks cacheable and shared
        const SCTLR: u64 = 0x30c5_1835; // M, C and I
        const MSR_MAIR: u32 = 0xd51c_a209; // msr mair_el2, x9
        const MSR_TCR: u32 = 0xd51c_2049; // msr tcr_el2, x9
        const MSR_TTBR: u32 = 0xd51c_2009; // msr ttbr0_el2, x9
        const MSR_SCTLR: u32 = 0xd51c_1009; // msr sctlr_el2, x9
        const TLBI_ALLE2: u32 = 0xd50c_871f;
        const DSB_SY: u32 = 0xd503_3f9f;
        const ISB: u32 = 0xd503_3fdf;
        if !self.is_mapped() {
            return self.of_each_cpu();
        }
        let written = |value, write| [constant(9, value).to_vec(), vec![write]].concat();
        let sctlr = if self.is_big_endian() { SCTLR | SCTLR_EE } else { SCTLR };
        let tables = [written(MAIR, MSR_MAIR), written(TCR, MSR_TCR), written(TABLE_AT, MSR_TTBR)].concat();
        [tables, vec![ISB, TLBI_ALLE2, DSB_SY, ISB], written(sctlr, MSR_SCTLR), vec![ISB]].concat()
    }

    /// The instructions that bring any CPU into it.
    fn of_each_cpu(self) -> Vec<u32> {
        const MSR_SPSEL_0: u32 = 0xd500_40bf;
        const MRS_SCTLR: u32 = 0xd53c_1009; // mrs x9, sctlr_el2
        const ORR_EE: u32 = 0xb267_0129; // orr x9, x9, #1 << 25
        const MSR_SCTLR: u32 = 0xd51c_1009; // msr sctlr_el2, x9
        const ISB: u32 = 0xd503_3fdf;
        match self {
            Self::StackOfEl0 => vec![MSR_SPSEL_0],
            Self::BigEndian => vec![MRS_SCTLR, ORR_EE, MSR_SCTLR, ISB],
            _ => vec![],
        }
    }

    /// The table, of level 1: a GiB of devices and three of memory, each where it is; the first of memory at
    /// [`MOVED_TO`] too.
    fn table(self) -> Vec<u8> {
        const DEVICE: u64 = 0x40_0000_0000_0441; // execute-never
        const NORMAL: u64 = 0x745;
        let flat = (1..4).map(|gib| gib << 30 | NORMAL);
        let slots = [DEVICE].into_iter().chain(flat).chain([RAM_BASE | NORMAL]);
        let bytes = |slot: u64| if self.is_big_endian() { slot.to_be_bytes() } else { slot.to_le_bytes() };
        let table: Vec<u8> = slots.flat_map(bytes).collect();
        [table, vec![0; 4096 - 5 * 8]].concat()
    }

    /// What lies in memory for it beside shim, image and tree.
    #[must_use]
    pub fn loaded(self) -> Option<Loaded> {
        self.is_mapped().then(|| Loaded { pa: TABLE_AT, bytes: self.table() })
    }

    /// The address at which an image is entered that lies at `image_at`.
    const fn entry(self, image_at: u64) -> u64 {
        match self {
            Self::MovedMap => image_at - RAM_BASE + MOVED_TO,
            _ => image_at,
        }
    }
}

/// The options that load the image this way. Files that have to be made go to `scratch`.
///
/// # Errors
/// The load address cannot be had, or a file cannot be written.
pub fn arguments(entry: &Loading, machine: &Machine, img: &Path, scratch: &Path) -> Result<Vec<String>> {
    match entry {
        Loading::Kernel { load_address, append } => {
            let img = match load_address {
                None => img.to_path_buf(),
                Some(address) => moved(img, *address, machine, scratch)?,
            };
            let kernel = ["-kernel".to_owned(), img.display().to_string()];
            let line = if append.is_empty() { vec![] } else { vec!["-append".to_owned(), append.clone()] };
            Ok([kernel.to_vec(), line].concat())
        }
        Loading::Given(words) => Ok(words.clone()),
        Loading::Shim { tree, tree_at, image_at, state } => {
            by_shim(tree, (*tree_at, *image_at, *state), machine, img, scratch)
        }
    }
}

/// A copy of the image, in `scratch`, whose header asks for this address.
///
/// # Errors
/// The address cannot be had on this machine, or the copy cannot be written.
pub fn moved(img: &Path, address: u64, machine: &Machine, scratch: &Path) -> Result<PathBuf> {
    let mut bytes = fs::read(img).with_context(|| format!("cannot read {}", img.display()))?;
    let Some(size) =
        bytes.get(IMAGE_SIZE..IMAGE_SIZE + 8).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes)
    else {
        bail!("{} has no image header", img.display());
    };
    check_address(address, size, machine.ram_end_exclusive()?)?;
    bytes[TEXT_OFFSET..TEXT_OFFSET + 8].copy_from_slice(&(address - RAM_BASE).to_le_bytes());
    write(scratch, "moved.img", &bytes)
}

fn check_address(address: u64, size: u64, ram_end_exclusive: u64) -> Result<()> {
    if !address.is_multiple_of(4096) {
        bail!("load address {address:#x} is not 4 KiB-aligned");
    }
    if address < RAM_BASE {
        bail!("load address {address:#x} is below the memory, which starts at {RAM_BASE:#x}");
    }
    if address == RAM_BASE {
        bail!(
            "load address {address:#x}: QEMU keeps the first 4 KiB of memory for its own loader and would move the image"
        );
    }
    if address.checked_add(size).is_none_or(|end| end > ram_end_exclusive) {
        bail!(
            "load address {address:#x} plus {size:#x} bytes of image passes the end of memory at {ram_end_exclusive:#x}"
        );
    }
    Ok(())
}

/// Of what overlaps QEMU would say which addresses, and not whose.
fn check_apart(image_at: u64, image_bytes: u64, others: [(&str, u64, u64); 2]) -> Result<()> {
    for (whose, at, bytes) in others {
        let is_apart = at >= image_at.saturating_add(image_bytes) || image_at >= at.saturating_add(bytes);
        ensure!(is_apart, "load address {image_at:#x}: {image_bytes:#x} bytes of image lie over {whose} at {at:#x}");
    }
    Ok(())
}

/// Three instructions, those of `state` among them, and two constants behind.
fn shim(tree_at: u64, image_at: u64, state: State) -> Vec<u8> {
    const LDR_LITERAL: u32 = 0x5800_0000;
    const BR_X1: u32 = 0xd61f_0020;
    const UDF: u32 = 0; // never reached; aligns the constants
    let state_words = state.of_boot_cpu();
    let words = (3 + state_words.len() as u32).next_multiple_of(2);
    let load = |register: u32, distance: u32| LDR_LITERAL | distance << 5 | register;
    let code = [load(0, words), load(1, words + 1)].into_iter().chain(state_words).chain([BR_X1, UDF]);
    let code = code.take(words as usize).flat_map(u32::to_le_bytes);
    code.chain([tree_at, state.entry(image_at)].into_iter().flat_map(u64::to_le_bytes)).collect()
}

/// Where CPU `index` polls for its entry point on a machine with spin tables: one address for each two CPUs, so that
/// two go at once.
#[must_use]
pub const fn release_address(index: u32) -> u64 {
    PEN_AT + 0x100 + 8 * (index as u64 / 2)
}

/// A property of a tree that says so: the other CPUs come out of their pen late, three seconds after the machine's
/// start.
pub const LATE: &str = "breakwater,late";

/// Waits until the machine has run for three seconds.
const LATE_PEN: [u32; 5] = [
    0xd53b_e002, // mrs x2, cntfrq_el0
    0x8b02_0442, // add x2, x2, x2, lsl #1
    0xd53b_e023, // mrs x3, cntpct_el0
    0xeb02_007f, // cmp x3, x2
    0x54ff_ffc3, // b.lo . - 8
];

/// Polls the eight bytes at x0, some thirty times a second: a look past the caches that falls between the store of an
/// entry point and the cleaning of its line finds what was there before, and a witness would have to object.
const PEN: [u32; 9] = [
    0xf940_0001, // ldr x1, [x0]
    0xb500_0101, // cbnz x1, . + 32
    0xd53b_e002, // mrs x2, cntfrq_el0
    0xd53b_e023, // mrs x3, cntpct_el0
    0x8b42_1462, // add x2, x3, x2, lsr #5
    0xd53b_e023, // mrs x3, cntpct_el0
    0xeb02_007f, // cmp x3, x2
    0x54ff_ffc3, // b.lo . - 8
    0x17ff_fff8, // b . - 32
];
/// Goes where they say.
const OUT_OF_PEN: u32 = 0xd61f_0020; // br x1

/// Starts CPU `index` in the pen, by PSCI, with its release address in x0. Whole words of eight bytes, for the
/// constants behind.
fn start_in_pen(index: u32) -> Vec<u8> {
    const CPU_ON: u64 = 0xc400_0003;
    const SMC: u32 = 0xd400_0003;
    const NOP: u32 = 0xd503_201f;
    let arguments = [CPU_ON, index.into(), PEN_AT, release_address(index)];
    let code = (0..).zip(arguments).flat_map(|(register, value)| constant(register, value)).chain([SMC, NOP]);
    code.flat_map(u32::to_le_bytes).collect()
}

/// MOVZ and MOVK of a number of 32 bits.
fn constant(register: u32, value: u64) -> [u32; 2] {
    const MOVZ: u32 = 0xd280_0000;
    const MOVK_LSL_16: u32 = 0xf2a0_0000;
    let half = |shift: u32| ((value >> shift) as u32 & 0xffff) << 5 | register;
    [MOVZ | half(0), MOVK_LSL_16 | half(16)]
}

fn by_shim(
    tree: &[u8],
    (tree_at, image_at, state): (u64, u64, State),
    machine: &Machine,
    img: &Path,
    scratch: &Path,
) -> Result<Vec<String>> {
    if machine.level == Level::El1 {
        bail!("a shim starts at the highest level the machine has: enter EL1 with -kernel");
    }
    let image_bytes = fs::metadata(img).with_context(|| img.display().to_string())?.len();
    check_apart(image_at, image_bytes, [BELOW, ("the tree", tree_at, tree.len() as u64)])?;
    let has_spin_tables = tree.windows(10).any(|word| word == b"spin-table");
    let starts = (1..machine.smp).filter(|_| has_spin_tables).flat_map(start_in_pen);
    let code: Vec<u8> = starts.chain(shim(tree_at, image_at, state)).collect();
    let mut words = [load(&write(scratch, "shim.bin", &code)?, SHIM_AT), load(img, image_at)].concat();
    if has_spin_tables {
        let late = tree.windows(LATE.len()).any(|word| word == LATE.as_bytes()).then_some(LATE_PEN);
        let pen = late.into_iter().flatten().chain(PEN).chain(state.of_each_cpu()).chain([OUT_OF_PEN]);
        let pen: Vec<u8> = pen.flat_map(u32::to_le_bytes).collect();
        words.extend(load(&write(scratch, "pen.bin", &pen)?, PEN_AT));
    }
    if let Some(Loaded { pa, bytes }) = state.loaded() {
        words.extend(load(&write(scratch, "table.bin", &bytes)?, pa));
    }
    if !tree.is_empty() {
        words.extend(load(&write(scratch, "tree.dtb", tree)?, tree_at));
    }
    words.extend(["-device".to_owned(), format!("loader,addr={SHIM_AT:#x},cpu-num=0")]);
    Ok(words)
}

/// The options that put a file's bytes into memory.
#[must_use]
pub fn load(file: &Path, at: u64) -> Vec<String> {
    vec!["-device".to_owned(), format!("loader,file={},addr={at:#x},force-raw=on", file.display())]
}

/// Writes a file into `dir`, which is made.
///
/// # Errors
/// It cannot be written.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A file in physical memory before the first instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Physical address, a multiple of 8.
    pub pa: u64,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl Loaded {
    /// Declares the contents to `memory`.
    pub(crate) fn declare(&self, memory: &mut Memory) {
        self.words().for_each(|(pa, value)| memory.declare(pa, value));
    }

    /// Physical address and value of each word of eight bytes, the last filled up with zeros.
    pub fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bytes.chunks(8).zip((self.pa..).step_by(8)).map(|(chunk, pa)| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (pa, u64::from_le_bytes(word))
        })
    }
}

/// Where QEMU's virt machine loads a Linux arm64 `Image`: its text offset above the start of RAM, 2 MiB further up if
/// that would cover QEMU's own first instructions.
///
/// # Errors
/// It is no such image.
pub fn virt_load_address(image: &[u8]) -> Result<u64> {
    const BOOT_CODE: u64 = 0x1000;
    const BEYOND_BOOT_CODE: u64 = 0x20_0000;
    ensure!(image.get(56..60) == Some(b"ARM\x64"), "this is no arm64 Image: say where it is loaded");
    let mut offset = [0; 8];
    offset.copy_from_slice(&image[8..16]);
    let offset = u64::from_le_bytes(offset);
    ensure!(offset < 1 << 48, "the text offset {offset:#x} is beyond any memory");
    Ok(RAM_BASE + if offset < BOOT_CODE { offset + BEYOND_BOOT_CODE } else { offset })
}

#[cfg(test)]
mod tests {
    use breakwater_oracle::tables::Words;

    use super::*;

    #[test]
    fn good_load_addresses() {
        for address in [0x4000_1000, 0x4008_1000, 0x7ff0_0000] {
            assert!(check_address(address, 0x10_0000, 0xc000_0000).is_ok(), "{address:#x}");
        }
    }

    #[test]
    fn bad_load_addresses_say_why() {
        let why = |address| {
            check_address(address, 0x10_0000, 0xc000_0000).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(why(0x4000_0800).contains("4 KiB-aligned"));
        assert!(why(0x3000_0000).contains("below the memory"));
        assert!(why(0x4000_0000).contains("own loader"));
        assert!(why(0xbff0_1000).contains("end of memory"));
        assert!(why(0xffff_ffff_ffff_f000).contains("end of memory"));
    }

    #[test]
    fn bad_an_image_over_the_shim_or_the_tree_is_named() {
        let others = [BELOW, ("the tree", TREE_AT, 0x1000)];
        let why = |at| check_apart(at, 0x8_0000, others).err().map(|error| error.to_string());
        assert!(why(RAM_BASE - 0x8_0000).is_none() && why(SHIM_AT + 0x3000).is_none() && why(IMAGE_AT).is_none());
        assert!(
            why(RAM_BASE + 0x8_1000).is_some_and(|why| why.contains("over QEMU's tree and the shim at 0x40000000"))
        );
        assert!(why(TREE_AT + 0xfff).is_some_and(|why| why.contains("over the tree")));
        assert!(why(u64::MAX - 0xfff).is_none());
    }

    #[test]
    fn good_the_shim_loads_its_constants() {
        // ldr x0, . + 16; ldr x1, . + 20; br x1
        let protocol = [0x5800_0080, 0x5800_00a1, 0xd61f_0020, 0_u32];
        for (state, bytes, entry) in [
            (State::AsProtocol, 16, 0x4000_3344),
            (State::StackOfEl0, 16, 0x4000_3344),
            (State::MovedMap, 80, 0x1_0000_3344_u64),
        ] {
            let code = shim(0x1122, 0x4000_3344, state);
            assert_eq!(code[bytes..], [0x1122_u64.to_le_bytes(), entry.to_le_bytes()].concat());
            let loads =
                |at: usize| u32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]) >> 5 & 0x7_ffff;
            assert_eq!((4 * loads(0), 4 + 4 * loads(4)), (bytes as u32, bytes as u32 + 8), "{state:?}");
        }
        let code = shim(0x1122, 0x4000_3344, State::AsProtocol);
        assert_eq!(code[..16], protocol.map(u32::to_le_bytes).concat());
    }

    #[test]
    fn good_tables_of_the_shim_are_read_as_the_cpu_reads_data() {
        let (little, big) = (State::FlatMap.table(), State::FlatMapBigEndian.table());
        assert_eq!((little.len(), big.len()), (4096, 4096));
        assert_eq!(little[8..16], 0x4000_0745_u64.to_le_bytes());
        assert_eq!(big[8..16], 0x4000_0745_u64.to_be_bytes());
        assert_eq!(little[32..40], little[8..16], "the first GiB of memory, at 4 GiB too");
    }

    #[test]
    fn good_two_cpus_share_a_release_address() {
        assert_eq!([1, 2, 3, 4].map(|index| release_address(index) - PEN_AT), [0x100, 0x108, 0x108, 0x110]);
    }

    #[test]
    fn good_constants_of_32_bits() {
        // mov x2, #0x5678; movk x2, #0x1234, lsl #16, as an assembler has them.
        assert_eq!(constant(2, 0x1234_5678), [0xd28a_cf02, 0xf2a2_4682]);
        assert_eq!(start_in_pen(1).len(), 40);
    }

    #[test]
    fn good_files_are_padded_to_words() {
        let mut memory = Memory::default();
        Loaded { pa: 0x1000, bytes: vec![1, 2, 3, 4, 5, 6, 7, 8, 9] }.declare(&mut memory);
        assert_eq!((memory.word(0x1000), memory.word(0x1008)), (0x0807_0605_0403_0201, 9));
    }
}
