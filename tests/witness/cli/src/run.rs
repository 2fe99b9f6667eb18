//! `run`: its command line, and what it does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use breakwater_trace::Feature;

use crate::baseline::Baseline;
use crate::machine::{self, Machine};
use crate::names::Relocation;
use crate::timeline::Timeline;
use crate::watch::{self, Ends, From, OwnEnd, Payload, Rejected, Start, Subject, Testimony, Verdict};
use crate::{Tools, debian, ui, xen};

const OTHER_IMAGE: &str = "What is watched";
const END: &str = "End of the run, besides the image's own and --timeout";

/// `run`.
#[derive(Debug, Clone, clap::Args)]
// Else clap makes a group named Args, and a command that takes these options and others has one of its own.
#[group(skip)]
pub struct Args {
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
    /// Watch this image: a Linux Image, an ELF file or a raw binary, as QEMU's -kernel takes it; unless `-- -device
    /// loader,file=...` loads it or `-- -kernel ...` starts it, and it is judged from its entry on
    #[arg(long, value_name = "FILE", help_heading = OTHER_IMAGE)]
    pub image: Option<PathBuf>,
    /// Start this firmware, from the machine's flash. An --image is then what it starts: as QEMU's -kernel, unless `--
    /// -drive ...` brings it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["xen", "load_address", "board"], help_heading = OTHER_IMAGE)]
    pub bios: Option<PathBuf>,
    /// Fetch this Debian package, as --xen does: --image, --bios and --elf name files of it, where there is no such
    /// file here
    #[arg(long, value_name = "PACKAGE[=VERSION]", conflicts_with = "xen", help_heading = OTHER_IMAGE)]
    pub debian: Option<String>,
    /// Judge from here on, and take what was done before as found. Behind --bios an --image is judged from its entry on
    #[arg(long, value_name = "entry|SYMBOL|0xADDRESS", conflicts_with = "whole", help_heading = OTHER_IMAGE)]
    pub from: Option<String>,
    /// Judge the firmware too, from its first instruction on
    #[arg(long, requires = "bios", help_heading = OTHER_IMAGE)]
    pub whole: bool,
    /// Its ELF file, for the names of functions; an --image that is one has them itself. Once more for each that it
    /// loads: one that is not the image lies where its segments say
    #[arg(long = "elf", value_name = "FILE", conflicts_with = "xen", help_heading = OTHER_IMAGE)]
    pub elfs: Vec<PathBuf>,
    /// It moves itself: what is linked or loaded at FROM runs at TO. May be given more than once
    #[arg(long, value_name = "FROM=TO", requires = "elfs", help_heading = OTHER_IMAGE)]
    pub relocated: Vec<Relocation>,
    /// Watch Debian's Xen of this version, fetched without touching the system: 4.17, 4.20, or 4.17=VERSION for one version of the
    /// package. It gets a dom0 of two instructions, and the run ends when Xen has freed its init memory
    #[arg(
        long,
        value_name = "VERSION",
        conflicts_with_all = ["image", "load_address", "board"],
        help_heading = OTHER_IMAGE
    )]
    pub xen: Option<String>,
    /// Load the image at this physical address, any 4 KiB page of the memory
    #[arg(long, value_name = "ADDRESS", value_parser = machine::address)]
    pub load_address: Option<u64>,
    /// Command line of the image
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    pub append: String,
    /// Features and errata of every CPU besides those that its registers tell, as the trace format spells them: bbm=2,ets2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub features: Vec<Feature>,
    /// Ask more than the architecture does: vectors before anything may fault, WXN before M, caches with M, switches with M = 0
    #[arg(long)]
    pub house_rules: bool,
    /// Fail for new findings alone: FILE is what an earlier run or `judge` printed. Findings are known by their causes
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Keep the trace, without what no rule can need; `judge FILE` says the same of it
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Draw the run into this file: each CPU's MMU, tables, barriers, invalidations and broken rules
    #[arg(long, value_name = "FILE.svg")]
    pub timeline: Option<PathBuf>,
    /// Another machine than virt, as QEMU's -M takes it; where its memory is, nobody then says
    #[arg(long, value_name = "NAME,OPTION...", requires = "image", help_heading = OTHER_IMAGE)]
    pub board: Option<String>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
    /// Print the report as JSON on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Seconds for all of it. A boot that has not ended then counts as hung, and --trace keeps the trace whole
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub timeout: u64,
    /// Further arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENT", help_heading = OTHER_IMAGE)]
    pub more: Vec<String>,
    /// End once the serial line says this
    #[arg(long, value_name = "TEXT", help_heading = END)]
    pub until: Option<String>,
    /// End when a CPU is about to execute this function or address
    #[arg(long, value_name = "SYMBOL|0xADDRESS", help_heading = END)]
    pub until_symbol: Option<String>,
    /// End once a CPU has executed so many instructions
    #[arg(long, value_name = "N", help_heading = END)]
    pub instructions: Option<u64>,
    /// What it is called in reports, if not by its file's name.
    #[arg(skip)]
    pub name: Option<String>,
    /// How the image itself says that its boot failed, if that is known.
    #[arg(skip)]
    pub own_end: Option<OwnEnd>,
}

