//! Both Xens side by side, and what was promised of them.
//!
//! Why it exists: a claim that this core mends Xen is a table of both, measured in the same way in the same run. What
//! must hold: a figure that is missing is shown as missing and breaks each promise about it; what stock breaks is what
//! tests/witness/XEN.md says of Debian's own build, by rule and function, or the comparison is with something else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use crate::build::Variant;
use crate::judge::{Run, Seen};
use crate::starve::{Try, most_left, require_all_or_nothing};

/// Most instructions of ours until the runtime root is in force and nothing writable is executable.
const MOST_TO_PROTECTED: u64 = 90_000;
/// What Debian's 4.17.7 breaks, by rule and function, as XEN.md has it; aliases of code are asked of the idle loop
/// alone.
const KNOWN: [(&str, &str); 10] = [
    ("FillSync", "pmap_map"),
    ("FillSync", "xen_pt_update"),
    ("LineAfter", "enable_mmu"),
    ("LineBefore", "enable_mmu"),
    ("MismatchedAttributes", "xen_pt_update"),
    ("RootSwitch", "secondary_switched"),
    ("RootSwitch", "switch_ttbr"),
    ("WriteExecute", "create_page_tables"),
    ("WriteExecute", "link_from_third_id"),
    ("WriteExecuteAlias", "xen_pt_update"),
];
/// The one rule that ours may break: Xen's own callers ask for these attributes.
const BY_DESIGN: &str = "MismatchedAttributes";

/// What is known of one Xen.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// What was watched, or why it could not be.
    pub seen: BTreeMap<Run, Result<Seen, String>>,
    /// Boots by name: seconds, or what went wrong.
    pub boots: BTreeMap<String, Result<f64, String>>,
    /// Orders of its functions by seed: what was watched of one that boots, or what went wrong.
    pub layouts: BTreeMap<u64, Result<Seen, String>>,
    /// Requests that ran out of frames, if it was asked.
    pub starved: Option<Result<Vec<Try>, String>>,
}

impl Column {
    fn seen(&self, run: Run) -> Option<&Seen> {
        self.seen.get(&run)?.as_ref().ok()
    }

    /// What it breaks, by rule and function, in all that was watched.
    fn broken(&self) -> BTreeSet<(&str, &str)> {
        let seen = self.seen.values().flatten().flat_map(|seen| seen.findings.keys());
        seen.map(|(rule, function)| (rule.as_str(), function.as_str())).collect()
    }
}

/// Both, or stock alone.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By variant.
    pub columns: BTreeMap<Variant, Column>,
}

