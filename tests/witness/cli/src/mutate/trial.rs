//! What becomes of each mutant: it is tried in every boot that executes it until one objects; then the reasons are asked, and checked.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use super::boot::{Boot, Linked, Stage};
use super::change::{Mutant, mutants};
use super::hear::{Ending, Objection};
use super::redundant::Reasons;
use super::score::Score;
use super::sites::{NOP, Site, find};
use super::source::{self, Sources};
use super::{Plan, Program};
use crate::elf::Elf;
use crate::{Tools, pool, ui};

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The witness objected: in this boot, to this.
    Witness { boot: String, objection: Objection },
    /// The boot failed: with QEMU's exit status, or nothing when it had to be ended.
    Boot { boot: String, status: Option<i32> },
    /// No boot of the image executes it, or in none is it missed; what comes from the same lines of the source is at `place`, and this became
    /// of it.
    Twin { place: String, fate: Box<Self> },
    /// Nobody misses it, for a reason that was checked.
    Redundant { kind: &'static str, reason: String },
    /// Nobody misses it, in any of so many boots.
    Survived(usize),
    /// Nothing executes it.
    NotExecuted,
    /// It is weakened only, and the first boot does not execute it.
    Elsewhere,
}

impl Fate {
    /// Whether the site needs no more proof.
    pub(super) fn is_good(&self) -> bool {
        match self {
            Self::Twin { fate, .. } => fate.is_good(),
            Self::Witness { .. } | Self::Boot { .. } | Self::Redundant { .. } | Self::Elsewhere => true,
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
            Self::Elsewhere => f.write_str("not executed in the first boot"),
        }
    }
}

/// An image, its sites and its boots.
struct Subject<'a> {
    elf: Elf,
    bytes: Vec<u8>,
    link: u64,
    sites: Vec<Site>,
    stages: Vec<Stage>,
    tools: &'a Tools,
    /// What became of sites that were taken away, by address.
    known: Mutex<HashMap<u64, Fate>>,
}

/// The image, the program that is its twin, and the reasons.
pub(super) struct Trial<'a> {
    image: Subject<'a>,
    twin: Option<Subject<'a>>,
    mutants: Vec<Mutant>,
    reasons: Reasons,
}

/// Words that take other words' place, and the address of the first.
type Patch<'a> = (u64, &'a [u32]);

impl<'a> Subject<'a> {
    fn open(program: Program<'_>, weakened: &HashSet<String>, reasons: &Reasons, tools: &'a Tools) -> Result<Self> {
        let file = fs::read(program.elf).with_context(|| program.elf.display().to_string())?;
        let elf = Elf::parse(&file).with_context(|| program.elf.display().to_string())?;
        let (link, bytes) = elf.flatten()?;
        let sources = Sources::of(&file, program.elf, &reasons.twins)?;
        let sites = find(&elf, weakened, |address| sources.lines(address));
        let mut subject = Self { elf, bytes, link, sites, stages: Vec::new(), tools, known: Mutex::default() };
        for boot in program.boots {
            ui::step("Watching", &boot.name);
            let image = subject.patched(&[], &boot)?;
            subject.stages.push(Stage::open(boot, &Linked { bytes: &image, link }, tools)?);
        }
        Ok(subject)
    }

