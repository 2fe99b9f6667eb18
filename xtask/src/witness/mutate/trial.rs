//! What becomes of each site: it is tried in every boot that executes it until one objects; then the reasons are asked, and checked.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::redundant::Entry;
use super::scenario::{BOOTS, Linked, REQUESTS, Scenario, Stage, Tools};
use super::score::Score;
use super::sites::{NOP, Site, find};
use super::source::{self, Sources};
use super::watch::{Ending, Objection};
use crate::{mutations, pool, ui};
use breakwater_image::Elf;

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The witness objected: in this boot, to this.
    Witness { boot: &'static str, objection: Objection },
    /// The boot failed: with QEMU's exit status, or nothing when it had to be ended.
    Boot { boot: &'static str, status: Option<i32> },
    /// No boot of the image executes it, or in none is it missed; what comes from the same lines of the source is at `place`, and this became
    /// of it.
    Twin { place: String, fate: Box<Self> },
    /// Nobody misses it, for a reason that was checked.
    Redundant { kind: &'static str, reason: String },
    /// Nobody misses it, in any of so many boots.
    Survived(usize),
    /// Nothing executes it.
    NotExecuted,
}

impl Fate {
    /// Whether the site needs no more proof.
    pub(crate) fn is_good(&self) -> bool {
        match self {
            Self::Twin { fate, .. } => fate.is_good(),
            Self::Witness { .. } | Self::Boot { .. } | Self::Redundant { .. } => true,
            Self::Survived(_) | Self::NotExecuted => false,
        }
    }

    fn is_killed(&self) -> bool {
        matches!(self, Self::Witness { .. } | Self::Boot { .. })
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Witness { boot, objection: Objection::Rule { name, what } } => {
                write!(f, "killed by the witness ({boot}): {name}: {what}")
            }
            Self::Witness { boot, objection: Objection::House(promise) } => {
                write!(f, "killed by the witness ({boot}): house rule: {promise}")
            }
            Self::Boot { boot, status: Some(status) } => write!(f, "killed by the boot ({boot}): status {status}"),
            Self::Boot { boot, status: None } => write!(f, "killed by the boot ({boot}): it hangs"),
            Self::Twin { place, fate } => write!(f, "at its twin {place} {fate}"),
            Self::Redundant { kind, reason } => write!(f, "redundant, {kind}: {reason}"),
            Self::Survived(boots) => write!(f, "SURVIVED {boots} boots"),
            Self::NotExecuted => f.write_str("NOT EXECUTED"),
        }
    }
}

/// An image, its sites and its boots.
struct Subject<'a> {
    elf: &'a Elf,
    bytes: Vec<u8>,
    link: u64,
    sites: Vec<Site>,
    stages: Vec<Stage>,
    /// What became of sites that were tried, by address.
    known: Mutex<HashMap<u64, Fate>>,
}

/// The image, the program that makes every request, and the reasons.
pub(crate) struct Trial<'a> {
    image: Subject<'a>,
    requests: Subject<'a>,
    tools: &'a Tools<'a>,
    reasons: Vec<Entry>,
}

