//! What breaks a rule, over and through a lane: a pointer at each place, and words where there is room for them.

use super::canvas::{Anchor, Area, Style, colour};
use super::findings::{self, BrokenAt, Rules, Standing};
use super::mark::{counted, grouped};
use super::sheet::{RIGHT, Sheet};

const STYLE: Style = Style::new(11).bold().coloured(colour::ALARM);
/// Pixels of a row of labels.
const LABEL: f64 = 14.0;
/// Rows of labels above a lane.
const MOST_LEVELS: usize = 6;
/// Rules that a label names.
const MOST_NAMED: usize = 3;
/// Places closer to each other than this share a label.
const TOGETHER: f64 = 16.0;
/// Pointers closer to each other than this are one.
const POINTER: f64 = 9.0;
/// Letters of what one pointer says to who hovers over it.
const MOST_HOVER: usize = 400;

/// A pointer: where, whether nothing of it is certain, and what it says.
struct Pointer {
    x: f64,
    is_hollow: bool,
    hover: String,
}

/// Places that share a label.
struct Cluster {
    pointers: Vec<Pointer>,
    /// The last place.
    to: f64,
    places: usize,
    rules: Rules,
    level: Option<usize>,
}

impl Cluster {
    fn from(&self) -> f64 {
        self.pointers.first().map_or(self.to, |pointer| pointer.x)
    }

    fn text(&self) -> String {
        let rules = findings::in_words(&self.rules, MOST_NAMED);
        if self.places > 1 { format!("{rules}, at {}", counted(self.places as u64, "place")) } else { rules }
    }

    fn add(&mut self, x: f64, line: u64, place: &BrokenAt) {
        self.to = x;
        self.places += 1;
        for (rule, count) in &place.rules {
            *self.rules.entry(*rule).or_default() += count;
        }
        let is_hollow = place.rules.keys().all(|(standing, _)| *standing == Standing::ByArrival);
        let rules = findings::in_words(&place.rules, usize::MAX);
        let at = if place.at.is_empty() { String::new() } else { format!(" at {}", place.at) };
        let hover = format!("{rules}{at}, line {} of the trace; missing: {}", grouped(line), place.missing);
        match self.pointers.last_mut().filter(|last| x - last.x < POINTER) {
            Some(last) => {
                last.is_hollow &= is_hollow;
                if last.hover.len() < MOST_HOVER {
                    last.hover = format!("{}; {hover}", last.hover);
                }
            }
            None => self.pointers.push(Pointer { x, is_hollow, hover }),
        }
    }

    /// Where the words begin or end: beside the first place, or before the last where the picture ends.
    fn anchor(&self) -> (f64, Anchor) {
        if self.from() + STYLE.width(&self.text()) + 8.0 > RIGHT {
            (self.to - 4.0, Anchor::End)
        } else {
            (self.from() + 4.0, Anchor::Start)
        }
    }

    /// From where to where the words stand.
    fn extent(&self) -> (f64, f64) {
        let width = STYLE.width(&self.text());
        match self.anchor() {
            (x, Anchor::End) => (x - width, x),
            (x, _) => (x, x + width),
        }
    }
}

/// The labels over one lane, so placed that none covers another.
pub(super) struct Labels {
    clusters: Vec<Cluster>,
    levels: usize,
}

impl Labels {
    pub(super) fn of(sheet: &Sheet<'_>, cpu: u32) -> Self {
        let mut clusters: Vec<Cluster> = Vec::new();
        for (line, place) in sheet.timeline.findings.of(cpu) {
            let x = f64::midpoint(sheet.axis.x(line), sheet.axis.x(line.saturating_add(1)));
            if clusters.last().is_none_or(|last| x - last.to >= TOGETHER) {
                clusters.push(Cluster { pointers: Vec::new(), to: x, places: 0, rules: Rules::new(), level: None });
            }
            if let Some(cluster) = clusters.last_mut() {
                cluster.add(x, line, place);
            }
        }
        let levels = arrange(&mut clusters);
        Self { clusters, levels }
    }

    /// Pixels that they need.
    pub(super) fn height(&self) -> f64 {
        if self.clusters.is_empty() { 0.0 } else { LABEL * self.levels as f64 + 9.0 }
    }

    /// Draws what stands behind the marks.
    pub(super) fn draw_behind(&self, sheet: &mut Sheet<'_>, top: f64, bottom: f64) {
        for cluster in &self.clusters {
            let (from, to) = (cluster.from() - 1.5, cluster.to + 1.5);
            sheet.canvas.area(Area::new(from, top, to - from, bottom - top), colour::ALARM_FAINT, "");
        }
    }

    /// Draws the rest, over a lane whose state begins at `top`.
    pub(super) fn draw(&self, sheet: &mut Sheet<'_>, top: f64, bottom: f64) {
        for cluster in &self.clusters {
            let first = cluster.level.map_or(top - 9.0, |level| baseline(top, level) + 2.0);
            let (_, anchor) = cluster.anchor();
            let line = if anchor == Anchor::End { cluster.to } else { cluster.from() };
            sheet.canvas.line((line, first - 10.0), (line, top), colour::ALARM, 1.0);
            for x in [cluster.from(), cluster.to] {
                sheet.canvas.line((x, top), (x, bottom), colour::ALARM, 0.8);
            }
            for Pointer { x, is_hollow, hover } in &cluster.pointers {
                sheet.canvas.pointer((*x, top), colour::ALARM, *is_hollow, hover);
            }
        }
        for cluster in &self.clusters {
            let Some(level) = cluster.level else { continue };
            let (from, to) = cluster.extent();
            let y = baseline(top, level);
            sheet.canvas.area(Area::new(from - 1.0, y - 10.0, to - from + 2.0, 13.0), "#ffffff", "");
            let (x, anchor) = cluster.anchor();
            sheet.canvas.text((x, y), STYLE.anchored(anchor), &cluster.text());
        }
    }
}

fn baseline(top: f64, level: usize) -> f64 {
    top - 12.0 - LABEL * level as f64
}

/// Gives each label the lowest level on which it is free; how many levels there are.
fn arrange(clusters: &mut [Cluster]) -> usize {
    let mut taken: Vec<Vec<(f64, f64)>> = Vec::new();
    for cluster in clusters.iter_mut().rev() {
        let (from, to) = cluster.extent();
        let is_free = |level: &Vec<(f64, f64)>| level.iter().all(|(a, b)| to + 8.0 < *a || *b + 8.0 < from);
        let level = taken.iter().position(is_free).unwrap_or(taken.len());
        if level >= MOST_LEVELS {
            continue;
        }
        if level == taken.len() {
            taken.push(Vec::new());
        }
        taken[level].push((from, to));
        cluster.level = Some(level);
    }
    taken.len()
}
