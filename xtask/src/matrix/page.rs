//! The page of a matrix: a grid to see it all at once, what each flight said, and pictures. One file, which needs
//! nothing else.

use super::Flown;
use crate::map;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;
use std::time::Duration;

const STYLE: &str = "body{font:14px sans-serif;margin:2em;max-width:1250px}table{border-collapse:collapse}
td,th{padding:2px 8px;text-align:left;vertical-align:top}.grid a{display:inline-block;width:14px;height:14px;margin:1px;
border-radius:2px}.ok{background:#63b37c}.bad{background:#d4504c}pre{background:#f4f4f4;padding:8px;overflow:auto;
max-height:40em}code{background:#f4f4f4;padding:1px 4px}.why{color:#a02020;white-space:pre-wrap}";

/// Else a click on a square leads to something closed.
const OPEN: &str = "const open=()=>{const told=document.querySelector(location.hash||'#none');if(told)told.open=true};
onhashchange=open;open()";

/// The page.
pub(super) fn of(flown: &[Flown], took: Duration) -> String {
    // A row for each machine and loader, as their flights came.
    let mut rows: BTreeMap<(String, String), Vec<(usize, &Flown)>> = BTreeMap::new();
    for (number, one) in flown.iter().enumerate() {
        rows.entry(one.flight.row()).or_default().push((number, one));
    }
    let failed: Vec<(usize, &Flown)> = flown.iter().enumerate().filter(|(_, one)| one.outcome.is_err()).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { "Breakwater flights" } style { (PreEscaped(STYLE)) } }
            body {
                h1 { (flown.len() - failed.len()) " passed, " (failed.len()) " failed" }
                p { (flown.len()) " flights in " (took.as_secs()) " s. Each square is one: point at it for its name, "
                    "click for what it said." }
                table class="grid" {
                    tr { th { "machine" } th { "loader" } th { "flights" } th {} }
                    @for ((board, loader), row) in &rows {
                        tr {
                            td { (board) } td { (loader) } td { (row.len()) }
                            td { @for (number, one) in row {
                                a class=(standing(one)) href=(format!("#flight-{number}")) title=(one.flight.name()) {}
                            } }
                        }
                    }
                }
                @if !failed.is_empty() {
                    h2 { "Failed" }
                    @for (number, one) in &failed { (told(*number, one, true)) }
                }
                h2 { "Memory map and timeline, of the first that passed in each row" }
                @for ((board, loader), row) in &rows {
                    @if let Some((_, one)) = row.iter().find(|(_, one)| one.outcome.is_ok()) {
                        details { summary { (board) " by " (loader) ": " (one.flight.name()) } (pictures(one)) }
                    }
                }
                h2 { "What they said" }
                @for (number, one) in flown.iter().enumerate().filter(|(_, one)| one.outcome.is_ok()) {
                    (told(number, one, false))
                }
                script { (PreEscaped(OPEN)) }
            }
        }
    };
    page.into_string()
}

const fn standing(one: &Flown) -> &'static str {
    if one.outcome.is_ok() { "ok" } else { "bad" }
}

fn told(number: usize, one: &Flown, open: bool) -> Markup {
    html! {
        details id=(format!("flight-{number}")) open[open] {
            summary { (one.flight.name()) " (" (format!("{:.1}", one.took.as_secs_f64())) " s)" }
            @if let Err(why) = &one.outcome { p class="why" { (why) } }
            p { "Repeat by " code { (one.line) } }
            @if open { (pictures(one)) }
            pre { (one.log) }
        }
    }
}

fn pictures(one: &Flown) -> Markup {
    let report = one.report.as_ref();
    html! {
        @if let Some(svg) = &one.timeline { (map::drawn(svg)) }
        @else if let Some(Ok(svg)) = report.map(map::phases) { (svg) }
        @if let Some(Ok(svg)) = report.map(map::svg) { (svg) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Flight;
    use serde_json::json;

    fn flown(outcome: Result<(), String>) -> Flown {
        let report = json!({"areas": [], "regions": [], "phases": []});
        Flown {
            flight: Flight::default(),
            line: "cargo xtask boot --smp 8".to_owned(),
            took: Duration::from_secs(1),
            outcome,
            log: "said <this>".to_owned(),
            report: Some(report),
            timeline: None,
        }
    }

    #[test]
    fn good_a_failure_comes_first_with_its_line_and_what_it_said() {
        let page = of(&[flown(Ok(())), flown(Err("hang: no end & no report".to_owned()))], Duration::from_secs(2));
        assert!(page.contains("<h1>1 passed, 1 failed</h1>"), "{page}");
        let (before, after) = page.split_once("hang: no end &amp; no report").expect("it says why");
        assert!(before.contains("class=\"bad\" href=\"#flight-1\"") && after.contains("--smp 8"), "{page}");
        assert!(page.contains("said &lt;this&gt;") && !page.contains("http-equiv"), "{page}");
        let elsewhere = page.matches("http").count() - page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(elsewhere, 0, "the page needs nothing from elsewhere");
    }
}
