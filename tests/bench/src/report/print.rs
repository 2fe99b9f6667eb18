//! The tables.

use super::counts::{Cost, Counted, Target, cpus_in_words};
use super::phases::{self, Boot, in_full};
use super::{Host, Report, row};
use breakwater_bench::candidate::Candidate;
use breakwater_bench::ours::Ours;
use breakwater_bench::paging;
use breakwater_bench::rounds::{Measured, Row, Spread};
use std::fmt::Write;

/// Names of candidates.
const OURS: &str = <Ours as Candidate>::NAME;
const PEER_LIVE: &str = <paging::Live as Candidate>::NAME;
const PEER: &str = <paging::NotLive as Candidate>::NAME;
const PEERS_WITH_INVALIDATION: [&str; 2] = [<paging::Invalidated as Candidate>::NAME, PEER_LIVE];
/// Bulk maps take at most so many times what the bare loop takes ...
const MOST_OVER_LIMIT: f64 = 2.0;
/// ... and are at least so many times faster than aarch64-paging.
const LEAST_FASTER: f64 = 5.0;
/// CPUs and GiB of the boots that the table shows; the picture shows all.
const SHOWN: [(u32, u64); 3] = [(1, 2), (1, 64), (8, 2)];

/// Everything.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    if let Some(host) = &report.host {
        text += &of_host(host);
    }
    if let Some(target) = &report.target {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &of_target(target);
        text += &of_boots(target);
        text += &promises(target);
    }
    text
}

fn of_host(host: &Host) -> String {
    let mut text = format!(
        "Host: {} rounds, everyone once in each. Nanoseconds a leaf (page or block), how many times the bare stores', and how\n\
         many times this candidate's time ours is (less than 1: ours is faster): the median and, in brackets, the quartiles.\n\
         Maintenance is of one request. TLBI and ISB cost nothing on a host, a DSB a full fence.\n\n",
        host.rounds
    );
    let width = host.candidates.iter().map(|candidate| candidate.name.len()).max().unwrap_or_default();
    for request in &host.requests {
        let _ = writeln!(
            text,
            "{} ({}): {} requests, {} leaves in a round",
            request.title, request.name, request.requests, request.leaves
        );
        let _ = writeln!(
            text,
            "  {:width$}  {:>24}  {:>24}  {:>24}  {:>8} {:>5} {:>5}",
            "", "ns a leaf", "times the limit", "ours / this", "TLBI", "DSB", "ISB"
        );
        request.rows.iter().for_each(|row| text += &line(row, request.requests, width));
        text.push('\n');
    }
    text += "What each does:\n";
    for candidate in &host.candidates {
        let _ = writeln!(text, "  {:width$}  {}", candidate.name, candidate.note);
    }
    text += &summary(host);
    text
}

fn line(row: &Row, requests: usize, width: usize) -> String {
    if let Some(why) = &row.refused {
        return format!("  {:width$}  refuses: {why}\n", row.candidate);
    }
    let shown = |spread: Option<Spread>| {
        let Some(Spread { lower, median, upper, .. }) = spread else { return "-".to_owned() };
        format!("{} [{} {}]", number(median), number(lower), number(upper))
    };
    let mut text = format!(
        "  {:width$}  {:>24}  {:>24}  {:>24}",
        row.candidate,
        shown(row.nanoseconds),
        shown(row.this_over_limit),
        shown(row.ours_over_this)
    );
    if let Some(maintenance) = row.maintenance {
        let each = |count: u64| number(count as f64 / requests as f64);
        let [tlbis, dsbs, isbs] = [maintenance.tlbis, maintenance.dsbs, maintenance.isbs].map(each);
        let _ = write!(text, "  {tlbis:>8} {dsbs:>5} {isbs:>5}");
    }
    text.push('\n');
    text
}

/// Three digits, or all before the point; whole numbers as such.
fn number(number: f64) -> String {
    if number.fract() == 0.0 || number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}

/// What the issue asks for, and whether this run shows it.
fn summary(host: &Host) -> String {
    let mut text = "\nWanted, and seen in this run:\n".to_owned();
    for request in &host.requests {
        let said = if request.name.starts_with("map-") { bulk(request) } else { against_invalidation(request) };
        if let Some(said) = said {
            let _ = writeln!(text, "  {:16} {said}", request.name);
        }
    }
    text
}

fn bulk(request: &Measured) -> Option<String> {
    let over_limit = row(request, OURS)?.this_over_limit?.median;
    let faster = |peer: &str| row(request, peer)?.ours_over_this.map(|ratio| 1.0 / ratio.median);
    let (live, not_live) = (faster(PEER_LIVE)?, faster(PEER)?);
    Some(format!(
        "{} times the limit (at most {MOST_OVER_LIMIT}: {}); {} times as fast as aarch64-paging on live tables (at least \
         {LEAST_FASTER}: {}), {} times as on tables out of use",
        number(over_limit),
        met(over_limit <= MOST_OVER_LIMIT),
        number(live),
        met(live >= LEAST_FASTER),
        number(not_live),
    ))
}