/// Watches, prints what was found, a summary and the WITNESS-REPORT line.
///
/// # Errors
/// [`Rejected`] for a verdict other than clean; QEMU cannot be run.
pub fn command(args: &Args, tools: &Tools) -> Result<()> {
    let args = &args.fetched(tools)?;
    let began = Instant::now();
    let subject = args.subject(tools)?;
    let ends = args.ends(&subject)?;
    // To thin it, it is gone through twice.
    let whole = args.trace.as_ref().map(|_| tools.scratch.join("raw.trace"));
    ui::command(&watch::shown(&subject, &ends));
    let mut timeline = args.timeline.as_ref().map(|_| Timeline::new(&subject.loaded));
    let testimony = watch::watch(&subject, &ends, (whole.as_deref(), !args.json), |line, record| {
        if let Some(timeline) = &mut timeline {
            timeline.record(line, record);
        }
    })?;
    if let (Some(timeline), Some(file)) = (&mut timeline, &args.timeline) {
        testimony.draw(timeline, file)?;
    }
    if let (Some(whole), Some(file)) = (&whole, &args.trace) {
        let kept = testimony.keep(whole, file, began + ends.timeout);
        let _ = std::fs::remove_file(whole);
        kept?;
    }
    said(&testimony, args.json)
}

/// Prints it.
fn said(testimony: &Testimony, json: bool) -> Result<()> {
    if !json {
        anstream::println!("{testimony}");
    }
    anstream::println!("WITNESS-REPORT {}", testimony.to_json());
    if testimony.verdict == Verdict::Clean {
        return Ok(());
    }
    Err(Rejected { verdict: testimony.verdict, line: format!("{}: {}", testimony.verdict.name(), testimony.why) }
        .into())
}

impl Args {
    /// Refuses what cannot be meant, before anything is fetched or built.
    ///
    /// # Errors
    /// The amount of memory is none; there are too many CPUs; `--until` is empty; the image is no file.
    pub fn check(&self) -> Result<()> {
        self.machine.memory_bytes()?;
        self.machine.check_recordable()?;
        ensure!(self.until.as_deref() != Some(""), "--until: an empty text is on every line");
        // Those of a package are there once it is.
        if self.debian.is_none() {
            self.require_files()?;
        }
        Ok(())
    }

    fn require_files(&self) -> Result<()> {
        for file in self.image.iter().chain(&self.bios).chain(&self.elfs) {
            ensure!(file.is_file(), "there is no file {}", file.display());
        }
        Ok(())
    }

