//! Every rule of the oracle as a pair of claims: a sequence that obeys it and one that breaks it, and exactly what is reported.
//!
//! A small machine, and traces for it as text.
//!
//! The root stands at 40000000 (level 0), tables of levels 1 to 3 at 40001000, 40002000 and 40003000: they map 4 KiB pages from VA 0 on.
//! A second level 3 table, linked nowhere, stands at 40004000. All of them are mapped where they stand, by a block in a
//! table of level 2 at 40005000. Lines of a trace are `PE EVENT`; instruction numbers and program counters are
//! added here.

#[path = "rules/causes.rs"]
mod causes;
#[path = "rules/changes.rs"]
mod changes;
#[path = "rules/contiguous.rs"]
mod contiguous;
#[path = "rules/ends.rs"]
mod ends;
#[path = "rules/entered.rs"]
mod entered;
#[path = "rules/fills.rs"]
mod fills;
#[path = "rules/hostile.rs"]
mod hostile;
#[path = "rules/leaves.rs"]
mod leaves;
#[path = "rules/levels.rs"]
mod levels;
#[path = "rules/lines.rs"]
mod lines;
#[path = "rules/registers.rs"]
mod registers;
#[path = "rules/roots.rs"]
mod roots;
#[path = "rules/sweeps.rs"]
mod sweeps;
#[path = "rules/tables.rs"]
mod tables;
#[path = "rules/unknown.rs"]
mod unknown;

use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_trace::{Access, End, Event, Reader, Record, Step};

/// Page 0: read-write data at 50000000.
pub(crate) const RW: &str = "40000050000703";
/// The same at 50001000.
pub(crate) const RW_OTHER: &str = "40000050001703";
/// Read-only, at 50000000.
pub(crate) const RO: &str = "40000050000783";

/// TCR_EL2 for 4 KiB and 48 bits.
pub(crate) const TCR: &str = "80853510";
/// Index 0 is Normal write-back, 1 Device nGnRE, 2 Normal Non-cacheable.
pub(crate) const MAIR: &str = "4404ff";

/// All 512 words of the table at `pa`: `entries`, zero elsewhere.
pub(crate) fn table(pa: u64, entries: &[(u64, &str)]) -> String {
    let value = |index| entries.iter().find(|(at, _)| *at == index).map_or("0", |(_, word)| word);
    (0..512).map(|index| format!("word {:x} {}\n", pa + 8 * index, value(index))).collect()
}

/// The machine's memory, with `pages` in the level 3 table.
pub(crate) fn memory(pages: &[(u64, &str)]) -> String {
    [
        table(0x4000_0000, &[(0, "40001003")]),
        table(0x4000_1000, &[(0, "40002003"), (1, "40005003")]),
        table(0x4000_2000, &[(0, "40003003")]),
        table(0x4000_3000, pages),
        table(0x4000_4000, &[]),
        table(0x4000_5000, &[(0, "40000040000701")]),
    ]
    .concat()
}

/// A PE whose MMU is on from the start.
pub(crate) fn on(pe: u32) -> String {
    format!(
        "{pe} start 2\n{pe} found hcr_el2 0\n{pe} found mair_el2 {MAIR}\n{pe} found tcr_el2 {TCR}\n{pe} found ttbr0_el2 40000000\n{pe} found sctlr_el2 30cd183d\n"
    )
}

/// The machine with `pes` PEs that have their MMU on, and `pages` mapped.
pub(crate) fn machine(pes: u32, pages: &[(u64, &str)]) -> String {
    memory(pages) + &(0..pes).map(on).collect::<String>()
}

/// The records of `parts`, whose lines may leave out instruction number and program counter. `;` ends a line too.
pub(crate) fn records(parts: &[&str]) -> Vec<(u64, Record)> {
    let mut text = String::from("breakwater-trace 1\n");
    let lines = parts.iter().flat_map(|part| part.split(['\n', ';'])).map(str::trim);
    for (number, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        match line.split_once(' ') {
            Some((pe, event)) if pe.parse::<u32>().is_ok() => {
                // `PE PC: EVENT` says where.
                let (pc, event) = event.split_once(": ").unwrap_or(("ffff0000", event));
                text += &format!("{pe} {} {pc} {event}\n", number + 1);
            }
            _ => text += &format!("{line}\n"),
        }
    }
    let mut reader = Reader::new(text.as_bytes());
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().unwrap_or_else(|error| panic!("{error}")) {
        records.push((reader.line(), record));
    }
    records
}

