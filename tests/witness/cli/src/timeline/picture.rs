//! The picture as a whole: where everything stands, and each CPU's lane.

use super::axis::{Axis, Span};
use super::canvas::{Anchor, Area, Canvas, Style, colour};
use super::label::Labels;
use super::lane::Lane;
use super::mark::{MarkKind, Run, grouped};
use super::record::Timeline;
use super::sheet::{LEFT, LaneSegment, RIGHT, Roots, Sheet, WIDTH, root, segments};
use super::{legend, row};

const ROW: f64 = 12.0;
const STATE: f64 = 16.0;
/// Instructions without a mark that are worth saying.
pub(super) const IDLE: u64 = 1_000_000;

/// Draws `timeline`.
pub(super) fn draw(timeline: &Timeline, title: &str) -> String {
    let axis = Axis::new(&spans(timeline), LEFT, RIGHT);
    let column = row::column(timeline, &axis);
    let mut sheet = Sheet { timeline, axis, roots: Roots::of(timeline), canvas: Canvas::new(), column };
    let mut y = legend::head(&mut sheet, title);
    for (cpu, lane) in timeline.lanes.iter().enumerate().filter(|(_, lane)| lane.started.is_some()) {
        y = sheet.lane(cpu as u32, lane, y);
    }
    y = legend::foot(&mut sheet, y);
    sheet.canvas.finish(WIDTH, y + 12.0)
}

/// What wants room on the axis.
fn spans(timeline: &Timeline) -> Vec<Span> {
    let mut spans = Vec::new();
    for lane in &timeline.lanes {
        spans.extend(lane.runs().map(of_run));
        let near =
            |line: u64, weight| Span { first: line, end_exclusive: line.saturating_add(1), weight, is_near: true };
        spans.extend(lane.started.map(|point| near(point.line, 2.0)));
        let anchors = lane.anchors();
        let idle = anchors.windows(2).filter(|pair| pair[1].instruction.saturating_sub(pair[0].instruction) >= IDLE);
        spans.extend(idle.filter(|pair| pair[1].line > pair[0].line).map(|pair| Span {
            first: pair[0].line,
            end_exclusive: pair[1].line,
            weight: 2.0,
            is_near: false,
        }));
    }
    let places = timeline.findings.places.len();
    spans.extend(timeline.findings.places.keys().map(|(_, line)| Span {
        first: *line,
        end_exclusive: line.saturating_add(1),
        weight: 2.0,
        is_near: places <= 64,
    }));
    let end = timeline.last_line;
    spans.push(Span { first: end, end_exclusive: end.saturating_add(1), weight: 1.0, is_near: false });
    spans
}

fn of_run(run: &Run) -> Span {
    let doublings = (run.count as f64).log2();
    let weight = if run.is_near { 1.0 + doublings / 4.0 } else { run.kind.worth() * (1.0 + doublings) };
    Span { first: run.first.line, end_exclusive: run.line_end_exclusive(), weight, is_near: run.is_near }
}

