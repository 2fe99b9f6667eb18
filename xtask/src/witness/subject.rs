//! What is watched: a QEMU command line, and what lies in memory before the first instruction.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use breakwater_trace::Feature;

use crate::image::Image;
use crate::loader::{self, Entry};
use crate::machine::{Machine, RAM_BASE};
use crate::measure::symbols::Symbols;
use crate::measure::{Loaded, virt_load_address};

/// Where QEMU's virt machine loads a kernel that is neither an ELF file nor a Linux `Image`.
const RAW_KERNEL: u64 = RAM_BASE + 0x8_0000;

/// An image on a machine.
pub(crate) struct Subject {
    /// What it is called in reports.
    pub(crate) name: String,
    /// qemu-system-aarch64, 9.2 or later.
    pub(crate) qemu: PathBuf,
    /// The recorder.
    pub(crate) plugin: PathBuf,
    /// Machine, image and command line.
    pub(crate) arguments: Vec<String>,
    /// CPUs of the machine.
    pub(crate) cpus: u32,
    /// All CPUs in one host thread, as `-icount` has them.
    pub(crate) one_thread: bool,
    /// Memory before the first instruction, as far as it is known; the image first.
    pub(crate) loaded: Vec<Loaded>,
    /// Where memory is; nothing where that is not known.
    pub(crate) ram: Option<Range<u64>>,
    /// Names for addresses.
    pub(crate) symbols: Symbols,
    /// Features and errata that every CPU is judged by, besides those its registers tell.
    pub(crate) promised: Vec<Feature>,
    /// Our own image: it keeps to house rules, and says by itself how the boot went.
    pub(crate) ours: bool,
}

/// An image and how it is started.
pub(crate) struct Start<'a> {
    /// The image.
    pub(crate) image: &'a Path,
    /// Its ELF file, for symbols.
    pub(crate) elf: Option<&'a Path>,
    /// The machine.
    pub(crate) machine: &'a Machine,
    /// `-M` of another machine than virt.
    pub(crate) board: Option<&'a str>,
    /// Where the image is loaded, if not where QEMU puts it.
    pub(crate) load_address: Option<u64>,
    /// Its command line.
    pub(crate) append: &'a str,
    /// Further arguments of QEMU.
    pub(crate) more: &'a [String],
    /// For files that have to be made.
    pub(crate) scratch: &'a Path,
}

impl Subject {
    /// Our image.
    ///
    /// # Errors
    /// The machine or the load address cannot be had, or the image cannot be read.
    pub(crate) fn ours(qemu: &Path, plugin: &Path, image: &Image, start: &Start<'_>) -> Result<Self> {
        let start = Start { image: &image.img, elf: Some(&image.elf), ..*start };
        let mut subject = Self::image(qemu, plugin, &start)?;
        // Made up for on every core, since the first tables are older than any knowledge of the part.
        subject.promised = vec![Feature::HcrBarriers, Feature::IsbBeforeMmuOff];
        subject.name = "our image".to_owned();
        subject.ours = true;
        Ok(subject)
    }

