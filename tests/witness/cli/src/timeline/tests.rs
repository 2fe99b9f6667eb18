//! Claims about the picture, by its text.

use breakwater_oracle::obligations::{At, Lack, Obligations, Remedy, Rule, Side, Violation};
use breakwater_trace::{HEADER, Reader};
use svg::parser::Event as Parsed;

use super::axis::{Axis, Span};
use super::mark::{MOST_RUNS, MarkKind, Point, Runs};
use super::{Standing, Timeline};

/// Two CPUs with root 80001000: a block read-only at 40000000 of virtual memory, two writable ones after it.
const TABLES: &str = "word 80001008 40000781\nword 80001010 40000080000701\nword 80001018 400000c0000701\n";

fn start(cpu: u32) -> String {
    format!(
        "{cpu} 1 40000000 start 2\n{cpu} 1 40000000 found tcr_el2 80803519\n\
         {cpu} 1 40000000 found ttbr0_el2 80001000\n{cpu} 1 40000000 found sctlr_el2 30cd1838\n"
    )
}

/// Feeds the lines of a trace, and what the oracle finds in them if `is_judged`.
fn feed(lines: &str, is_judged: bool) -> Timeline {
    let text = format!("{HEADER}\n{lines}");
    let (mut timeline, mut oracle) = (Timeline::new(&[]), Obligations::new());
    let mut reader = Reader::new(text.as_bytes());
    while let Some(record) = reader.next_record().expect("the test's trace is well-formed") {
        timeline.record(reader.line(), &record);
        if is_judged {
            oracle.step(reader.line(), &record);
        }
    }
    oracle.violations().iter().for_each(|violation| timeline.violation(violation, None, Standing::Certain));
    timeline
}

/// The picture of these lines, which is an SVG file without a number that is none.
fn picture(lines: &str) -> String {
    checked(&feed(lines, false))
}

fn checked(timeline: &Timeline) -> String {
    let text = timeline.svg("A boot");
    let parsed = svg::read(&text).expect("the text is there");
    assert!(parsed.into_iter().all(|event| !matches!(event, Parsed::Error(_))), "this is no SVG");
    assert!(!text.contains("NaN") && !text.contains("inf\""), "a number is none");
    text
}

fn violation(rule: Rule, pe: u32, line: u64, missing: &str) -> Violation {
    let at = At { line, pe, pc: 0x4020_0000 };
    Violation {
        rule,
        line,
        pe,
        pc: at.pc,
        harm: None,
        remedy: Remedy { lack: Lack::Own(rule), side: Side::At, at },
        va: None,
        pa: None,
        old: None,
        new: None,
        old_as: None,
        new_as: None,
        missing: missing.to_owned(),
        times: 1,
    }
}

#[test]
fn good_an_empty_run_says_so() {
    let text = checked(&Timeline::new(&[]));
    assert!(text.contains("Nothing was recorded"), "{text}");
    assert!(!text.contains("No rule was broken"), "nothing is claimed of a run that never was: {text}");
}

#[test]
fn good_each_cpu_that_ran_has_a_lane_with_its_own_count() {
    let text = picture(&format!("{}{}count 0 1234567\ncount 3 89\n", start(0), start(3)));
    assert!(text.contains("CPU 0: 1,234,567 instructions") && text.contains("CPU 3: 89 instructions"), "{text}");
    assert!(!text.contains("CPU 1:") && !text.contains("CPU 2:"), "{text}");
    assert!(text.contains("To scale"), "{text}");
}

#[test]
fn good_each_kind_of_event_has_a_row_and_says_what_it_is() {
    let text = picture(&format!(
        "{TABLES}{}0 2 40000004 msr vbar_el2 40200000\n0 3 40000008 tlbi alle2is 0\n0 4 4000000c dsb ishst\n0 5 40000010 isb\n\
         0 6 40000014 dc ivac 40000000\n0 7 40000018 ic iallu 0\n0 8 4000001c smc 0 84000003 1 0 0\n\
         0 9 40000020 exception 96000045 40000024 0\n",
        start(0)
    ));
    for hover in [
        "control registers (vbar_el2), instruction 2",
        "TLBI (alle2is), instruction 3",
        "DSB (ishst), instruction 4",
        "ISB, instruction 5",
        "DC (ivac), instruction 6",
        "IC (iallu), instruction 7",
        "SMC, HVC (SMC), instruction 8",
        "exceptions, instruction 9",
    ] {
        assert!(text.contains(hover), "{hover}: {text}");
    }
}

