//! Does every barrier of `boot/` have a test that dies without it? Each is taken away in turn, and weakened, and swapped with its
//! neighbour; the image is booted, and boot or oracle ([`recorded::judge`]) must object.
//!
//! The instructions are found in the linked image, by the routines that `boot/*.S` declares: nothing has to be listed by hand.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use breakwater_trace::names::Family;
use breakwater_trace::{Barrier, Decoded, Reader, Record, decode};

use crate::judge::Finding;
use crate::measure::{Loaded, Options, run, virt_load_address};
use crate::pool;
use crate::recorded::{self, Lapse, Verdict};
use crate::witness::mutate::{NOP, spell};
use breakwater_image::{Elf, Symbol};

const ALLE2: u32 = 0xd50c_871f;
const ALLE1: u32 = 0xd50c_879f;
const DC_IVAC: u32 = 0xd508_7620;
const DC_CVAC: u32 = 0xd50b_7a20;
/// Registers whose writes are sequenced.
const SEQUENCED: [&str; 7] = ["sctlr_el2", "mair_el2", "tcr_el2", "tcr2_el2", "ttbr0_el2", "vbar_el2", "hcr_el2"];

/// What is done to an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// It becomes a NOP.
    Removed,
    /// A barrier of loads and stores becomes one of stores.
    StoresOnly,
    /// A barrier reaches this PE alone.
    Nearer,
    /// The TLBI is of EL1&0, the DC IVAC becomes a DC CVAC.
    Other,
    /// It changes places with the next.
    Swapped,
}

/// A mutant: the words from an address on, and what they become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mutant {
    /// The routine, and the offset of the instruction in it.
    pub place: (String, u64),
    /// The instruction, as the trace would call it.
    pub instruction: String,
    /// What is done to it.
    pub change: Change,
    address: u64,
    words: Vec<u32>,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place: (routine, offset), instruction, change, .. } = self;
        let change = match change {
            Change::Removed => "removed",
            Change::StoresOnly => "of stores only",
            Change::Nearer => "of this PE only",
            Change::Other => "of another kind",
            Change::Swapped => "after its successor",
        };
        write!(f, "{routine}+{offset:#x}: `{instruction}` {change}")
    }
}

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The boot failed: QEMU's exit status, or nothing when it had to be ended.
    KilledByBoot(Option<i32>),
    /// The boot passed, and the oracle objected; the first of its findings.
    KilledByOracle(Box<Finding>),
    /// Boot and oracle were content; a house rule is broken.
    KilledByHouseRule(Lapse),
    /// The instruction is not executed on this machine.
    NotExecuted,
    /// Nothing objected.
    Survived,
}

/// Told how many mutants are done, of how many, and the last of them.
pub(crate) type Progress<'a> = &'a mut (dyn FnMut(usize, usize, &Mutant, &Fate) + Send);

/// Boots every mutant of the image of `options` (whose `elf` must be given) and says what became of it, by address. The routines are
/// those that the files in `sources` (`boot/`) declare. As many boots run at once as the host has CPUs; their files lie beside
/// `options.trace`.
///
/// # Errors
/// A file that cannot be read or written, QEMU that cannot be run, or an unchanged image that fails its boot or breaks a rule.
pub(crate) fn mutations(options: &Options, sources: &Path, progress: Progress<'_>) -> Result<Vec<(Mutant, Fate)>> {
    let elf = Elf::read(options.elf.as_deref().context("the mutants' places come from the ELF file")?)?;
    let image = fs::read(&options.image).with_context(|| options.image.display().to_string())?;
    let load = options.load_address.map_or_else(|| virt_load_address(&image), Ok)?;
    let bench = Bench { options, link: lowest(&elf)?, load, image };
    let fate = bench.boot(&bench.image, 0)?;
    ensure!(fate == Fate::Survived, "the unchanged image: {fate:?}");
    let executed = bench.executed(0)?;
    let mutants = find(&elf, &bench.image, bench.link, &routines(sources)?);
    bench.boot_all(mutants, &executed, progress)
}

/// Where the image is linked.
///
/// # Errors
/// It loads nothing.
pub(crate) fn lowest(elf: &Elf) -> Result<u64> {
    let loaded = elf.segments.iter().filter(|segment| !segment.bytes.is_empty());
    loaded.map(|segment| segment.address).min().context("the image loads nothing")
}

