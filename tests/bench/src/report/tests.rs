//! What is read, printed and drawn, without anything being timed.

use super::counts::{Boots, MOST, Said};
use super::phases::{self, Held, MARGIN, PROMISES, Promise};
use super::{Candidate, Host, Report, Target};
use breakwater_bench::arena::Maintenance;
use breakwater_bench::rounds::{Measured, Row, Spread};
use serde_json::json;

const SERIAL: &str = "hello\n\
    bench idle instructions=40 stores=0 tlbis=0 dsbs=0 isbs=0 frames=0\n\
    bench map-1-page instructions=300 stores=1 tlbis=0 dsbs=1 isbs=1 frames=0\n\
    bench unmap-1-page instructions=540 stores=2 tlbis=1 dsbs=2 isbs=1 frames=-1\n\
    fact holds: 2 requests counted\n";

/// Boots with one CPU and with four, all of which said the same.
fn boots(serial: &str) -> Boots {
    let said = |cpus| Said { cpus, gib: 2, boots: vec![serial.to_owned(); 2] };
    let [compiler, qemu, cpu] = ["rustc 1", "10.0", "cortex-a57"].map(str::to_owned);
    let images = [(1, 2), (1, 64), (8, 2)].map(|(cpus, gib)| image(cpus, gib));
    Boots { compiler, qemu, cpu, runs: vec![said(1), said(4)], images: images.into() }
}

/// What a phase takes, within every bound.
const CHEAP: u64 = 1_000;

/// Two boots of the image in which each phase is cheap, and each of the frametable's pages takes 100 instructions.
fn image(cpus: u32, gib: u64) -> Said {
    let pages = 1024 * gib;
    let phase = |name: &str, instructions: u64| {
        let (stores, tlbis, dsbs, isbs, frames) = (5, 0, 2, 1, 3);
        json!({"name": name, "stores": stores, "tlbis": tlbis, "dsbs": dsbs, "isbs": isbs, "frames": frames,
            "instructions": instructions})
    };
    let report = json!({
        "ram_bytes": gib << 30,
        "cpus": {"online": cpus, "present": cpus},
        "areas": [{"name": "frametable", "va": 0, "mapped": pages * 4096}],
        "phases": [
            phase("device tree", CHEAP),
            phase("frametable", 100 * pages),
            phase("free init", CHEAP),
            phase("audit", CHEAP),
        ],
        "total": phase("total", 100 * pages + 3 * CHEAP),
    });
    Said { cpus, gib, boots: vec![format!("hello\nBOOT-REPORT {report}\n"); 2] }
}

/// The target, had `compiler` made it and its boots' reports been so changed.
fn changed(compiler: &str, from: &str, to: &str) -> Target {
    let mut boots = boots(SERIAL);
    compiler.clone_into(&mut boots.compiler);
    let serials = boots.images.iter_mut().flat_map(|said| &mut said.boots);
    serials.for_each(|serial| *serial = serial.replace(from, to));
    Target::of(boots).expect("well-formed reports")
}