    /// Any image that QEMU starts as a kernel.
    ///
    /// # Errors
    /// The machine or the load address cannot be had, or a file cannot be read.
    pub(crate) fn image(qemu: &Path, plugin: &Path, start: &Start<'_>) -> Result<Self> {
        let Start { image, elf, machine, board, append, .. } = *start;
        ensure!(
            !machine.icount || machine.smp == 1,
            "--icount with {} CPUs: QEMU then runs them in one thread and gives plugins wrong CPU numbers; use --smp 1, or leave --icount out",
            machine.smp
        );
        let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        ensure!(!bytes.is_empty(), "{} is empty", image.display());
        ensure!(!bytes.starts_with(&[0x1f, 0x8b]), "{} is compressed: gunzip it first", image.display());
        let mut arguments = machine.arguments()?;
        if let (Some(board), Some(given)) = (board, arguments.get_mut(1)) {
            board.clone_into(given);
        }
        let (way_in, loaded) = way_in(start, &bytes)?;
        arguments.extend(way_in);
        if !append.is_empty() && !arguments.iter().any(|argument| argument == "-append") {
            arguments.extend(["-append".to_owned(), append.to_owned()]);
        }
        arguments.extend(start.more.iter().cloned());
        let ram = board.is_none().then(|| machine.ram_end_exclusive()).transpose()?.map(|end| RAM_BASE..end);
        let load = loaded.first().map(|image| image.pa);
        let symbols = elf.map(|elf| Symbols::read(elf, load.unwrap_or(0))).transpose()?.unwrap_or_default();
        Ok(Self {
            name: crate::paths::shown(image),
            qemu: qemu.to_path_buf(),
            plugin: plugin.to_path_buf(),
            arguments,
            cpus: machine.smp,
            one_thread: machine.icount,
            loaded,
            ram,
            symbols,
            promised: Vec::new(),
            ours: false,
        })
    }

    /// The bytes of the image in physical memory.
    pub(crate) fn extent(&self) -> Range<u64> {
        self.loaded.first().map_or(0..0, |Loaded { pa, bytes }| *pa..*pa + bytes.len() as u64)
    }
}

/// QEMU's arguments for the image, and what they put where.
fn way_in(start: &Start<'_>, bytes: &[u8]) -> Result<(Vec<String>, Vec<Loaded>)> {
    let Start { image, machine, board, load_address, scratch, .. } = *start;
    let kernel = || vec!["-kernel".to_owned(), image.display().to_string()];
    let at = |pa: u64| vec![Loaded { pa, bytes: bytes.to_vec() }];
    if bytes.starts_with(b"\x7fELF") {
        ensure!(load_address.is_none(), "an ELF file says itself where it is loaded: leave --load-address out");
        return Ok((kernel(), segments(bytes).with_context(|| image.display().to_string())?));
    }
    let linux = bytes.get(56..60) == Some(b"ARM\x64");
    match load_address {
        _ if board.is_some() => Ok((kernel(), load_address.map(at).unwrap_or_default())),
        None if linux => Ok((kernel(), at(virt_load_address(bytes)?))),
        None => Ok((kernel(), at(RAW_KERNEL))),
        Some(address) if linux => {
            let entry = Entry::Kernel { load_address, append: String::new() };
            let words = loader::arguments(&entry, machine, image, scratch)?;
            let moved = words.last().context("the loader names no file")?;
            Ok((words.clone(), vec![Loaded { pa: address, bytes: fs::read(moved)? }]))
        }
        Some(address) => {
            ensure!(address.is_multiple_of(8), "load address {address:#x} is not a multiple of 8");
            let file = format!("loader,file={},addr={address:#x},force-raw=on", image.display());
            let cpu = format!("loader,addr={address:#x},cpu-num=0");
            Ok((vec!["-device".to_owned(), file, "-device".to_owned(), cpu], at(address)))
        }
    }
}

/// What QEMU loads of an ELF file, at physical addresses, the lowest first.
fn segments(bytes: &[u8]) -> Result<Vec<Loaded>> {
    use object::read::elf::{FileHeader, ProgramHeader};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let mut loaded = Vec::new();
    for segment in header.program_headers(endian, bytes)? {
        if segment.p_type(endian) == object::elf::PT_LOAD {
            let Ok(data) = segment.data(endian, bytes) else { bail!("a segment lies outside the file") };
            let mut bytes = data.to_vec();
            bytes.resize(usize::try_from(segment.p_memsz(endian))?.min(1 << 30), 0);
            loaded.push(Loaded { pa: segment.p_paddr(endian) & !7, bytes });
        }
    }
    loaded.sort_by_key(|segment: &Loaded| segment.pa);
    ensure!(!loaded.is_empty(), "the ELF file loads nothing");
    Ok(loaded)
}
