//! Holds FINDINGS.md against the images that it is about: each section's command is run, and gives the findings of its
//! table, no more and no less.
//!
//! It fetches packages and takes minutes, so it runs on demand: `cargo test --release -p breakwater-witness --test
//! evidence -- [WORD]`. What the mirrors no longer have is said and passed over.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

const PAGE: &str = include_str!("../../FINDINGS.md");

/// A rule, and the place that the report names.
type Finding = (String, String);

/// An image of the page.
struct Section {
    title: String,
    /// As a reader of the page types it, at the top of the repository.
    command: String,
    findings: BTreeSet<Finding>,
}

/// What became of one.
enum Outcome {
    AsTheyStand(usize),
    /// The mirrors do not have the package, in the command's own words.
    Gone(String),
    Otherwise(String),
}

fn sections(page: &str) -> Vec<Section> {
    let section = |text: &str| {
        let (title, body) = text.split_once('\n')?;
        let command = body.lines().find_map(|line| line.strip_prefix("    "))?;
        let row = |line: &str| {
            let mut quoted = line.strip_prefix("| `")?.split('`');
            Some((quoted.next()?.to_owned(), quoted.nth(1)?.to_owned()))
        };
        let findings = body.lines().filter_map(row).collect();
        Some(Section { title: title.to_owned(), command: command.to_owned(), findings })
    };
    page.split("\n### ").skip(1).filter_map(section).collect()
}

/// The findings of a report.
fn found(report: &str) -> Option<BTreeSet<Finding>> {
    let report: serde_json::Value = serde_json::from_str(report).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let finding = |finding: &serde_json::Value| {
        Some((text(&finding["rule"])?, text(&finding["symbol"]).or_else(|| text(&finding["pc"]))?))
    };
    report["findings"].as_array()?.iter().map(finding).collect()
}

fn run(section: &Section) -> Outcome {
    // The witness is this one, not one that is installed.
    let own = Path::new(env!("CARGO_BIN_EXE_breakwater-witness")).parent().unwrap_or(Path::new("."));
    let others = std::env::var_os("PATH").unwrap_or_default();
    let paths = [own.to_owned()].into_iter().chain(std::env::split_paths(&others));
    let mut command = Command::new("sh");
    command.args(["-c", &section.command]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."));
    let path = std::env::join_paths(paths).expect("each was one of PATH's");
    let output = match command.env("PATH", path).output() {
        Ok(output) => output,
        Err(error) => return Outcome::Otherwise(error.to_string()),
    };
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let Some(found) = said.lines().find_map(|line| line.strip_prefix("WITNESS-REPORT ")).and_then(found) else {
        let last = complained.lines().last().unwrap_or_default().trim();
        let is_gone = ["has the versions", "Debian has no"].iter().any(|words| last.contains(words));
        return if is_gone { Outcome::Gone(last.to_owned()) } else { Outcome::Otherwise(last.to_owned()) };
    };
    let mut otherwise = String::new();
    for (what, findings) in
        [("new", found.difference(&section.findings)), ("gone", section.findings.difference(&found))]
    {
        findings.for_each(|(rule, place)| _ = write!(otherwise, "\n    {what}: {rule} at {place}"));
    }
    if otherwise.is_empty() { Outcome::AsTheyStand(found.len()) } else { Outcome::Otherwise(otherwise) }
}

fn main() -> ExitCode {
    let word = std::env::args().nth(1).unwrap_or_default();
    let sections: Vec<Section> = sections(PAGE).into_iter().filter(|section| section.title.contains(&word)).collect();
    let mut failed = sections.is_empty() || sections.iter().any(|section| section.findings.is_empty());
    if failed {
        eprintln!("FINDINGS.md has no section {word:?}, or one without findings");
    }
    for section in &sections {
        let title = &section.title;
        match run(section) {
            Outcome::AsTheyStand(count) => println!("{title}: {count} findings, as the page has them"),
            Outcome::Gone(why) => println!("{title}: passed over: {why}"),
            Outcome::Otherwise(how) => {
                println!("{title}: NOT as the page has it: {how}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