/// The same, had the audit taken so many instructions, by the compiler that the promises are of or by another.
fn with_audit(is_pinned: bool, instructions: f64) -> Target {
    let audit = |instructions| {
        format!(r#""audit","stores":5,"tlbis":0,"dsbs":2,"isbs":1,"frames":3,"instructions":{instructions}"#)
    };
    let compiler = if is_pinned { format!("rustc {} (0123abc)", phases::pinned()) } else { "rustc 1".to_owned() };
    changed(&compiler, &audit(CHEAP as f64), &audit(instructions))
}

fn broken(target: &Target) -> Vec<String> {
    target.promises.iter().filter_map(Held::broken).collect()
}

fn target(serial: &str) -> Target {
    Target::of(boots(serial)).expect("well-formed lines")
}

/// Why they are refused.
fn why(boots: Boots) -> String {
    format!("{:#}", Target::of(boots).expect_err("malformed"))
}

fn spread(median: f64) -> Spread {
    Spread { least: 0.8 * median, lower: 0.9 * median, median, upper: 1.1 * median, greatest: 2.0 * median }
}

fn row(candidate: &'static str, nanoseconds: Option<f64>, ours: f64, limit: f64) -> Row {
    Row {
        candidate,
        refused: nanoseconds.is_none().then(|| "will not".to_owned()),
        nanoseconds: nanoseconds.map(spread),
        ours_over_this: nanoseconds.map(|this| spread(ours / this)),
        this_over_limit: nanoseconds.map(|this| spread(this / limit)),
        maintenance: nanoseconds.map(|_| Maintenance { tlbis: 64, dsbs: 4, isbs: 2 }),
    }
}

/// Two requests with these times: ours, aarch64-paging not live and live, the bare loop.
fn host(ours: f64) -> Host {
    let names = ["breakwater", "aarch64-paging", "aarch64-paging, live", "bare stores"];
    let request = |name, live: Option<f64>| Measured {
        name,
        title: "what it is",
        requests: 2,
        leaves: 32,
        rows: names
            .into_iter()
            .zip([Some(ours), Some(2.0), live, Some(0.5)])
            .map(|(name, time)| row(name, time, ours, 0.5))
            .collect(),
    };
    let candidates = names.map(|name| Candidate { name, note: "what it does" });
    Host {
        rounds: 15,
        candidates: candidates.into(),
        requests: vec![request("map-x", Some(6.0)), request("remap-x", None)],
    }
}

fn report(ours: f64) -> Report {
    Report { host: Some(host(ours)), target: Some(target(SERIAL)) }
}

#[test]
fn good_costs_are_read_without_what_reading_costs() {
    let target = target(SERIAL);
    let costs = &target.runs[1].requests;
    assert_eq!((target.runs.len(), costs.len()), (2, 2));
    assert_eq!((costs[0].instructions, costs[1].instructions), (260, 500));
    let second = &costs[1];
    assert_eq!((second.stores, second.tlbis, second.dsbs, second.isbs, second.frames), (2, 1, 2, 1, -1));
}

#[test]
fn bad_lines_are_named() {
    let why = |serial: &str| why(boots(serial));
    assert!(why("hello\n").contains("no line `bench idle`"));
    assert!(why(&SERIAL.replace("stores=1", "stores=one")).contains("stores=one"));
    assert!(why(&SERIAL.replace("isbs=1 frames=0", "frames=0")).contains("where isbs belongs"));
    assert!(why(&SERIAL.replace("instructions=300", "instructions=uncounted")).contains("does not count"));
    assert!(why(&SERIAL.replace("stores=0", "stores=1")).contains("idling"));
    assert!(why(SERIAL.split("bench map").next().unwrap_or_default()).contains("no request"));
}

#[test]
fn bad_counts_that_cannot_be_are_refused() {
    let why = |from: &str, to: &str| why(boots(&SERIAL.replace(from, to)));
    assert!(why("stores=2 tlbis=1", "stores=2 tlbis=0").contains("invalidates nothing"));
    assert!(why("stores=1 tlbis=0", "stores=1 tlbis=1").contains("invalidates nothing"));
    assert!(why("dsbs=2", "dsbs=0").contains("dsbs: 0"));
    assert!(why("instructions=300", "instructions=41").contains("instructions: 1"));
}

#[test]
fn bad_boots_that_differ_are_refused() {
    let with_four = |change: fn(&mut Vec<String>)| {
        let mut boots = boots(SERIAL);
        change(&mut boots.runs[1].boots);
        why(boots)
    };
    let differing = with_four(|boots| boots[1] = SERIAL.replace("540", "541"));
    assert!(differing.contains("4 CPUs") && differing.contains("unmap-1-page") && differing.contains("501"));
    let shorter = |serial: &mut String| *serial = SERIAL.split("bench unmap").next().unwrap_or_default().to_owned();
    assert!(with_four(|boots| drop(boots.pop())).contains("one boot"));
    let mut one = boots(SERIAL);
    shorter(&mut one.runs[1].boots[1]);
    assert!(why(one).contains("different requests"));
    let mut both = boots(SERIAL);
    both.runs[1].boots.iter_mut().for_each(shorter);
    assert!(why(both).contains("other requests with more CPUs"));
}

#[test]
fn good_requests_within_their_limits_are_not_told() {
    let cheap = MOST.map(|(name, _)| {
        let tlbis = u32::from(!name.starts_with("map-"));
        format!("bench {name} instructions=300 stores=1 tlbis={tlbis} dsbs=1 isbs=1 frames=0\n")
    });
    let serial = SERIAL.split("bench map").next().unwrap_or_default().to_owned() + &cheap.concat();
    assert!(target(&serial).over().is_empty());
}

#[test]
fn bad_a_request_over_its_limit_or_not_made_is_told() {
    let over = target(&SERIAL.replace("540", "1540")).over();
    assert_eq!(over.len(), 4, "{over:?}");
    assert!(over.contains(&"unmap-1-page, 1 CPU: 1500 instructions, more than 1027".to_owned()));
    assert!(over.contains(&"protect-1-page is not among the requests with 4 CPUs".to_owned()));
}

#[test]
fn good_the_table_says_what_is_met_and_who_refuses() {
    let text = report(0.9).text();
    assert!(text.contains("1.80 times the limit (at most 2: met)"), "{text}");
    assert!(text.contains("6.67 times as fast as aarch64-paging on live tables (at least 5: met)"), "{text}");
    assert!(text.contains("aarch64-paging, live  refuses: will not"), "{text}");
    assert!(text.contains("0.90 [0.81 0.99]"), "{text}");
    // 64 TLBIs of two requests.
    assert!(text.lines().any(|line| line.trim_end().ends_with("32     2     1")), "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq([
        "unmap-1-page",
        "500",
        "500",
        "2",
        "1",
        "2",
        "1",
        "-1"
    ])));
}

