//! What is read, printed and drawn, without anything being timed.

use super::report::{Candidate, Cost, Host, Maintenance, Report, Request, Row, Run, Spread, Target};
use super::{plot, print, target};

const SERIAL: &str = "hello\n\
    bench idle instructions=40 stores=0 tlbis=0 dsbs=0 isbs=0 frames=0\n\
    bench map-1-page instructions=300 stores=1 tlbis=0 dsbs=1 isbs=1 frames=0\n\
    bench unmap-1-page instructions=540 stores=2 tlbis=1 dsbs=2 isbs=1 frames=-1\n\
    fact holds: 2 requests counted\n";

fn costs() -> Vec<Cost> {
    target::read(SERIAL).expect("well-formed lines")
}

fn spread(median: f64) -> Spread {
    Spread { least: 0.8 * median, lower: 0.9 * median, median, upper: 1.1 * median, greatest: 2.0 * median }
}

fn row(candidate: &str, nanoseconds: Option<f64>, ours: f64, limit: f64) -> Row {
    Row {
        candidate: candidate.to_owned(),
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
    let request = |name: &str, live: Option<f64>| Request {
        name: name.to_owned(),
        title: format!("what {name} is"),
        requests: 2,
        leaves: 32,
        rows: names
            .into_iter()
            .zip([Some(ours), Some(2.0), live, Some(0.5)])
            .map(|(name, time)| row(name, time, ours, 0.5))
            .collect(),
    };
    let candidates = names.map(|name| Candidate { name: name.to_owned(), note: format!("what {name} does") });
    Host {
        rounds: 15,
        candidates: candidates.into(),
        requests: vec![request("map-x", Some(6.0)), request("remap-x", None)],
    }
}

fn report(ours: f64) -> Report {
    let runs = [1, 4].map(|cpus| Run { cpus, requests: costs() });
    let target = Target {
        compiler: "rustc 1".to_owned(),
        qemu: "10.0".to_owned(),
        cpu: "cortex-a57".to_owned(),
        boots: 2,
        runs: runs.into(),
    };
    Report { host: Some(host(ours)), target: Some(target) }
}

#[test]
fn good_costs_are_read_without_what_reading_costs() {
    let costs = costs();
    assert_eq!(costs.len(), 2);
    assert_eq!((costs[0].instructions, costs[1].instructions), (260, 500));
    let second = &costs[1];
    assert_eq!((second.stores, second.tlbis, second.dsbs, second.isbs, second.frames), (2, 1, 2, 1, -1));
}

#[test]
fn bad_lines_are_named() {
    let why = |serial: &str| target::read(serial).expect_err("malformed").to_string();
    assert!(why("hello\n").contains("no line `bench idle`"));
    assert!(why(&SERIAL.replace("stores=1", "stores=one")).contains("stores=one"));
    assert!(why(&SERIAL.replace("isbs=1 frames=0", "frames=0")).contains("where isbs belongs"));
    assert!(why(&SERIAL.replace("instructions=300", "instructions=uncounted")).contains("does not count"));
    assert!(why(&SERIAL.replace("stores=0", "stores=1")).contains("idling"));
    assert!(why(SERIAL.split("bench map").next().unwrap_or_default()).contains("no request"));
}

#[test]
fn bad_two_boots_that_differ_are_refused() {
    let (one, mut other) = (Run { cpus: 4, requests: costs() }, Run { cpus: 4, requests: costs() });
    assert!(target::same(&one, &other).is_ok());
    other.requests[1].instructions += 1;
    let why = target::same(&one, &other).expect_err("another count").to_string();
    assert!(why.contains("4 CPUs") && why.contains("unmap-1-page") && why.contains("501"), "{why}");
    other.requests.pop();
    assert!(target::same(&one, &other).is_err());
}

#[test]
fn good_the_table_says_what_is_met_and_who_refuses() {
    let text = print::text(&report(0.9));
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
    let text = print::text(&report(1.5));
    assert!(text.contains("3 times the limit (at most 2: NOT MET)"), "{text}");
    assert!(text.contains("4 times as fast as aarch64-paging on live tables (at least 5: NOT MET)"), "{text}");
}

#[test]
fn good_the_plot_has_a_bar_for_every_figure() {
    let file = std::env::temp_dir().join(format!("breakwater-bench-{}.svg", std::process::id()));
    plot::draw(&report(0.9), &file).expect("a plot");
    let svg = std::fs::read_to_string(&file).expect("the file");
    std::fs::remove_file(&file).expect("it goes again");
    for name in ["map-x", "remap-x", "unmap-1-page", "bare stores", "CPUs: 4"] {
        assert!(svg.contains(name), "{name}");
    }
    // Host: 4 candidates, 2 requests, 1 refusal; target: 2 requests with 2 numbers of CPUs; a square for each in the two legends.
    let bars = svg.matches("stroke=\"none\"").count();
    assert!(bars >= (4 * 2 - 1) + 2 * 2 + (4 + 2), "{bars} rectangles");
}
