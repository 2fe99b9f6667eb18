//! Small recordings of two CPUs on one set of tables, and what of their verdicts rests on order.

use breakwater_oracle::obligations::{Obligations, Rule};
use breakwater_trace::{End, HEADER, Reader, Record};

use super::graph::{Choice, Order};
use super::weigh::{Weighed, weigh};
use super::{Edge, Effort, Moment, Recording, in_random_orders, observed};

/// 39-bit addresses; blocks of 2 MiB: code, tables, data. Both CPUs run with their MMU on.
const TABLES: &str = "memory 40000000 80000000 ram
word 40201008 40202003
word 40202000 40000781
word 40202008 40000040200701
word 40202010 40000040400701
word 40202018 0
";

/// A CPU as it is found.
fn found(cpu: u32) -> String {
    ["start 2", "found mair_el2 ff", "found tcr_el2 80803519", "found ttbr0_el2 40201000", "found sctlr_el2 30cd183d"]
        .map(|event| format!("{cpu} 1 40000100 {event}\n"))
        .concat()
}

/// CPU 1 says that it is there.
const READY: &str = "1 1 40000100 store 8 40200180 40200180 1\n0 1 40000100 load 8 40200180 40200180 1\n";

/// Two CPUs that are there from the beginning, and then `events`: CPU and event, numbered here.
fn two(events: &str) -> Vec<(u64, Record)> {
    recording(&format!("{TABLES}{}{}{READY}", found(0), found(1)), events)
}

fn recording(before: &str, events: &str) -> Vec<(u64, Record)> {
    let mut text = format!("{HEADER}\n{before}");
    for (number, line) in events.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let (cpu, event) = line.split_once(' ').expect(line);
        // A store of an atomic instruction shares the number of its load.
        let number = number + 2 - usize::from(event.starts_with('+'));
        text += &format!("{cpu} {number} {:x} {}\n", 0x4000_0100 + 4 * number, event.trim_start_matches('+'));
    }
    text += "end exit\n";
    let mut reader = Reader::new(text.as_bytes());
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().expect(&text) {
        records.push((reader.line(), record));
    }
    records
}

fn edges(records: &[(u64, Record)]) -> Vec<Edge> {
    observed(records.iter().map(|(line, record)| (*line, record)))
}

/// The edges as text: store's or call's CPU and load's or start's, with their lines counted from the first event after `from`.
fn edges_of(records: &[(u64, Record)]) -> Vec<(u32, u64, u32, u64)> {
    let base = records.iter().find_map(|(line, record)| match record {
        Record::Step(step) if step.instruction > 1 => Some(*line),
        _ => None,
    });
    let base = base.unwrap_or_default();
    let number = |moment: Moment| moment.line + 1 - base;
    let edges = edges(records).into_iter().filter(|edge| edge.after.line >= base);
    edges.map(|edge| (edge.before.cpu, number(edge.before), edge.after.cpu, number(edge.after))).collect()
}

/// Rules broken as it arrived, each with whether it is certain; and the rest of the verdict.
fn weighed(records: &[(u64, Record)]) -> (Vec<(Rule, bool)>, Weighed) {
    let mut oracle = Obligations::new();
    records.iter().for_each(|(line, record)| oracle.step(*line, record));
    let violations = oracle.violations();
    let weighed = weigh(&[], records, &edges(records), violations, Effort::default());
    (violations.iter().map(|violation| violation.rule).zip(weighed.certain.iter().copied()).collect(), weighed)
}

/// CPU 0 moves the data block without a break.
const MOVE: &str = "0 store 8 40202010 40202010 40000040600701
    0 dsb ish
    0 isb";
/// As it should be done.
const PROPERLY: &str = "0 store 8 40202010 40202010 0
    0 dsb ishst
    0 tlbi vale2is 40400
    0 dsb ish
    0 store 8 40202010 40202010 40000040600701
    0 dsb ish
    0 isb";

#[test]
fn good_a_change_by_one_cpu_alone_is_certain() {
    let (violations, weighed) = weighed(&recording_of_one());
    assert!(!violations.is_empty() && violations.iter().all(|violation| violation.1), "{violations:?}");
    assert_eq!(weighed.orders, 0, "there is no other order");
}

