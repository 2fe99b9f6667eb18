//! What goes and what stays, on small traces; and on many random ones that the oracle says the same of both.

use std::time::Duration;

use breakwater_oracle::obligations::Rule;
use breakwater_oracle::xen::{Story, scenario};

use super::*;

/// Tables at 0x8000_1000 (level 1) and 0x8000_2000 (level 2); code, a page of data that is mapped for writing, and an empty slot.
const TABLES: &str = "word 80001008 80002003\nword 80002000 40000781\nword 80002008 40000040200701\nword 80002010 0\n\
    memory 40000000 90000000 ram\n";

/// CPU 0 comes with its MMU on.
const ON: [&str; 5] = [
    "0 start 2",
    "0 found mair_el2 ff",
    "0 found tcr_el2 80803519",
    "0 found ttbr0_el2 80001000",
    "0 found sctlr_el2 30cd183d",
];

/// The records of `events`, each `CPU EVENT`, with lines and instruction numbers.
fn records<'a>(head: &str, events: impl IntoIterator<Item = &'a str>) -> Vec<(u64, Record)> {
    let mut text = format!("{HEADER}\n{head}");
    for (number, event) in (1..).zip(events) {
        let (cpu, event) = event.split_once(' ').expect("a CPU and an event");
        text += &format!("{cpu} {number} {:x} {event}\n", 0x4000_0000 + 4 * number);
    }
    let mut reader = Reader::new(text.as_bytes());
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().expect("well-formed") {
        records.push((reader.line(), record));
    }
    records.push((reader.line() + 1, Record::End(End::Exit)));
    records
}

/// What stays of `events` after [`ON`], as text without instruction numbers.
fn kept(events: &[&str]) -> Vec<String> {
    let whole = records(TABLES, ON.iter().chain(events).copied());
    let thin = thin_records(&whole).expect("judged alike");
    let text = |record: &Record| match record {
        Record::Step(step) => Some(record.to_string().replacen(&format!(" {} {:x}", step.instruction, step.pc), "", 1)),
        _ => None,
    };
    thin.iter().filter_map(|(_, record)| text(record)).skip(ON.len()).collect()
}

#[test]
fn good_stores_to_what_is_no_table_and_repeated_barriers_go() {
    let (store, isb, dsb) = ("0 store 8 40200000 40200000 1", "0 isb", "0 dsb ish");
    let events: Vec<_> = std::iter::repeat_n([store, isb, dsb], 100).flatten().collect();
    // A use after each barrier that may have made a difference to it, an ISB after the DSB.
    assert_eq!(kept(&events), [store, isb, dsb, store, isb, store]);
}

#[test]
fn good_of_a_loader_what_it_broke_goes_and_what_it_left_stays() {
    // A table is filled, and a leaf is changed in place; then the image is entered, which links the table.
    let (fill, change) = ("0 store 8 40203008 40203008 40200701", "0 store 8 80002008 80002008 40000040400701");
    let (enter, link) = ("0 enter 40000000 0", "0 store 8 80002010 80002010 40203003");
    let kept = kept(&[fill, change, enter, link, "0 dsb ish", "0 isb"]);
    assert!([fill, change, enter, link].into_iter().all(|event| kept.iter().any(|line| line == event)), "{kept:?}");
}

#[test]
fn good_stores_from_before_memory_is_a_table_stay() {
    let (elsewhere, store) = ("0 store 8 40200008 40200008 1", "0 store 8 40203008 40203008 40200701");
    let link = "0 store 8 80002010 80002010 40203003";
    let rest = ["0 dsb ish", link, "0 dsb ish", "0 isb"];
    let events = [&[elsewhere, elsewhere, store, store], &rest[..]].concat();
    assert_eq!(kept(&events), [&[elsewhere, store, store], &rest[..]].concat());
}

#[test]
fn good_a_sweep_by_set_and_way_stays_whole_with_its_dsb() {
    let off = ["0 dsb sy", "0 isb", "0 msr sctlr_el2 30cd1838", "0 isb"];
    let swept = ["0 dc isw 40", "0 dc isw 80000040", "0 dc isw 0", "0 dc isw 80000000", "0 dsb sy"];
    let stored = ["0 store 8 80002010 80002010 40000040400701", "0 dmb sy", "0 dc ivac 80002010", "0 dsb sy"];
    let on = ["0 tlbi alle2 0", "0 dsb nsh", "0 isb", "0 msr sctlr_el2 30cd183d", "0 isb"];
    let events = [&off[..], &swept, &swept, &stored, &on].concat();
    assert_eq!(kept(&events), events);
    let judged = |events: &[&str]| {
        let mut engine = Obligations::new();
        let all = records(TABLES, ON.iter().chain(events).copied());
        all.iter().for_each(|(line, record)| engine.step(*line, record));
        engine.violations().iter().any(|violation| violation.rule == Rule::LineBefore)
    };
    assert!(!judged(&events) && judged(&[&off[..], &stored, &on].concat()), "and it is what makes the difference");
}

