//! `story`: the Xen story as a table, and our own boots beside it.
//!
//! Why it exists: Xen 4.11 booted on one board and not on another, and which it was hung on the page of the 2 MiB that its image was
//! linked to. The table shows what of that the rules see, and what cores of several kinds make of it, at each of the 512 page offsets.
//!
//! What must hold: Xen's rows are flagged for what was wrong with Xen, no more and no less, wherever the image lies; ours for nothing, on 1
//! and on 4 CPUs, and no kind of core crashes. Xen's traces are `breakwater_oracle::xen`; ours are recorded from the built image,
//! every fetch, load and store of it. No event of ours is written by hand.
//!
//! What it refuses: a boot that fails, a trace that breaks off, a CPU that stays away.
//!
//! * `ours` boots the image, at any page offset, under the recorder.
//! * `watch` follows one trace, with the oracle and all kinds of cores at once: a trace is read once and never held.
//! * `row` is what became of one program's boots, `print` what is told of all rows.

mod ours;
mod print;
mod row;
#[cfg(test)]
mod tests;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use breakwater_oracle::xen::{self, PAGES, Story};
use breakwater_trace::Feature;

pub use ours::Ours;
use row::Program;
pub use row::Row;
use watch::{Judged, Watch};

use crate::{Tools, paths, pool, ui};

/// Boots under way at a time.
const AT_ONCE: usize = 2;

/// `story`.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Boot this image too, a Linux arm64 Image that may lie at any 4 KiB page; nothing may be flagged in it
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Its command line
    #[arg(long, default_value = "", value_name = "LINE", allow_hyphen_values = true)]
    pub append: String,
    /// Features and errata of every CPU it boots on, as the trace format spells them: bbm=2,ets2
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub features: Vec<Feature>,
    /// Page offsets that it boots at, evenly spaced among the 512; Xen's boots, which are cheap, have all of them
    #[arg(long, default_value_t = PAGES, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(PAGES)))]
    offsets: u16,
    /// CPUs that it boots on, one row each
    #[arg(long, default_values_t = [1, 4], value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: Vec<u32>,
    /// Boots at each page offset on kinds of cores that chance plays a part in
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    boots: u64,
    /// Print the table as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    pub qemu: Option<PathBuf>,
    /// What the image is called in the table, if not by its file's name.
    #[arg(skip)]
    pub name: Option<String>,
}

/// Prints the table, and fails when a row is not what it should be. Without `tools` no image is booted.
///
/// # Errors
/// A boot failed; or the rules flag something else than they should, or one of our boots crashes.
pub fn command(args: &Args, tools: Option<&Tools>) -> Result<()> {
    let all = Extent { offsets: PAGES, boots: args.boots, at_once: AT_ONCE };
    let extent = Extent { offsets: args.offsets, ..all };
    let mut rows = Vec::new();
    for story in [Story::Xen411, Story::Xen00c96d77422a] {
        rows.push(xen_row(story, all, Some(&ui::Progress::new(PAGES.into())))?);
    }
    if let (Some(image), Some(tools)) = (&args.image, tools) {
        let name = args.name.clone().unwrap_or_else(|| paths::shown(image));
        for cpus in &args.cpus {
            let ours = Ours::new(tools, image, *cpus, &args.append, &args.features);
            rows.push(our_row(&name, &ours, extent, Some(&ui::Progress::new(extent.offsets.into())))?);
        }
    }
    if args.json {
        anstream::println!("{}", print::json(&rows, args.boots));
    } else {
        anstream::println!("{}", print::text(&rows, args.boots));
    }
    let wrong: Vec<String> = rows.iter().filter_map(Row::wrong).collect();
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// How much is tried for a row.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Page offsets, evenly spaced.
    pub offsets: u16,
    /// Boots of the kinds of cores that chance plays a part in, at each.
    pub boots: u64,
    /// Boots under way at a time.
    pub at_once: usize,
}

impl Extent {
    fn pages(self) -> impl Iterator<Item = u16> {
        (0..self.offsets).map(move |index| (u32::from(index) * u32::from(PAGES) / u32::from(self.offsets)) as u16)
    }
}

/// The row of one of Xen's boots.
///
/// # Errors
/// None of its own.
pub fn xen_row(story: Story, extent: Extent, progress: Option<&ui::Progress>) -> Result<Row> {
    let program = Program::of_xen(story);
    let boots = each(extent, progress, &program, |page| {
        let mut watch = Watch::new(page, extent.boots);
        (2..).zip(&xen::scenario(story, page)).for_each(|(line, record)| watch.step(line, record));
        Ok(watch.judged())
    })?;
    Ok(Row::new(program, &boots))
}

/// The row of our image.
///
/// # Errors
/// A boot failed, or its trace cannot be read.
pub fn our_row(name: &str, ours: &Ours, extent: Extent, progress: Option<&ui::Progress>) -> Result<Row> {
    let program = Program::ours(name, ours.cpus());
    let boots = each(extent, progress, &program, |page| ours.boot(page, extent.boots))?;
    Ok(Row::new(program, &boots))
}

/// `boot` at each page offset, several at a time; by page offset. The first error ends it.
fn each(
    extent: Extent,
    progress: Option<&ui::Progress>,
    program: &Program,
    boot: impl Fn(u16) -> Result<Judged> + Sync,
) -> Result<Vec<(u16, Judged)>> {
    if let Some(progress) = progress {
        progress.doing(&program.title);
    }
    let pages: Vec<u16> = extent.pages().collect();
    let work = |_: usize, page: &u16| boot(*page).with_context(|| format!("{}, page {page}", program.title));
    let done = |_: &u16, _: &Judged| {
        if let Some(progress) = progress {
            progress.advance(1);
        }
    };
    let boots = pool::each(extent.at_once, &pages, work, done)?;
    Ok(pages.into_iter().zip(boots).collect())
}
