//! The recording on its way to a picture: what each CPU did, folded as it comes.

use breakwater_oracle::obligations::Violation;
use breakwater_trace::names::Family;
use breakwater_trace::{Call, Event, Operation, Record, Register, Step};

use super::findings::{Findings, Standing};
use super::follow::Follow;
use super::lane::Lane;
use super::mark::{MarkKind, Point};

use crate::loader::Loaded;

/// A recording on its way to a picture.
#[derive(Default)]
pub struct Timeline {
    pub(super) lanes: Vec<Lane>,
    follow: Follow,
    pub(super) findings: Findings,
    pub(super) last_line: u64,
}

impl Timeline {
    /// Before the first record, with what memory holds; each of `loaded` at a multiple of 8.
    #[must_use]
    pub fn new(loaded: &[Loaded]) -> Self {
        let mut timeline = Self::default();
        loaded.iter().for_each(|file| timeline.follow.declare_file(file));
        timeline
    }

    /// Follows one record, which stands on `line` of the trace (what is declared before a trace begins has line 0). Lines do not go back.
    pub fn record(&mut self, line: u64, record: &Record) {
        self.last_line = self.last_line.max(line);
        match record {
            Record::Step(step) => self.step(line, step),
            Record::Count { cpu, instructions } => self.lane(*cpu).finish(*instructions),
            Record::Word { pa, value } => self.follow.declare(*pa, *value),
            Record::Memory { .. } | Record::Feature { .. } | Record::End(_) => {}
        }
    }

    /// Shows `violation`, at any time before it is drawn; `symbol` is where its instruction is, if that is known. One without a line
    /// belongs to the last record so far.
    pub fn violation(&mut self, violation: &Violation, symbol: Option<&str>, standing: Standing) {
        let line = if violation.line == 0 { self.last_line } else { violation.line };
        self.findings.add(violation, line, symbol, standing);
    }

    fn lane(&mut self, cpu: u32) -> &mut Lane {
        let index = cpu as usize;
        if self.lanes.len() <= index {
            self.lanes.resize_with(index + 1, Lane::default);
        }
        &mut self.lanes[index]
    }

    fn step(&mut self, line: u64, step: &Step) {
        // These come before the instruction that they name.
        let is_before = matches!(step.event, Event::Start { .. } | Event::Found { .. } | Event::Fetch { .. });
        let executed = Point { line, instruction: step.instruction.saturating_sub(u64::from(is_before)) };
        self.lane(step.cpu).arrive(executed);
        let kinds = self.follow.step(line, step);
        let point = Point { line, instruction: step.instruction };
        let lane = self.lane(step.cpu);
        for kind in &kinds {
            lane.marks.add(*kind, None, point);
        }
        if let Some((kind, name)) = mark(&step.event) {
            lane.marks.add(kind, name, point);
        }
        let is_control = matches!(step.event, Event::Found { .. } | Event::Msr { .. });
        if is_change_of_control(&step.event) {
            lane.marks.protect();
        }
        if is_control || !kinds.is_empty() {
            self.states(step.cpu, executed);
        }
    }

    /// Brings every lane in line with the registers and tables after an event of CPU `own`.
    fn states(&mut self, own: u32, point: Point) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let state = self.follow.state(index as u32);
            if index == own as usize {
                lane.change(point, state);
            } else {
                lane.change_from_outside(point.line, state);
            }
        }
        for (cpu, run) in self.follow.take_fills() {
            self.lane(cpu).fills.push(run);
        }
    }
}

/// A write of SCTLR_EL2 or TTBR0_EL2: what a reader looks for, and around what nothing is merged.
fn is_change_of_control(event: &Event) -> bool {
    let Event::Msr { register, .. } = event else { return false };
    matches!(register.name(), Some("sctlr_el2" | "ttbr0_el2"))
}

/// The mark that an event leaves, tables aside, and the name of the instruction.
fn mark(event: &Event) -> Option<(MarkKind, Option<&'static str>)> {
    Some(match event {
        Event::Msr { register, .. } => (MarkKind::Control, Some(control(*register)?)),
        Event::Maintain { operation, .. } => (maintenance(*operation)?, operation.name()),
        Event::Dsb(barrier) => (MarkKind::Dsb, Some(barrier.name())),
        Event::Isb => (MarkKind::Isb, None),
        Event::Exception { .. } => (MarkKind::Exception, None),
        Event::Call { call: Call::Smc, .. } => (MarkKind::Call, Some("SMC")),
        Event::Call { call: Call::Hvc, .. } => (MarkKind::Call, Some("HVC")),
        _ => return None,
    })
}

/// The name of a register that decides how EL2 translates or runs.
fn control(register: Register) -> Option<&'static str> {
    register.name().filter(|name| name.ends_with("_el2") && *name != "tpidr_el2")
}

fn maintenance(operation: Operation) -> Option<MarkKind> {
    match operation.family()? {
        Family::Tlbi => Some(MarkKind::Tlbi),
        Family::Dc => Some(MarkKind::Dc),
        Family::Ic => Some(MarkKind::Ic),
        Family::At => None,
    }
}
