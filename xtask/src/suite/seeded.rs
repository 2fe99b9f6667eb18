//! Small images with one fault each, and twins without: does the witness tell them apart?
//!
//! Why it exists: a checker that never complains passes every test of a correct image. Each of these images breaks one rule, in the way that real
//! boot code does; the oracle has to name that rule, at that instruction, and nothing else. Its twin, which differs by that one instruction,
//! has to be clean. `tests/witness/seeded.toml` lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use breakwater_oracle::obligations::{Lack, Remedy};
use breakwater_trace::Feature;
use serde::Deserialize;

use super::Context;
use super::assembled::{Assembled, Built, LOAD_ADDRESS, Source};
use super::runner::Case;
use crate::machine::Machine;
use crate::setup::{Loader, loader};
use crate::{paths, witness};
use breakwater_witness::Tools;
use breakwater_witness::watch::{Ends, Start, Subject, Testimony, watch};

/// More than any of them takes, on a machine that does other things too.
const TIMEOUT_SECONDS: u64 = 300;

/// The largest recording of an image that ends, `bad_flood`'s: else none does much, however long it waits.
const MOST_TRACE_BYTES: u64 = 6 << 20;

/// The images that one source makes, and the machine that they run on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    #[serde(default = "one")]
    cpus: u32,
    #[serde(default = "model")]
    cpu: String,
    /// Errata that the machine is judged by besides its own, in the words of the trace format.
    #[serde(default)]
    features: Vec<String>,
    /// Debian's AAVMF starts the image, which is judged from its entry on.
    #[serde(default)]
    firmware: bool,
    /// Seconds.
    #[serde(default = "timeout")]
    timeout: u64,
    /// What is to be found: `RULE, RULE at LABEL: MISSING before|after|at LABEL` for each finding; or a verdict's name.
    images: BTreeMap<String, Vec<String>>,
}

const fn one() -> u32 {
    1
}

fn model() -> String {
    "cortex-a57".to_owned()
}

const fn timeout() -> u64 {
    TIMEOUT_SECONDS
}

/// An image.
#[derive(Clone, Debug)]
struct Seeded {
    name: String,
    /// Its source, without directory and extension.
    family: String,
    machine: Machine,
    features: Vec<Feature>,
    firmware: bool,
    timeout: Duration,
    /// The verdict's name.
    verdict: String,
    /// What is to be found, as the list spells it.
    finds: BTreeSet<String>,
}

/// A case for each image.
///
/// # Errors
/// The list is malformed, or an image cannot be assembled.
pub(super) fn cases() -> Result<Vec<Case>> {
    let path = paths::root().join("tests/witness/seeded.toml");
    let images = listed(&fs::read_to_string(&path).with_context(|| paths::shown(&path))?)?;
    let file = |name: &str| format!("tests/witness/images/{name}.S");
    let source = |image: &Seeded| Source {
        name: image.name.clone(),
        defines: String::new(),
        files: vec![file("common"), file(&image.family)],
    };
    let assembled = Arc::new(Assembled::new("seeded", &images.iter().map(source).collect::<Vec<_>>())?);
    let case = |image: Seeded| {
        let assembled = Arc::clone(&assembled);
        Case::new(format!("seeded/{}/{}", image.family, image.name), move |context: &Context, scratch: &Path| {
            let built = assembled.link(&image.name, &context.ready.toolchain)?;
            image.check(&built, &witness::tools(&context.ready.qemu, scratch)?)
        })
    };
    Ok(images.into_iter().map(case).collect())
}

/// The images that `list` names, family by family.
fn listed(list: &str) -> Result<Vec<Seeded>> {
    let families: BTreeMap<String, Family> = toml::from_str(list).context("tests/witness/seeded.toml")?;
    let mut images = Vec::new();
    for (family, Family { cpus, cpu, features, firmware, timeout, images: named }) in families {
        let features = features.iter().map(|feature| feature.parse::<Feature>());
        let features = features.collect::<Result<Vec<_>, _>>().map_err(|error| anyhow!("{family}: {error}"))?;
        let machine = Machine { cpu, smp: cpus, memory: "256M".to_owned(), ..Machine::default() };
        for (name, finds) in named {
            ensure!(name.starts_with("good_") == finds.is_empty(), "{name}: good images break nothing, bad ones do");
            let (finds, verdicts): (BTreeSet<String>, BTreeSet<String>) =
                finds.into_iter().partition(|find| find.contains(" at "));
            let verdict = verdicts.into_iter().next();
            let verdict = verdict.unwrap_or_else(|| if finds.is_empty() { "clean" } else { "findings" }.to_owned());
            images.push(Seeded {
                name,
                family: family.clone(),
                machine: machine.clone(),
                features: features.clone(),
                firmware,
                timeout: Duration::from_secs(timeout),
                verdict,
                finds,
            });
        }
    }
    Ok(images)
}

