//! One row of marks.

use super::axis::Axis;
use super::canvas::{Anchor, Area, Style, colour};
use super::lane::Lane;
use super::mark::{MarkKind, Run};
use super::record::Timeline;
use super::sheet::{LEFT, RIGHT, Sheet, segments};

/// Marks in the whole picture: a file of this many stays below two megabytes.
const MOST_MARKS: usize = 8_000;
/// Pixels of the narrowest mark, where there is room.
const NARROWEST: f64 = 1.5;
/// Pixels of a row that marks may take.
const TALLEST: f64 = 10.0;

/// A run in its place.
struct Mark {
    first_column: u64,
    end_column: u64,
    run: Run,
}

/// The marks of one kind, merged where they would cover each other.
fn marks(axis: &Axis, lane: &Lane, kind: MarkKind, column: f64) -> Vec<Mark> {
    let mut runs: Vec<&Run> = lane.runs().filter(|run| run.kind == kind).collect();
    runs.sort_by_key(|run| run.first.line);
    let mut marks: Vec<Mark> = Vec::new();
    for run in runs {
        let at = |line| f64::max(axis.x(line) - LEFT, 0.0) / column;
        let first_column = at(run.first.line) as u64;
        let end_column = (at(run.line_end_exclusive()) as u64).max(first_column + 1);
        match marks.last_mut().filter(|last| first_column < last.end_column) {
            Some(last) => {
                last.run.absorb(run);
                last.end_column = last.end_column.max(end_column);
            }
            None => marks.push(Mark { first_column, end_column, run: run.clone() }),
        }
    }
    marks
}

/// How many pixels a mark takes so that there are not too many.
pub(super) fn column(timeline: &Timeline, axis: &Axis) -> f64 {
    let mut column = NARROWEST;
    loop {
        let of_lane = |lane| MarkKind::ALL.into_iter().map(move |kind| marks(axis, lane, kind, column).len());
        let states: usize = timeline.lanes.iter().map(|lane| segments(axis, lane, column).len()).sum();
        // The states stand in the picture twice, and they say much.
        let all = timeline.lanes.iter().flat_map(of_lane).sum::<usize>() + 3 * states;
        if all <= MOST_MARKS || column > RIGHT - LEFT {
            return column;
        }
        column *= 2.0;
    }
}

pub(super) const fn colour_of(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Control => colour::INK,
        MarkKind::Fill => colour::SKY,
        MarkKind::Store => colour::BLUE,
        MarkKind::Break | MarkKind::Exception => colour::ORANGE,
        MarkKind::Tlbi => colour::PURPLE,
        MarkKind::Dsb => colour::BLACK,
        MarkKind::Isb | MarkKind::Call => colour::FAINT,
        MarkKind::Dc | MarkKind::Ic => colour::GREEN,
    }
}

/// Draws the row of `kind`.
pub(super) fn draw(sheet: &mut Sheet<'_>, lane: &Lane, kind: MarkKind, top: f64) {
    let style = Style::new(10).anchored(Anchor::End).coloured(colour::FAINT);
    sheet.canvas.text((LEFT - 8.0, top + 9.5), style, kind.name());
    for Mark { first_column, end_column, run } in marks(&sheet.axis, lane, kind, sheet.column) {
        // Every factor of ten is a step.
        let height = (5.0 + (run.count as f64).log10()).min(TALLEST);
        let x = LEFT + first_column as f64 * sheet.column;
        let width = ((end_column - first_column) as f64 * sheet.column - 0.5).min(RIGHT - x);
        let area = Area::new(x, top + 11.0 - height, width, height);
        sheet.canvas.area(area, colour_of(kind), &run.to_string());
    }
}