impl Sheet<'_> {
    /// The lane of `cpu` from `top` on; where the next one begins.
    fn lane(&mut self, cpu: u32, lane: &Lane, top: f64) -> f64 {
        let text = legend::of_lane(self.timeline, cpu, lane);
        self.canvas.text((10.0, top + 12.0), Style::new(13).bold(), &text);
        let labels = Labels::of(self, cpu);
        let state_top = top + 20.0 + labels.height();
        let is_exposed = lane.changes.iter().any(|change| change.state.is_exposed);
        let has = |kind: &MarkKind| lane.runs().any(|run| run.kind == *kind);
        let rows: Vec<MarkKind> = MarkKind::ALL.into_iter().filter(has).collect();
        let rows_top = state_top + STATE + 3.0 + if is_exposed { ROW } else { 0.0 };
        let bottom = rows_top + ROW * rows.len() as f64;
        self.background(lane, state_top, bottom);
        labels.draw_behind(self, state_top, bottom);
        self.states(lane, state_top);
        if is_exposed {
            self.exposures(lane, state_top + STATE + 2.0);
        }
        for (index, kind) in rows.into_iter().enumerate() {
            row::draw(self, lane, kind, rows_top + ROW * index as f64);
        }
        self.ruler(lane, bottom);
        self.idle(lane, bottom + 1.0);
        labels.draw(self, state_top, bottom);
        bottom + 32.0
    }

    fn background(&mut self, lane: &Lane, top: f64, bottom: f64) {
        let start = lane.started.map_or(LEFT, |point| self.axis.x(point.line));
        let stretches: Vec<_> = self.axis.parts().iter().filter(|part| !part.is_scene && part.to > start).collect();
        for part in stretches {
            let from = part.from.max(start);
            self.canvas.area(Area::new(from, top, part.to - from, bottom - top), colour::STRETCH, "");
        }
    }

    fn row_name(&mut self, top: f64, name: &str) {
        let style = Style::new(10).anchored(Anchor::End).coloured(colour::FAINT);
        self.canvas.text((LEFT - 8.0, top + 9.0), style, name);
    }

    fn states(&mut self, lane: &Lane, top: f64) {
        self.row_name(top + 3.0, "MMU, root");
        for LaneSegment { from, to, state, when } in segments(&self.axis, lane, self.column) {
            let letter = self.roots.letter(root(state));
            let wxn = if state.wxn { ", WXN" } else { "" };
            let (fill, long, short) = if state.is_on {
                (self.roots.colour(root(state)), format!("on, root {letter}{wxn}"), letter)
            } else {
                (colour::OFF, "MMU off".to_owned(), "off".to_owned())
            };
            let hover = if state.is_on {
                format!("MMU on{wxn}, TTBR0_EL2 {:#x}, {when}", state.ttbr0)
            } else {
                format!("MMU off, {when}")
            };
            self.canvas.area(Area::new(from, top, to - from, STATE), fill, &hover);
            if state.is_on && state.wxn {
                self.canvas.area(Area::new(from, top + STATE - 2.5, to - from, 2.5), colour::BLACK, &hover);
            }
            let style = Style::new(11).anchored(Anchor::Middle);
            let fits = [long, short].into_iter().find(|text| style.width(text) + 4.0 < to - from);
            if let Some(text) = fits {
                self.canvas.text((f64::midpoint(from, to), top + 11.0), style, &text);
            }
        }
    }

    fn exposures(&mut self, lane: &Lane, top: f64) {
        self.row_name(top, "W+X");
        let exposed = segments(&self.axis, lane, self.column).into_iter().filter(|segment| segment.state.is_exposed);
        for LaneSegment { from, to, state, when } in exposed {
            let (fill, held) = if state.wxn { (colour::ALARM_HELD, ", held back by WXN") } else { (colour::ALARM, "") };
            let hover = format!("a leaf is writable and executable{held}, {when}");
            self.canvas.area(Area::new(from, top, to - from, ROW - 3.0), fill, &hover);
        }
    }

    /// Where many instructions left no mark.
    fn idle(&mut self, lane: &Lane, middle: f64) {
        let mut last = f64::NEG_INFINITY;
        for pair in lane.anchors().windows(2) {
            let executed = pair[1].instruction.saturating_sub(pair[0].instruction);
            let x = f64::midpoint(self.axis.x(pair[0].line), self.axis.x(pair[1].line));
            if executed >= IDLE && x - last > 24.0 {
                self.canvas.zigzag((x, middle), 9.0, &format!("{} instructions without a mark", grouped(executed)));
                last = x;
            }
        }
    }

    /// The CPU's own instructions below its lane.
    fn ruler(&mut self, lane: &Lane, top: f64) {
        let start = lane.started.map_or(LEFT, |point| self.axis.x(point.line));
        self.canvas.line((start, top + 1.0), (RIGHT, top + 1.0), colour::RULE, 1.0);
        let style = Style::new(9).anchored(Anchor::Middle).coloured(colour::FAINT);
        let changes = lane.changes.iter().map(|change| change.point);
        let wanted = lane.started.into_iter().chain(changes).chain(lane.anchors());
        let mut taken: Vec<(f64, f64)> = Vec::new();
        for point in wanted {
            let (x, text) = (self.axis.x(point.line), grouped(point.instruction));
            let half = style.width(&text) / 2.0 + 5.0;
            if taken.iter().any(|(at, other)| (at - x).abs() < half + other) {
                continue;
            }
            taken.push((x, half));
            self.canvas.line((x, top + 1.0), (x, top + 5.0), colour::FAINT, 1.0);
            let beyond = (x + half - 5.0 - RIGHT - 16.0).max(0.0);
            self.canvas.text((x - beyond, top + 15.0), style, &text);
        }
        self.canvas.text((LEFT - 8.0, top + 15.0), style.anchored(Anchor::End), "instruction");
    }
}
