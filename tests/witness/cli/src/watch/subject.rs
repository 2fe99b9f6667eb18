//! What is watched: a QEMU command line, and what lies in memory before the first instruction.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use breakwater_trace::{Feature, Record};

use super::entry::{From, Payload};
use crate::Tools;
use crate::baseline::Baseline;
use crate::child::Finished;
use crate::elf::Elf;
use crate::loader::{self, Loading};
use crate::loader::{Loaded, virt_load_address};
use crate::machine::{FLASH, Machine, RAM_BASE};
use crate::names::{Names, Relocation};

/// Where QEMU's virt machine loads a kernel that is neither an ELF file nor a Linux `Image`.
const RAW_KERNEL: u64 = RAM_BASE + 0x8_0000;

/// Whether these arguments of QEMU bring firmware its payload.
fn bring_payload(arguments: &[String]) -> bool {
    let brings = |option: &str, value: &str| match option {
        "-kernel" | "-blockdev" | "-hda" | "-sd" | "-cdrom" => true,
        // Variables in the second part of the flash start nothing.
        "-drive" => !value.contains("if=pflash"),
        "-device" => value.starts_with("loader,"),
        _ => false,
    };
    arguments.windows(2).any(|pair| brings(&pair[0], &pair[1]))
}

/// Whether these arguments of QEMU start something else, or load `image` themselves.
pub(crate) fn bring(arguments: &[String], image: &Path) -> bool {
    let file = format!("file={}", image.display());
    let loads = |value: &str| value.starts_with("loader,") && value.split(',').any(|part| part == file);
    arguments.windows(2).any(|pair| pair[0] == "-kernel" || pair[0] == "-device" && loads(&pair[1]))
}

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
    /// What physical memory is; nothing where that is not known.
    pub memory: Vec<Record>,
    /// Names for addresses.
    pub symbols: Names,
    /// Features and errata that every CPU is judged by, besides those its registers tell.
    pub promised: Vec<Feature>,
    /// It is held to house rules besides ([`crate::recorded::Conduct`]).
    pub house_rules: bool,
    /// Figures are taken: they are about an image's boot, not a firmware's.
    pub is_measured: bool,
    /// Where judging begins.
    pub from: From,
    /// How the image itself says that its boot failed, if that is known.
    pub own_end: Option<OwnEnd>,
    /// Findings that are known, and fail nothing.
    pub baseline: Option<Baseline>,
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
    /// Where the image is loaded, if not where QEMU puts it.
    pub load_address: Option<u64>,
    /// Its command line.
    pub append: &'a str,
    /// Further arguments of QEMU.
    pub more: &'a [String],
}

impl<'a> Start<'a> {
    /// An image on virt, where QEMU puts it, without a command line.
    #[must_use]
    pub const fn of(image: &'a Path, elfs: &'a [PathBuf], machine: &'a Machine) -> Self {
        Self { image, elfs, relocated: &[], machine, load_address: None, append: "", more: &[] }
    }
}

impl Subject {
    /// Any image that QEMU starts as a kernel.
    ///
    /// # Errors
    /// The machine or the load address cannot be had, or a file cannot be read.
    pub fn image(tools: &Tools, start: &Start<'_>) -> Result<Self> {
        let Start { image, append, .. } = *start;
        let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        ensure!(!bytes.is_empty(), "{} is empty", image.display());
        ensure!(!bytes.starts_with(&[0x1f, 0x8b]), "{} is compressed: gunzip it first", image.display());
        let (mut way_in, loaded) = way_in(start, &bytes, &tools.scratch)?;
        if !append.is_empty() && !way_in.iter().any(|argument| argument == "-append") {
            way_in.extend(["-append".to_owned(), append.to_owned()]);
        }
        // Where QEMU puts it on a board, QEMU alone knows.
        let is_anywhere = loaded.is_empty();
        let from =
            if is_anywhere { From::Payload(Payload::read(image, start.elfs, start.relocated)?) } else { From::Reset };
        Ok(Self { from, ..Self::started(tools, start, way_in, loaded, image)? })
    }

    /// Firmware in flash, as QEMU's `-bios` takes it, and the image of `start`, if there is one, as its payload: as
    /// `-kernel`, unless further arguments bring it.
    ///
    /// # Errors
    /// The machine cannot be had, a file cannot be read, or the firmware is larger than its flash.
    pub fn firmware(tools: &Tools, start: &Start<'_>, bios: &Path, payload: Option<&Path>) -> Result<Self> {
        let mut bytes = fs::read(bios).with_context(|| format!("cannot read {}", bios.display()))?;
        let [Range { start: pa, end }, _] = FLASH;
        ensure!(bytes.len() as u64 <= end - pa, "{} is larger than the flash, which has 64 MiB", bios.display());
        ensure!(start.load_address.is_none(), "--bios: where the image is loaded is the firmware's choice");
        // Padding is no contents that anything depends on, and 64 MiB of it would be eight million words.
        let used = bytes.iter().rposition(|byte| *byte != 0 && *byte != 0xff).map_or(0, |last| last + 1);
        bytes.truncate(used.next_multiple_of(8).min(bytes.len()));
        let mut way_in = vec!["-bios".to_owned(), bios.display().to_string()];
        if let Some(image) = payload.filter(|_| !bring_payload(start.more)) {
            way_in.extend(["-kernel".to_owned(), image.display().to_string()]);
            if !start.append.is_empty() {
                way_in.extend(["-append".to_owned(), start.append.to_owned()]);
            }
        }
        let subject = Self::started(tools, start, way_in, vec![Loaded { pa, bytes }], payload.unwrap_or(bios))?;
        Ok(Self { is_measured: false, ..subject })
    }