#[test]
fn good_the_state_of_the_mmu_is_told_from_instruction_to_instruction() {
    let text = picture(&format!(
        "{TABLES}{}0 10 40000000 msr sctlr_el2 30c5183d\n0 20 40000000 msr sctlr_el2 30cd183d\ncount 0 30\n",
        start(0)
    ));
    assert!(text.contains("MMU off, after instruction 0 to 10"), "{text}");
    assert!(text.contains("MMU on, TTBR0_EL2 0x80001000, after instruction 10 to 20"), "{text}");
    assert!(text.contains("MMU on, WXN, TTBR0_EL2 0x80001000, after instruction 20 to 30"), "{text}");
    assert!(text.contains("A = 0x80001000"), "{text}");
}

#[test]
fn good_every_root_has_its_letter_in_the_order_of_use() {
    let text = picture(&format!(
        "{TABLES}{}0 10 40000000 msr sctlr_el2 30c5183d\n0 20 40000000 msr ttbr0_el2 80000001\ncount 0 30\n",
        start(0)
    ));
    assert!(text.contains("A = 0x80001000") && text.contains("B = 0x80000000"), "CnP is no part of a root: {text}");
}

#[test]
fn bad_memory_writable_and_executable_is_shown_and_counted() {
    let exposed = TABLES.replace("40000781", "40000701");
    let text = picture(&format!(
        "{exposed}{}0 10 40000000 msr sctlr_el2 30c5183d\n0 110 40000000 msr sctlr_el2 30cd183d\ncount 0 1110\n",
        start(0)
    ));
    assert!(text.contains("1,110 instructions, 100 of them W+X and 1,000 held back by WXN"), "{text}");
    assert!(text.contains("a leaf is writable and executable, after instruction 10 to 110"), "{text}");
    assert!(text.contains("a leaf is writable and executable, held back by WXN, after instruction 110"), "{text}");
}

#[test]
fn good_memory_that_is_never_both_is_no_exposure() {
    let text = picture(&format!("{TABLES}{}0 10 40000000 msr sctlr_el2 30c5183d\ncount 0 1110\n", start(0)));
    assert!(text.contains("1,110 instructions, 0 of them W+X"), "{text}");
    assert!(!text.contains("a leaf is writable and executable,"), "{text}");
}

#[test]
fn bad_what_another_cpu_exposes_counts_for_all_who_share_the_tables() {
    let on = |cpu| format!("{cpu} 10 40000000 msr sctlr_el2 30c5183d\n");
    let text = picture(&format!(
        "{TABLES}{}{}{}{}0 20 40000000 store 8 80001020 80001020 701\n1 50 40000000 isb\ncount 0 30\ncount 1 60\n",
        start(0),
        start(1),
        on(0),
        on(1)
    ));
    assert!(text.contains("CPU 0: 30 instructions, 10 of them W+X"), "{text}");
    assert!(
        text.contains("CPU 1: 60 instructions, 50 of them W+X"),
        "from its last event on, the worst counts: {text}"
    );
}

#[test]
fn good_stores_before_a_frame_is_a_table_are_remembered_for_it() {
    let store = |number: u64, pa: u64, value: u64| format!("0 {number} 40000000 store 8 {pa:x} {pa:x} {value:x}\n");
    let stores = store(2, 0x8000_1008, 0x4000_0781) + &store(3, 0x8000_1010, 0) + &store(4, 0x9000_0000, 0);
    let on = "0 10 40000000 msr sctlr_el2 30cd183d\n";
    let text = picture(&format!("{}{stores}{on}", start(0)));
    assert!(text.contains("2 × stores to coming tables, instructions 2 to 3"), "{text}");
    let text = picture(&format!("{}{stores}", start(0)));
    assert!(!text.contains("stores to coming tables"), "no root ever led there: {text}");
}

#[test]
fn bad_a_break_is_told_from_any_other_store() {
    let text = picture(&format!(
        "{TABLES}{}0 10 40000000 msr sctlr_el2 30cd183d\n0 11 40000000 store 8 80001018 80001018 0\n0 12 40000000 dsb ish\n\
         0 13 40000000 store 8 80001018 80001018 400000c0000781\n0 14 40000000 store 8 90000000 90000000 0\n",
        start(0)
    ));
    assert!(text.contains("breaks, instruction 11"), "{text}");
    assert!(text.contains("stores to tables in force, instruction 13"), "{text}");
    assert!(!text.contains(", instruction 14"), "a store to no table is no mark: {text}");
}

