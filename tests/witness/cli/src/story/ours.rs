//! Boots of the built image at any page offset, recorded by the plugin: every fetch, load, store and instruction of EL2.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breakwater_oracle::xen::PAGES;
use breakwater_trace::{End, Feature, Reader, Record};

use super::{Judged, Watch};
use crate::machine::{Machine, RAM_BASE};
use crate::recorded::{self, Options};
use crate::{Tools, loader, paths, ui};

/// The smallest machine that is promised: a boot stores once for each page of its memory, and that is most of a trace.
const MEMORY: &str = "256M";
/// First 2 MiB boundary in which QEMU loads at any page.
const LOADED: u64 = RAM_BASE + (2 << 20);

/// How our boots are made.
pub struct Ours {
    tools: Tools,
    image: PathBuf,
    cpus: u32,
    append: String,
    features: Vec<Feature>,
    /// One trace is kept if there is anything to see in it.
    is_kept: AtomicBool,
}

/// Where the image is loaded that is to lie at `page` of its 2 MiB.
const fn load_address(page: u16) -> u64 {
    assert!(page < PAGES, "not a page of the 2 MiB");
    LOADED + 4096 * page as u64
}

impl Ours {
    /// The image on a machine of `cpus` CPUs. Traces go below the scratch directory, and leave it again.
    #[must_use]
    pub fn new(tools: &Tools, image: &Path, cpus: u32, append: &str, features: &[Feature]) -> Self {
        let mut tools = tools.clone();
        tools.scratch.push(format!("{cpus}-cpus"));
        Self {
            tools,
            image: image.to_path_buf(),
            cpus,
            append: append.to_owned(),
            features: features.to_vec(),
            is_kept: AtomicBool::new(false),
        }
    }

    pub(super) const fn cpus(&self) -> u32 {
        self.cpus
    }

    /// One boot, watched from its first instruction to its last.
    pub(super) fn boot(&self, page: u16, boots: u64) -> Result<Judged> {
        let scratch = self.tools.scratch.join(format!("page-{page}"));
        let machine = Machine { memory: MEMORY.to_owned(), smp: self.cpus, ..Machine::default() };
        let image = loader::moved(&self.image, load_address(page), &machine, &scratch)?;
        let mut options = Options::new(&self.tools, &image, &scratch.join("boot.trace"));
        (options.smp, options.memory, options.loads) = (self.cpus, MEMORY.to_owned(), true);
        (options.append, options.features) = (self.append.clone(), self.features.clone());
        options.timeout = Duration::from_secs(300);
        let status = recorded::run(&options)?;
        ensure!(status == Some(0), "the boot ended with {status:?}");
        let judged = watched(&options, Watch::new(page, boots))?;
        ensure!(judged.cpus == self.cpus as usize, "{} CPUs started of {}", judged.cpus, self.cpus);
        if !judged.is_clean() && !self.is_kept.swap(true, Ordering::Relaxed) {
            let kept = self.tools.cache.join(format!("story-page-{page}.trace"));
            recorded::save(&options, &kept)?;
            ui::step("Kept", &paths::shown(&kept));
        }
        fs::remove_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
        Ok(judged)
    }
}

/// Reads the trace once. Lines are those of the trace that [`recorded::save`] would make of it.
fn watched(options: &Options, mut watch: Watch) -> Result<Judged> {
    let declared = recorded::declarations(&recorded::loaded(options)?, options)?;
    (2..).zip(&declared).for_each(|(line, record)| watch.step(line, record));
    let name = || options.trace.display().to_string();
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, File::open(&options.trace).with_context(name)?));
    let mut end = None;
    while let Some(record) = reader.next_record().with_context(name)? {
        watch.step(reader.line() + declared.len() as u64, &record);
        if let Record::End(why) = record {
            end = Some(why);
        }
    }
    ensure!(end == Some(End::Exit), "the recording ended early: {end:?}");
    Ok(watch.judged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_each_page_offset_has_its_load_address() {
        assert_eq!(load_address(0), 0x4020_0000);
        assert_eq!(load_address(511), 0x403f_f000);
        assert!((0..PAGES).all(|page| load_address(page) >> 12 & 511 == u64::from(page)));
    }
}
