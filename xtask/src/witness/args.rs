//! The command line of `cargo xtask witness`, and what it does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::subject::{Start, Subject};
use super::timeline::{Standing, Timeline};
use super::verdict::{Rejected, Verdict};
use super::{Ends, Testimony, watch, xen};
use crate::boot;
use crate::image::{self, Recipe};
use crate::setup::{self, Qemu};
use crate::{exec, paths, suite, ui};

/// `cargo xtask witness`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    boot: boot::Args,
    /// Watch this image instead of ours: a Linux Image, an ELF file or a raw binary, as QEMU's -kernel takes it
    #[arg(long, value_name = "FILE", conflicts_with = "layout_seed", help_heading = "Another image")]
    image: Option<PathBuf>,
    /// Its ELF file, for the names of functions
    #[arg(long, value_name = "FILE", requires = "image", help_heading = "Another image")]
    elf: Option<PathBuf>,
    /// Watch Debian's Xen of this version, fetched without touching the system: 4.17, 4.20, or 4.17=VERSION for one version of the
    /// package. It gets a dom0 of two instructions, and the run ends when Xen has freed its init memory
    #[arg(
        long,
        value_name = "VERSION",
        conflicts_with_all = ["image", "layout_seed", "load_address", "board"],
        help_heading = "Another image"
    )]
    xen: Option<String>,
    /// Keep the trace, without what no rule can need; `cargo xtask judge FILE` says the same of it
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Another machine than virt, as QEMU's -M takes it; where its memory is, nobody then says
    #[arg(long, value_name = "NAME,OPTION...", requires = "image", help_heading = "Another image")]
    board: Option<String>,
    /// Instead: take each DSB, ISB, TLBI, DC and IC of our image away, one at a time; every one must be missed
    #[arg(long, conflicts_with_all = ["image", "layout_seed"], help_heading = "Mutants")]
    mutate: bool,
    /// Only every Nth of them, and those that another covers
    #[arg(long, default_value_t = 1, value_name = "N", requires = "mutate", help_heading = "Mutants")]
    every: usize,
    /// Further arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENT", help_heading = "Another image")]
    more: Vec<String>,
    /// End once the serial line says this
    #[arg(long, value_name = "TEXT", help_heading = "End of the run, besides the image's own and --timeout")]
    until: Option<String>,
    /// End when a CPU is about to execute this function or address
    #[arg(
        long,
        value_name = "SYMBOL|0xADDRESS",
        help_heading = "End of the run, besides the image's own and --timeout"
    )]
    until_symbol: Option<String>,
    /// End once a CPU has executed so many instructions
    #[arg(long, value_name = "N", help_heading = "End of the run, besides the image's own and --timeout")]
    instructions: Option<u64>,
    /// Draw the run into this file: each CPU's MMU, tables, barriers, invalidations and broken rules
    #[arg(long, value_name = "FILE.svg")]
    timeline: Option<PathBuf>,
}

/// Watches, prints what was found, a summary and the WITNESS-REPORT line.
///
/// # Errors
/// [`Rejected`] for a verdict other than clean; set-up or build failed, or QEMU cannot be run.
pub(crate) fn command(args: &Args) -> Result<()> {
    let boot::Args { machine, qemu, gdb, json, .. } = &args.boot;
    if args.mutate {
        return super::mutate::command(qemu.as_deref(), args.every);
    }
    // Checked before anything is fetched or built.
    machine.memory_bytes()?;
    ensure!(args.until.as_deref() != Some(""), "--until: an empty text is on every line");
    if let Some(image) = &args.image {
        ensure!(image.is_file(), "there is no file {}", image.display());
    }
    let scratch = paths::out().join("witness");
    std::fs::create_dir_all(&scratch)?;
    let (qemu, plugin) = (setup::emulator(qemu.as_deref())?, suite::recorder()?);
    let subject = args.subject(&qemu, &plugin, &scratch)?;
    let ends = args.ends(&subject)?;
    let trace = scratch.join("raw.trace");
    ui::command(&exec::shown(&super::run::command(&subject, &ends, &trace)));
    ensure!(!gdb, "--gdb: a stopped machine cannot be watched; use `cargo xtask boot --gdb`");
    let mut timeline = args.timeline.as_ref().map(|_| Timeline::new(&subject.loaded));
    let testimony = watch(&subject, &ends, (&trace, !json), |line, record, _| {
        if let Some(timeline) = &mut timeline {
            timeline.record(line, record);
        }
    })?;
    if let (Some(timeline), Some(file)) = (&mut timeline, &args.timeline) {
        draw(timeline, &testimony, file)?;
    }
    let kept = args.trace.as_ref().map(|file| testimony.keep(&trace, file)).transpose();
    let _ = std::fs::remove_file(&trace);
    kept?;
    said(&testimony, *json)
}

/// Puts what was found into the picture, and writes it.
fn draw(timeline: &mut Timeline, testimony: &Testimony, file: &Path) -> Result<()> {
    for finding in &testimony.findings {
        let standing = if finding.rests_on_order { Standing::ByArrival } else { Standing::Certain };
        for violation in finding.members.iter().filter_map(|number| testimony.violations.get(*number)) {
            timeline.violation(violation, finding.place.as_deref(), standing);
        }
    }
    timeline.write(file, &format!("{}: {} ({})", testimony.name, testimony.verdict.name(), testimony.why))
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
    fn subject(&self, qemu: &Qemu, plugin: &Path, scratch: &Path) -> Result<Subject> {
        let boot::Args { machine, append, load_address, layout_seed, .. } = &self.boot;
        let mut start = Start {
            image: Path::new(""),
            elf: self.elf.as_deref(),
            machine,
            board: self.board.as_deref(),
            load_address: *load_address,
            append,
            more: &self.more,
            scratch,
        };
        if let Some(image) = &self.image {
            start.image = image;
            return Subject::image(&qemu.program, plugin, &start);
        }
        if let Some(version) = &self.xen {
            return xen::fetch(version)?.subject(&qemu.program, plugin, &start);
        }
        let toolchain = {
            let _lock = paths::lock()?;
            setup::toolchain(setup::Install::Allowed)?
        };
        let built = image::build(&toolchain, &Recipe { layout_seed: *layout_seed, ..Recipe::default() })?;
        let append = boot::with_exit(append);
        start.append = &append;
        Subject::ours(&qemu.program, plugin, &built, &start)
    }

    fn ends(&self, subject: &Subject) -> Result<Ends> {
        let addresses = match &self.until_symbol {
            None => Vec::new(),
            Some(name) => match boot::address(name) {
                Ok(address) => vec![address],
                Err(_) => subject.symbols.addresses(name),
            },
        };
        if let (Some(name), []) = (&self.until_symbol, addresses.as_slice()) {
            bail!(
                "--until-symbol {name}: there is no such symbol{}",
                if self.image.is_some() && self.elf.is_none() { " (--elf gives symbols)" } else { "" }
            );
        }
        let of_xen = self.xen.as_ref().map(|_| xen::END.to_owned());
        let otherwise = addresses.is_empty() && self.instructions.is_none();
        Ok(Ends {
            marker: self.until.clone().or_else(|| of_xen.filter(|_| otherwise)),
            addresses,
            instructions: self.instructions,
            timeout: Duration::from_secs(self.boot.timeout),
        })
    }
}
