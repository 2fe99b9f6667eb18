//! `cargo xtask matrix`: many flights, several at a time, each judged, with a page to look at.
//!
//! What must hold: the first flight that fails is told at once, with the one line that repeats it; what a run does not
//! boot, it does not build or fetch; which failed is kept for the next run.

mod page;

use crate::child::Limits;
use crate::flight::{Flight, ways};
use crate::image::{self, Image, Recipe, Relink};
use crate::setup::{self, Qemu};
use crate::suite::TestsFailed;
use crate::suite::results::{self, Done};
use crate::ui::Progress;
use crate::{boot, exec, paths, ui, verdict, witness};
use anyhow::{Context, Result, ensure};
use breakwater_witness::pool;
use breakwater_witness::timeline::Timeline;
use breakwater_witness::watch::{self, Ends, Verdict};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// `cargo xtask matrix`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Each kind of machine, loader and layout once; what is done unless --full asks for more
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// More than 1,500 flights: every loader on every kind of machine, and 250 layouts
    #[arg(long)]
    full: bool,
    /// Only flights whose name contains this; with several, all of them
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Only those that failed the last time that they were flown
    #[arg(long)]
    only_failed: bool,
    /// Only the I-th of N parts, which are as large as each other and as mixed
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Say which flights there are, and the line that flies each
    #[arg(long)]
    list: bool,
    /// So many at a time [default: as the host has CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Watch each flight and judge it by the rules of the architecture, from the image's entry on
    #[arg(long)]
    witness: bool,
    /// Fly this image in place of ours, without the layouts that are linked anew: one built on the same core
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
    /// Seconds until a flight counts as hung
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// Where the results go as JUnit XML, with logs [default: target/breakwater/matrix/junit.xml]
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Where the page goes: grid, logs, memory maps, timelines [default: target/breakwater/matrix/index.html]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// `I/N`, with I from 1 to N.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    parts.filter(|(part, parts)| (1..=*parts).contains(part)).ok_or_else(|| "say 1/4 to 4/4".to_owned())
}

/// A flight that is over.
struct Flown {
    flight: Flight,
    /// The line that repeats it.
    line: String,
    took: Duration,
    outcome: Result<(), String>,
    /// What it said, without its report for programs.
    log: String,
    report: Option<Value>,
    /// The witness's picture of it.
    timeline: Option<String>,
}

/// Runs `matrix`.
///
/// # Errors
/// A flight failed, none was selected, or nothing can be flown at all.
pub(crate) fn command(args: &Args) -> Result<()> {
    let home = paths::out().join("matrix");
    let junit = args.junit.clone().unwrap_or_else(|| home.join("junit.xml"));
    let failed_file = junit.with_file_name("failed.txt");
    let flights = selected(args, &failed(&failed_file))?;
    if args.list {
        flights.iter().for_each(|flight| println!("{:<60} {}", flight.name(), line(args, flight)));
        return Ok(());
    }
    let began = Instant::now();
    let prepared = Prepared::new(args, &flights, &home)?;
    let jobs = args.jobs.map_or_else(pool::host_cpus, usize::from);
    ui::step("Flying", &format!("{} flights under QEMU {}, {jobs} at a time", flights.len(), prepared.qemu.version));
    let progress = Progress::new(flights.len() as u64);
    let has_failed = AtomicBool::new(false);
    let flown = pool::each(
        jobs,
        &flights,
        |worker, flight| {
            progress.doing(&flight.name());
            Ok(prepared.fly(args, flight, &home.join(format!("worker-{worker}"))))
        },
        |_, flown| {
            let line = format!("{} ({:.1} s)", flown.flight.name(), flown.took.as_secs_f64());
            progress.done(flown.outcome.is_ok(), Some(&line));
            if let (Err(why), false) = (&flown.outcome, has_failed.swap(flown.outcome.is_err(), Ordering::Relaxed)) {
                ui::failure(&format!("the first that failed: {why}"));
                ui::step("Repeat by", &flown.line);
            }
        },
    )?;
    drop(progress);
    keep_failed(&failed_file, &flown)?;
    let html = args.html.clone().unwrap_or_else(|| home.join("index.html"));
    write(&junit, &html, &flown, began.elapsed())?;
    closed(&flown, began.elapsed())
}