#[test]
fn bad_what_is_not_met_is_said() {
    let text = report(1.5).text();
    assert!(text.contains("3 times the limit (at most 2: NOT MET)"), "{text}");
    assert!(text.contains("4 times as fast as aarch64-paging on live tables (at least 5: NOT MET)"), "{text}");
}

#[test]
fn good_a_boot_is_read_by_phase_and_shown() {
    let target = target(SERIAL);
    let boot = &target.images[1];
    assert_eq!((boot.cpus, boot.gib, boot.boots), (1, 64, 2));
    assert_eq!((boot.instructions("audit"), boot.instructions("total")), (Some(1_000), Some(6_556_600)));
    let text = Report { host: None, target: Some(target) }.text();
    let has = |cells: &[&str]| text.lines().any(|line| line.split_whitespace().eq(cells.iter().copied()));
    assert!(has(&["1", "CPU,", "2", "GiB", "1", "CPU,", "64", "GiB", "8", "CPUs,", "2", "GiB"]), "{text}");
    assert!(has(&["total", "207800", "6556600", "207800"]), "{text}");
    assert!(text.contains("frametable, each 4 KiB") && text.contains("100.00"), "{text}");
}

#[test]
fn bad_reports_are_refused_with_their_machine() {
    let why = |change: &dyn Fn(&mut Said)| {
        let mut boots = boots(SERIAL);
        change(&mut boots.images[1]);
        why(boots)
    };
    let all = |from: &'static str, to: &'static str| {
        why(&move |said| said.boots.iter_mut().for_each(|serial| *serial = serial.replace(from, to)))
    };
    let uncounted = all("\"instructions\":1000}", "\"instructions\":null}");
    assert_eq!(uncounted, "1 CPU, 64 GiB: this QEMU does not count instructions");
    assert_eq!(all("BOOT-REPORT ", ""), "1 CPU, 64 GiB: no line BOOT-REPORT");
    assert!(all("\"ram_bytes\"", "\"ram\"").contains("missing field `ram_bytes`"));
    assert!(all("\"online\":1", "\"online\":2").contains("the report is of 2 CPUs and 64 GiB"));
    assert!(all("268435456", "0").contains("no frametable"));
    let one = why(&|said| said.boots[1] = said.boots[1].replace(":1000}", ":1001}"));
    assert!(one.contains("count differently") && one.contains("1001"), "{one}");
    assert!(why(&|said| said.boots.truncate(1)).contains("one boot shows nothing"));
}