#[test]
fn good_a_use_stays_after_a_change() {
    let change = "0 store 8 80002010 80002010 40000040400701";
    let used = "0 load 8 40400000 40400000 0";
    let events = [used, used, change, "0 dsb ish", "0 isb", used, used];
    assert_eq!(kept(&events), [used, change, "0 dsb ish", "0 isb", used]);
}

#[test]
fn good_what_stands_directly_before_a_register_stays() {
    let events = [
        "0 isb",
        "0 isb",
        "0 load 8 40200000 40200000 0",
        "0 load 8 40200000 40200000 0",
        "0 msr hcr_el2 80000000",
        "0 isb",
    ];
    assert_eq!(kept(&events).len(), 5, "the second ISB alone goes: {:?}", kept(&events));
}

#[test]
fn good_stores_that_were_complete_before_the_mmu_is_off_are_so_still() {
    // The second DSB repeats the first, but only it completes the store that stays.
    let store = "0 store 8 40200000 40200000 1";
    let complete = ["0 dsb ish", store, "0 dsb ish"];
    let off = ["0 mrs mpidr_el1", "0 msr sctlr_el2 30cd183c", "0 isb", "0 msr sctlr_el2 30cd183d", "0 isb"];
    assert_eq!(kept(&[&complete[..], &off].concat())[..3], complete);
    assert_eq!(kept(&[&complete[..2], &off].concat())[..2], complete[..2]);
}

#[test]
fn good_what_shows_an_order_stays() {
    let other: Vec<String> = ON.iter().map(|event| event.replacen('0', "1", 1)).collect();
    let store = |value: u64| format!("0 store 8 40200040 40200040 {value}");
    let load = |value: u64| format!("1 load 8 40200040 40200040 {value}");
    let shown = [store(1), load(1), store(2), store(3), load(3)];
    let noise = ["1 load 8 40200040 40200040 1".to_owned(), "0 store 8 40200080 40200080 1".to_owned()];
    let events = [&other[..], &shown[..2], &noise, &shown[2..], &noise[1..]].concat();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    assert_eq!(kept(&events)[other.len()..], shown);
}

#[test]
fn good_words_that_no_walk_reads_are_not_declared() {
    let whole = records(&format!("{TABLES}word 40200000 1\n"), ON);
    let thin = thin_records(&whole).expect("judged alike");
    let words: Vec<_> = thin.iter().filter(|(_, record)| matches!(record, Record::Word { .. })).collect();
    assert_eq!(words.len(), 4);
}

#[test]
fn good_contents_that_make_a_change_of_output_none_stay() {
    // A read-only leaf is pointed at a page that is filled with the same.
    let tables = "word 80001008 80002003\nword 80002000 80003003\nword 80003000 400000402007c3\n";
    let zeros: String = (0..512).map(|word| format!("word {:x} 0\n", 0x4020_0000 + 8 * word)).collect();
    let copies: Vec<_> = (0..512).map(|word| format!("0 store 8 {0:x} {0:x} 0", 0x4020_1000 + 8 * word)).collect();
    let change = [
        "0 dsb ish",
        "0 store 8 80003000 80003000 400000402017c3",
        "0 dsb ish",
        "0 tlbi vae2is 40000",
        "0 dsb ish",
        "0 isb",
    ];
    let events = ON.into_iter().chain(copies.iter().map(String::as_str)).chain(change);
    let whole = records(&format!("{tables}{zeros}"), events);
    let thin = thin_records(&whole).expect("judged alike");
    let mut judge = Obligations::new();
    thin.iter().for_each(|(line, record)| judge.step(*line, record));
    assert!(
        judge.violations().iter().all(|violation| violation.rule != Rule::OutputChange),
        "{:?}",
        judge.violations()
    );
}

#[test]
fn good_the_xen_story_is_flagged_alike() -> Result<()> {
    for (story, page) in [(Story::Xen411, 0), (Story::Xen411, 509), (Story::Xen00c96d77422a, 77)] {
        let whole: Vec<_> = (1..).zip(scenario(story, page)).collect();
        assert!(thin_records(&whole)?.len() <= whole.len());
    }
    Ok(())
}

#[test]
fn bad_a_trace_that_breaks_off() -> Result<()> {
    let file = std::env::temp_dir().join(format!("breakwater-thin-{}", std::process::id()));
    std::fs::write(&file, format!("{HEADER}\n0 1 0 start 2\n"))?;
    let raw = Raw { file: &file, declared: &[], end: None, until: None };
    let error = thin(&raw, &mut Vec::new()).expect_err("no end");
    std::fs::write(&file, format!("{HEADER}\n0 1 0 start 2\nend exit\n"))?;
    let mut out = Vec::new();
    let thinned = thin(&Raw { end: Some(End::Limit), ..raw }, &mut out)?;
    std::fs::remove_file(&file)?;
    assert!(error.to_string().contains("breaks off after line 2"), "{error:#}");
    assert_eq!(String::from_utf8(out)?, format!("{HEADER}\n0 1 0 start 2\nend limit\n"));
    assert_eq!((thinned.records, thinned.whole_records), (2, 2));
    Ok(())
}