/// The flights that are asked for.
fn selected(args: &Args, failed: &BTreeSet<String>) -> Result<Vec<Flight>> {
    let mut flights = if args.full { ways::full() } else { ways::quick() };
    flights.retain(|flight| {
        let name = flight.name();
        args.filter.iter().all(|text| name.contains(text))
            && (!args.only_failed || failed.contains(&name))
            && (args.image.is_none() || flight.layout_seed.is_none())
    });
    if let Some((part, parts)) = args.shard {
        flights = flights.into_iter().skip(part - 1).step_by(parts).collect();
    }
    ensure!(!flights.is_empty(), "no flight is left: `cargo xtask matrix --full --list` says which there are");
    Ok(flights)
}

/// The line that repeats a flight.
fn line(args: &Args, flight: &Flight) -> String {
    let mut flight = flight.clone();
    let mut cargo = Command::new("cargo");
    cargo.args(["xtask", if args.witness { "witness" } else { "boot" }]);
    if let Some(image) = &args.image {
        cargo.arg("--image").arg(image);
        if args.witness && flight.is_told() {
            // Of another's image the witness does not know how it is told to end.
            flight.append = boot::with_exit(&flight.append);
        }
    }
    exec::shown(cargo.args(flight.options()))
}

/// What flights need: the emulator, and our image in the layouts that they ask for.
struct Prepared {
    qemu: Qemu,
    image: Image,
    relink: Option<Relink>,
    seeds: BTreeMap<u64, OnceLock<Result<Image, String>>>,
    home: PathBuf,
}

impl Prepared {
    fn new(args: &Args, flights: &[Flight], home: &Path) -> Result<Self> {
        let seeds: BTreeMap<_, _> =
            flights.iter().filter_map(|flight| flight.layout_seed).map(|seed| (seed, OnceLock::new())).collect();
        let home = home.join("seeds");
        if let Some(img) = &args.image {
            ensure!(img.is_file(), "there is no file {}", img.display());
            let qemu = setup::emulator(args.qemu.as_deref())?;
            return Ok(Self { qemu, image: Image::foreign(img), relink: None, seeds, home });
        }
        let ready = setup::ready(args.qemu.as_deref())?;
        let image = image::build(&ready.toolchain, &Recipe::default())?;
        let relink = (!seeds.is_empty()).then(|| image::relink(&ready.toolchain)).transpose()?;
        Ok(Self { qemu: ready.qemu, image, relink, seeds, home })
    }