impl Seeded {
    /// Boots it under the witness: what is found is what is listed, and nothing else.
    fn check(&self, built: &Built, tools: &Tools) -> Result<()> {
        let elfs = std::slice::from_ref(&built.elf);
        let start = Start::of(&built.raw, elfs, &self.machine);
        let mut subject = if self.firmware {
            Subject::behind(tools, &start, &loader(Loader::Uefi)?)?
        } else {
            Subject::image(tools, &start)?
        };
        subject.promised.clone_from(&self.features);
        let ends = Ends { timeout: self.timeout, ..Ends::default() };
        let trace = tools.scratch.join("raw.trace");
        let testimony = watch(&subject, &ends, ((!self.firmware).then_some(&trace), false), |_, _| {})?;
        let found: BTreeSet<String> = built.findings(&testimony).collect();
        ensure!(found == self.finds, "found {found:?}, and not {:?}\n{testimony}", self.finds);
        let (verdict, end) = (testimony.verdict.name(), testimony.outcome.says());
        ensure!(verdict == self.verdict, "the verdict is {verdict}, and not {}\n{testimony}", self.verdict);
        // The CPUs of these images wait for each other: nothing is left to the order of arrival.
        let doubtful = testimony.findings.iter().find(|finding| finding.rests_on_order);
        ensure!(doubtful.is_none(), "rests on order: {testimony}");
        // Whatever the fault, the image does what it is for: no emulator shows that it is one.
        let ended = self.finds.is_empty() || end.starts_with("reached");
        ensure!(ended, "{end}");
        let bytes = fs::metadata(&trace).map_or(0, |kept| kept.len());
        // What nothing but the time limit ends, exception upon exception, writes as long as it may.
        let is_endless = verdict == "timeout" || end.contains("exceptions in a loop");
        ensure!(is_endless || bytes < MOST_TRACE_BYTES, "the recording has {bytes} bytes");
        Ok(())
    }
}

impl Built {
    /// What was found, as the list spells it.
    fn findings(&self, testimony: &Testimony) -> impl Iterator<Item = String> {
        // A loader puts the image elsewhere than it was linked for.
        let moved = testimony.entered.map_or(0, |pa| pa.wrapping_sub(LOAD_ADDRESS));
        testimony.findings.iter().map(move |finding| {
            let rules: BTreeSet<&str> = finding.symptoms.iter().map(|symptom| symptom.rule.name()).collect();
            let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
            let Remedy { lack, side, at } = finding.first.remedy;
            let (place, mended) =
                (self.place(finding.first.pc.wrapping_sub(moved)), self.place(at.pc.wrapping_sub(moved)));
            match lack {
                Lack::Own(_) if place == mended => format!("{rules} at {place}"),
                Lack::Own(_) => format!("{rules} at {place}: {} {mended}", side.says()),
                _ => format!("{rules} at {place}: {} {} {mended}", lack.name(), side.says()),
            }
        })
    }

    /// The labels of an instruction; where it has none, the last before it.
    fn place(&self, pc: u64) -> String {
        match self.labels.range(..=pc).next_back() {
            Some((address, labels)) if *address == pc => labels.join("/"),
            Some((address, labels)) => format!("{}+{:#x}", labels.join("/"), pc - address),
            None => format!("{pc:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use breakwater_oracle::obligations::Rule;

    /// What no recording of an image can break: `take` and `give` are claims of software.
    const BEYOND_IMAGES: [Rule; 2] = [Rule::FrameReuse, Rule::FrameInUse];

    fn seeded() -> Vec<Seeded> {
        listed(include_str!("../../../tests/witness/seeded.toml")).expect("the list is well-formed")
    }

    #[test]
    fn good_every_rule_is_broken_by_some_image() {
        let found: Vec<String> = seeded().into_iter().flat_map(|image| image.finds).collect();
        let breaks = |find: &String, rule: &Rule| find.split([',', ' ']).any(|word| word == rule.name());
        for rule in Rule::ALL.iter().filter(|rule| !BEYOND_IMAGES.contains(rule)) {
            assert!(found.iter().any(|find| breaks(find, rule)), "no image breaks {rule:?}");
        }
    }

    #[test]
    fn good_each_family_has_its_twin() {
        let images = seeded();
        for image in &images {
            let twin = format!("good_{}", image.family);
            assert!(images.iter().any(|other| other.name == twin), "{} has no twin", image.name);
            assert!(image.name.starts_with("good_") || image.name.starts_with("bad_"), "{}", image.name);
        }
    }

    #[test]
    fn good_the_documentation_lists_each_image_with_what_is_found() {
        let readme = include_str!("../../../tests/witness/images/README.md");
        for image in seeded().iter().filter(|image| image.name.starts_with("bad_")) {
            let begins = format!("| `{}` |", image.name);
            let row = readme.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("{}", image.name));
            let told = row.rsplit(" | ").next().unwrap_or_default();
            let listed: BTreeSet<String> =
                told.trim_end_matches(" |").split("; ").map(|find| find.replace('`', "")).collect();
            let told_of = |find: &String| find.split(": ").next().unwrap_or_default().to_owned();
            let finds: BTreeSet<String> = image.finds.iter().map(told_of).collect();
            assert!(image.finds.is_empty() || listed == finds, "{row}");
            let verdict = format!("verdict {}, exit", image.verdict);
            assert!(!image.finds.is_empty() || told.starts_with(&verdict), "{row}");
        }
    }

    #[test]
    fn bad_a_list_that_contradicts_a_name() {
        for list in ["[x.images]\nbad_x = []", "[x.images]\ngood_x = [\"StaleLeaf at make\"]", "[x]\ncpu = 1"] {
            assert!(listed(list).is_err(), "{list}");
        }
    }
}