#[test]
fn bad_no_time_is_left_to_thin_and_it_is_kept_whole() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (file, to) = (directory.path().join("raw"), directory.path().join("kept"));
    let isbs: String = (2..=2 * BETWEEN_LOOKS).map(|number| format!("0 {number} 4 isb\n")).collect();
    std::fs::write(&file, format!("{HEADER}\n0 1 0 start 2\n{isbs}end exit\n"))?;
    let raw = Raw { file: &file, declared: &[], end: None, until: Some(Instant::now()) };
    assert!(thin(&raw, &mut Vec::new()).expect_err("it is late").is::<TimeIsUp>());
    keep(&raw, &to)?;
    assert_eq!(std::fs::read(&to)?, std::fs::read(&file)?, "it is late");
    keep(&Raw { until: Some(Instant::now() + Duration::from_secs(600)), ..raw }, &to)?;
    let kept = std::fs::read_to_string(&to)?;
    assert!(kept.lines().count() < 10 && kept.ends_with("\nend exit\n"), "{} lines", kept.lines().count());
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 2, "recording and trace are there, and nothing else");
    Ok(())
}

/// Numbers without order, the same every time.
struct Numbers(u64);

impl Numbers {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_of<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len() as u64) as usize]
    }
}

/// An event of one of two CPUs: everything that the sieve tells apart, on few addresses.
fn event(numbers: &mut Numbers) -> String {
    let cpu = numbers.below(2);
    let slots = ["80002008", "80002010", "80003000", "80003008", "80001010"];
    let values = ["0", "40000040200701", "40000040400701", "40000781", "80003003", "400000402007c3", "400000402017c3"];
    let places = ["40200000", "40200040", "40201000", "40400000", "40600040"];
    let text = match numbers.below(20) {
        0..=2 => {
            let slot = numbers.one_of(&slots);
            format!("store 8 {slot} {slot} {}", numbers.one_of(&values))
        }
        3..=5 => {
            let place = numbers.one_of(&places);
            format!("store 8 {place} {place} {:x}", numbers.below(3))
        }
        6..=8 => {
            let place = numbers.one_of(&places);
            format!("load 8 {place} {place} 0")
        }
        9..=11 => numbers.one_of(&["dsb ish", "dsb ishst", "dsb nsh", "dsb sy", "dmb sy", "dmb ish"]).to_owned(),
        12 | 13 => "isb".to_owned(),
        14 => numbers.one_of(&["tlbi alle2 0", "tlbi alle2is 0", "tlbi vae2is 40400", "tlbi vale2is 40200"]).to_owned(),
        15 => format!("{} {}", numbers.one_of(&["dc ivac", "dc civac", "dc cvac", "dc zva"]), numbers.one_of(&places)),
        16 => format!("msr sctlr_el2 {}", numbers.one_of(&["30cd183d", "30cd0838", "30cd183c", "30c5183d"])),
        17 => numbers.one_of(&["msr ttbr0_el2 80001000", "msr ttbr0_el2 80004000", "msr hcr_el2 80000000"]).to_owned(),
        18 => numbers
            .one_of(&[
                "smc 0 c4000003 1 40000000 0",
                "exception 0 0 0",
                "eret",
                "eret 1",
                "msr sctlr_el1 1005",
                "mrs mpidr_el1",
            ])
            .to_owned(),
        _ => "fetch 4".to_owned(),
    };
    format!("{cpu} {text}")
}

/// A history of two CPUs, the second with its MMU off at first, and features that make more of it matter.
fn history(seed: u64) -> Vec<(u64, Record)> {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut head = TABLES.to_owned();
    head += "word 80003000 0\nword 80003008 0\nword 80001010 0\nword 80004008 80002003\n";
    for feature in ["isb-before-mmu-off", "hcr-barriers", "repeat-tlbi", "ets2", "line=128", "clean-invalidates", "ttl"]
    {
        if numbers.below(4) == 0 {
            head += &format!("feature all {feature}\n");
        }
    }
    let events: Vec<String> = (0..60 + numbers.below(240)).map(|_| event(&mut numbers)).collect();
    records(&head, ON.into_iter().chain(["1 start 2"]).chain(events.iter().map(String::as_str)))
}

#[test]
fn good_random_histories_are_judged_alike() {
    let (mut whole, mut thin, mut violations) = (0, 0, 0);
    for seed in 1..=2000 {
        let history = history(seed);
        let kept = thin_records(&history).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        (whole, thin) = (whole + history.len(), thin + kept.len());
        let mut judge = Obligations::new();
        history.iter().for_each(|(line, record)| judge.step(*line, record));
        violations += judge.violations().len();
    }
    assert!(thin < whole && violations > 2000, "{thin} of {whole} records, {violations} violations");
}