#[test]
fn bad_a_broken_rule_is_named_with_what_was_missing() {
    // From `cargo xtask judge --help`: rights are changed, and the TLBI is forgotten.
    let lines = format!(
        "{TABLES}{}0 1 40000000 found mair_el2 ff\n0 1 40000000 found sctlr_el2 30cd183d\n\
         0 2 40000004 store 8 80001018 80001018 400000c0000781\n0 3 40000008 dsb ish\n0 4 4000000c isb\nend exit\n",
        start(0)
    );
    let timeline = feed(&lines, true);
    let text = checked(&timeline);
    assert!(text.contains("StaleLeaf ×1") && text.contains(Rule::StaleLeaf.says()), "{text}");
    assert!(text.contains("; missing: ") && text.contains("<polygon"), "{text}");
    assert!(text.contains("rules broken at 1 place\n"), "{text}");
    assert!(checked(&feed(&lines, false)).contains("No rule was broken"));
}

#[test]
fn bad_findings_that_rest_on_arrival_are_hollow_and_said_to_be() {
    let mut timeline = feed(&start(0), false);
    timeline.violation(&violation(Rule::StaleLeaf, 0, 3, "a TLBI"), Some("map+0x10"), Standing::ByArrival);
    let hollow = "fill=\"#ffffff\" points";
    let text = checked(&timeline);
    assert_eq!(text.matches(hollow).count(), 2, "one in the legend, one in the lane: {text}");
    assert!(
        text.contains("1 more rest on the order of arrival alone") && text.contains("No rule was broken"),
        "{text}"
    );
    timeline.violation(&violation(Rule::StaleLeaf, 0, 3, "a TLBI"), None, Standing::Certain);
    assert_eq!(checked(&timeline).matches(hollow).count(), 1);
}

#[test]
fn bad_places_close_to_each_other_share_a_label_that_counts_them() {
    let mut timeline = feed(&start(0), false);
    for line in 0..300_000 {
        let rule = if line % 2 == 0 { Rule::FillSync } else { Rule::StaleLeaf };
        timeline.violation(&violation(rule, 0, 1_000_000 + line, "an ISB"), None, Standing::Certain);
    }
    let text = checked(&timeline);
    assert!(text.contains("FillSync ×150,000") && text.contains("at 1,024 places"), "{text}");
    assert!(text.contains("298,976 are too many to have a place above"), "{text}");
    assert!(text.len() < 200_000, "{}", text.len());
}

#[test]
fn bad_what_is_found_at_the_end_stands_at_the_end() {
    let mut timeline = feed(&format!("{}0 2 40000000 isb\n0 3 40000000 dsb sy\n", start(0)), false);
    timeline.violation(&violation(Rule::WriteExecuteAlias, 0, 0, "a break"), None, Standing::Certain);
    assert!(checked(&timeline).contains("line 7 of the trace"));
}

#[test]
fn good_text_is_no_markup() {
    let mut timeline = feed(&start(0), false);
    timeline.violation(&violation(Rule::StaleLeaf, 0, 2, "<script>&\u{1}\"'"), None, Standing::Certain);
    let text = timeline.svg("<b>&\n\u{0}title\u{ffff}");
    assert!(text.contains("&lt;b&gt;&amp;title\n") && text.contains("&lt;script&gt;&amp;"), "{text}");
    assert!(text.chars().all(|letter| !letter.is_control() || letter == '\n'), "{text}");
    let parsed = svg::read(&text).expect("the text is there");
    assert!(parsed.into_iter().all(|event| !matches!(event, Parsed::Error(_))));
}

