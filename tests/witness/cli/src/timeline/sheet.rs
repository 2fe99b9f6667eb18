//! What everything that draws needs: where the edges are, each root's letter and colour, the states of a lane in their places.

use std::collections::BTreeMap;

use super::axis::Axis;
use super::canvas::{Canvas, colour};
use super::follow::TranslationState;
use super::lane::Lane;
use super::mark::grouped;
use super::record::Timeline;

/// Pixels.
pub(super) const WIDTH: f64 = 1600.0;
pub(super) const LEFT: f64 = 158.0;
pub(super) const RIGHT: f64 = 1580.0;

/// Which letter and colour a root has.
pub(super) struct Roots {
    order: Vec<u64>,
}

impl Roots {
    pub(super) fn of(timeline: &Timeline) -> Self {
        let mut seen = BTreeMap::new();
        for change in timeline.lanes.iter().flat_map(|lane| &lane.changes).filter(|change| change.state.is_on) {
            let line = seen.entry(root(change.state)).or_insert(change.point.line);
            *line = change.point.line.min(*line);
        }
        let mut order: Vec<(u64, u64)> = seen.into_iter().map(|(root, line)| (line, root)).collect();
        order.sort_unstable();
        Self { order: order.into_iter().map(|(_, root)| root).collect() }
    }

    /// The roots from the first in force to the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.order.iter().copied()
    }

    fn index(&self, root: u64) -> usize {
        self.order.iter().position(|one| *one == root).unwrap_or(0)
    }

    /// `A` for the first one; a number from the 27th on.
    pub(super) fn letter(&self, root: u64) -> String {
        let index = self.index(root);
        let letter = u8::try_from(index).ok().filter(|index| *index < 26).map(|index| char::from(b'A' + index));
        letter.map_or_else(|| format!("#{}", index + 1), String::from)
    }

    pub(super) fn colour(&self, root: u64) -> &'static str {
        colour::ROOTS[self.index(root) % colour::ROOTS.len()]
    }
}

/// Where the tables begin: TTBR0_EL2 without CnP.
pub(super) const fn root(state: TranslationState) -> u64 {
    state.ttbr0 & !1
}

/// A state in its place.
pub(super) struct LaneSegment {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) state: TranslationState,
    /// In words: from which instruction to which.
    pub(super) when: String,
}

/// The states of `lane`; those too short for `column` pixels are one, which is exposed if one of them is.
pub(super) fn segments(axis: &Axis, lane: &Lane, column: f64) -> Vec<LaneSegment> {
    let mut segments: Vec<(LaneSegment, u64, u64)> = Vec::new();
    for (index, (start, end, state)) in lane.states().into_iter().enumerate() {
        // A state begins behind the instruction that makes it, but for the first.
        let from = axis.x(start.line.saturating_add(u64::from(index > 0)));
        let to = if end.line == u64::MAX { RIGHT } else { axis.x(end.line.saturating_add(1)) };
        match segments.last_mut().filter(|(last, ..)| last.to - last.from < column) {
            Some((last, _, until)) => {
                let is_exposed = last.state.is_exposed || state.is_exposed;
                last.to = to;
                last.state = TranslationState { is_exposed, wxn: last.state.wxn && state.wxn, ..state };
                *until = end.instruction;
            }
            None => segments.push((
                LaneSegment { from, to, state, when: String::new() },
                start.instruction,
                end.instruction,
            )),
        }
    }
    let in_words = |(mut segment, first, last): (LaneSegment, u64, u64)| {
        segment.when = format!("after instruction {} to {}", grouped(first), grouped(last));
        segment
    };
    segments.into_iter().map(in_words).collect()
}

/// What everything that draws needs.
pub(super) struct Sheet<'a> {
    pub(super) timeline: &'a Timeline,
    pub(super) axis: Axis,
    pub(super) roots: Roots,
    pub(super) canvas: Canvas,
    /// Pixels that the narrowest mark takes.
    pub(super) column: f64,
}
