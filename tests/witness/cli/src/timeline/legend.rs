//! Words around the lanes: the title, what each sign means, the boot to scale, the roots, and the rules that were broken.

use super::canvas::{Anchor, Area, Style, colour};
use super::findings::Standing;
use super::lane::Lane;
use super::mark::{counted, grouped};
use super::record::Timeline;
use super::sheet::{LEFT, RIGHT, Sheet};

const LINE: f64 = 15.0;
/// Rules, and roots, that are listed.
const MOST_LISTED: usize = 16;
/// What the axis is.
const AXIS: &str = "Left to right: the order in which events were recorded, the same for all CPUs, not to scale. The numbers below \
                    a lane count that CPU's own instructions.";
const PARTS: &str = "White: around a write of SCTLR_EL2 or TTBR0_EL2, every mark has its own place. Grey: what lies between, \
                     squeezed to the logarithm of its marks. A mark's height: the logarithm of how many it stands for.";

/// The title and what the axis is; where the lanes begin.
pub(super) fn head(sheet: &mut Sheet<'_>, title: &str) -> f64 {
    sheet.canvas.text((10.0, 26.0), Style::new(18).bold(), title);
    let is_empty = sheet.timeline.lanes.iter().all(|lane| lane.started.is_none());
    if is_empty {
        sheet.canvas.text((10.0, 56.0), Style::new(14), "Nothing was recorded: no CPU executed an instruction.");
        return 70.0;
    }
    let style = Style::new(12).coloured(colour::FAINT);
    sheet.canvas.text((10.0, 45.0), style, AXIS);
    sheet.canvas.text((10.0, 60.0), style, PARTS);
    signs(sheet, 68.0) + 14.0
}

/// The signs that no row explains.
fn signs(sheet: &mut Sheet<'_>, top: f64) -> f64 {
    const SIGNS: [(Sign, &str); 8] = [
        (Sign::Area(colour::OFF), "MMU off"),
        (Sign::Area(colour::ROOTS[0]), "MMU on; colour and letter: the root"),
        (Sign::Strip, "WXN"),
        (Sign::Area(colour::ALARM), "W+X: with the MMU on, a leaf is writable and executable"),
        (Sign::Area(colour::ALARM_HELD), "the same, held back by WXN"),
        (Sign::Pointer { is_hollow: false }, "a rule is broken"),
        (Sign::Pointer { is_hollow: true }, "the same, by order of arrival alone"),
        (Sign::Zigzag, "a million instructions or more without a mark"),
    ];
    let style = Style::new(12);
    let (mut x, mut y) = (10.0, top);
    for (sign, text) in SIGNS {
        let width = 24.0 + style.width(text) + 14.0;
        if x + width > RIGHT {
            (x, y) = (10.0, y + LINE + 1.0);
        }
        match sign {
            Sign::Area(fill) => sheet.canvas.area(Area::new(x, y, 18.0, 11.0), fill, ""),
            Sign::Strip => sheet.canvas.area(Area::new(x, y + 7.0, 18.0, 2.5), colour::BLACK, ""),
            Sign::Pointer { is_hollow } => sheet.canvas.pointer((x + 10.0, y + 10.0), colour::ALARM, is_hollow, text),
            Sign::Zigzag => sheet.canvas.zigzag((x + 10.0, y + 5.0), 10.0, text),
        }
        sheet.canvas.text((x + 24.0, y + 10.0), style, text);
        x += width;
    }
    y + LINE
}