/// The names after ROUTINE in the assembly files.
fn routines(sources: &Path) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in fs::read_dir(sources).with_context(|| sources.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "S") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let declared = text.lines().filter_map(|line| line.strip_prefix("ROUTINE ")?.split(',').next());
            names.extend(declared.map(|name| name.trim().to_owned()));
        }
    }
    Ok(names)
}

/// Where and how mutants are booted.
struct Bench<'a> {
    options: &'a Options,
    image: Vec<u8>,
    link: u64,
    load: u64,
}

impl Bench<'_> {
    fn boot_all(
        &self,
        mutants: Vec<Mutant>,
        executed: &HashSet<u64>,
        progress: Progress<'_>,
    ) -> Result<Vec<(Mutant, Fate)>> {
        let (mut done, total) = (0, mutants.len());
        let work = |worker: usize, mutant: &Mutant| {
            if executed.contains(&mutant.address) {
                self.boot(&mutant.apply(&self.image, self.link), worker)
            } else {
                Ok(Fate::NotExecuted)
            }
        };
        let fates = pool::each(&mutants, work, |mutant, fate| {
            done += 1;
            progress(done, total, mutant, fate);
        })?;
        let mut fates: Vec<_> = mutants.into_iter().zip(fates).collect();
        fates.sort_by_key(|(mutant, _)| mutant.address);
        Ok(fates)
    }

    fn trace(&self, worker: usize) -> PathBuf {
        self.options.trace.with_extension(format!("{worker}.trace"))
    }

    fn boot(&self, image: &[u8], worker: usize) -> Result<Fate> {
        let mut options = self.options.clone();
        options.trace = self.trace(worker);
        options.image = options.trace.with_extension("img");
        options.fetches = false;
        fs::write(&options.image, image).with_context(|| options.image.display().to_string())?;
        // An image that hangs is an error of the run; any other would have shown with the unchanged image.
        let status = run::run(&options).unwrap_or(None);
        if status != Some(0) {
            return Ok(Fate::KilledByBoot(status));
        }
        let loaded = Loaded { pa: self.load, bytes: image.to_vec() };
        let Verdict { findings, lapses } = recorded::judge(&loaded, &options)?;
        let of_oracle = findings.iter().next().cloned().map(Box::new).map(Fate::KilledByOracle);
        let of_house = || lapses.first().cloned().map(Fate::KilledByHouseRule);
        Ok(of_oracle.or_else(of_house).unwrap_or(Fate::Survived))
    }

    /// The link addresses of all instructions in this worker's last trace.
    fn executed(&self, worker: usize) -> Result<HashSet<u64>> {
        let mut pcs = HashSet::new();
        let mut reader = Reader::new(BufReader::new(File::open(self.trace(worker))?));
        while let Some(record) = reader.next_record()? {
            if let Record::Step(step) = record {
                let physical = step.pc < self.link;
                pcs.insert(if physical { step.pc.wrapping_sub(self.load).wrapping_add(self.link) } else { step.pc });
            }
        }
        Ok(pcs)
    }
}

