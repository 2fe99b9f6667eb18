//! `cargo xtask test`: host tests, lint, on-target facts, flights, layouts, measurements. The last line is always
//! `N passed, N failed`.

mod assembled;
mod cards;
mod early;
mod expansion;
mod facts;
mod figures;
mod foreign;
mod host;
mod layout;
mod measured;
pub(crate) mod results;
mod runner;
mod seeded;
mod variety;
mod witnessed;

use crate::image::{self, Image, Recipe};
use crate::lint::Lint;
use crate::setup::{self, Ready};
use crate::{paths, ui};
use anyhow::{Result, anyhow, bail};
use results::Clock;
use runner::{Case, Done};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Layouts that every test run boots.
const SEEDS: u64 = 20;
/// Boots in a row with 8 CPUs in every test run.
const REPEATS: u64 = 20;

/// `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the tests that run here, or only those under QEMU; without it both, and lint
    #[arg(value_enum)]
    part: Option<Part>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also random requests on 8 CPUs for so long
    #[arg(long, value_name = "SECONDS")]
    stress: Option<u64>,
    /// Which random requests
    #[arg(long, default_value_t = 1, value_name = "N")]
    stress_seed: u64,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
}

/// Half of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The tests of every package, by Cargo
    Host,
    /// Everything that runs under QEMU
    Boot,
}

/// What cases under QEMU share.
pub(crate) struct Context {
    ready: Ready,
    image: Image,
}

/// Runs `test`.
///
/// # Errors
/// A test failed, or none was selected.
pub(crate) fn command(args: &Args) -> Result<()> {
    let clock = Clock::start();
    let filter = args.filter.as_deref();
    let host = || clock.during("host tests", || host::run(filter));
    let boot = || under_qemu(args, &clock);
    let done = match args.part {
        Some(Part::Host) => host(),
        Some(Part::Boot) => boot(),
        // Half of this waits: for the network, for one link after the other, for the last test of a program. So the halves go side by side.
        None => std::thread::scope(|scope| {
            let is_wanted = |name: &str| filter.is_none_or(|filter| format!("lint/{name}").contains(filter));
            let lint = Lint::prepare(is_wanted);
            let here = scope.spawn(|| [host(), clock.during("lint", || checked(lint))].concat());
            let booted = boot();
            let panicked = |_| vec![Done::failed("host/run", Duration::ZERO, &anyhow!("a thread panicked"))];
            [here.join().unwrap_or_else(panicked), booted].concat()
        }),
    };
    close(&done, args.junit.as_deref(), &clock)
}

/// What `cargo xtask lint` checks, a case each.
fn checked(lint: Result<Lint>) -> Vec<Done> {
    let mut began = Instant::now();
    let lint = match lint {
        Ok(lint) => lint,
        Err(error) => return vec![Done::failed("lint/tools", began.elapsed(), &error)],
    };
    let mut done = Vec::new();
    lint.run(|name, outcome| {
        let took = std::mem::replace(&mut began, Instant::now()).elapsed();
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        done.push(Done { name: format!("lint/{name}"), took, outcome, log: String::new() });
    });
    done
}

/// Prepares and runs; what cannot be prepared is itself a failed case, so that the closing line counts it.
fn under_qemu(args: &Args, clock: &Clock) -> Vec<Done> {
    let began = Instant::now();
    let context = match prepare(args.qemu.clone()) {
        Ok(context) => context,
        Err(error) => return vec![Done::failed("build/image", began.elapsed(), &error)],
    };
    // The long ones first, so that they do not run alone at the end.
    let mut cases = vec![layout::fallback_case(), layout::spread_case(), witnessed::mutants()];
    cases.extend(foreign::cases().into_iter().chain(witnessed::story_cases()));
    cases.extend(variety::cases(REPEATS));
    let mut done = Vec::new();
    let mut add = |name: &str, made: Result<Vec<Case>>| match made {
        Ok(more) => cases.extend(more),
        Err(error) => done.push(Done::failed(name, began.elapsed(), &error)),
    };
    add("build/witness", witnessed(&context));
    if let Some(seconds) = args.stress {
        add("build/stress", facts::stress(&context, seconds, args.stress_seed).map(|case| vec![case]));
    }
    add("build/facts", facts::cases(&context));
    add("build/recorder", measured::cases());
    add("build/cards", Ok(cards::cases()));
    add("build/expansion", Ok(expansion::cases()));
    add("build/early", Ok(early::cases()));
    add("build/seeded", seeded::cases());
    // Last: commands of the host's, which the host's tests have built by then.
    add("build/installed", Ok(vec![witnessed::installed(), measured::bench_case()]));
    if let Some(wanted) = &args.filter {
        cases.retain(|case| case.name.contains(wanted));
    }
    clock.took("images", began);
    ui::step("Running", &format!("{} cases under QEMU {}, two at a time", cases.len(), context.ready.qemu.version));
    done.extend(clock.during("cases under QEMU", || runner::run(&cases, &context)));
    done
}

/// What is booted under the witness.
fn witnessed(context: &Context) -> Result<Vec<Case>> {
    let mut cases = witnessed::cases(witnessed::REPEATS);
    cases.extend(witnessed::layout_cases(context, SEEDS)?);
    Ok(cases)
}

fn prepare(qemu: Option<PathBuf>) -> Result<Context> {
    let ready = setup::ready(qemu.as_deref())?;
    let image = image::build(&ready.toolchain, &Recipe::default())?;
    Ok(Context { ready, image })
}

/// Says where the time went and what failed, writes the JUnit file and prints the closing line.
fn close(done: &[Done], junit: Option<&std::path::Path>, clock: &Clock) -> Result<()> {
    let failed: Vec<&Done> = done.iter().filter(|done| done.outcome.is_err()).collect();
    for bad in &failed {
        let why = bad.outcome.as_ref().err().map(String::as_str).unwrap_or_default();
        ui::failure(&format!("{}: {}", bad.name, why.replace('\n', "\n             ")));
    }
    if let Some(file) = junit {
        results::write_junit(done, file)?;
        ui::step("Wrote", &paths::shown(file));
    }
    clock.tell(done);
    println!("{} passed, {} failed", done.len() - failed.len(), failed.len());
    if done.is_empty() {
        bail!("no test has that name");
    }
    if !failed.is_empty() {
        return Err(TestsFailed.into());
    }
    Ok(())
}

/// Tests failed and have been listed: nothing is left to say.
#[derive(Debug)]
pub(crate) struct TestsFailed;

impl std::fmt::Display for TestsFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tests failed")
    }
}

impl std::error::Error for TestsFailed {}