    /// The image with `patches`, as `boot` has it.
    fn patched(&self, patches: &[Patch<'_>], boot: &Boot) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let mut put = |address: u64, words: &[u32]| put(&mut bytes, (address - self.link) as usize, words);
        patches.iter().for_each(|(address, words)| put(*address, words));
        if let Some(routine) = &boot.refuses {
            let (address, word) = self.last_branch(routine)?;
            put(address, &[always(word)]);
        }
        Ok(bytes)
    }

    /// The last conditional branch of a routine.
    fn last_branch(&self, routine: &str) -> Result<(u64, u32)> {
        let symbol = self.elf.function(routine).with_context(|| format!("no routine {routine}"))?;
        let start = (symbol.address - self.link) as usize;
        let words = self.bytes[start..start + symbol.size as usize].as_chunks::<4>().0.iter();
        let mut words = words.enumerate().map(|(at, word)| (symbol.address + 4 * at as u64, u32::from_le_bytes(*word)));
        let last = words.rfind(|(_, word)| is_conditional(*word));
        last.with_context(|| format!("{routine} has no conditional branch"))
    }

    /// What becomes of the image without `site`.
    fn fate_of(&self, site: &Site, worker: usize) -> Result<Fate> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fate) = known().get(&site.address).cloned() {
            return Ok(fate);
        }
        let fate = self.fate(&[site], worker)?;
        known().insert(site.address, fate.clone());
        Ok(fate)
    }

    /// What becomes of the image without `gone`, in the boots that execute all of that.
    fn fate(&self, gone: &[&Site], worker: usize) -> Result<Fate> {
        let patches: Vec<Patch<'_>> = gone.iter().map(|site| (site.address, &[NOP][..])).collect();
        let mut boots = 0;
        for stage in self.stages.iter().filter(|stage| stage.executes(gone)) {
            // A boot by firmware is long, and the image's own part of it like the others.
            if stage.boot.is_long() && boots > 0 {
                continue;
            }
            boots += 1;
            if let Some(fate) = self.killed(&patches, stage, worker)? {
                return Ok(fate);
            }
        }
        Ok(if boots == 0 { Fate::NotExecuted } else { Fate::Survived(boots) })
    }

    /// What becomes of a mutant that is tried in the first boot alone.
    fn fate_in_first(&self, mutant: &Mutant, worker: usize) -> Result<Fate> {
        let Some(stage) = self.stages.first().filter(|stage| stage.executes(&[&mutant.site])) else {
            return Ok(Fate::Elsewhere);
        };
        let killed = self.killed(&[(mutant.site.address, &mutant.words)], stage, worker)?;
        Ok(killed.unwrap_or(Fate::Survived(1)))
    }

    /// How the image with `patches` dies in the boot of `stage`, if it does.
    fn killed(&self, patches: &[Patch<'_>], stage: &Stage, worker: usize) -> Result<Option<Fate>> {
        let image = self.patched(patches, &stage.boot)?;
        let boot = stage.boot.name.clone();
        let seen = stage.run(&Linked { bytes: &image, link: self.link }, self.tools, worker, false)?;
        Ok(match (seen.objection, seen.end) {
            (Some(objection), _) => Some(Fate::Witness { boot, objection }),
            (None, Ending::Hang) => Some(Fate::Boot { boot, status: None }),
            (None, Ending::Status(status)) if status != Some(0) => Some(Fate::Boot { boot, status }),
            (None, Ending::Status(_) | Ending::Stopped) => None,
        })
    }
}