impl Report {
    /// Each promise that is broken, in words. What was left out breaks none.
    #[must_use]
    pub fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (variant, column) in &self.columns {
            let name = variant.name();
            let boots = column.boots.iter().filter_map(|(boot, outcome)| Some((boot, outcome.as_ref().err()?)));
            broken.extend(boots.map(|(boot, why)| format!("{name} does not boot {boot}: {why}")));
            let runs = column.seen.iter().filter_map(|(run, seen)| Some((run, seen.as_ref().err()?)));
            broken.extend(runs.map(|(run, why)| format!("{name}, {}: {why}", run.name())));
            broken.extend(
                column.starved.iter().filter_map(|tries| Some(format!("{name}, starved: {}", tries.as_ref().err()?))),
            );
        }
        if let Some(stock) = self.columns.get(&Variant::Stock) {
            broken.extend(unlike_known(stock));
        }
        if let Some(ours) = self.columns.get(&Variant::Ours) {
            for (run, seen) in &ours.seen {
                let seen = seen.iter();
                broken.extend(seen.flat_map(promised).map(|what| format!("ours, {}: {what}", run.name())));
            }
            for (seed, seen) in &ours.layouts {
                let what = seen.as_ref().map_or_else(|why| vec![why.clone()], promised);
                broken.extend(what.into_iter().map(|what| format!("ours, layout {seed}: {what}")));
            }
            let tries = ours.starved.iter().flatten();
            broken.extend(tries.filter_map(|tries| Some(format!("ours: {:#}", require_all_or_nothing(tries).err()?))));
            broken.extend(self.slower());
        }
        broken
    }

    /// Ours must not come to its idle loop later than stock.
    fn slower(&self) -> Option<String> {
        let to_idle = |variant| Some(self.columns.get(&variant)?.seen(Run::Idle)?.instructions);
        let (stock, ours) = (to_idle(Variant::Stock)?, to_idle(Variant::Ours)?);
        (ours > stock)
            .then(|| format!("ours takes {} instructions to the idle loop, stock {}", grouped(ours), grouped(stock)))
    }

    /// The rows of the table: what, and a cell for each variant.
    fn rows(&self) -> Vec<(String, Vec<String>)> {
        let mut rows = Vec::new();
        let mut row = |what: String, cell: &dyn Fn(&Column) -> Option<String>| {
            let cells: Vec<_> = self.columns.values().map(cell).collect();
            if cells.iter().any(Option::is_some) {
                rows.push((what, cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned())).collect()));
            }
        };
        let idle = |column: &Column, figure: fn(&Seen) -> u64| column.seen(Run::Idle).map(figure).map(grouped);
        row("instructions to W^X and the runtime root in force".to_owned(), &|column| {
            Some(column.seen(Run::Idle)?.protected.map_or_else(|| "never".to_owned(), grouped))
        });
        row("instructions to the idle loop".to_owned(), &|column| idle(column, |seen| seen.instructions));
        row("writable and executable, CPU 0, instructions".to_owned(), &|column| {
            column.seen(Run::Several)?.exposed.get(&0).copied().map(grouped)
        });
        row("writable and executable, each other CPU, the most".to_owned(), &|column| {
            column.seen(Run::Several)?.exposed.range(1..).map(|(_, instructions)| *instructions).max().map(grouped)
        });
        row("pages of code with a writable alias, in the end".to_owned(), &|column| {
            idle(column, |seen| seen.of_rule("WriteExecuteAlias"))
        });
        row("TLBIs to the idle loop".to_owned(), &|column| idle(column, |seen| seen.tlbis));
        row("DSBs".to_owned(), &|column| idle(column, |seen| seen.dsbs));
        row("ISBs".to_owned(), &|column| idle(column, |seen| seen.isbs));
        row("stores to tables in force".to_owned(), &|column| idle(column, |seen| seen.table_stores));
        row("pages that a request left behind when frames ran out, the most".to_owned(), &|column| match column
            .starved
            .as_ref()?
        {
            Ok(tries) => Some(grouped(most_left(tries))),
            Err(why) => Some(why.clone()),
        });
        row("orders of its functions that boot and break no promise".to_owned(), &|column| {
            let good = column.layouts.values().flatten().filter(|seen| promised(seen).is_empty()).count();
            (!column.layouts.is_empty()).then(|| format!("{good} of {}", column.layouts.len()))
        });
        for run in Run::ALL {
            row(format!("findings, {}", run.name()), &|column| match column.seen.get(&run)? {
                Ok(seen) => Some(seen.causes.to_string()),
                Err(why) => Some(why.clone()),
            });
            let of_run = self.columns.values().filter_map(|column| column.seen(run));
            let all: BTreeSet<_> = of_run.flat_map(|seen| seen.findings.keys()).collect();
            for broken @ (rule, function) in all {
                row(format!("  {rule}, {function}"), &|column| {
                    Some(grouped(column.seen(run)?.findings.get(broken).copied().unwrap_or_default()))
                });
            }
            let of_run = self.columns.values().filter_map(|column| column.seen(run));
            let callers: BTreeSet<_> = of_run.flat_map(|seen| &seen.mismatched).collect();
            for caller in callers {
                row(format!("  {BY_DESIGN}, asked for by {}", named(caller)), &|column| {
                    Some(if column.seen(run)?.mismatched.contains(caller) { "yes" } else { "-" }.to_owned())
                });
            }
        }
        let boots: BTreeSet<_> = self.columns.values().flat_map(|column| column.boots.keys()).collect();
        for boot in boots {
            row(format!("boots {boot}, seconds"), &|column| match column.boots.get(boot)? {
                Ok(seconds) => Some(format!("{seconds:.1}")),
                Err(why) => Some(why.clone()),
            });
        }
        rows
    }
}

