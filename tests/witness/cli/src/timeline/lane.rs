//! One CPU: its marks, and what it translated by from when to when.

use super::follow::TranslationState;
use super::mark::{Point, Run, Runs};

/// Changes of state of one CPU that are shown; those beyond are counted.
const MOST_CHANGES: usize = 1024;

/// From this moment on the CPU translates so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StateSince {
    /// The instruction after which it holds.
    pub(super) point: Point,
    /// What.
    pub(super) state: TranslationState,
}

/// One CPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// Its first event.
    pub(super) started: Option<Point>,
    /// Its last event so far.
    pub(super) last: Point,
    /// How many instructions it executed, where the recording says so.
    total: Option<u64>,
    pub(super) marks: Runs,
    pub(super) fills: Runs,
    pub(super) changes: Vec<StateSince>,
    pub(super) unshown_changes: u64,
    state: TranslationState,
    /// Another CPU changed the tables: in force here from the next event on, at the latest.
    pending: Option<TranslationState>,
    /// Instructions with M = 1 and a writable and executable leaf: with WXN clear, and with WXN set.
    exposed: [u64; 2],
    since: u64,
}

impl Lane {
    /// An event of this CPU, which has executed `point.instruction` instructions with it.
    pub(super) fn arrive(&mut self, point: Point) {
        self.started.get_or_insert(point);
        self.last = point;
        if let Some(state) = self.pending.take() {
            self.change(point, state);
        }
    }

    /// The state after this CPU's own event at `point`.
    pub(super) fn change(&mut self, point: Point, state: TranslationState) {
        if state == self.state {
            return;
        }
        self.account(point.instruction);
        self.state = state;
        let count = self.changes.len();
        match self.changes.last_mut() {
            Some(last) if last.point.instruction == point.instruction => last.state = state,
            _ if count < MOST_CHANGES => self.changes.push(StateSince { point, state }),
            _ => self.unshown_changes += 1,
        }
    }

    /// The state after another CPU's event on `line`. When this one noticed is not known: the worst counts.
    pub(super) fn change_from_outside(&mut self, line: u64, state: TranslationState) {
        if self.started.is_none() || state == self.state {
            self.pending = None;
        } else if state.is_exposed {
            self.change(Point { line, ..self.last }, state);
        } else {
            self.pending = Some(state);
        }
    }

    fn account(&mut self, instruction: u64) {
        let executed = instruction.saturating_sub(self.since);
        if self.state.is_exposed {
            self.exposed[usize::from(self.state.wxn)] += executed;
        }
        self.since = self.since.max(instruction);
    }

    /// The recording ended, after this many instructions of this CPU.
    pub(super) fn finish(&mut self, instructions: u64) {
        self.account(instructions);
        self.total = Some(instructions);
    }

    /// Instructions, as far as they are known.
    pub(super) fn instructions(&self) -> u64 {
        self.total.unwrap_or(0).max(self.last.instruction)
    }

    /// Instructions with M = 1 and a writable and executable leaf: with WXN clear, and with WXN set.
    pub(super) const fn exposed(&self) -> [u64; 2] {
        self.exposed
    }

    /// All runs.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.marks.as_slice().iter().chain(self.fills.as_slice())
    }

    /// What this CPU translated by, and the moments from which and to which: the last lasts to the end. With the MMU off, nothing
    /// else matters.
    pub(super) fn states(&self) -> Vec<(Point, Point, TranslationState)> {
        let Some(start) = self.started else { return Vec::new() };
        let first = StateSince { point: start, state: TranslationState::default() };
        let mut all: Vec<StateSince> = [first].into_iter().chain(self.changes.iter().copied()).collect();
        for change in all.iter_mut().filter(|change| !change.state.is_on) {
            change.state = TranslationState::default();
        }
        all.dedup_by_key(|change| change.state);
        let end = Point { line: u64::MAX, instruction: self.instructions() };
        let ends = all.iter().skip(1).map(|change| change.point).chain([end]);
        all.iter().zip(ends).map(|(change, end)| (change.point, end, change.state)).collect()
    }

    /// Moments of which both the line and the instruction are known, in order.
    pub(super) fn anchors(&self) -> Vec<Point> {
        let of_runs = self.runs().flat_map(|run| [run.first, run.last]);
        let of_changes = self.changes.iter().map(|change| change.point);
        let mut anchors: Vec<Point> = of_runs.chain(of_changes).chain(self.started).chain([self.last]).collect();
        anchors.sort_unstable_by_key(|point| (point.line, point.instruction));
        anchors.dedup();
        anchors
    }
}
