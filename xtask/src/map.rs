//! `cargo xtask map`: the final memory map of a boot, as text and as a picture, and what its phases did.
//!
//! A report says it all in a line for programs; what is drawn here is what people ask: what is where, who may do what
//! with it, and which physical memory it is.

use crate::flight::Flight;
use crate::image;
use crate::{paths, setup, ui};
use anyhow::{Context, Result, ensure};
use maud::{Markup, PreEscaped, html};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// `cargo xtask map`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    flight: Flight,
    /// Draw this report, as `cargo xtask boot --json` prints it, and boot nothing
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where the picture goes [default: target/breakwater/map.svg]
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Use this QEMU
    #[arg(long, value_name = "FILE", env = "BREAKWATER_QEMU")]
    qemu: Option<PathBuf>,
    /// Seconds until a boot counts as hung
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
}

/// A mapping of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region {
    name: String,
    va: u64,
    pa: u64,
    bytes: u64,
    memory: String,
}

/// An area of the layout, and what is mapped in it.
struct Area {
    name: String,
    va: u64,
    bytes: u64,
    regions: Vec<Region>,
}

/// Of one name in a row, so many are shown each.
const ALIKE: usize = 4;

/// Runs `map`; of its options some were `given`.
///
/// # Errors
/// There is no report, or it has no map.
pub(crate) fn command(args: &Args, given: &[String]) -> Result<()> {
    let report = match &args.report {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let line = text.lines().find_map(|line| line.strip_prefix("BOOT-REPORT ")).unwrap_or(&text);
            serde_json::from_str(line).with_context(|| format!("{} is no report", file.display()))?
        }
        None => booted(args, given)?,
    };
    let areas = areas(&report)?;
    print!("{}", text(&areas));
    let file = args.svg.clone().unwrap_or_else(|| paths::out().join("map.svg"));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&file, svg(&report)?.into_string()).with_context(|| file.display().to_string())?;
    ui::step("Wrote", &paths::shown(&file));
    Ok(())
}

fn booted(args: &Args, given: &[String]) -> Result<Value> {
    let flight = args.flight.settled(|id| given.iter().any(|given| given == id))?;
    let ready = setup::ready(args.qemu.as_deref())?;
    let image = image::build(&ready.toolchain, &flight.recipe())?;
    let scratch = paths::out().join("map");
    let finished = flight.fly(&ready.qemu, &image.img, &scratch, Duration::from_secs(args.timeout))?;
    Ok(flight.judge(&finished)?)
}

/// The areas of a report in the order of their addresses, with what is mapped there.
fn areas(report: &Value) -> Result<Vec<Area>> {
    let list = |name: &str| report[name].as_array().with_context(|| format!("the report has no {name}"));
    let number = |value: &Value, name: &str| value[name].as_u64().with_context(|| format!("no {name} in the report"));
    let word = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mut areas = Vec::new();
    for area in list("areas")? {
        let (va, bytes) = (number(area, "va")?, number(area, "bytes")?);
        let fits = bytes > 0 && va.checked_add(bytes).is_some();
        ensure!(fits, "area {} at {va:#x} cannot have {bytes} bytes", word(area, "name"));
        areas.push(Area { name: word(area, "name"), va, bytes, regions: Vec::new() });
    }
    for region in list("regions")? {
        let (va, pa, bytes) = (number(region, "va")?, number(region, "pa")?, number(region, "bytes")?);
        let made = Region { name: word(region, "name"), va, pa, bytes, memory: word(region, "memory") };
        let area = areas.iter_mut().find(|area| (area.va..area.va + area.bytes).contains(&va));
        area.with_context(|| format!("{} at {va:#x} is in no area", made.name))?.regions.push(made);
    }
    areas.sort_by_key(|area| area.va);
    areas.iter_mut().for_each(|area| area.regions.sort_by_key(|region| region.va));
    Ok(areas)
}

/// Lines with [`ALIKE`] of each name in a row, and how many more there are.
fn rows(regions: &[Region]) -> Vec<Result<&Region, String>> {
    let mut rows = Vec::new();
    for run in regions.chunk_by(|one, next| one.name == next.name) {
        rows.extend(run.iter().take(ALIKE).map(Ok));
        if run.len() > ALIKE {
            rows.push(Err(format!("{} more: {}", run.len() - ALIKE, run[0].name)));
        }
    }
    rows
}

fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.iter().find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(|| format!("{bytes} B"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// The map as text: by virtual address, then what of physical memory that is.
fn text(areas: &[Area]) -> String {
    let mut text = String::from("by virtual address\n");
    for area in areas {
        let end = area.va + (area.bytes - 1);
        text += &format!("  {:#018x}..{end:#018x} {:<12} {:>8}\n", area.va, area.name, size(area.bytes));
        for row in rows(&area.regions) {
            text += &match row {
                Ok(Region { name, va, pa, bytes, memory }) => {
                    format!("    {va:#018x} -> {pa:#014x} {:>12}  {memory:<16} {name}\n", size(*bytes))
                }
                Err(more) => format!("    {more}\n"),
            };
        }
    }
    text += "by physical address\n";
    for row in rows(&by_pa(areas)) {
        text += &match row {
            Ok(Region { name, va, pa, bytes, memory }) => {
                format!("    {pa:#014x} {:>12}  {memory:<16} {name} at {va:#x}\n", size(*bytes))
            }
            Err(more) => format!("    {more}\n"),
        };
    }
    text
}

fn by_pa(areas: &[Area]) -> Vec<Region> {
    let mut regions: Vec<Region> = areas.iter().flat_map(|area| area.regions.clone()).collect();
    regions.sort_by_key(|region| (region.pa, region.va));
    regions
}

/// What may be done there decides the colour.
fn colour(memory: &str) -> &'static str {
    match memory {
        device if device.contains("device") => "#b8a7d9",
        code if code.starts_with("r-x") => "#8cc6a0",
        read if read.starts_with("r--") => "#9ec3e6",
        _ => "#f0cf8e",
    }
}

const SVG: &str = "http://www.w3.org/2000/svg";
const ROW: usize = 18;
const WIDTH: usize = 1180;
/// Where the column of physical memory begins, and how wide a column is.
const PHYSICAL_AT: usize = 680;
const COLUMN: usize = 500;

/// The map as a picture: virtual on the left, physical on the right, and which is which. Not to scale.
///
/// # Errors
/// The report has no map.
pub(crate) fn svg(report: &Value) -> Result<Markup> {
    let areas = areas(report)?;
    let physical = by_pa(&areas);
    let physical = rows(&physical);
    let mut left = Vec::new();
    let mut at = 2 * ROW;
    for area in &areas {
        left.push((at, Err(format!("{} {:#x}, {}", area.name, area.va, size(area.bytes)))));
        at += ROW;
        for row in rows(&area.regions) {
            left.push((at, row.cloned().map_err(|more| format!("    {more}"))));
            at += ROW;
        }
        at += ROW / 3;
    }
    let right: Vec<_> = physical.into_iter().enumerate().map(|(row, region)| ((row + 2) * ROW, region)).collect();
    let place = |region: &Region| right.iter().find(|(_, other)| *other == Ok(region)).map(|(at, _)| *at);
    let height = at.max((right.len() + 3) * ROW) + 2 * ROW;
    let view = format!("0 0 {WIDTH} {height}");
    let legend = ["r-x normal", "r-- normal", "rw- normal", "device"].into_iter().enumerate();
    let label = |region: &Region, address: u64| {
        format!("{address:#x}  {}  {}  {}", size(region.bytes), region.memory, region.name)
    };
    let boxed = |x: usize, at: usize, region: &Region, text: String| {
        html! {
            rect x=(x) y=(at - 13) width=(COLUMN) height=(ROW - 2) fill=(colour(&region.memory)) {}
            text x=(x + 6) y=(at) { (text) }
        }
    };
    Ok(html! {
        svg xmlns=(SVG) viewBox=(view) width=(WIDTH) height=(height) font-family="monospace" font-size="11" {
            rect width="100%" height="100%" fill="#ffffff" {}
            text x="4" y=(ROW) font-weight="bold" { "virtual (not to scale)" }
            text x=(PHYSICAL_AT) y=(ROW) font-weight="bold" { "physical" }
            @for (at, row) in &left {
                @match row {
                    Ok(region) => {
                        (boxed(4, *at, region, label(region, region.va)))
                        @if let Some(to) = place(region) {
                            @let stroke = colour(&region.memory);
                            line x1=(4 + COLUMN) y1=(at - 5) x2=(PHYSICAL_AT) y2=(to - 5) stroke=(stroke) {}
                        }
                    }
                    Err(words) => text x="4" y=(at) font-weight="bold" { (words) },
                }
            }
            @for (at, row) in &right {
                @match row {
                    Ok(region) => (boxed(PHYSICAL_AT, *at, region, label(region, region.pa))),
                    Err(words) => text x=(PHYSICAL_AT) y=(at) { (words) },
                }
            }
            @for (place, memory) in legend {
                rect x=(4 + place * 110) y=(height - 16) width="12" height="12" fill=(colour(memory)) {}
                text x=(20 + place * 110) y=(height - 6) { (memory) }
            }
        }
    })
}

/// What each phase did, one after the other: as long as its instructions where they were counted, otherwise alike.
///
/// # Errors
/// The report has no phases.
pub(crate) fn phases(report: &Value) -> Result<Markup> {
    let phases = report["phases"].as_array().context("the report has no phases")?;
    ensure!(!phases.is_empty(), "the report has no phases");
    let counted: Option<Vec<u64>> = phases.iter().map(|phase| phase["instructions"].as_u64()).collect();
    let longest = counted.as_ref().and_then(|all| all.iter().max().copied()).unwrap_or(1).max(1);
    // The longest takes a thousand times as long as the shortest: as logarithms both can be seen.
    let length = |index: usize| {
        counted.as_ref().map_or(90, |all| {
            20 + (90 * all[index].saturating_add(1).ilog2() as usize)
                / longest.saturating_add(1).ilog2().max(1) as usize
        })
    };
    let starts = |index: usize| 80 + (0..index).map(length).sum::<usize>();
    let events = ["stores", "tlbis", "dsbs", "isbs", "frames"];
    let width = starts(phases.len()) + 10;
    let height = (events.len() + 4) * ROW;
    let view = format!("0 0 {width} {height}");
    let note = if counted.is_some() { "by instructions, logarithmic" } else { "instructions not counted (--icount)" };
    Ok(html! {
        svg xmlns=(SVG) viewBox=(view) width=(width) height=(height) font-family="monospace" font-size="10" {
            rect width="100%" height="100%" fill="#ffffff" {}
            text x="4" y=(ROW - 4) { "phases, in order: " (note) }
            @for (index, phase) in phases.iter().enumerate() {
                @let (start, length) = (starts(index), length(index));
                rect x=(start) y=(ROW) width=(length - 2) height=(ROW * 2 - 4) fill="#9ec3e6" {}
                text x=(start + 3) y=(ROW * 2 - 4) textLength=(length - 8) lengthAdjust="spacingAndGlyphs" {
                    (phase["name"].as_str().unwrap_or_default())
                }
                @if let Some(count) = phase["instructions"].as_u64() { text x=(start + 3) y=(ROW * 3 - 8) { (count) } }
                @for (row, event) in events.iter().enumerate() {
                    text x=(start + 3) y=((row + 4) * ROW) { (phase[*event].as_u64().unwrap_or_default()) }
                }
            }
            @for (row, event) in events.iter().enumerate() { text x="4" y=((row + 4) * ROW) { (event) } }
        }
    })
}

/// A picture that the witness drew, in a page.
pub(crate) fn drawn(svg: &str) -> Markup {
    PreEscaped(svg.find("<svg").map_or_else(String::new, |start| svg[start..].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn region(name: &str, va: u64, pa: u64, memory: &str) -> Value {
        json!({"name": name, "va": va, "pa": pa, "bytes": 0x1000, "memory": memory})
    }

    fn report(stacks: u64) -> Value {
        let area = |name: &str, va: u64, bytes: u64| json!({"name": name, "va": va, "bytes": bytes});
        let phase = json!({"name": "first", "stores": 3, "tlbis": 1, "dsbs": 2, "isbs": 2, "instructions": null});
        let mut regions = vec![
            region("text & more", 0x20_0000, 0x4020_0000, "r-x normal"),
            region("data", 0x20_1000, 0x4000_0000, "rw- normal"),
        ];
        regions.extend(
            (0..stacks).map(|n| region("CPU stack", 0x1000_0000 + n * 0x2000, 0x4100_0000 + n * 0x1000, "rw- normal")),
        );
        json!({
            "areas": [area("vmap", 0x1000_0000, 0x100_0000), area("image", 0x20_0000, 0x80_0000)],
            "regions": regions,
            "phases": [phase],
        })
    }

    #[test]
    fn good_the_map_comes_by_both_addresses() {
        let text = text(&areas(&report(6)).expect("areas"));
        let wanted = [
            "by virtual address\n  0x0000000000200000..0x00000000009fffff image           8 MiB\n",
            "    0x0000000000200000 -> 0x000040200000        4 KiB  r-x normal       text & more\n",
            "    2 more: CPU stack\nby physical address\n",
            "    0x000040000000        4 KiB  rw- normal       data at 0x201000\n    0x000040200000 ",
        ];
        let mut rest = text.as_str();
        for part in wanted {
            let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("no `{part}` in\n{rest}"));
            rest = after;
        }
    }

    #[test]
    fn good_pictures_escape_names_and_join_both_sides() {
        let svg = svg(&report(1)).expect("a picture").into_string();
        assert!(svg.contains("text &amp; more") && svg.matches("<line").count() == 3, "{svg}");
        assert!(phases(&report(0)).expect("a picture").into_string().contains("not counted"));
    }

    #[test]
    fn bad_a_report_without_a_map_is_named() {
        assert_eq!(areas(&json!({})).err().map(|error| error.to_string()).as_deref(), Some("the report has no areas"));
        let mut lost = report(0);
        lost["areas"] = json!([]);
        assert!(areas(&lost).err().is_some_and(|error| error.to_string().contains("is in no area")));
        for bytes in [0, u64::MAX] {
            let mut odd = report(0);
            odd["areas"][0]["bytes"] = json!(bytes);
            assert!(areas(&odd).err().is_some_and(|error| error.to_string().contains("cannot have")), "{bytes}");
        }
    }
}
