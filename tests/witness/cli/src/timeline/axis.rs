//! Where on the picture a line of the trace stands.
//!
//! Why it exists: of a boot of a hundred million instructions, a few dozen are what a person wants to see. So the axis is the order of
//! arrival, the one thing all CPUs share, and it is stretched: next to a change of control every mark has its own place,
//! and what lies between two such scenes takes the logarithm of its marks. What must hold: later is never further left.

use std::collections::BTreeMap;

/// Units that a stretch takes for each doubling of what happens in it; a mark in a scene takes one.
const STRETCH: f64 = 2.0;
/// Units of a stretch in which nothing happens.
const NOTHING: f64 = 0.5;
/// A stretch of less is no interruption of the scene around it.
const SLIGHT: f64 = 0.5;

/// Something that wants room.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Span {
    /// First line.
    pub(super) first: u64,
    /// First line beyond.
    pub(super) end_exclusive: u64,
    /// How much, in units.
    pub(super) weight: f64,
    /// It belongs to a scene.
    pub(super) is_near: bool,
}

/// A part of the axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct AxisPart {
    /// Pixels.
    pub(super) from: f64,
    /// Pixels.
    pub(super) to: f64,
    /// A scene, and no stretch.
    pub(super) is_scene: bool,
}

/// The axis: a line's place, and the parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Axis {
    /// Lines and their pixels, both rising.
    knots: Vec<(u64, f64)>,
    parts: Vec<AxisPart>,
}

/// Between two lines at which a span begins or ends.
#[derive(Clone, Copy)]
struct Interval {
    first: u64,
    end_exclusive: u64,
    weight: f64,
    is_scene: bool,
}

impl Axis {
    /// An axis over `spans`, from pixel `from` to pixel `to`.
    pub(super) fn new(spans: &[Span], from: f64, to: f64) -> Self {
        let mut intervals = intervals(spans);
        for stretch in intervals.chunk_by_mut(|a, b| a.is_scene == b.is_scene).filter(|part| !part[0].is_scene) {
            squeeze(stretch);
        }
        let total: f64 = intervals.iter().map(|interval| interval.weight).sum();
        let unit = if total > 0.0 { (to - from) / total } else { 0.0 };
        let mut axis = Self::default();
        let mut x = from;
        for interval in intervals {
            let next = x + interval.weight * unit;
            axis.knots.push((interval.first, x));
            axis.extend(AxisPart { from: x, to: next, is_scene: interval.is_scene });
            x = next;
            if let Some(last) = axis.knots.last().filter(|knot| knot.0 < interval.end_exclusive).copied() {
                axis.knots.push((interval.end_exclusive.max(last.0), x));
            }
        }
        axis
    }

    fn extend(&mut self, part: AxisPart) {
        match self.parts.last_mut().filter(|last| last.is_scene == part.is_scene) {
            Some(last) => last.to = part.to,
            None => self.parts.push(part),
        }
    }

    /// Scenes and stretches, from left to right.
    pub(super) fn parts(&self) -> &[AxisPart] {
        &self.parts
    }

    /// The pixel at which `line` begins.
    pub(super) fn x(&self, line: u64) -> f64 {
        let next = self.knots.partition_point(|knot| knot.0 <= line);
        let before = next.checked_sub(1).and_then(|index| self.knots.get(index));
        match (before, self.knots.get(next)) {
            (Some((first, left)), Some((end, right))) => {
                let share = (line - first) as f64 / (end - first).max(1) as f64;
                left + (right - left) * share
            }
            (Some((_, x)), None) | (None, Some((_, x))) => *x,
            (None, None) => 0.0,
        }
    }
}

/// What begins or ends on a line.
#[derive(Default)]
struct Edge {
    /// Change of the units a line, of scenes and of the rest.
    near: f64,
    far: f64,
    /// Change of the number of spans that belong to a scene.
    scenes: i64,
}

/// The spans laid over each other. In a scene only its own marks count.
fn intervals(spans: &[Span]) -> Vec<Interval> {
    let mut edges: BTreeMap<u64, Edge> = BTreeMap::new();
    for span in spans.iter().filter(|span| span.end_exclusive > span.first && span.weight.is_finite()) {
        let density = span.weight / (span.end_exclusive - span.first) as f64;
        for (line, sign, step) in [(span.first, 1.0, 1), (span.end_exclusive, -1.0, -1)] {
            let edge = edges.entry(line).or_default();
            if span.is_near {
                edge.near += sign * density;
                edge.scenes += step;
            } else {
                edge.far += sign * density;
            }
        }
    }
    let mut now = Edge::default();
    let mut found = Vec::with_capacity(edges.len());
    for ((first, edge), end_exclusive) in edges.iter().zip(edges.keys().skip(1)) {
        now = Edge { near: now.near + edge.near, far: now.far + edge.far, scenes: now.scenes + edge.scenes };
        let is_scene = now.scenes > 0;
        let density = if is_scene { now.near } else { now.far };
        // What the sum of many small numbers leaves behind is no weight.
        let weight = f64::max(density, 0.0) * (end_exclusive - first) as f64;
        found.push(Interval { first: *first, end_exclusive: *end_exclusive, weight, is_scene });
    }
    found
}

/// Gives a stretch the room that it deserves as a whole.
fn squeeze(stretch: &mut [Interval]) {
    let total: f64 = stretch.iter().map(|interval| interval.weight).sum();
    let deserved = NOTHING + STRETCH * (1.0 + total).log2();
    let lines: f64 = stretch.iter().map(|interval| (interval.end_exclusive - interval.first) as f64).sum();
    for interval in stretch {
        interval.is_scene = total < SLIGHT;
        // A part by what happens, and a small one by what does not, so that no line is without a place.
        let by_lines = (interval.end_exclusive - interval.first) as f64 / lines.max(1.0);
        let by_weight = if total > 0.0 { interval.weight / total } else { by_lines };
        interval.weight = deserved * (0.9 * by_weight + 0.1 * by_lines);
    }
}