#[test]
fn good_a_million_events_of_eight_cpus_stay_a_small_file() {
    use breakwater_trace::{Barrier, Event, Operation, Record, Register, Step};
    let tlbi = Operation::from_text("vale2is").expect("a name");
    let sctlr = Register::from_text("sctlr_el2").expect("a name");
    let mut timeline = Timeline::new(&[]);
    for line in 0..1_000_000 {
        let event = match line % 7 {
            0 => Event::Isb,
            1 | 4 => Event::Dsb(Barrier { crm: 11, without_xs: false }),
            2 => Event::Maintain { operation: tlbi, operand: line },
            3 => Event::Exception { to: 2, syndrome: 0, link: 0, fault_address: 0 },
            5 => Event::Msr { register: sctlr, value: line & 1 },
            _ => Event::Start { exception_level: 2 },
        };
        let cpu = (line / 3 % 8) as u32;
        timeline.record(line, &Record::Step(Step { cpu, instruction: line, pc: line, event }));
    }
    let text = checked(&timeline);
    assert!(text.len() < 2_000_000, "{}", text.len());
    assert!(text.contains("later changes of state are not shown"), "what is left out is said");
}

#[test]
fn bad_numbers_at_their_ends_neither_panic_nor_leave_the_page() {
    let most = u64::MAX;
    let text = picture(&format!(
        "{}127 {most} ffffffffffffffff isb\n0 {most} 0 msr sctlr_el2 ffffffffffffffff\n0 1 0 msr tcr_el2 ffffffffffffffff\n\
         0 2 0 store 16 ffffffffffffffff fffffffffffff000 1 1\n0 3 0 dc zva ffffffffffffffff\ncount 0 {most}\ncount 5 {most}\n",
        start(0)
    ));
    let widest = text.split(" x=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
    assert!(widest.into_iter().all(|x| (0.0..=1600.0).contains(&x)), "{text}");
}

#[test]
fn good_merging_loses_no_count_and_spares_the_neighbours_of_a_change() {
    let mut runs = Runs::default();
    let at = |line| Point { line, instruction: line };
    let kinds = [MarkKind::Dsb, MarkKind::Isb, MarkKind::Tlbi];
    for line in 0..20 {
        runs.add(kinds[line as usize % 3], None, at(line));
    }
    runs.add(MarkKind::Control, Some("sctlr_el2"), at(20));
    runs.protect();
    for line in 21..100_000 {
        runs.add(kinds[line as usize % 3], None, at(line));
    }
    assert!(runs.as_slice().len() <= MOST_RUNS);
    assert_eq!(runs.as_slice().iter().map(|run| run.count).sum::<u64>(), 100_000);
    for line in 8..=32 {
        let alone = |run: &&super::mark::Run| run.first.line == line && run.last.line == line;
        assert_eq!(runs.as_slice().iter().filter(alone).count(), 1, "line {line}");
    }
}

#[test]
fn good_later_is_never_further_left_and_scenes_have_room() {
    let span = |first, end_exclusive, is_near| Span { first, end_exclusive, weight: 1.0, is_near };
    let scene = (1000..1010).map(|line| span(line, line + 1, true));
    let busy = (2000..12_000).map(|line| span(line, line + 1, false));
    let spans: Vec<Span> = scene.chain(busy).chain([span(0, 1_000_000, false)]).collect();
    let axis = Axis::new(&spans, 100.0, 1100.0);
    let places: Vec<f64> = (0..1_100_000).step_by(7).map(|line| axis.x(line)).collect();
    assert!(places.is_sorted() && places[0] >= 100.0 && places.iter().all(|x| *x <= 1100.0 + 1e-6));
    let (scene, busy) = (axis.x(1010) - axis.x(1000), axis.x(12_000) - axis.x(2000));
    assert!(scene > 150.0 && busy > 150.0, "ten marks {scene}, ten thousand {busy}");
    assert!(axis.parts().iter().any(|part| part.is_scene) && axis.parts().iter().any(|part| !part.is_scene));
}

#[test]
fn good_an_axis_of_nothing_has_a_place_for_every_line() {
    let axis = Axis::new(&[], 100.0, 1100.0);
    assert!(axis.x(0).is_finite() && axis.x(u64::MAX).is_finite() && axis.parts().is_empty());
}

#[test]
fn good_what_dc_zva_breaks_is_what_lies_in_its_block() {
    let zeroed = |dczid| {
        let found = format!("0 1 40000000 found dczid_el0 {dczid}\n");
        let lines =
            format!("{TABLES}{}{found}0 2 40000000 msr sctlr_el2 30cd1839\n0 3 40000004 dc zva 80001080\n", start(0));
        picture(&(lines + "count 0 10\nend exit\n"))
    };
    assert_ne!(zeroed(4), zeroed(6));
}
