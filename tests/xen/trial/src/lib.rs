//! Debian's Xen, built from its source twice: as it is, and with this core in place of its own boot tables and
//! page-table editor.
//!
//! Why it exists: the core is there because Xen on Arm's boot code breaks the architecture. The proof is Xen itself,
//! with the core in it, beside what it was. What must hold: none of Xen's text is in this repository, only names and
//! the edits that our variant needs; everything fetched and built stays below one directory; nothing is built as root.
//!
//! * [`source`] fetches the tree; [`edit`] changes a copy by names, [`edits`] is what our variant changes;
//!   [`mod@build`] makes both.
//! * [`boot`] boots one on a machine, [`matrix`] names the machines.
//! * [`judge`] watches one, [`report`] is both side by side, and what was promised of them.

#![forbid(unsafe_code)]

pub mod boot;
pub mod build;
pub mod edit;
pub mod edits;
pub mod judge;
pub mod layouts;
pub mod library;
pub mod matrix;
pub mod report;
pub mod source;
pub mod starve;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breakwater_witness::{Tools, paths, pool, ui};

use boot::{Case, Supply};
use build::{Bench, Built, FLAVOURS, Flavour, Recipe, Variant};
use judge::{Run, Seen};
use matrix::Row;
use report::Report;

/// Shown by `--help`.
pub const AFTER_HELP: &str = "Everything is fetched and built below target/breakwater/xen. Exit status: 0 all is as it \
    should be, 1 it is not, 2 wrong command line";

/// `xen`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Only Xen as Debian has it
    #[arg(long)]
    stock_only: bool,
    /// Fail when a promise of the comparison is broken, not only when a boot fails
    #[arg(long, conflicts_with = "stock_only")]
    check: bool,
    /// Print the names of the boots and of what is watched, and do nothing
    #[arg(long)]
    list: bool,
    /// Only those whose name contains this; once more for each further one
    #[arg(long = "filter", value_name = "TEXT")]
    filters: Vec<String>,
    /// Orders of our Xen's functions that are booted and watched
    #[arg(long, default_value_t = 20, value_name = "N")]
    layouts: u64,
    /// How many at a time
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
    /// Seconds of work of QEMU's until a boot counts as hung
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// What a trial stands on.
pub struct Ground<'a> {
    /// Where all files go.
    pub home: PathBuf,
    /// The emulator and the recorder.
    pub tools: Tools,
    /// What domains run, and firmware.
    pub supply: &'a dyn Supply,
    /// Builds our library for Xen; one that speaks on the UART at this address, in hexadecimal digits, if there is one.
    pub library: &'a (dyn Fn(Option<&str>) -> Result<PathBuf> + Sync),
}

impl Ground<'_> {
    /// What a variant links in a configuration: ours our library, built if need be.
    ///
    /// # Errors
    /// It does not build.
    pub(crate) fn library_of(&self, variant: Variant, flavour: Flavour) -> Result<Option<PathBuf>> {
        (variant == Variant::Ours).then(|| (self.library)(flavour.early_uart())).transpose()
    }
}

/// One thing to do with one Xen.
#[derive(Clone, Debug)]
enum Task {
    Boot(Box<Row>),
    Watch(Run),
    /// Our functions in this order: it boots, and is watched.
    Layout(u64),
}

/// What is asked for besides, by name: layouts, and requests that run out of frames.
const LAYOUTS: &str = "layouts";
const STARVED: &str = "starved";

impl Task {
    /// All of them, those that take longest first.
    fn all() -> Vec<Self> {
        let watches = [Run::Domain, Run::Several, Run::Idle].map(Self::Watch);
        watches.into_iter().chain(matrix::rows().into_iter().map(Box::new).map(Self::Boot)).collect()
    }

    fn name(&self) -> String {
        match self {
            Self::Boot(row) => row.name.clone(),
            Self::Watch(run) => run.short().to_owned(),
            Self::Layout(seed) => format!("layout-{seed}"),
        }
    }

    const fn flavour(&self) -> Flavour {
        match self {
            Self::Boot(row) => row.flavour,
            Self::Watch(_) | Self::Layout(_) => FLAVOURS[0],
        }
    }
}

/// What came of it; a failure is shown and told, and does not end the rest.
enum Outcome {
    Booted(Result<f64, String>),
    Watched(Box<Result<Seen, String>>),
}

impl Outcome {
    fn error(&self) -> Option<&str> {
        match self {
            Self::Booted(outcome) => outcome.as_ref().err(),
            Self::Watched(outcome) => outcome.as_ref().as_ref().err(),
        }
        .map(String::as_str)
    }
}

/// Fetches, builds, boots, watches and compares. The table is printed, and kept beside what was built.
///
/// # Errors
/// Something cannot be had or built; a boot failed; with `--check`, a promise is broken.
pub fn command(args: &Args, ground: &Ground<'_>) -> Result<()> {
    let tasks: Vec<Task> = Task::all().into_iter().filter(|task| args.want(&task.name())).collect();
    let more: Vec<&str> = [LAYOUTS, STARVED].into_iter().filter(|name| args.want(name)).collect();
    ensure!(!tasks.is_empty() || !more.is_empty(), "nothing has such a name: --list prints them");
    if args.list {
        let names = tasks.iter().map(Task::name).chain(more.iter().map(|name| (*name).to_owned()));
        names.for_each(|name| anstream::println!("{name}"));
        return Ok(());
    }
    let report = carried_out(args, ground, tasks)?;
    anstream::println!("{report}");
    let table = ground.home.join("side-by-side.md");
    fs::write(&table, format!("{report}\n")).with_context(|| paths::shown(&table))?;
    ui::step(
        "Wrote",
        &format!("{}; what was watched, in words and drawn, is beside it in findings/", paths::shown(&table)),
    );
    let broken = report.broken_promises();
    broken.iter().for_each(|promise| ui::failure(promise));
    let failed = report.columns.values().flat_map(|column| column.boots.values()).filter(|boot| boot.is_err()).count();
    ensure!(failed == 0, "{failed} boots failed");
    ensure!(!args.check || broken.is_empty(), "{} promises are broken", broken.len());
    Ok(())
}

