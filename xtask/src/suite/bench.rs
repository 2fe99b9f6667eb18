//! The counts of `cargo xtask bench` in every test run. They are exact, and so they can be tested; its times are not, and are not.

use super::Context;
use super::runner::Case;
use crate::bench::report::Cost;
use crate::bench::target;
use anyhow::{Result, ensure};
use std::path::Path;

/// Two boots each with one CPU and with several say the same, and what they say can be.
pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("bench/exact-counts", |context: &Context, scratch: &Path| {
        let target = target::counted(&context.ready, scratch)?;
        for run in &target.runs {
            run.requests.iter().try_for_each(plausible)?;
        }
        let names = |cost: &Cost| cost.name.clone();
        let asked = target.runs.iter().map(|run| run.requests.iter().map(names).collect::<Vec<_>>());
        let asked: Vec<_> = asked.collect();
        ensure!(asked.windows(2).all(|pair| pair[0] == pair[1]), "other requests with more CPUs");
        Ok(())
    })]
}

/// Every request here changes tables in force: it stores, and no store goes without its barriers.
fn plausible(cost: &Cost) -> Result<()> {
    ensure!(cost.instructions > cost.stores, "{cost:?}");
    ensure!(cost.stores > 0 && cost.dsbs > 0 && cost.isbs > 0, "{cost:?}");
    ensure!(cost.name.starts_with("map-") == (cost.tlbis == 0), "a fill invalidates nothing, all else does: {cost:?}");
    Ok(())
}