fn against_invalidation(request: &Measured) -> Option<String> {
    let ratio = |peer: &&'static str| Some((*peer, row(request, peer)?.ours_over_this?.median));
    let ratios: Vec<(&str, f64)> = PEERS_WITH_INVALIDATION.iter().filter_map(ratio).collect();
    let said = ratios.iter().map(|(peer, ratio)| format!("{} of {peer}", number(*ratio)));
    let said = said.collect::<Vec<_>>().join(", ");
    let slower = ratios.iter().filter(|(_, ratio)| *ratio > 1.0).count();
    (!ratios.is_empty()).then(|| format!("takes {said} (no more than 1: {})", met(slower == 0)))
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT MET" }
}

fn of_target(target: &Target) -> String {
    let Target { compiler, qemu, cpu, runs, .. } = target;
    let Some(first) = runs.first() else { return String::new() };
    let boots = first.boots;
    let mut text = format!(
        "Target: {cpu}, QEMU {qemu}, one instruction a nanosecond; {compiler}. Exact: {boots} boots each said the same.\n\
         Instructions are of all CPUs together; with one CPU invalidations are local, with more they are broadcast.\n\n"
    );
    let width = first.requests.iter().map(|cost| cost.name.len()).max().unwrap_or_default();
    let _ = write!(text, "  {:width$}", "");
    for run in runs {
        let _ = write!(text, "  {:>12}", cpus_in_words(run.cpus));
    }
    let _ = writeln!(text, "  {:>8} {:>5} {:>5} {:>5} {:>7}", "stores", "TLBI", "DSB", "ISB", "frames");
    for (index, cost) in first.requests.iter().enumerate() {
        let _ = write!(text, "  {:width$}", cost.name);
        for run in runs {
            let instructions = run.requests.get(index).map(|cost| cost.instructions);
            let _ = write!(text, "  {:>12}", instructions.map_or_else(|| "-".to_owned(), |count| count.to_string()));
        }
        let _ = writeln!(
            text,
            "  {:>8} {:>5} {:>5} {:>5} {:>7}",
            cost.stores, cost.tlbis, cost.dsbs, cost.isbs, cost.frames
        );
    }
    text += &differences(runs);
    text
}

/// Counts other than instructions that depend on the number of CPUs.
fn differences(runs: &[Counted]) -> String {
    let Some((first, others)) = runs.split_first() else { return String::new() };
    let mut text = String::new();
    for run in others {
        for (one, other) in first.requests.iter().zip(&run.requests) {
            let counts = |cost: &Cost| (cost.stores, cost.tlbis, cost.dsbs, cost.isbs, cost.frames);
            if counts(one) != counts(other) {
                let _ = writeln!(text, "  with {} otherwise: {other:?}", cpus_in_words(run.cpus));
            }
        }
    }
    text
}

/// What each phase of a boot takes.
fn of_boots(target: &Target) -> String {
    let shown = |size: &(u32, u64)| target.images.iter().find(|boot| (boot.cpus, boot.gib) == *size);
    let boots: Vec<&Boot> = SHOWN.iter().filter_map(shown).collect();
    let Some(first) = boots.first() else { return String::new() };
    let each_page = "frametable, each 4 KiB";
    let names = || first.phases.iter().map(|phase| phase.name.as_str());
    let width = names().chain([each_page]).map(str::len).max().unwrap_or_default();
    let mut text = format!(
        "\nBoots of the image: instructions by phase, of all CPUs together. Exact: {} boots each said the same.\n\n",
        first.boots
    );
    let mut line = |name: &str, cells: Vec<String>| {
        let cells = cells.iter().map(|cell| format!("  {cell:>14}")).collect::<String>();
        let _ = writeln!(text, "  {name:width$}{cells}");
    };
    let each = |cell: &dyn Fn(&Boot) -> String| boots.iter().map(|boot| cell(boot)).collect();
    line("", each(&|boot| format!("{}, {} GiB", cpus_in_words(boot.cpus), boot.gib)));
    for name in names() {
        line(name, each(&|boot| boot.instructions(name).map_or_else(|| "-".to_owned(), |count| count.to_string())));
    }
    line(each_page, each(&|boot| format!("{:.2}", boot.frametable_each_page)));
    text
}

/// What is promised of a boot, and how far it is kept.
fn promises(target: &Target) -> String {
    let pinned = phases::pinned();
    let mut text = if phases::is_pinned(&target.compiler) {
        format!("\nPromised of rustc {pinned}'s boots, 1 CPU: 2 % more than was measured.\n")
    } else {
        format!(
            "\nThe promises are of rustc {pinned}'s boots. This compiler's may take more, up to the bounds of any.\n"
        )
    };
    let width = target.promises.iter().map(|held| held.figure.len()).max().unwrap_or_default();
    let _ = writeln!(text, "\n  {:width$}  {:>14}  {:>14}", "", "counted", "at most");
    for held in &target.promises {
        let counted = held.counted.map_or_else(|| "-".to_owned(), in_full);
        let said = match held.broken() {
            Some(_) => "NOT KEPT",
            None if held.can_be_tightened => "kept; the promise can be tightened",
            None => "kept",
        };
        let _ = writeln!(text, "  {:width$}  {counted:>14}  {:>14}  {said}", held.figure, in_full(held.at_most));
    }
    text
}