/// What a run of ours must keep and does not.
fn promised(seen: &Seen) -> Vec<String> {
    let mut broken = Vec::new();
    for (cpu, instructions) in seen.exposed.iter().filter(|(_, instructions)| **instructions > 0) {
        broken.push(format!("CPU {cpu} runs {} instructions with writable code", grouped(*instructions)));
    }
    for ((rule, function), violations) in seen.findings.iter().filter(|((rule, _), _)| rule != BY_DESIGN) {
        broken.push(format!("{} of {rule} in {function}", grouped(*violations)));
    }
    if seen.mismatched.contains("") {
        broken.push(format!("{BY_DESIGN} for which nobody is known to have asked"));
    }
    match seen.protected {
        None => broken.push("no runtime root was ever in force".to_owned()),
        Some(instructions) if instructions > MOST_TO_PROTECTED => broken.push(format!(
            "{} instructions to W^X and the runtime root, more than {}",
            grouped(instructions),
            grouped(MOST_TO_PROTECTED)
        )),
        Some(_) => {}
    }
    broken
}

fn has_both(stock: &Column) -> bool {
    [Run::Idle, Run::Several].iter().all(|run| stock.seen(*run).is_some())
}

/// In what stock differs from the build that XEN.md is about; asked of a stock that was watched in both ways that show
/// something of their own.
fn unlike_known(stock: &Column) -> Vec<String> {
    if !has_both(stock) {
        return Vec::new();
    }
    let (known, broken) = (BTreeSet::from(KNOWN), stock.broken());
    let spelled = |(rule, function): &(&str, &str)| format!("{rule} in {function}");
    let more = broken.difference(&known).map(spelled).map(|what| format!("stock: {what}, which 4.17.7 does not have"));
    let less = known.difference(&broken).map(spelled).map(|what| format!("stock: no {what}, which 4.17.7 has"));
    more.chain(less).collect()
}

const fn named(caller: &str) -> &str {
    if caller.is_empty() { "nobody known" } else { caller }
}