/// Writes `words` over the instructions from `at` on.
fn put(bytes: &mut [u8], at: usize, words: &[u32]) {
    let there = bytes[at..].chunks_mut(4);
    there.zip(words).for_each(|(there, word)| there.copy_from_slice(&word.to_le_bytes()));
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
    /// Boots the unchanged images in all their boots; a sample does without the long ones.
    ///
    /// # Errors
    /// One of them is not clean.
    pub(super) fn open(plan: Plan<'_>, tools: &'a Tools) -> Result<Self> {
        let Plan { mut image, twin, reasons, weakened, every, only: _ } = plan;
        image.boots.retain(|boot| every <= 1 || !boot.is_long());
        let image = Subject::open(image, &weakened, &reasons, tools)?;
        let twin = twin.map(|twin| Subject::open(twin, &HashSet::new(), &reasons, tools)).transpose()?;
        let of = |site: &Site| mutants(site, weakened.contains(&site.function));
        let mutants = image.sites.iter().flat_map(of).collect();
        Ok(Self { image, twin, mutants, reasons })
    }

    /// All mutants; or of those that these boots execute every `every`th, and all that another instruction is said to cover.
    pub(super) fn chosen(&self, every: usize) -> Vec<&Mutant> {
        if every <= 1 {
            return self.mutants.iter().collect();
        }
        let is_covered = |mutant: &Mutant| {
            let reasons = self.reasons.redundant.iter();
            let mut covered = reasons.filter(|reason| reason.covered_by.is_some());
            mutant.is_everywhere() && covered.any(|reason| reason.site.names(&mutant.site))
        };
        let is_executed = |mutant: &&Mutant| self.image.stages.iter().any(|stage| stage.executes(&[&mutant.site]));
        let mutants = self.mutants.iter().filter(is_executed).enumerate();
        mutants.filter(|(index, one)| index % every == 0 || is_covered(one)).map(|(_, one)| one).collect()
    }

    /// What becomes of each of `mutants`; `done` is told of each when it is known.
    ///
    /// # Errors
    /// QEMU cannot be run, or a trace is malformed.
    pub(super) fn judge(&self, mutants: &[&Mutant], mut done: impl FnMut(&Mutant, &Fate) + Send) -> Result<Vec<Fate>> {
        pool::each(
            pool::host_cpus(),
            mutants,
            |worker, mutant| self.fate(mutant, worker),
            |mutant, fate| done(mutant, fate),
        )
    }

    fn fate(&self, mutant: &Mutant, worker: usize) -> Result<Fate> {
        if !mutant.is_everywhere() {
            return self.image.fate_in_first(mutant, worker);
        }
        let site = &mutant.site;
        let pause = self.reasons.redundant.iter().find(|reason| reason.pause.is_some() && reason.site.names(site));
        if let Some(reason) = pause.filter(|_| site.pauses) {
            return Ok(Fate::Redundant { kind: "a pause", reason: reason.pause.clone().unwrap_or_default() });
        }
        let fate = self.image.fate_of(site, worker)?;
        if fate.is_good() {
            return Ok(fate);
        }
        let fate = match self.twin(site, worker)? {
            Fate::NotExecuted => fate,
            twin => twin,
        };
        if fate.is_good() { Ok(fate) } else { Ok(self.reason(site, worker)?.unwrap_or(fate)) }
    }

    /// What becomes of an instruction that comes from the same lines of the source: in this image, or in its twin.
    fn twin(&self, site: &Site, worker: usize) -> Result<Fate> {
        let mut last = Fate::NotExecuted;
        for subject in std::iter::once(&self.image).chain(&self.twin) {
            let alike = |other: &&Site| {
                let itself = std::ptr::eq(subject, &raw const self.image) && other.address == site.address;
                !itself && other.instruction == site.instruction && source::alike(&other.lines, &site.lines)
            };
            for twin in subject.sites.iter().filter(alike) {
                let fate = subject.fate_of(twin, worker)?;
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
        for reason in self.reasons.redundant.iter().filter(|reason| reason.site.names(site)) {
            let because = reason.because.clone().unwrap_or_default();
            if let Some(feature) = &reason.feature {
                let reason = format!("{feature}: {because}");
                return Ok(Some(Fate::Redundant { kind: "for a feature", reason }));
            }
            let Some(covers) = &reason.covered_by else { continue };
            for other in self.image.sites.iter().filter(|other| covers.names(other)) {
                if self.image.fate(&[site, other], worker)?.is_killed() {
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
    pub(super) fn require_current(&self, score: &Score) -> Result<()> {
        for reason in &self.reasons.redundant {
            let needs = |fate: &Fate| matches!(fate, Fate::Redundant { .. } | Fate::Survived(_) | Fate::NotExecuted);
            let is_needed = |(mutant, fate): (&Mutant, &Fate)| {
                mutant.is_everywhere() && reason.site.names(&mutant.site) && needs(fate)
            };
            ensure!(score.mutants().any(is_needed), "a reason is out of date, for nobody needs it: {:?}", reason.site);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_a_mutant_changes_its_words_only() {
        const ISB: u32 = 0xd503_3fdf;
        let mut bytes = [0xaa; 16];
        put(&mut bytes, 4, &[ISB, NOP]);
        let expected: Vec<u8> = [[0xaa; 4], ISB.to_le_bytes(), NOP.to_le_bytes(), [0xaa; 4]].concat();
        assert_eq!(bytes.as_slice(), expected);
    }

    #[test]
    fn good_a_branch_is_taken_always() {
        // b.ne . + 0x10; b.eq . - 8
        assert!(is_conditional(0x5400_0081) && is_conditional(0x54ff_ffc0) && !is_conditional(0x1400_0004));
        assert_eq!(always(0x5400_0081), 0x1400_0004);
        assert_eq!(always(0x54ff_ffc0), 0x17ff_fffe);
    }
}