/// The engine after `parts`.
pub(crate) fn judged(parts: &[&str]) -> Obligations {
    let records = records(parts);
    assert_uses_hide_nothing(&records);
    let mut engine = Obligations::new();
    records.iter().for_each(|(line, record)| engine.step(*line, record));
    engine
}

/// Of longer traces, whose events are alike, only so much is asked.
const MOST_ASKED: usize = 200;

/// Asserts that uses of each address of `records`, after each of them, find the same whether or not the engine
/// remembers which uses found nothing: what changes that says so.
#[track_caller]
fn assert_uses_hide_nothing(records: &[(u64, Record)]) {
    let steps =
        || records.iter().filter_map(|(_, record)| if let Record::Step(step) = record { Some(step) } else { None });
    let mut pages: Vec<u64> = steps()
        .flat_map(|step| match step.event {
            Event::Store(access) | Event::Load(access) => [step.pc, access.va],
            _ => [step.pc, 0],
        })
        .map(|va| va & !0xfff)
        .collect();
    pages.sort_unstable();
    pages.dedup();
    let pes: std::collections::BTreeSet<u32> = steps().map(|step| step.cpu).collect();
    let (mut one, mut other) = (Obligations::new(), Obligations::new());
    let declared = records.iter().take_while(|(_, record)| !matches!(record, Record::Step(_))).count();
    for (line, record) in records.iter().take(declared + MOST_ASKED) {
        one.step(*line, record);
        // A clone has forgotten.
        other = other.clone();
        other.step(*line, record);
        // A PE whose registers are being found executes nothing.
        let Record::Step(Step { event, .. }) = record else { continue };
        if matches!(event, Event::Start { .. } | Event::Found { .. }) {
            continue;
        }
        for (cpu, pc) in pes.iter().flat_map(|pe| pages.iter().take(8).map(|va| (*pe, *va))) {
            let access = one.physical(cpu, pc).map(|pa| Event::Load(load(pc, pa, one.word(pa))));
            for event in [Some(Event::Fetch { instructions: 1 }), access].into_iter().flatten() {
                let used = Record::Step(Step { cpu, instruction: *line, pc, event });
                one.step(*line, &used);
                other = other.clone();
                other.step(*line, &used);
            }
        }
    }
    assert_eq!(one.violations(), other.violations(), "with uses of {pages:x?} after each record");
}

/// A load of what is there.
fn load(va: u64, pa: u64, word: Option<u64>) -> Access {
    Access { bytes: 8, va, pa, value: [word.unwrap_or(0), 0], device: false, release: false }
}

/// The distinct rules that `parts` break, in the order of [`Rule::ALL`].
pub(crate) fn broken(parts: &[&str]) -> Vec<Rule> {
    let engine = judged(parts);
    let mut rules: Vec<Rule> = engine.violations().iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// Asserts that `parts` break exactly `rules`, and that a translation explains where each access leads.
#[track_caller]
pub(crate) fn assert_broken(parts: &[&str], rules: &[Rule]) {
    let found = broken(parts);
    let text: Vec<String> = judged(parts).violations().iter().map(ToString::to_string).collect();
    assert_eq!(found, rules, "{text:#?}");
    let strange = strange(parts);
    assert!(strange.is_empty(), "{strange:#?}");
}

/// What is said of the accesses of `parts` that no translation explains.
pub(crate) fn strange(parts: &[&str]) -> Vec<String> {
    let mut engine = judged(parts);
    // No store explains them any more.
    engine.step(0, &Record::End(End::Limit));
    engine.unknowns().iter().filter(|unknown| unknown.is_access).map(ToString::to_string).collect()
}

/// Asserts that `parts` break nothing.
#[track_caller]
pub(crate) fn assert_clean(parts: &[&str]) {
    assert_broken(parts, &[]);
}

/// A store of `word` to entry `index` of the level 3 table, by PE 0.
pub(crate) fn page(index: u64, word: &str) -> String {
    format!("0 store 8 {0:x} {0:x} {word}\n", 0x4000_3000 + 8 * index)
}

/// Everything that makes an in-place change of page `index` visible everywhere, and the claim that it is.
pub(crate) fn after(index: u64) -> String {
    format!("0 dsb ishst; 0 tlbi vae2is {index:x}; 0 dsb ish; 0 isb; 0 settled; end exit")
}

/// Page `index` broken, invalidated and made again as `word`.
pub(crate) fn remade(index: u64, word: &str) -> String {
    let (broken, made) = (page(index, "0"), page(index, word));
    format!("{broken} 0 dsb ishst; 0 tlbi vae2is {index:x}; 0 dsb ish\n {made} 0 dsb ish; 0 isb; 0 settled; end exit")
}