impl<'a> Subject<'a> {
    fn open((elf, path): (&'a Elf, &Path), scenarios: &[Scenario], tools: &Tools<'_>) -> Result<Self> {
        let (bytes, link, file) = (elf.flatten()?, mutations::lowest(elf)?, fs::read(path)?);
        let sources = Sources::of(&file, path)?;
        let sites = find(elf, |address| sources.lines(address));
        let mut subject = Self { elf, bytes, link, sites, stages: Vec::new(), known: Mutex::default() };
        for scenario in scenarios {
            ui::step("Watching", scenario.name);
            let image = subject.patched(&[], *scenario)?;
            subject.stages.extend(Stage::open(*scenario, &subject.linked(&image), tools)?);
        }
        Ok(subject)
    }

    const fn linked<'b>(&self, bytes: &'b [u8]) -> Linked<'b> {
        Linked { bytes, link: self.link }
    }

    /// The image without `gone`, as `scenario` has it.
    fn patched(&self, gone: &[&Site], scenario: Scenario) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let mut put = |address: u64, word: u32| {
            let at = (address - self.link) as usize;
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        };
        gone.iter().for_each(|site| put(site.address, NOP));
        if let Some(routine) = scenario.refuses() {
            let (address, word) = self.last_branch(routine)?;
            put(address, always(word));
        }
        Ok(bytes)
    }

    /// The last conditional branch of a routine.
    fn last_branch(&self, routine: &str) -> Result<(u64, u32)> {
        let symbol = self.elf.symbols.iter().find(|symbol| symbol.name == routine && symbol.typed);
        let symbol = symbol.with_context(|| format!("no routine {routine}"))?;
        let start = (symbol.address - self.link) as usize;
        let words = self.bytes[start..start + symbol.size as usize].as_chunks::<4>().0.iter();
        let mut words = words.enumerate().map(|(at, word)| (symbol.address + 4 * at as u64, u32::from_le_bytes(*word)));
        let last = words.rfind(|(_, word)| is_conditional(*word));
        last.with_context(|| format!("{routine} has no conditional branch"))
    }

    /// What becomes of the image without `site`.
    fn fate_of(&self, site: &Site, tools: &Tools<'_>, worker: usize) -> Result<Fate> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fate) = known().get(&site.address).cloned() {
            return Ok(fate);
        }
        let fate = self.fate(&[site], tools, worker)?;
        known().insert(site.address, fate.clone());
        Ok(fate)
    }

    /// What becomes of the image without `gone`, in the boots that execute all of that.
    fn fate(&self, gone: &[&Site], tools: &Tools<'_>, worker: usize) -> Result<Fate> {
        let mut boots = 0;
        for stage in self.stages.iter().filter(|stage| stage.executes(gone)) {
            // A boot by firmware is long, and the image's own part of it like the others.
            if stage.scenario.is_long() && boots > 0 {
                continue;
            }
            boots += 1;
            let image = self.patched(gone, stage.scenario)?;
            let boot = stage.scenario.name;
            let seen = stage.boot(&self.linked(&image), tools, worker, false)?;
            match (seen.objection, seen.end) {
                (Some(objection), _) => return Ok(Fate::Witness { boot, objection }),
                (None, Ending::Hang) => return Ok(Fate::Boot { boot, status: None }),
                (None, Ending::Status(status)) if status != Some(0) => return Ok(Fate::Boot { boot, status }),
                (None, Ending::Status(_) | Ending::Stopped) => {}
            }
        }
        Ok(if boots == 0 { Fate::NotExecuted } else { Fate::Survived(boots) })
    }
}

/// Whether a word is B.cond.
const fn is_conditional(word: u32) -> bool {
    word & 0xff00_0010 == 0x5400_0000
}

/// B.cond as B, to the same place.
const fn always(word: u32) -> u32 {
    let offset = (word as i32) << 8 >> 13; // bits 23:5, with their sign
    0x1400_0000 | offset as u32 & 0x03ff_ffff
}

