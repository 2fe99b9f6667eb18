//! A boot that mutants are tried in, and what the unchanged image shows in it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breakwater_oracle::obligations::Rule;
use breakwater_trace::{Feature, Record};

use super::hear::{Court, Ending, Seen, hear};
use super::sites::Site;
use crate::Tools;
use crate::loader::{self, Loaded, Loading, State, virt_load_address};
use crate::machine::Machine;
use crate::recorded::{self, Options};

/// More than any image takes, by the clock and in work; who waits so long without working waits for ever.
const LONGEST: Duration = Duration::from_secs(180);

/// How the image is entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoadedBy {
    /// By QEMU's own loader, as a Linux arm64 `Image`.
    Kernel,
    /// By a few instructions that hand over this tree at the exception level that the machine starts at.
    Shim {
        /// The device tree.
        tree: Vec<u8>,
        /// Where it lies.
        tree_at: u64,
        /// Where the image lies.
        image_at: u64,
        /// In which state the CPUs come.
        state: State,
    },
    /// As a UEFI application.
    Firmware {
        /// The firmware.
        file: PathBuf,
        /// Where it puts the image.
        image_at: u64,
    },
}

/// A boot.
#[derive(Clone, Debug)]
pub struct Boot {
    /// What the report calls it.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// How the image is entered.
    pub way: LoadedBy,
    /// The image's command line.
    pub append: String,
    /// What every CPU is judged by.
    pub features: Vec<Feature>,
    /// A routine whose last conditional branch is taken whatever the condition.
    pub refuses: Option<String>,
    /// Rules that are not asked, for what comes before the image has its turn.
    pub excused: Vec<Rule>,
    /// True if the image is held to house rules besides.
    pub house_rules: bool,
    /// True if it counts what CPUs load with their MMUs off: other CPUs have left it there.
    pub loads: bool,
}

impl Boot {
    /// One by QEMU's own loader.
    #[must_use]
    pub fn new(name: &str, machine: Machine) -> Self {
        Self {
            name: name.to_owned(),
            machine,
            way: LoadedBy::Kernel,
            append: String::new(),
            features: Vec::new(),
            refuses: None,
            excused: Vec::new(),
            house_rules: false,
            loads: false,
        }
    }

    /// The state in which the CPUs come.
    const fn state(&self) -> State {
        match self.way {
            LoadedBy::Shim { state, .. } => state,
            LoadedBy::Kernel | LoadedBy::Firmware { .. } => State::AsProtocol,
        }
    }

    /// Some ten seconds: firmware stores much before the image has its turn.
    pub(super) const fn is_long(&self) -> bool {
        matches!(self.way, LoadedBy::Firmware { .. })
    }
}

/// A boot with what its clean run has shown.
pub(super) struct Stage {
    pub(super) boot: Boot,
    /// Where the image lies.
    load: u64,
    /// Link addresses of the instructions in question that it executes.
    executed: HashSet<u64>,
    /// How long QEMU may work.
    limit: Duration,
}

/// An image and where it is linked.
pub(super) struct Linked<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) link: u64,
}

impl Stage {
    /// Runs the unchanged image.
    ///
    /// # Errors
    /// The boot fails, or the witness objects.
    pub(super) fn open(boot: Boot, image: &Linked<'_>, tools: &Tools) -> Result<Self> {
        let load = match boot.way {
            LoadedBy::Kernel => virt_load_address(image.bytes)?,
            LoadedBy::Shim { image_at, .. } | LoadedBy::Firmware { image_at, .. } => image_at,
        };
        let mut stage = Self { boot, load, executed: HashSet::new(), limit: LONGEST };
        let seen = stage.run(image, tools, 0, true)?;
        let name = &stage.boot.name;
        let Ending::Status(status) = seen.end else { bail!("{name}: {:?}", seen.end) };
        ensure!(status == Some(0), "{name}: the unchanged image ends with {status:?}");
        ensure!(seen.objection.is_none(), "{name}: the unchanged image: {:?}", seen.objection);
        let extent = stage.load..stage.load + image.bytes.len() as u64;
        let linked = |pc: u64| if extent.contains(&pc) { pc - stage.load + image.link } else { pc };
        stage.executed = seen.executed.into_iter().map(linked).collect();
        // Four times the work is a hang, and a little more for small boots. What else the host has to do does not count.
        stage.limit = seen.worked * 4 + Duration::from_secs(3);
        Ok(stage)
    }

    /// Whether this boot executes all of `sites`.
    pub(super) fn executes(&self, sites: &[&Site]) -> bool {
        sites.iter().all(|site| self.executed.contains(&site.address))
    }

    /// Boots `image` under the witness.
    ///
    /// # Errors
    /// QEMU cannot be run, or its trace is malformed.
    pub(super) fn run(&self, image: &Linked<'_>, tools: &Tools, worker: usize, to_the_end: bool) -> Result<Seen> {
        let dir = tools.scratch.join(format!("worker-{worker}"));
        fs::create_dir_all(&dir)?;
        let file = dir.join("mutant.img");
        fs::write(&file, image.bytes).with_context(|| file.display().to_string())?;
        let options = self.options(&file, &dir, tools)?;
        let under_firmware = self.boot.is_long();
        let bytes = if under_firmware { Vec::new() } else { image.bytes.to_vec() };
        let mut declared = recorded::declarations(&Loaded { pa: self.load, bytes }, &options)?;
        let table = self.boot.state().loaded();
        declared.extend(table.iter().flat_map(Loaded::words).map(|(pa, value)| Record::Word { pa, value }));
        let length = image.bytes.len() as u64;
        // Firmware, and what a shim leaves CPUs in, is not the image's.
        let is_behind = under_firmware || table.is_some() || self.boot.loads;
        let own_only = is_behind.then_some(image.link..image.link + length);
        let house = self.boot.house_rules;
        let excused = self.boot.excused.clone();
        let court = Court { declared, image: self.load..self.load + length, house, own_only, excused };
        hear(&options, &court, self.limit, to_the_end)
    }

    fn options(&self, img: &Path, dir: &Path, tools: &Tools) -> Result<Options> {
        let Boot { machine, way, append, refuses, .. } = &self.boot;
        let mut options = Options::new(tools, img, &dir.join("unused"));
        (options.cpu, options.smp, options.memory) = (machine.cpu.clone(), machine.smp, machine.memory.clone());
        (options.fetches, options.timeout, options.append) = (false, LONGEST, append.clone());
        // What a refused CPU leaves behind is loaded with the MMU on, and its line judged then.
        options.shared_loads = refuses.is_some() || self.boot.loads;
        (options.features, options.house_rules) = (self.boot.features.clone(), self.boot.house_rules);
        options.machine = machine.arguments()?.get(1).cloned().unwrap_or_default();
        match way {
            LoadedBy::Kernel => {}
            LoadedBy::Shim { tree, tree_at, image_at, state } => {
                let (tree, tree_at, image_at, state) = (tree.clone(), *tree_at, *image_at, *state);
                let entry = Loading::Shim { tree, tree_at, image_at, state };
                options.extra = loader::arguments(&entry, machine, img, dir)?;
            }
            LoadedBy::Firmware { file, .. } => {
                options.extra = vec!["-bios".to_owned(), file.display().to_string()];
                options.cap_bytes = Some(16 << 30);
            }
        }
        Ok(options)
    }
}