/// A number with a comma after each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Report {
    /// A table in Markdown, its columns aligned.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.columns.keys().map(|variant| variant.name().to_owned()).collect();
        let rows: Vec<_> = [(String::new(), names)].into_iter().chain(self.rows()).collect();
        let width =
            |cells: &mut dyn Iterator<Item = &String>| cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        let first = width(&mut rows.iter().map(|(what, _)| what));
        let count = self.columns.len();
        let widths: Vec<usize> =
            (0..count).map(|at| width(&mut rows.iter().map(|(_, cells)| &cells[at])).max(2)).collect();
        let mut text = String::new();
        for (index, (what, cells)) in rows.iter().enumerate() {
            write!(text, "| {what:first$} |")?;
            for (cell, width) in cells.iter().zip(&widths) {
                write!(text, " {cell:>width$} |")?;
            }
            text.push('\n');
            if index == 0 {
                write!(text, "|{}|", "-".repeat(first + 2))?;
                widths.iter().try_for_each(|width| write!(text, "{}:|", "-".repeat(width + 1)))?;
                text.push('\n');
            }
        }
        if let Some(stock) = self.columns.get(&Variant::Stock).filter(|stock| has_both(stock)) {
            let count = unlike_known(stock).len();
            let same = if count == 0 { "all of them".to_owned() } else { format!("but for {count} differences") };
            write!(
                text,
                "\nStock breaks {} rules in functions, {same} as XEN.md has it of 4.17.7.",
                stock.broken().len()
            )?;
        }
        f.write_str(text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(findings: &[(&str, &str)], exposed: u64, protected: u64, instructions: u64) -> Seen {
        let findings = findings.iter().map(|(rule, function)| (((*rule).to_owned(), (*function).to_owned()), 3));
        let findings: BTreeMap<_, _> = findings.collect();
        let causes = findings.len();
        let exposed = BTreeMap::from([(0, exposed), (1, exposed / 2)]);
        Seen { findings, causes, exposed, protected: Some(protected), instructions, ..Seen::default() }
    }

    fn column(seen: &Seen) -> Column {
        Column { seen: Run::ALL.map(|run| (run, Ok(seen.clone()))).into(), ..Column::default() }
    }

    fn report(stock: &Seen, ours: &Seen) -> Report {
        Report { columns: [(Variant::Stock, column(stock)), (Variant::Ours, column(ours))].into() }
    }

    #[test]
    fn good_ours_may_break_one_rule() {
        let ours = seen(&[(BY_DESIGN, "bw_update")], 0, 90_000, 1000);
        let kept = report(&seen(&KNOWN, 5, 110_000, 1000), &ours);
        assert_eq!(kept.broken_promises(), Vec::<String>::new());
    }

    #[test]
    fn bad_each_promise_that_is_broken_is_named() {
        let ours = seen(&[("RootSwitch", "switch")], 4, 90_001, 1001);
        let broken = report(&seen(&KNOWN[1..], 5, 110_000, 1000), &ours).broken_promises().join("\n");
        for what in [
            "stock: no FillSync in pmap_map, which 4.17.7 has",
            "CPU 0 runs 4 instructions with writable code",
            "CPU 1 runs 2 instructions with writable code",
            "3 of RootSwitch in switch",
            "90,001 instructions to W^X and the runtime root, more than 90,000",
            "ours takes 1,001 instructions to the idle loop, stock 1,000",
        ] {
            assert!(broken.contains(what), "{what}: {broken}");
        }
    }

    #[test]
    fn bad_what_failed_is_broken_too() {
        let mut report = report(&seen(&KNOWN, 0, 1, 1), &seen(&[], 0, 1, 1));
        if let Some(ours) = report.columns.get_mut(&Variant::Ours) {
            ours.boots.insert("smp4".to_owned(), Err("it hangs".to_owned()));
            ours.seen.insert(Run::Domain, Err("timeout".to_owned()));
            ours.layouts = [(1, Ok(seen(&[], 0, 1, 1))), (2, Ok(seen(&[], 6, 1, 1))), (3, Err("no".to_owned()))].into();
            ours.starved = Some(Ok(vec![Try { frames: 1, rc: -12, mapped: 7, pages: 9 }]));
        }
        let broken = report.broken_promises().join("\n");
        for what in [
            "ours does not boot smp4: it hangs",
            "ours, 1 CPU, to the domain's user space: timeout",
            "ours, layout 2: CPU 0 runs 6 instructions with writable code",
            "ours, layout 3: no",
            "ours: with frames enough, it mapped not all",
        ] {
            assert!(broken.contains(what), "{what}: {broken}");
        }
        assert!(!broken.contains("layout 1") && report.to_string().contains("1 of 3"), "{broken}");
    }

    #[test]
    fn good_the_table_has_a_line_for_each_figure_and_each_boot() {
        let mut report = report(&seen(&KNOWN, 107_504, 110_179, 5), &seen(&[], 0, 80_000, 4));
        for (column, seconds) in report.columns.values_mut().zip([2.0, 3.0]) {
            column.boots.insert("plain".to_owned(), Ok(seconds));
        }
        let text = report.to_string();
        let line = |what: &str| text.lines().find(|line| line.contains(what)).unwrap_or_default().replace(' ', "");
        assert!(line("runtime root in force").ends_with("|110,179|80,000|"), "{text}");
        assert!(line("CPU 0").ends_with("|107,504|0|"), "{text}");
        assert!(line("boots plain").ends_with("|2.0|3.0|"), "{text}");
        let widths: BTreeSet<_> = text.lines().filter(|line| line.starts_with('|')).map(|line| line.len()).collect();
        assert_eq!(widths.len(), 1, "{text}");
        assert!(
            text.ends_with("Stock breaks 10 rules in functions, all of them as XEN.md has it of 4.17.7."),
            "{text}"
        );
    }

    #[test]
    fn good_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