#[test]
fn good_a_fault_that_no_order_hides_is_certain() {
    let (violations, weighed) = weighed(&two(&format!("{MOVE}\n1 isb\n1 load 8 40400000 40600000 0")));
    assert!(violations.contains(&(Rule::OutputChange, true)), "{violations:?}");
    assert!(weighed.orders > 0);
}

/// CPU 0 maps a block that CPU 1 then uses.
const FILL: &str = "0 store 8 40202018 40202018 40600781
    0 dsb ish
    0 isb";

#[test]
fn bad_a_use_that_nothing_orders_rests_on_order() {
    let (violations, _) = weighed(&two(&format!("{FILL}\n1 load 8 40600000 40600000 0")));
    assert_eq!(violations, [(Rule::FillSync, false)]);
}

#[test]
fn good_a_use_after_a_flag_is_certain() {
    let flag = "0 store 8 40200100 40200100 1\n1 load 8 40200100 40200100 1";
    let (violations, weighed) = weighed(&two(&format!("{FILL}\n{flag}\n1 load 8 40600000 40600000 0")));
    assert_eq!(violations, [(Rule::FillSync, true)]);
    assert!(weighed.elsewhere.is_empty(), "{:?}", weighed.elsewhere);
}

#[test]
fn bad_a_flag_that_was_seen_unset_orders_nothing() {
    let flag = "1 load 8 40200100 40200100 0\n0 store 8 40200100 40200100 1";
    let (violations, _) = weighed(&two(&format!("{FILL}\n{flag}\n1 load 8 40600000 40600000 0")));
    assert_eq!(violations, [(Rule::FillSync, false)]);
}

#[test]
fn good_a_use_after_flag_and_synchronisation_is_no_fault_in_any_order() {
    let flag = "0 store 8 40200100 40200100 1\n1 load 8 40200100 40200100 1\n1 isb";
    let (violations, weighed) = weighed(&two(&format!("{FILL}\n{flag}\n1 load 8 40600000 40600000 0")));
    assert!(violations.is_empty() && weighed.elsewhere.is_empty(), "{violations:?} {:?}", weighed.elsewhere);
}

#[test]
fn bad_a_race_that_arrival_hid_is_found_elsewhere() {
    // CPU 1 happened to synchronise after the change. Nothing made it wait.
    let (violations, weighed) = weighed(&two(&format!("{FILL}\n1 isb\n1 load 8 40600000 40600000 0")));
    assert!(violations.is_empty(), "{violations:?}");
    let elsewhere: Vec<_> = weighed.elsewhere.iter().map(|violation| violation.rule).collect();
    let race = |rule: &Rule| matches!(rule, Rule::FillSync | Rule::NotVisible);
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(race), "{elsewhere:?}");
}

