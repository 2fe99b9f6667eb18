//! What is watched: a QEMU command line, and what lies in memory before the first instruction.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use breakwater_trace::Feature;

use crate::Tools;
use crate::child::Finished;
use crate::elf::Elf;
use crate::loader::{self, Loading};
use crate::loader::{Loaded, virt_load_address};
use crate::machine::{Machine, RAM_BASE};
use crate::names::{Names, Relocation};

/// Where QEMU's virt machine loads a kernel that is neither an ELF file nor a Linux `Image`.
const RAW_KERNEL: u64 = RAM_BASE + 0x8_0000;

/// What an image's own report of a boot says went wrong; nothing if it went well.
pub type OwnEnd = fn(&Finished) -> Option<String>;

/// An image on a machine.
#[derive(Debug)]
pub struct Subject {
    /// What it is called in reports.
    pub name: String,
    /// The emulator and the recorder.
    pub tools: Tools,
    /// Machine, image and command line.
    pub arguments: Vec<String>,
    /// CPUs of the machine.
    pub cpus: u32,
    /// All CPUs in one host thread, as `-icount` has them.
    pub one_thread: bool,
    /// Memory before the first instruction, as far as it is known; the image first.
    pub loaded: Vec<Loaded>,
    /// Where memory is; nothing where that is not known.
    pub ram: Option<Range<u64>>,
    /// Names for addresses.
    pub symbols: Names,
    /// Features and errata that every CPU is judged by, besides those its registers tell.
    pub promised: Vec<Feature>,
    /// It is held to house rules besides ([`crate::recorded::Conduct`]).
    pub house_rules: bool,
    /// How the image itself says that its boot failed, if that is known.
    pub own_end: Option<OwnEnd>,
}

/// An image and how it is started.
pub struct Start<'a> {
    /// The image.
    pub image: &'a Path,
    /// ELF files, for symbols: its own first, then those of what it loads.
    pub elfs: &'a [PathBuf],
    /// Where what was loaded moves itself.
    pub relocated: &'a [Relocation],
    /// The machine.
    pub machine: &'a Machine,
    /// `-M` of another machine than virt.
    pub board: Option<&'a str>,
    /// Where the image is loaded, if not where QEMU puts it.
    pub load_address: Option<u64>,
    /// Its command line.
    pub append: &'a str,
    /// Further arguments of QEMU.
    pub more: &'a [String],
}

impl Subject {
    /// Any image that QEMU starts as a kernel.
    ///
    /// # Errors
    /// The machine or the load address cannot be had, or a file cannot be read.
    pub fn image(tools: &Tools, start: &Start<'_>) -> Result<Self> {
        let Start { image, machine, board, append, .. } = *start;
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
        let (way_in, loaded) = way_in(start, &bytes, &tools.scratch)?;
        arguments.extend(way_in);
        if !append.is_empty() && !arguments.iter().any(|argument| argument == "-append") {
            arguments.extend(["-append".to_owned(), append.to_owned()]);
        }
        arguments.extend(start.more.iter().cloned());
        let ram = board.is_none().then(|| machine.ram_end_exclusive()).transpose()?.map(|end| RAM_BASE..end);
        let symbols = Names::read(start.elfs, &loaded, start.relocated)?;
        Ok(Self {
            name: crate::paths::shown(image),
            tools: tools.clone(),
            arguments,
            cpus: machine.smp,
            one_thread: machine.icount,
            loaded,
            ram,
            symbols,
            promised: Vec::new(),
            house_rules: false,
            own_end: None,
        })
    }

    /// The bytes of the image in physical memory.
    #[must_use]
    pub fn extent(&self) -> Range<u64> {
        self.loaded.first().map_or(0..0, |Loaded { pa, bytes }| *pa..*pa + bytes.len() as u64)
    }
}

/// QEMU's arguments for the image, and what they put where.
fn way_in(start: &Start<'_>, bytes: &[u8], scratch: &Path) -> Result<(Vec<String>, Vec<Loaded>)> {
    let Start { image, machine, board, load_address, .. } = *start;
    let kernel = || vec!["-kernel".to_owned(), image.display().to_string()];
    let at = |pa: u64| vec![Loaded { pa, bytes: bytes.to_vec() }];
    if bytes.starts_with(b"\x7fELF") {
        ensure!(load_address.is_none(), "an ELF file says itself where it is loaded: leave --load-address out");
        let elf = Elf::parse(bytes).and_then(|elf| elf.loaded()).with_context(|| image.display().to_string())?;
        return Ok((kernel(), elf.into_iter().map(|(pa, bytes)| Loaded { pa: pa & !7, bytes }).collect()));
    }
    let linux = bytes.get(56..60) == Some(b"ARM\x64");
    match load_address {
        _ if board.is_some() => Ok((kernel(), load_address.map(at).unwrap_or_default())),
        None if linux => Ok((kernel(), at(virt_load_address(bytes)?))),
        None => Ok((kernel(), at(RAW_KERNEL))),
        Some(address) if linux => {
            let entry = Loading::Kernel { load_address, append: String::new() };
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