    /// The same with the files of its Debian package, if it names one.
    fn fetched(&self, tools: &Tools) -> Result<Self> {
        let mut args = self.clone();
        let Some(package) = &self.debian else { return Ok(args) };
        let tree = debian::fetch(package, &tools.cache.join("debian"))?;
        for file in args.image.iter_mut().chain(&mut args.bios).chain(&mut args.elfs) {
            let packed = tree.join(&*file);
            if !file.is_file() && packed.is_file() {
                *file = packed;
            }
        }
        args.require_files()?;
        Ok(args)
    }

    fn subject(&self, tools: &Tools) -> Result<Subject> {
        let machine = self.machine()?;
        // An image that is an ELF file brings its names; where firmware puts it nobody says.
        let own = self.image.iter().filter(|image| self.bios.is_none() && is_elf(image));
        let own: Vec<PathBuf> = own.cloned().collect();
        let mut start = Start {
            image: Path::new(""),
            elfs: if self.elfs.is_empty() { &own } else { &self.elfs },
            relocated: &self.relocated,
            machine: &machine,
            load_address: self.load_address,
            append: &self.append,
            more: &self.more,
        };
        let mut subject = match (&self.image, &self.xen) {
            _ if let Some(bios) = &self.bios => Subject::firmware(tools, &start, bios, self.image.as_deref())?,
            (Some(image), _) => {
                start.image = image;
                if watch::bring(&self.more, image) {
                    Subject::brought(tools, &start)?
                } else {
                    Subject::image(tools, &start)?
                }
            }
            (None, Some(version)) => xen::fetch(version, &tools.cache.join("xen"))?.subject(tools, &start)?,
            (None, None) => bail!("say what to watch: --image FILE, --bios FILE, or --xen VERSION"),
        };
        let payload = || {
            let image = self.image.as_ref().filter(|_| self.bios.is_some());
            image.map(|image| Payload::read(image, &self.elfs, &self.relocated)).transpose()
        };
        let behind = self.bios.is_some() && self.image.is_some() && !self.whole;
        if let Some(from) = self.from.as_deref().or_else(|| behind.then_some("entry")) {
            subject.from = From::parse(from, &subject.symbols, payload)?;
        }
        subject.promised.clone_from(&self.features);
        subject.baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        (subject.house_rules, subject.own_end) = (self.house_rules, self.own_end);
        subject.name = self.name.clone().unwrap_or(subject.name);
        Ok(subject)
    }

    /// The machine that is asked for: `virt`, or with the same options another board.
    fn machine(&self) -> Result<Machine> {
        let mut machine = self.machine.clone();
        if let Some(board) = &self.board {
            let mut words = Machine { icount: false, ..machine.clone() }.arguments()?;
            board.clone_into(&mut words[1]);
            machine.board = Some(words);
        }
        Ok(machine)
    }

    fn ends(&self, subject: &Subject) -> Result<Ends> {
        let addresses = match &self.until_symbol {
            None => Vec::new(),
            Some(name) => match machine::address(name) {
                Ok(address) => vec![address],
                Err(_) => subject.symbols.addresses(name),
            },
        };
        if let (Some(name), []) = (&self.until_symbol, addresses.as_slice()) {
            bail!(
                "--until-symbol {name}: there is no such symbol{}",
                if self.image.is_some() && self.elfs.is_empty() { " (--elf gives symbols)" } else { "" }
            );
        }
        let of_xen = self.xen.as_ref().map(|_| xen::END.to_owned());
        let otherwise = addresses.is_empty() && self.instructions.is_none();
        Ok(Ends {
            marker: self.until.clone().or_else(|| of_xen.filter(|_| otherwise)),
            addresses,
            instructions: self.instructions,
            timeout: Duration::from_secs(self.timeout),
            concludes: false,
        })
    }
}

/// Whether `file` begins as an ELF file does; one that cannot be read is refused elsewhere.
fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}