    /// Our image, or its layout of this seed, which is linked once.
    fn image(&self, seed: Option<u64>) -> Result<Image> {
        let (Some(seed), Some(relink)) = (seed, &self.relink) else { return Ok(self.image.clone()) };
        let link = || -> Result<Image> {
            let dir = self.home.join(seed.to_string());
            fs::create_dir_all(&dir)?;
            image::link_seed(relink, seed, &dir, "breakwater")
        };
        let linked = self.seeds.get(&seed).context("a seed that nobody asked for")?;
        linked.get_or_init(|| link().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
    }

    fn fly(&self, args: &Args, flight: &Flight, scratch: &Path) -> Flown {
        let began = Instant::now();
        let mut flown = Flown {
            flight: flight.clone(),
            line: line(args, flight),
            took: Duration::ZERO,
            outcome: Ok(()),
            log: String::new(),
            report: None,
            timeline: None,
        };
        let outcome = if args.witness {
            self.watch(args, flight, scratch, &mut flown)
        } else {
            self.boot(args, flight, scratch, &mut flown)
        };
        flown.outcome = outcome.map_err(|error| format!("{error:#}"));
        flown.took = began.elapsed();
        flown
    }

    fn boot(&self, args: &Args, flight: &Flight, scratch: &Path, flown: &mut Flown) -> Result<()> {
        let flight = flight.patient()?;
        let image = self.image(flight.layout_seed)?;
        let finished = flight.fly(&self.qemu, &image.img, scratch, Duration::from_secs(args.timeout))?;
        flown.log = without_report(&finished.everything());
        flown.report = Some(flight.judge(&finished)?);
        Ok(())
    }

    fn watch(&self, args: &Args, flight: &Flight, scratch: &Path, flown: &mut Flown) -> Result<()> {
        fs::create_dir_all(scratch)?;
        let flight = flight.patient()?;
        let Image { img, elf, .. } = self.image(flight.layout_seed)?;
        let tools = witness::tools(&self.qemu, scratch)?;
        let mut subject = flight.subject(&tools, &img, elf.is_file().then_some(elf.as_path()))?;
        if args.image.is_none() {
            witness::own(&mut subject, flight.loader);
        }
        let Limits { timeout, marker, .. } = flight.limits(Duration::from_secs(args.timeout));
        let ends = Ends { timeout, marker, ..Ends::default() };
        let mut timeline = Timeline::new(&subject.loaded);
        let testimony = watch::watch(&subject, &ends, (None, false), |line, record| timeline.record(line, record))?;
        let picture = scratch.join("timeline.svg");
        testimony.draw(&mut timeline, &picture)?;
        flown.timeline = Some(fs::read_to_string(picture)?);
        flown.log = without_report(&format!("{testimony}\n{}", testimony.serial));
        flown.report = verdict::report(&testimony.serial).ok();
        let is_clean = testimony.verdict == Verdict::Clean;
        ensure!(is_clean, "{}: {}", testimony.verdict.name(), testimony.why);
        Ok(())
    }
}

/// The names that the last runs left.
fn failed(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A flight that was not flown now keeps its standing.
fn keep_failed(file: &Path, flown: &[Flown]) -> Result<()> {
    let mut names = failed(file);
    for one in flown {
        let name = one.flight.name();
        if one.outcome.is_ok() {
            names.remove(&name)
        } else {
            names.insert(name)
        };
    }
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
    fs::write(file, text).with_context(|| paths::shown(file))
}

/// What people read of what it said.
fn without_report(text: &str) -> String {
    let line = |line: &&str| !line.starts_with("BOOT-REPORT ") && !line.starts_with("WITNESS-REPORT ");
    text.lines().filter(line).map(|line| format!("{line}\n")).collect()
}

fn write(junit: &Path, html: &Path, flown: &[Flown], took: Duration) -> Result<()> {
    let done: Vec<Done> = flown
        .iter()
        .map(|one| Done {
            name: one.flight.name(),
            took: one.took,
            outcome: one.outcome.clone().map_err(|why| format!("{why}\nrepeat by: {}", one.line)),
            log: one.log.clone(),
        })
        .collect();
    for file in [junit, html] {
        let folder = file.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    results::write_junit(&done, junit)?;
    fs::write(html, page::of(flown, took)).with_context(|| html.display().to_string())?;
    ui::step("Wrote", &format!("{} and {}", paths::shown(junit), paths::shown(html)));
    Ok(())
}

fn closed(flown: &[Flown], took: Duration) -> Result<()> {
    let failed: Vec<&Flown> = flown.iter().filter(|one| one.outcome.is_err()).collect();
    for one in &failed {
        let why = one.outcome.as_ref().err().map_or("", String::as_str);
        ui::failure(&format!(
            "{}: {}\n             {}",
            one.flight.name(),
            why.replace('\n', "\n             "),
            one.line
        ));
    }
    ui::step("Finished", &format!("in {:.0} s", took.as_secs_f64()));
    println!("{} passed, {} failed", flown.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        return Err(TestsFailed.into());
    }
    Ok(())
}