impl Mutant {
    fn apply(&self, image: &[u8], link: u64) -> Vec<u8> {
        let mut image = image.to_vec();
        let start = (self.address - link) as usize;
        for (place, word) in image[start..].chunks_mut(4).zip(&self.words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        image
    }
}

/// The instruction's name if it is one that sequences are made of.
fn sequenced(word: u32) -> Option<String> {
    let matters = match decode(word)? {
        Decoded::Msr { register, .. } => SEQUENCED.contains(&register.name()?),
        Decoded::Mrs { register } => register.name() == Some("hcr_el2"),
        Decoded::Maintain { operation, .. } => matches!(operation.family()?, Family::Tlbi | Family::Dc),
        Decoded::Dsb(_) | Decoded::Dmb(_) | Decoded::Isb => true,
        Decoded::Eret | Decoded::Call { .. } => false,
    };
    matters.then(|| spell(word)).flatten()
}

/// True for what orders others: swapping it changes a sequence, swapping two writes of registers does not.
fn orders(word: u32) -> bool {
    match decode(word) {
        Some(Decoded::Dsb(_) | Decoded::Dmb(_) | Decoded::Isb) => true,
        Some(Decoded::Maintain { operation, .. }) => operation.family() == Some(Family::Tlbi),
        _ => false,
    }
}

/// All mutants of the routines named, by address.
fn find(elf: &Elf, image: &[u8], link: u64, routines: &HashSet<String>) -> Vec<Mutant> {
    let mut found = Vec::new();
    let mut symbols: Vec<&Symbol> = elf.symbols.iter().filter(|symbol| routines.contains(&symbol.name)).collect();
    symbols.sort_by_key(|symbol| symbol.address);
    for symbol in symbols {
        let start = symbol.address.saturating_sub(link) as usize;
        let end = (start + symbol.size as usize).min(image.len());
        let words: Vec<u32> =
            image[start.min(end)..end].as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        for (index, word) in words.iter().enumerate() {
            let Some(instruction) = sequenced(*word) else { continue };
            let next = words.get(index + 1).copied();
            for (change, words) in changes(*word, next) {
                let offset = 4 * index as u64;
                let (place, instruction) = ((symbol.name.clone(), offset), instruction.clone());
                found.push(Mutant { place, instruction, change, address: symbol.address + offset, words });
            }
        }
    }
    found
}

/// What can be done to `word` that some rule forbids.
fn changes(word: u32, next: Option<u32>) -> Vec<(Change, Vec<u32>)> {
    let mut changes = vec![(Change::Removed, vec![NOP])];
    if let Some(Decoded::Dsb(barrier) | Decoded::Dmb(barrier)) = decode(word) {
        let Barrier { crm, .. } = barrier;
        let with = |crm: u8| vec![word & !0xf00 | u32::from(crm) << 8];
        if barrier.orders_everything() {
            changes.push((Change::StoresOnly, with(crm & 0xc | 2)));
        }
        // The one before HCR_EL2 may be of this PE: it is for its own accesses.
        let before_hcr = next.and_then(sequenced).is_some_and(|name| name == "msr hcr_el2");
        if crm >> 2 != 1 && !before_hcr {
            changes.push((Change::Nearer, with(4 | crm & 3)));
        }
    }
    if word == ALLE2 {
        changes.push((Change::Other, vec![ALLE1]));
    }
    if word & !31 == DC_IVAC {
        changes.push((Change::Other, vec![DC_CVAC | word & 31]));
    }
    if let Some(next) = next.filter(|next| sequenced(*next).is_some() && (orders(word) || orders(*next))) {
        changes.push((Change::Swapped, vec![next, word]));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DSB_SY: u32 = 0xd503_3f9f;
    const DSB_NSH: u32 = 0xd503_379f;
    const ISB: u32 = 0xd503_3fdf;
    const MSR_HCR: u32 = 0xd51c_1100;

    fn kinds(word: u32, next: Option<u32>) -> Vec<Change> {
        changes(word, next).into_iter().map(|(change, _)| change).collect()
    }

    #[test]
    fn good_each_instruction_has_the_mutants_that_matter() {
        use Change::{Nearer, Other, Removed, StoresOnly, Swapped};
        assert_eq!(kinds(DSB_SY, None), [Removed, StoresOnly, Nearer]);
        assert_eq!(kinds(DSB_NSH, Some(ISB)), [Removed, StoresOnly, Swapped]);
        assert_eq!(kinds(DSB_SY, Some(MSR_HCR)), [Removed, StoresOnly, Swapped]);
        assert_eq!(kinds(ALLE2, Some(DSB_NSH)), [Removed, Other, Swapped]);
        assert_eq!(kinds(DC_IVAC, Some(0x8b09_0000)), [Removed, Other]);
        assert_eq!(changes(DSB_SY, None)[1].1, [0xd503_3e9f], "dsb st");
        assert_eq!(changes(DSB_SY, None)[2].1, [DSB_NSH]);
    }

    #[test]
    fn good_a_mutant_changes_its_words_only() {
        let place = ("routine".to_owned(), 4);
        let words = vec![ISB, NOP];
        let mutant = Mutant { place, instruction: "isb".into(), change: Change::Swapped, address: 0x1004, words };
        let expected: Vec<u8> = [0, 0, 0, 0].into_iter().chain(ISB.to_le_bytes()).chain(NOP.to_le_bytes()).collect();
        assert_eq!(mutant.apply(&[0; 12], 0x1000), expected);
        assert_eq!(mutant.to_string(), "routine+0x4: `isb` after its successor");
    }
}
