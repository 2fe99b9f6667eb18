//! Running cases two at a time, each with a scratch directory of its own.

use super::Context;
use crate::paths;
use crate::ui::Progress;
use anyhow::Result;
use breakwater_witness::pool;
use std::path::Path;
use std::time::{Duration, Instant};

/// As many as the machines that this runs on have cores.
const AT_ONCE: usize = 2;

type Job = Box<dyn Fn(&Context, &Path) -> Result<()> + Send + Sync>;

/// Something to find out.
pub(crate) struct Case {
    pub(crate) name: String,
    job: Job,
}

impl Case {
    /// A case that fails when `job` does. `job` gets an empty directory for its files.
    pub(crate) fn new(
        name: impl Into<String>,
        job: impl Fn(&Context, &Path) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), job: Box::new(job) }
    }
}

/// What was found out.
#[derive(Clone)]
pub(crate) struct Done {
    pub(crate) name: String,
    pub(crate) took: Duration,
    pub(crate) outcome: Result<(), String>,
    /// What it said, where that is kept.
    pub(crate) log: String,
}

impl Done {
    /// A failure outside any case.
    pub(crate) fn failed(name: &str, took: Duration, why: &anyhow::Error) -> Self {
        Self { name: name.to_owned(), took, outcome: Err(format!("{why:#}")), log: String::new() }
    }
}

/// Runs every case and returns what became of them, in their order.
pub(crate) fn run(cases: &[Case], context: &Context) -> Vec<Done> {
    let progress = Progress::new(cases.len() as u64);
    let work = |_: usize, case: &Case| Ok(run_one(case, context, &progress));
    // No case ends the others: what became of each is in what is returned.
    pool::each(AT_ONCE, cases, work, |_, _| {})
        .unwrap_or_else(|error| vec![Done::failed("cases", Duration::ZERO, &error)])
}

fn run_one(case: &Case, context: &Context, progress: &Progress) -> Done {
    progress.doing(&case.name);
    let scratch = paths::out().join("scratch").join(case.name.replace('/', "-"));
    let began = Instant::now();
    let prepared = || -> Result<()> {
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch)?;
        }
        Ok(std::fs::create_dir_all(&scratch)?)
    };
    let outcome = prepared().and_then(|()| (case.job)(context, &scratch));
    let took = began.elapsed();
    progress.done(outcome.is_ok(), Some(&format!("{} ({:.2} s)", case.name, took.as_secs_f64())));
    if outcome.is_ok() {
        // Only failures leave something to look at.
        let _ = std::fs::remove_dir_all(&scratch);
    }
    let outcome = outcome.map_err(|error| format!("{error:#}"));
    Done { name: case.name.clone(), took, outcome, log: String::new() }
}