    /// The image of `start` behind firmware in flash, judged from its own entry on.
    ///
    /// # Errors
    /// As [`Subject::firmware`] and [`Payload::read`].
    pub fn behind(tools: &Tools, start: &Start<'_>, bios: &Path) -> Result<Self> {
        let from = From::Payload(Payload::read(start.image, start.elfs, start.relocated)?);
        let subject = Self::firmware(tools, start, bios, Some(start.image))?;
        Ok(Self { from, ..subject })
    }

    /// The image of `start`, brought by the further arguments of `start` themselves, judged from its own entry on.
    ///
    /// # Errors
    /// The machine cannot be had, or as [`Payload::read`].
    pub fn brought(tools: &Tools, start: &Start<'_>) -> Result<Self> {
        let from = From::Payload(Payload::read(start.image, start.elfs, start.relocated)?);
        let subject = Self::started(tools, start, Vec::new(), Vec::new(), start.image)?;
        Ok(Self { from, is_measured: false, ..subject })
    }

    /// A machine with this way in, after which memory holds what is `loaded`; named after a file.
    fn started(
        tools: &Tools,
        start: &Start<'_>,
        way_in: Vec<String>,
        loaded: Vec<Loaded>,
        named: &Path,
    ) -> Result<Self> {
        let Start { machine, .. } = *start;
        machine.check_recordable()?;
        ensure!(
            !machine.icount || machine.smp == 1,
            "--icount with {} CPUs: QEMU then runs them in one thread and gives plugins wrong CPU numbers; use --smp 1, or leave --icount out",
            machine.smp
        );
        let mut arguments = machine.arguments()?;
        arguments.extend(way_in);
        arguments.extend(start.more.iter().cloned());
        let memory = machine.declared()?;
        let symbols = Names::read(start.elfs, &loaded, start.relocated)?;
        Ok(Self {
            name: crate::paths::shown(named),
            tools: tools.clone(),
            arguments,
            cpus: machine.smp,
            one_thread: machine.icount,
            loaded,
            memory,
            symbols,
            promised: Vec::new(),
            house_rules: false,
            is_measured: true,
            from: From::Reset,
            own_end: None,
            baseline: None,
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
    let Start { image, machine, load_address, .. } = *start;
    let board = &machine.board;
    let kernel = || vec!["-kernel".to_owned(), image.display().to_string()];
    let at = |pa: u64| vec![Loaded { pa, bytes: bytes.to_vec() }];
    if bytes.starts_with(b"\x7fELF") {
        ensure!(load_address.is_none(), "an ELF file says itself where it is loaded: leave --load-address out");
        let elf = Elf::parse(bytes).and_then(|elf| elf.loaded()).with_context(|| image.display().to_string())?;
        if board.is_none() {
            check_loaded(image, &elf, machine)?;
        }
        return Ok((kernel(), elf.into_iter().map(|(pa, bytes)| Loaded { pa: pa & !7, bytes }).collect()));
    }
    let linux = bytes.get(56..60) == Some(b"ARM\x64");
    if let (None, Some(address)) =
        (board, load_address.filter(|address| FLASH.iter().any(|flash| flash.contains(address))))
    {
        bail!(
            "load address {address:#x} is in the flash of the machine, up to {:#x}: firmware goes there by --bios",
            FLASH[1].end
        );
    }
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

/// Refuses an ELF file whose segments want to be where the machine has nothing: one for debuggers, linked at virtual
/// addresses.
fn check_loaded(image: &Path, segments: &[(u64, Vec<u8>)], machine: &Machine) -> Result<()> {
    let ram = RAM_BASE..machine.ram_end_exclusive()?;
    for (pa, _) in segments {
        ensure!(
            ram.contains(pa) || FLASH.iter().any(|flash| flash.contains(pa)),
            "{}: a segment is loaded at {pa:#x}, where the machine has no memory ({:#x}..{:#x}): give the flat image, \
                .img; this file is for debuggers",
            image.display(),
            ram.start,
            ram.end
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Qemu;

    fn tools(dir: &Path) -> Tools {
        let qemu = Qemu { program: PathBuf::from("qemu"), version: "10.0".to_owned() };
        Tools { qemu, plugin: PathBuf::new(), scratch: dir.into(), cache: dir.into() }
    }

    #[test]
    fn good_where_nobody_says_where_an_image_lies_it_is_judged_from_its_entry_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        fs::write(&image, [0x1f; 64]).expect("it can be written");
        let virt = Machine::default();
        let board = Machine { board: Some(vec!["-M".to_owned(), "raspi3b".to_owned()]), ..Machine::default() };
        for (machine, load_address, is_known) in
            [(&virt, None, true), (&board, None, false), (&board, Some(0x8_0000), true)]
        {
            let start = Start { load_address, ..Start::of(&image, &[], machine) };
            let subject = Subject::image(&tools(dir.path()), &start).expect("it is an image");
            assert_eq!((matches!(subject.from, From::Reset), !subject.loaded.is_empty()), (is_known, is_known));
            assert_eq!(subject.memory.is_empty(), machine.board.is_some());
        }
        let more = ["-kernel".to_owned(), "u-boot.bin".to_owned()];
        let brought = Subject::brought(&tools(dir.path()), &Start { more: &more, ..Start::of(&image, &[], &virt) });
        let brought = brought.expect("it is an image");
        assert!(matches!(brought.from, From::Payload(_)) && brought.arguments.ends_with(&more));
    }

    /// The arguments, or the error, with firmware of these `bytes` and a payload, after which `more` is given to QEMU.
    fn firmware(bytes: &[u8], more: &[&str]) -> Result<Subject> {
        let dir = tempfile::tempdir()?;
        let bios = dir.path().join("firmware");
        fs::write(&bios, bytes)?;
        let tools = tools(dir.path());
        let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        let (machine, image) = (Machine::default(), Path::new("payload"));
        let (load_address, append) = (None, "line");
        let (elfs, relocated): (&[PathBuf], &[Relocation]) = (&[], &[]);
        let start = Start { image, elfs, relocated, machine: &machine, load_address, append, more: &more };
        Subject::firmware(&tools, &start, &bios, Some(image))
    }

    #[test]
    fn good_firmware_lies_in_flash_without_its_padding() {
        let subject = firmware(&[&[1; 9][..], &[0; 100], &[0xff; 100]].concat(), &[]).expect("it fits");
        assert_eq!(subject.loaded.iter().map(|file| (file.pa, file.bytes.len())).collect::<Vec<_>>(), [(0, 16)]);
        assert!(subject.memory.iter().any(|record| record.to_string() == "memory 0 4000000 flash"));
    }

    #[test]
    fn good_the_payload_is_a_kernel_unless_something_else_brings_it() {
        let is_kernel = |more: &[&str]| {
            let arguments = firmware(&[1; 8], more).expect("it fits").arguments;
            arguments.windows(4).any(|words| words == ["-kernel", "payload", "-append", "line"])
        };
        assert!(is_kernel(&[]) && is_kernel(&["-drive", "if=pflash,file=variables"]) && is_kernel(&["-device", "rng"]));
        assert!(!is_kernel(&["-drive", "file=disk"]) && !is_kernel(&["-kernel", "other"]));
        assert!(!is_kernel(&["-device", "loader,file=payload,addr=0x41000000"]));
    }

    #[test]
    fn good_an_image_is_brought_by_what_loads_it_and_by_nothing_else() {
        let bring = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            bring(&words, Path::new("image"))
        };
        assert!(bring(&["-device", "loader,file=image,addr=0x41000000"]) && bring(&["-kernel", "u-boot.bin"]));
        assert!(!bring(&["-device", "loader,file=image.dtb,addr=0x48000000"]) && !bring(&["-drive", "file=image"]));
    }

    #[test]
    fn bad_firmware_that_its_flash_does_not_hold() {
        let error = firmware(&vec![1; 0x400_0001], &[]).expect_err("it is too large").to_string();
        assert!(error.contains("larger than the flash"), "{error}");
    }

    #[test]
    fn bad_an_elf_file_for_debuggers_is_refused_by_name() {
        let check = |pa| check_loaded(Path::new("boot.elf"), &[(pa, vec![0; 8])], &Machine::default());
        assert!(check(0x4008_0000).is_ok() && check(0x1000).is_ok());
        let error = check(0xa00_0020_0000).expect_err("there is no memory").to_string();
        assert!(error.starts_with("boot.elf: a segment is loaded at 0xa0000200000, where"), "{error}");
        assert!(error.contains("give the flat image, .img"), "{error}");
        assert!(check(0xc000_0000).is_err(), "behind 2 GiB of memory");
    }

    #[test]
    fn bad_a_load_address_in_flash_is_refused_by_name() {
        let machine = Machine::default();
        let (append, more, relocated): (_, &[String], &[Relocation]) = ("", &[], &[]);
        let (image, load_address) = (Path::new("image"), Some(0x400_1000));
        let start = Start { image, elfs: &[], relocated, machine: &machine, load_address, append, more };
        let error = way_in(&start, &[1; 64], Path::new("")).expect_err("no image lies there").to_string();
        assert!(error.contains("0x4001000 is in the flash") && error.contains("--bios"), "{error}");
    }
}
