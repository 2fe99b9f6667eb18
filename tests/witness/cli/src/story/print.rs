//! The table in words and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write;

use breakwater_oracle::policy::Policy;
use serde_json::{Value, json};

use super::row::{Column, Flagged, Row, stretches};

/// Stretches of page offsets that are told in words; JSON has them all.
const SHOWN: usize = 6;

/// Column headings, and how wide each column is.
fn headings() -> impl Iterator<Item = (Policy, &'static str, usize)> {
    let widest = "512/512".len();
    Policy::ALL.iter().map(move |policy| (*policy, policy.name(), policy.name().len().max(widest) + 2))
}

/// The table, and below it what is behind each figure. Cores that chance plays a part in booted `boots` times.
pub(super) fn text(rows: &[Row], boots: u64) -> String {
    let mut text = format!(
        "The Xen story: what the rules flag, and at how many of the page offsets of the image within 2 MiB that were tried\n\
         a boot would have crashed, by kind of core; those that chance plays a part in boot {boots} times at each.\n\n"
    );
    let title = rows.iter().map(|row| row.program.title.len()).max().unwrap_or_default();
    let flags = rows.iter().map(|row| row.flags().len()).max().unwrap_or_default().max("flagged".len());
    let _ = write!(text, "{:title$}  {:flags$}", "", "flagged");
    headings().for_each(|(_, name, width)| text += &format!("{name:>width$}"));
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{:title$}  {:flags$}", row.program.title, row.flags());
        for (policy, _, width) in headings() {
            let crashing = row.columns.get(&policy).map_or(0, |column| column.pages.len());
            let _ = write!(text, "{:>width$}", format!("{crashing}/{}", row.offsets));
        }
        text.push('\n');
    }
    rows.iter().for_each(|row| text += &details(row));
    text
}

fn details(row: &Row) -> String {
    let Row { program, offsets, events, .. } = row;
    let mut text = format!("\n{}: {offsets} page offsets, {events} events\n", program.title);
    for ((flag, _), Flagged { rule, offsets, page, evidence }) in &row.flagged {
        let _ = writeln!(text, "  {}: at {offsets} page offsets, {rule:?}; the first, page {page}:", flag.name());
        evidence.lines().for_each(|line| text += &format!("    {line}\n"));
    }
    for (policy, Column { crashed, tried, pages, first }) in &row.columns {
        let Some((page, crash)) = first else { continue };
        let name = policy.name();
        let _ = write!(text, "  {name}: {crashed} of {tried} boots crash, at page ");
        let _ = writeln!(text, "{}\n    the first: page {page}, {crash}", in_words(pages));
    }
    if row.columns.values().all(|column| column.crashed == 0) {
        let tried: u64 = row.columns.values().map(|column| column.tried).sum();
        let _ = writeln!(text, "  none of {tried} boots on any kind of core crashes");
    }
    text
}

/// `0-3, 7 and 2 more stretches`.
fn in_words(pages: &BTreeSet<u16>) -> String {
    let all = stretches(pages);
    let spelled =
        |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let mut text = all.iter().take(SHOWN).map(spelled).collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN {
        let _ = write!(text, " and {} more stretches", all.len() - SHOWN);
    }
    text
}

/// All of it for a machine to read.
pub(super) fn json(rows: &[Row], boots: u64) -> Value {
    json!({
        "version": 1,
        "boots": boots,
        "rows": rows.iter().map(row_json).collect::<Vec<_>>(),
    })
}

fn row_json(row: &Row) -> Value {
    let flagged = row.flagged.iter().map(|((flag, _), flagged)| {
        json!({
            "what": flag.name(),
            "rule": format!("{:?}", flagged.rule),
            "arm": flagged.rule.arm(),
            "offsets": flagged.offsets,
            "first_page": flagged.page,
            "evidence": flagged.evidence,
        })
    });
    let policies = row.columns.iter().map(|(policy, column)| {
        json!({
            "name": policy.name(),
            "offsets": column.pages.len(),
            "boots": column.tried,
            "crashed": column.crashed,
            "pages": stretches(&column.pages),
            "first": column.first.as_ref().map(|(page, crash)| json!({
                "page": page, "line": crash.line, "pe": crash.pe, "va": format!("{:#x}", crash.va), "what": crash.what,
            })),
        })
    });
    json!({
        "row": row.program.letter.to_string(),
        "title": row.program.title,
        "cpus": row.program.cpus,
        "offsets": row.offsets,
        "events": row.events,
        "flagged": flagged.collect::<Vec<_>>(),
        "expected": row.program.expected.iter().map(|flag| flag.name()).collect::<Vec<_>>(),
        "as_expected": row.wrong().is_none(),
        "policies": policies.collect::<Vec<_>>(),
    })
}