impl<'a> Trial<'a> {
    /// Boots the unchanged images in all their scenarios; a sample does without the long ones.
    ///
    /// # Errors
    /// One of them is not clean.
    pub(crate) fn open(
        [image, requests]: [(&'a Elf, &Path); 2],
        tools: &'a Tools<'a>,
        reasons: Vec<Entry>,
        every: usize,
    ) -> Result<Self> {
        let of = |all: &[Scenario]| -> Vec<Scenario> {
            all.iter().copied().filter(|scenario| every <= 1 || !scenario.is_long()).collect()
        };
        let image = Subject::open(image, &of(BOOTS), tools)?;
        Ok(Self { image, requests: Subject::open(requests, &of(REQUESTS), tools)?, tools, reasons })
    }

    /// All sites; or of those that these boots execute every `every`th, and all that another is said to cover.
    pub(crate) fn chosen(&self, every: usize) -> Vec<&Site> {
        if every <= 1 {
            return self.image.sites.iter().collect();
        }
        let covered =
            |site: &Site| self.reasons.iter().any(|reason| reason.covered_by.is_some() && reason.site.names(site));
        let executed = |site: &&Site| self.image.stages.iter().any(|stage| stage.executes(&[site]));
        let sites = self.image.sites.iter().filter(executed).enumerate();
        sites.filter(|(index, site)| index % every == 0 || covered(site)).map(|(_, site)| site).collect()
    }

    /// What becomes of each of `sites`; `done` is told of each when it is known.
    ///
    /// # Errors
    /// QEMU cannot be run, or a trace is malformed.
    pub(crate) fn judge(&self, sites: &[&Site], mut done: impl FnMut(&Site, &Fate) + Send) -> Result<Vec<Fate>> {
        pool::each(sites, |worker, site| self.fate(site, worker), |site, fate| done(site, fate))
    }

    fn fate(&self, site: &Site, worker: usize) -> Result<Fate> {
        if let Some(reason) = self.reasons.iter().find(|reason| reason.pause.is_some() && reason.site.names(site))
            && site.pauses
        {
            return Ok(Fate::Redundant { kind: "a pause", reason: reason.pause.clone().unwrap_or_default() });
        }
        let fate = self.image.fate_of(site, self.tools, worker)?;
        if fate.is_good() {
            return Ok(fate);
        }
        let fate = match self.twin(site, worker)? {
            Fate::NotExecuted => fate,
            twin => twin,
        };
        if fate.is_good() { Ok(fate) } else { Ok(self.reason(site, worker)?.unwrap_or(fate)) }
    }

    /// What becomes of an instruction that comes from the same lines of the source: in this image, or in the program of requests.
    fn twin(&self, site: &Site, worker: usize) -> Result<Fate> {
        let mut last = Fate::NotExecuted;
        for subject in [&self.image, &self.requests] {
            let alike = |other: &&Site| {
                let itself = std::ptr::eq(subject, &raw const self.image) && other.address == site.address;
                !itself && other.instruction == site.instruction && source::alike(&other.lines, &site.lines)
            };
            for twin in subject.sites.iter().filter(alike) {
                let fate = subject.fate_of(twin, self.tools, worker)?;
                if fate != Fate::NotExecuted {
                    last = Fate::Twin { place: format!("{}+{:#x}", twin.function, twin.offset), fate: Box::new(fate) };
                }
                if last.is_good() {
                    return Ok(last);
                }
            }
        }
        Ok(last)
    }

    /// The reason for a site that nobody misses, if it holds.
    fn reason(&self, site: &Site, worker: usize) -> Result<Option<Fate>> {
        for reason in self.reasons.iter().filter(|reason| reason.site.names(site)) {
            let because = reason.because.clone().unwrap_or_default();
            if let Some(feature) = &reason.feature {
                let reason = format!("{feature}: {because}");
                return Ok(Some(Fate::Redundant { kind: "for a feature", reason }));
            }
            let Some(covers) = &reason.covered_by else { continue };
            for other in self.image.sites.iter().filter(|other| covers.names(other)) {
                if self.image.fate(&[site, other], self.tools, worker)?.is_killed() {
                    let reason = format!("covered by {other}, and without both it is missed: {because}");
                    return Ok(Some(Fate::Redundant { kind: "covered", reason }));
                }
            }
        }
        Ok(None)
    }

    /// Every reason is needed.
    ///
    /// # Errors
    /// One names no site that anybody would have to excuse.
    pub(crate) fn require_current(&self, score: &Score) -> Result<()> {
        for reason in &self.reasons {
            let needed = score.sites().any(|(site, fate)| {
                reason.site.names(site)
                    && matches!(fate, Fate::Redundant { .. } | Fate::Survived(_) | Fate::NotExecuted)
            });
            ensure!(
                needed,
                "tests/witness/redundant.toml is out of date: nobody needs the reason for {:?}",
                reason.site
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_a_branch_is_taken_always() {
        // b.ne . + 0x10; b.eq . - 8
        assert!(is_conditional(0x5400_0081) && is_conditional(0x54ff_ffc0) && !is_conditional(0x1400_0004));
        assert_eq!(always(0x5400_0081), 0x1400_0004);
        assert_eq!(always(0x54ff_ffc0), 0x17ff_fffe);
    }
}