impl Args {
    fn want(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|text| name.contains(text))
    }

    const fn variants(&self) -> &[Variant] {
        if self.stock_only { &[Variant::Stock] } else { &[Variant::Stock, Variant::Ours] }
    }
}

/// Builds what the tasks need, and does them.
fn carried_out(args: &Args, ground: &Ground<'_>, tasks: Vec<Task>) -> Result<Report> {
    let bench = Bench::new(&ground.home)?;
    let mut report = Report::default();
    let mut all = Vec::new();
    for variant in args.variants() {
        // One library after the other has the same path: it is linked before the next is built.
        let mut made: Vec<(&str, Built)> = Vec::new();
        for task in &tasks {
            let flavour = task.flavour();
            if !made.iter().any(|(name, _)| *name == flavour.name) {
                let library = ground.library_of(*variant, flavour)?;
                made.push((flavour.name, bench.build(&Recipe::of(*variant, flavour), library.as_deref())?));
            }
            let built = made.iter().find(|(name, _)| *name == flavour.name).map(|(_, built)| built.clone());
            all.extend(built.map(|built| (*variant, task.clone(), built)));
        }
        if args.want(STARVED) {
            let tries = starve::tries(*variant, &bench, ground, Duration::from_secs(args.timeout));
            report.columns.entry(*variant).or_default().starved = Some(tries.map_err(|why| format!("{why:#}")));
        }
    }
    let kept = ground.home.join("layouts");
    if args.want(LAYOUTS) && !args.stock_only {
        // They are built in one directory, one after the other.
        let made = layouts::each(Variant::Ours, args.layouts, &bench, ground, |seed, built| {
            let name = format!("{}-{seed}", built.name);
            all.push((Variant::Ours, Task::Layout(seed), built.kept(&kept, &name)?));
            Ok(())
        });
        if let Err(why) = made {
            // No seed is 0: what could not be built has a row of its own, and the rest is done.
            report.columns.entry(Variant::Ours).or_default().layouts.insert(0, Err(format!("{why:#}")));
        }
    }
    let progress = ui::Progress::new(all.len() as u64);
    let outcomes = pool::each(
        args.jobs.into(),
        &all,
        |_, (variant, task, built)| {
            let began = Instant::now();
            let outcome = one(*variant, task, built, args, ground)?;
            Ok((outcome, began.elapsed().as_secs_f64()))
        },
        |(_, task, built), (outcome, seconds)| {
            let line = format!("{}/{} in {seconds:.1} s", built.name, task.name());
            let line = outcome.error().map_or(line, |why| format!("{}/{}: {why}", built.name, task.name()));
            progress.done(outcome.error().is_none(), Some(&line));
        },
    )?;
    for ((variant, task, _), (outcome, _)) in all.iter().zip(outcomes) {
        let column = report.columns.entry(*variant).or_default();
        match (task, outcome) {
            (Task::Watch(run), Outcome::Watched(seen)) => drop(column.seen.insert(*run, *seen)),
            (Task::Layout(seed), Outcome::Watched(seen)) => drop(column.layouts.insert(*seed, *seen)),
            (_, Outcome::Booted(boot)) => drop(column.boots.insert(task.name(), boot)),
            (Task::Boot(_), Outcome::Watched(_)) => {}
        }
    }
    if kept.exists() {
        fs::remove_dir_all(&kept).with_context(|| paths::shown(&kept))?;
    }
    Ok(report)
}

fn one(variant: Variant, task: &Task, built: &Built, args: &Args, ground: &Ground<'_>) -> Result<Outcome> {
    let scratch = ground.tools.scratch.join(format!("{}-{}", built.name, task.name()));
    fs::create_dir_all(&scratch).with_context(|| paths::shown(&scratch))?;
    let timeout = Duration::from_secs(args.timeout);
    let boot = |case: &Case| {
        let mut command = case.command(&ground.tools.qemu, &built.image, ground.supply, &scratch)?;
        let finished = case.run(&mut command, timeout)?;
        if variant == Variant::Ours {
            boot::require_audit(&finished.serial)?;
        }
        Ok(finished.took.as_secs_f64())
    };
    let watch = |run: Run| {
        let tools = Tools { scratch: scratch.clone(), ..ground.tools.clone() };
        let said = ground.home.join("findings").join(format!("{}-{}.txt", built.name, run.short()));
        judge::watch(run, built, &tools, ground.supply, (10 * timeout, &said))
    };
    let worded = |why: anyhow::Error| format!("{why:#}");
    let outcome = match task {
        Task::Boot(row) => Outcome::Booted(boot(&row.case).map_err(worded)),
        Task::Watch(run) => Outcome::Watched(Box::new(watch(*run).map_err(worded))),
        Task::Layout(_) => {
            Outcome::Watched(Box::new(boot(&Case::default()).and_then(|_| watch(Run::Idle)).map_err(worded)))
        }
    };
    // Disks, above all.
    fs::remove_dir_all(&scratch).with_context(|| paths::shown(&scratch))?;
    Ok(outcome)
}