/// What stands before a text of the legend.
#[derive(Clone, Copy)]
enum Sign {
    Area(&'static str),
    Strip,
    Pointer { is_hollow: bool },
    Zigzag,
}

/// What stands over a lane.
pub(super) fn of_lane(timeline: &Timeline, cpu: u32, lane: &Lane) -> String {
    let [exposed, held] = lane.exposed();
    let mut text = format!("CPU {cpu}: {}", counted(lane.instructions(), "instruction"));
    text.push_str(&format!(", {} of them W+X", grouped(exposed)));
    if held > 0 {
        text.push_str(&format!(" and {} held back by WXN", grouped(held)));
    }
    let places = timeline.findings.of(cpu).count() as u64;
    if places > 0 {
        text.push_str(&format!(", rules broken at {}", counted(places, "place")));
    }
    if lane.unshown_changes > 0 {
        text.push_str(&format!("; {} later changes of state are not shown", grouped(lane.unshown_changes)));
    }
    text
}

/// What stands below the lanes; where it ends.
pub(super) fn foot(sheet: &mut Sheet<'_>, top: f64) -> f64 {
    if sheet.timeline.lanes.iter().all(|lane| lane.started.is_none()) {
        return top;
    }
    let y = to_scale(sheet, top);
    let y = roots(sheet, y);
    rules(sheet, y)
}

/// Every CPU's instructions once more, to scale.
fn to_scale(sheet: &mut Sheet<'_>, top: f64) -> f64 {
    let longest = sheet.timeline.lanes.iter().map(Lane::instructions).max().unwrap_or(0).max(1);
    let x = |instruction: u64| LEFT + (RIGHT - LEFT) * instruction as f64 / longest as f64;
    let text = format!("To scale: each CPU's instructions from its own first, the axis ends at {}", grouped(longest));
    sheet.canvas.text((10.0, top + 12.0), Style::new(13).bold(), &text);
    let mut y = top + 20.0;
    for (cpu, lane) in sheet.timeline.lanes.iter().enumerate().filter(|(_, lane)| lane.started.is_some()) {
        let style = Style::new(10).anchored(Anchor::End).coloured(colour::FAINT);
        sheet.canvas.text((LEFT - 8.0, y + 9.0), style, &format!("CPU {cpu}"));
        let (mut drawn, mut exposed) = (LEFT, Vec::new());
        for (start, end, state) in lane.states() {
            let (from, to) = (x(start.instruction), x(end.instruction));
            let hover = format!("CPU {cpu}: to instruction {}", grouped(end.instruction));
            // Of what is narrower than a pixel together, only the last is seen; an exposure always is.
            if to - drawn >= 1.0 || end.line == u64::MAX {
                let fill = if state.is_on { sheet.roots.colour(state.ttbr0 & !1) } else { colour::OFF };
                sheet.canvas.area(Area::new(drawn, y, to - drawn, 10.0), fill, &hover);
                drawn = to;
            }
            if state.is_exposed {
                exposed.push((from, to.max(from + 1.0), state.wxn));
            }
        }
        for (from, to, held) in together(exposed) {
            let fill = if held { colour::ALARM_HELD } else { colour::ALARM };
            sheet.canvas.area(Area::new(from, y, to - from, 5.0), fill, "");
        }
        y += 13.0;
    }
    y + 8.0
}

/// Stretches of pixels that touch as one; it is held back by WXN if all of it is.
fn together(stretches: Vec<(f64, f64, bool)>) -> Vec<(f64, f64, bool)> {
    let mut found: Vec<(f64, f64, bool)> = Vec::new();
    for (from, to, held) in stretches {
        match found.last_mut().filter(|last| last.1 - last.0 < 1.5 && from <= last.1) {
            Some(last) => *last = (last.0, to.max(last.1), last.2 && held),
            None => found.push((from, to, held)),
        }
    }
    found
}

fn roots(sheet: &mut Sheet<'_>, top: f64) -> f64 {
    let roots: Vec<u64> = sheet.roots.iter().take(MOST_LISTED).collect();
    let more = sheet.roots.iter().count() - roots.len();
    if roots.is_empty() {
        return top;
    }
    let style = Style::new(12);
    sheet.canvas.text((10.0, top + 11.0), style.bold(), "Roots (TTBR0_EL2):");
    let left = 146.0;
    let (mut x, mut y) = (left, top);
    for root in roots {
        let text = format!("{} = {root:#x}", sheet.roots.letter(root));
        let width = 18.0 + style.width(&text) + 14.0;
        if x + width > RIGHT {
            (x, y) = (left, y + LINE);
        }
        sheet.canvas.area(Area::new(x, y + 1.0, 14.0, 11.0), sheet.roots.colour(root), "");
        sheet.canvas.text((x + 18.0, y + 11.0), style, &text);
        x += width;
    }
    if more > 0 {
        sheet.canvas.text((x, y + 11.0), style, &format!("and {} more", grouped(more as u64)));
    }
    y + LINE + 6.0
}

fn rules(sheet: &mut Sheet<'_>, top: f64) -> f64 {
    let findings = &sheet.timeline.findings;
    let (certain, by_arrival) = (findings.count(Standing::Certain), findings.count(Standing::ByArrival));
    let mut head = match certain {
        0 => "No rule was broken".to_owned(),
        count => format!("Rules broken ({})", counted(count, "finding")),
    };
    if by_arrival > 0 {
        head.push_str(&format!("; {} more rest on the order of arrival alone", grouped(by_arrival)));
    }
    if findings.unplaced > 0 {
        head.push_str(&format!("; {} are too many to have a place above", grouped(findings.unplaced)));
    }
    let style = Style::new(12);
    sheet.canvas.text((10.0, top + 11.0), style.bold(), &head);
    let mut y = top + LINE;
    let mut all: Vec<_> = findings.rules.iter().collect();
    all.sort_by_key(|((standing, _), total)| (*standing, std::cmp::Reverse(total.count)));
    for ((standing, rule), total) in all.iter().take(MOST_LISTED) {
        let (cpu, at) = &total.first;
        let cpus: Vec<String> = total.cpus.iter().map(ToString::to_string).collect();
        let arrival = if *standing == Standing::ByArrival { ", by order of arrival" } else { "" };
        let name = format!("{rule:?} ×{}{arrival}", grouped(total.count));
        let first = if at.is_empty() { String::new() } else { format!(", first at {at} on CPU {cpu}") };
        let rest = format!("({}) on CPU {}{first}. {}", rule.source(), cpus.join(" "), rule.says());
        sheet.canvas.text((24.0, y + 11.0), style.bold().coloured(colour::ALARM), &name);
        sheet.canvas.text((230.0, y + 11.0), style, &rest);
        y += LINE;
    }
    if all.len() > MOST_LISTED {
        sheet.canvas.text((24.0, y + 11.0), style, &format!("and {} rules more", all.len() - MOST_LISTED));
        y += LINE;
    }
    y
}