#[test]
fn good_what_is_properly_handed_over_is_clean_in_twenty_orders() {
    let flag = "0 store 8 40200100 40200100 1\n1 load 8 40200100 40200100 1\n1 isb";
    let records = two(&format!("{PROPERLY}\n{flag}\n1 load 8 40400000 40600000 0"));
    let found = in_random_orders(&[], &records, &edges(&records), 0..20);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn good_a_call_is_before_the_start_of_its_cpu() {
    let before = format!("{TABLES}{}", found(0));
    let call = |affinity| format!("0 smc 0 c4000003 {affinity} 40000400 0");
    let start = |cpu, entry: &str| format!("{cpu} start 2\n{cpu} found vmpidr_el2 8000010{cpu}\n{cpu} isb{entry}");
    let records =
        recording(&before, &format!("{}\n{}\n0 isb\n{}\n{}", call(101), call(102), start(2, ""), start(1, "")));
    assert_eq!(edges_of(&records), [(0, 1, 1, 7), (0, 2, 2, 4)]);
}

#[test]
fn good_without_affinities_the_first_call_to_the_entry_is_before_a_start() {
    let before = format!("{TABLES}{}0 2 40000104 smc 0 84000003 7 40000900 0\n", found(0));
    // Here a line's number is its PC: the third begins at 0x40000110.
    let records = recording(&before, "0 smc 0 84000003 9 40000110 0\n0 smc 0 84000003 8 40000110 0\n1 start 2\n1 isb");
    assert_eq!(edges_of(&records), [(0, 2, 1, 4)]);
}

/// A lock at 0x40200100: 1 while it is held.
fn critical(cpu: u32, inside: &str) -> String {
    format!(
        "{cpu} dmb ish\n{cpu} load 4 40200100 40200100 0\n{cpu} +store 4 40200100 40200100 1\n{inside}\n{cpu} store 4 40200100 40200100 0\n"
    )
}

#[test]
fn good_a_lock_is_handed_over() {
    let records = two(&[critical(0, "0 isb"), critical(1, "1 isb"), critical(0, "0 isb")].concat());
    assert_eq!(edges_of(&records), [(0, 5, 1, 7), (1, 10, 0, 12)]);
}

#[test]
fn bad_a_change_inside_a_lock_and_a_use_outside_rests_on_order() {
    let used = "1 load 8 40600000 40600000 0\n";
    let (inside, _) = weighed(&two(&[critical(0, FILL), critical(1, used)].concat()));
    assert_eq!(inside, [(Rule::FillSync, true)]);
    let (outside, _) = weighed(&two(&[critical(0, FILL), used.to_owned(), critical(1, "")].concat()));
    assert_eq!(outside, [(Rule::FillSync, false)]);
}

#[test]
fn good_a_load_that_arrived_before_its_store_is_put_after_it() {
    let records = two("1 load 8 40200100 40200100 1\n0 store 8 40200100 40200100 1\n1 isb");
    assert_eq!(edges_of(&records), [(0, 2, 1, 1)]);
    let edges = edges(&records);
    let order = Order::new(&records, &edges);
    let lines = |choice| order.linear(choice).iter().map(|number| order.record(*number).0).collect::<Vec<_>>();
    let line = |index: usize| records[records.len() - index].0;
    let (load, store, isb, end) = (line(4), line(3), line(2), line(1));
    assert!(lines(Choice::Arrival).ends_with(&[store, load, isb, end]));
    for seed in 0..20 {
        let lines = lines(Choice::Random(seed));
        let place = |line| lines.iter().position(|other| *other == line);
        assert!(place(store) < place(load) && place(load) < place(isb), "{lines:?}");
    }
}

#[test]
fn bad_a_store_long_after_is_no_source() {
    // CPU 0 executed another instruction after the load's line and before its store.
    for other in ["fetch 3", "mrs midr_el1", "store 8 40200200 40200200 7"] {
        let events = format!("1 load 8 40200100 40200100 1\n0 {other}\n0 store 8 40200100 40200100 1\n1 isb");
        assert_eq!(edges_of(&two(&events)), [], "{other}");
    }
}

#[test]
fn good_a_barrier_does_not_say_that_its_cpu_went_on() {
    // The recorder may have held CPU 0's ISB back for long: the store behind it can be the one that CPU 1 saw.
    for barrier in ["isb", "dsb ish", "dmb ish"] {
        let late =
            format!("1 load 8 40200100 40200100 1\n0 {barrier}\n0 store 8 40200100 40200100 1\n1 fetch 1\n0 fetch 1");
        assert_eq!(edges_of(&two(&late)), [(0, 3, 1, 1)], "{barrier}");
    }
}

#[test]
fn bad_a_value_that_may_be_from_elsewhere_orders_nothing() {
    for (events, why) in [
        ("0 store 8 40200100 40200100 0\n1 load 8 40200100 40200100 0", "it was 0 in the beginning"),
        ("0 store 8 40202010 40202010 40000040400701\n1 load 8 40202010 40202010 40000040400701", "as declared"),
        (
            "0 store 8 40200100 40200100 1\n2 start 2\n2 store 8 40200100 40200100 1\n1 load 8 40200100 40200100 1",
            "two CPUs stored it, and CPU 1 had not been heard of since",
        ),
        ("0 store 8 40200100 40200100 1 device\n1 load 8 40200100 40200100 1 device", "a device"),
    ] {
        let last = edges_of(&two(events));
        assert_eq!(last, [], "{why}");
    }
}

#[test]
fn good_of_two_stores_by_one_cpu_the_first_is_certain() {
    let stores = "0 store 8 40200100 40200100 1\n0 store 8 40200100 40200100 2\n0 store 8 40200100 40200100 1";
    assert_eq!(edges_of(&two(&format!("{stores}\n1 load 8 40200100 40200100 1"))), [(0, 1, 1, 4)]);
    // Once CPU 1 has been heard of after the second, the value cannot be the first one's.
    assert_eq!(edges_of(&two(&format!("{stores}\n1 isb\n1 load 8 40200100 40200100 1"))), [(0, 3, 1, 5)]);
}

#[test]
fn good_halves_of_a_word_have_their_own_sources() {
    let records = two("0 store 4 40200100 40200100 5\n1 store 2 40200102 40200102 7\n0 load 4 40200100 40200100 70005");
    assert_eq!(edges_of(&records), [(1, 2, 0, 3)]);
    let records = two("0 store 16 402000fc 402000fc 5 9\n1 load 4 40200104 40200104 9");
    assert_eq!(edges_of(&records), [(0, 1, 1, 2)]);
}

#[test]
fn good_edges_hold_of_a_trace_from_which_lines_are_missing() {
    let flag = "0 store 8 40200100 40200100 1\n1 load 8 40200100 40200100 1";
    let records = two(&format!("{FILL}\n{flag}\n1 load 8 40600000 40600000 0"));
    let edges = edges(&records);
    let of_flag = |record: &Record| record.to_string().contains("40200100 40200100 1");
    let thin: Vec<_> = records.iter().filter(|(_, record)| !of_flag(record)).cloned().collect();
    assert_eq!(thin.len() + 2, records.len());
    let mut oracle = Obligations::new();
    thin.iter().for_each(|(line, record)| oracle.step(*line, record));
    let weighed = weigh(&[], &thin, &edges, oracle.violations(), Effort::default());
    assert_eq!((weighed.certain, weighed.elsewhere.len()), (vec![true], 0));
}

#[test]
fn good_what_the_effort_does_not_reach_counts_as_certain() {
    let records = two(&format!("{FILL}\n1 load 8 40600000 40600000 0"));
    let mut oracle = Obligations::new();
    records.iter().for_each(|(line, record)| oracle.step(*line, record));
    let effort = |orders: u64| Effort { records: orders * records.len() as u64, random: 0, deadline: None };
    let with = |effort| weigh(&[], &records, &edges(&records), oracle.violations(), effort);
    let none = with(effort(0));
    assert_eq!((none.certain, none.unexamined), (vec![true], 1));
    let one = with(effort(1));
    assert_eq!((one.certain, one.unexamined), (vec![true], 1));
    assert_eq!(with(effort(8)).certain, [false]);
    // Nor what there is no time for.
    let late = with(Effort::until(std::time::Instant::now()));
    assert_eq!((late.certain, late.unexamined, late.orders), (vec![true], 1, 0));
}

#[test]
fn good_a_boot_that_is_watched_is_weighed_like_a_whole_trace() {
    for (events, certain) in [
        (format!("{FILL}\n1 load 8 40600000 40600000 0"), false),
        (
            format!(
                "{FILL}\n0 store 8 40200100 40200100 1\n1 load 8 40200100 40200100 1\n1 load 8 40600000 40600000 0"
            ),
            true,
        ),
    ] {
        let mut oracle = Obligations::new();
        let mut recording = Recording::new();
        for (line, record) in two(&events) {
            if !matches!(record, Record::End(_)) {
                recording.record(line, &record, || oracle.clone());
            }
            oracle.step(line, &record);
        }
        let weighed = recording.weigh(Some(End::Exit), oracle.violations(), Effort::default());
        assert_eq!(weighed.certain, [certain], "{events}");
    }
}

#[test]
fn good_a_boot_of_one_cpu_is_certain_and_nothing_of_it_is_kept() {
    let mut oracle = Obligations::new();
    let mut recording = Recording::new();
    for (line, record) in recording_of_one() {
        recording.record(line, &record, || unreachable!("there is no second CPU"));
        oracle.step(line, &record);
    }
    let violations = oracle.violations();
    let weighed = recording.weigh(None, violations, Effort::default());
    assert_eq!((weighed.certain, weighed.orders), (vec![true; violations.len()], 0));
    assert!(!violations.is_empty());
}

fn recording_of_one() -> Vec<(u64, Record)> {
    recording(&format!("{TABLES}{}", found(0)), MOVE)
}