#[test]
fn good_boots_within_their_promises_are_not_told() {
    let audit = PROMISES.iter().find(|promise| promise.figure == "audit, 2 GiB").expect("it is promised");
    for (is_pinned, instructions) in
        [(true, audit.measured), (true, (audit.measured * MARGIN).floor()), (false, audit.bound)]
    {
        let target = with_audit(is_pinned, instructions);
        assert_eq!(broken(&target), Vec::<String>::new());
        let text = Report { host: None, target: Some(target) }.text();
        let line = text.lines().find(|line| line.contains(audit.figure) && line.contains("kept"));
        assert!(line.is_some_and(|line| line.ends_with("  kept")), "{text}");
        assert_eq!(text.contains("This compiler's may take more"), !is_pinned, "{text}");
    }
}

#[test]
fn good_no_promise_allows_more_than_its_bound() {
    for Promise { figure, measured, bound, .. } in PROMISES {
        assert!(measured <= bound, "{figure}: {measured} of {bound}");
    }
}

#[test]
fn good_a_promise_that_can_be_tightened_is_kept_and_told() {
    let target = with_audit(true, CHEAP as f64);
    assert_eq!(broken(&target), Vec::<String>::new());
    let text = Report { host: None, target: Some(target) }.text();
    assert!(text.lines().any(|line| line.contains("audit") && line.ends_with("kept; the promise can be tightened")));
}

#[test]
fn bad_a_boot_over_its_promise_or_not_made_is_told() {
    let audit = PROMISES.iter().find(|promise| promise.figure == "audit, 2 GiB").expect("it is promised");
    for (is_pinned, most) in [(true, (audit.measured * MARGIN).floor()), (false, audit.bound)] {
        let target = with_audit(is_pinned, most + 1.0);
        assert_eq!(broken(&target), [format!("audit, 2 GiB: {} instructions, more than {most}", most + 1.0)]);
        assert!(target.over().contains(&broken(&target)[0]));
        assert!(Report { host: None, target: Some(target) }.text().contains("NOT KEPT"));
    }
    let dear = broken(&changed("rustc 1", "\"instructions\":204800", "\"instructions\":409600"));
    assert_eq!(dear, ["frametable, each 4 KiB, 2 GiB: 200 instructions, more than 150"]);
    let mut boots = boots(SERIAL);
    boots.images.clear();
    let nothing = broken(&Target::of(boots).expect("well-formed"));
    assert!(nothing.len() == PROMISES.len() && nothing[0] == "whole boot, 2 GiB: no boot shows it", "{nothing:?}");
}

#[test]
fn good_the_plot_has_a_bar_for_every_figure() {
    let file = std::env::temp_dir().join(format!("breakwater-bench-{}.svg", std::process::id()));
    report(0.9).draw(&file).expect("a plot");
    let svg = std::fs::read_to_string(&file).expect("the file");
    std::fs::remove_file(&file).expect("it goes again");
    for name in ["map-x", "remap-x", "unmap-1-page", "bare stores", "CPUs: 4", "GiB of RAM", "audit"] {
        assert!(svg.contains(name), "{name}");
    }
    // Host: 4 candidates, 2 requests, 1 refusal; target: 2 requests with 2 numbers of CPUs; a square for each in the two legends.
    let bars = svg.matches("stroke=\"none\"").count();
    assert!(bars >= (4 * 2 - 1) + 2 * 2 + (4 + 2), "{bars} rectangles");
}
