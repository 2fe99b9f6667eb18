//! What was counted on the target. What requests cost is read here, from what `request_costs` of tests/boot says where
//! QEMU counts instructions; what boots cost, in `phases`.
//!
//! What must hold: the counts are exact, so that two boots say the same; with more CPUs the same is asked; every request stores, and no store
//! goes without its barriers; a request for one page takes no more than [`MOST`] allows.

use super::phases::{self, Boot, Held};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Instructions that requests for one page may take, by the pinned compiler.
pub(super) const MOST: [(&str, u64); 3] = [("map-1-page", 747), ("protect-1-page", 919), ("unmap-1-page", 1027)];

/// Boots of the target, as `cargo xtask bench` hands them over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Boots {
    /// Counts name their compiler.
    pub(super) compiler: String,
    pub(super) qemu: String,
    pub(super) cpu: String,
    /// Of `request_costs`.
    pub(super) runs: Vec<Said>,
    /// Of the image.
    pub(super) images: Vec<Said>,
}

/// With so many CPUs and GiB: the serial line of each boot.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub(super) cpus: u32,
    pub(super) gib: u64,
    pub(super) boots: Vec<String>,
}

/// Counts on the target.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub(super) compiler: String,
    pub(super) qemu: String,
    pub(super) cpu: String,
    pub(super) runs: Vec<Counted>,
    pub(super) images: Vec<Boot>,
    pub(super) promises: Vec<Held>,
}

/// With so many CPUs; `boots` boots said the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Counted {
    pub(super) cpus: u32,
    pub(super) boots: usize,
    pub(super) requests: Vec<Cost>,
}

/// What one request cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Cost {
    pub(super) name: String,
    pub(super) instructions: u64,
    pub(super) stores: u64,
    pub(super) tlbis: u64,
    pub(super) dsbs: u64,
    pub(super) isbs: u64,
    /// Taken from the supply; negative when they came back.
    pub(super) frames: i64,
}

/// `1 CPU`, `4 CPUs`.
pub(super) fn cpus_in_words(cpus: u32) -> String {
    format!("{cpus} CPU{}", if cpus == 1 { "" } else { "s" })
}

impl Target {
    /// Reads the boots in `file`.
    ///
    /// # Errors
    /// The file cannot be read or is malformed, and whatever does not hold of the counts.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::of(serde_json::from_str(&text).with_context(|| file.display().to_string())?)
    }

    /// Of `boots`.
    ///
    /// # Errors
    /// A line is malformed, and whatever does not hold of the counts.
    pub(super) fn of(boots: Boots) -> Result<Self> {
        let Boots { compiler, qemu, cpu, runs, images } = boots;
        let runs = runs.iter().map(Counted::of).collect::<Result<Vec<_>>>()?;
        let asked = |run: &Counted| run.requests.iter().map(|cost| cost.name.clone()).collect::<Vec<_>>();
        ensure!(runs.windows(2).all(|pair| asked(&pair[0]) == asked(&pair[1])), "other requests with more CPUs");
        let images = images.iter().map(Boot::of).collect::<Result<Vec<_>>>()?;
        let promises = phases::held(&compiler, &images);
        Ok(Self { compiler, qemu, cpu, runs, images, promises })
    }

    /// Requests that take more instructions than they may, and those that nobody made; and the promises of a boot that
    /// are not kept.
    pub(crate) fn over(&self) -> Vec<String> {
        let of_run = |run: &Counted| {
            let Counted { cpus, requests, .. } = run;
            let over = MOST.iter().filter_map(|&(name, most)| match requests.iter().find(|cost| cost.name == name) {
                None => Some(format!("{name} is not among the requests with {}", cpus_in_words(*cpus))),
                Some(cost) if cost.instructions <= most => None,
                Some(Cost { instructions, .. }) => {
                    Some(format!("{name}, {}: {instructions} instructions, more than {most}", cpus_in_words(*cpus)))
                }
            });
            over.collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run).chain(self.promises.iter().filter_map(Held::broken)).collect()
    }
}

impl Counted {
    fn of(said: &Said) -> Result<Self> {
        let Said { cpus, boots, .. } = said;
        let with = cpus_in_words(*cpus);
        let costs = boots.iter().map(|serial| costs(serial)).collect::<Result<Vec<_>>>().context(with.clone())?;
        let [requests, _, ..] = costs.as_slice() else { bail!("{with}: one boot shows nothing of being exact") };
        for other in &costs {
            let mut pairs = requests.iter().zip(other);
            if let Some((first, second)) = pairs.find(|(first, second)| first != second) {
                bail!("two boots with {with} count differently: {first:?}, then {second:?}");
            }
            ensure!(requests.len() == other.len(), "two boots with {with} make different requests");
        }
        Ok(Self { cpus: *cpus, boots: boots.len(), requests: requests.clone() })
    }
}

/// The costs in what the program said, without what reading the counters costs.
///
/// # Errors
/// A line is malformed or cannot be, or instructions were not counted.
fn costs(serial: &str) -> Result<Vec<Cost>> {
    let lines = serial.lines().filter_map(|line| line.strip_prefix("bench "));
    let mut costs = lines.map(Cost::read).collect::<Result<Vec<_>>>()?;
    ensure!(costs.first().is_some_and(|first| first.name == "idle"), "no line `bench idle`");
    let idle = costs.remove(0);
    ensure!((idle.stores, idle.tlbis, idle.dsbs, idle.isbs, idle.frames) == (0, 0, 0, 0, 0), "idling cost {idle:?}");
    for cost in &mut costs {
        cost.instructions = cost.instructions.saturating_sub(idle.instructions);
        cost.plausible()?;
    }
    ensure!(!costs.is_empty(), "no request was counted");
    Ok(costs)
}

impl Cost {
    fn read(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let name = words.next().context("a line without a name")?.to_owned();
        let mut number = |key: &str| -> Result<i64> {
            let word = words.next().with_context(|| format!("`bench {line}` has no {key}"))?;
            let value = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
            match value {
                Some("uncounted") => bail!("this QEMU does not count instructions: `bench {line}`"),
                Some(value) => value.parse().with_context(|| format!("`bench {line}`: {word}")),
                None => bail!("`bench {line}` has `{word}` where {key} belongs"),
            }
        };
        let mut count = |key: &str| number(key).and_then(|number| Ok(u64::try_from(number)?));
        let (instructions, stores) = (count("instructions")?, count("stores")?);
        let (tlbis, dsbs, isbs) = (count("tlbis")?, count("dsbs")?, count("isbs")?);
        Ok(Self { name, instructions, stores, tlbis, dsbs, isbs, frames: number("frames")? })
    }

    /// Every request here changes tables in force: it stores, and no store goes without its barriers.
    fn plausible(&self) -> Result<()> {
        ensure!(self.instructions > self.stores, "{self:?}");
        ensure!(self.stores > 0 && self.dsbs > 0 && self.isbs > 0, "{self:?}");
        let fills = self.name.starts_with("map-");
        ensure!(fills == (self.tlbis == 0), "a fill invalidates nothing, all else does: {self:?}");
        Ok(())
    }
}
