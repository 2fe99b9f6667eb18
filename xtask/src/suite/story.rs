//! The Xen story in every test run, at fewer page offsets than `cargo xtask story` tries.

use super::Context;
use super::runner::Case;
use crate::witness;
use anyhow::{Result, ensure};
use breakwater_oracle::xen::Story;
use breakwater_witness::story::{self, Extent, Ours, Row};
use std::path::Path;

/// The boots of both of Xen's, and of ours on 1 and on 4 CPUs.
pub(super) fn cases() -> Vec<Case> {
    let xen = [("4.11", Story::Xen411), ("00c96d77422a", Story::Xen00c96d77422a)].map(|(name, story)| {
        Case::new(format!("story/xen-{name}"), move |_: &Context, _: &Path| {
            let row = story::xen_row(story, extent(64), None)?;
            as_told(&row)
        })
    });
    let ours = [(1, 8), (4, 2)].map(|(cpus, offsets)| {
        Case::new(format!("story/ours-{cpus}-cpus"), move |context: &Context, scratch: &Path| {
            let tools = witness::tools(&context.ready.qemu, scratch)?;
            let ours = Ours::new(&tools, &context.image.img, cpus, "exit=semihosting", &witness::FEATURES);
            as_told(&story::our_row("Breakwater", &ours, extent(offsets), None)?)
        })
    });
    xen.into_iter().chain(ours).collect()
}

/// The suite has its own way of doing two things at a time.
const fn extent(offsets: u16) -> Extent {
    Extent { offsets, boots: 2, at_once: 1 }
}

/// Exactly what should be flagged is, and none of our boots crashes.
fn as_told(row: &Row) -> Result<()> {
    let wrong = row.wrong().unwrap_or_default();
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}
