//! Sweeps: DC by set and way over a whole cache.
//!
//! **Why it exists.** Boot loaders invalidate their caches by set and way before they turn them on, and clean them so
//! after they turned them off. That maintains the caches of the PE that does it, no other PE's and no system cache.
//!
//! **What must hold.** A sweep is whole or counts for nothing. CCSIDR_EL1 and CLIDR_EL1 are in no trace, so the
//! operands have to show it: a level is whole if they are each way of each set from 0 on, and whoever names a level
//! shows that it is there. It counts while the data accesses of the PE go past its caches, for lines move in a cache
//! that is on, and where no other PE has had its caches on. Levels come in ascending order, since what a clean writes
//! back may come to rest in the next one. A DSB completes it, as any DC; whether another level comes behind that shows
//! the next access.
//!
//! **What it refuses.** Sets that are no power of two, and an odd number of ways: one of them may have been left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use breakwater_trace::Event;

use super::Obligations;
use super::cause::{At, Evidence};
use super::holder::{Pes, bit, first};
use super::lines::Upkeep;
use super::page::Words;
use crate::maintenance::SetAndWay;
use crate::regime::Control;

/// More lines than any level of a cache has: 64 MiB of 64 bytes.
const MOST_LINES: usize = 1 << 20;
/// More sweeps than anybody reads: each is at another instruction, or came to something else.
const MOST_SHOWN: usize = 64;

/// Sets and ways of a level, as operands show them.
type Geometry = (u32, u32);

/// The operands of one kind of DC by set and way since it began.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Sweep {
    upkeep: Upkeep,
    levels: BTreeMap<u8, BTreeSet<u32>>,
    /// Words, by page, that were stored since it began, or not ordered before that.
    overtaken: BTreeMap<u64, Words>,
    stage: Stage,
    /// The last of its instructions.
    at: Evidence<At>,
    /// What it has counted for.
    counted: Evidence<Vec<Geometry>>,
}

/// How far a sweep has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Operands wait for a DSB.
    Open,
    /// That came.
    Finished,
    /// What it did is done.
    Settled,
}

/// What a sweep came to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    /// It counted, over these levels from 1 on.
    Counted(Vec<Geometry>),
    /// No DSB came behind it.
    Unfinished,
    /// The operands of this level, which are so many, are not all ways of all sets.
    NotWhole(u8, usize),
    /// The PE's data caches were on.
    CachesOn,
    /// This PE has had its caches on as well.
    Another(u32),
}

impl Outcome {
    /// Whether both come to the same, whatever the figures.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NotWhole(one, _), Self::NotWhole(other, _)) => one == other,
            _ => self == other,
        }
    }
}

/// What became of DC by set and way: what it counted for, or why it did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BySetAndWay {
    at: At,
    operation: &'static str,
    outcome: Outcome,
    /// How often, at that instruction.
    times: u64,
}

impl BySetAndWay {
    /// The line of its last instruction.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.at.line
    }

    /// The PE that executed it.
    #[must_use]
    pub const fn pe(&self) -> u32 {
        self.at.pe
    }

    /// Its last instruction.
    #[must_use]
    pub const fn pc(&self) -> u64 {
        self.at.pc
    }

    /// Whether it counted as maintenance of that PE's caches.
    #[must_use]
    pub const fn has_counted(&self) -> bool {
        matches!(self.outcome, Outcome::Counted(_))
    }
}

impl fmt::Display for BySetAndWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at: At { line, pe, pc }, operation, outcome, times } = self;
        write!(f, "line {line}: PE {pe} at {pc:x}: DC {operation} by set and way")?;
        if *times > 1 {
            write!(f, ", {times} times")?;
        }
        match outcome {
            Outcome::Counted(levels) => {
                let level =
                    |(level, (sets, ways)): (usize, &Geometry)| format!("{sets} sets x {ways} ways of level {level}");
                let levels: Vec<String> = (1..).zip(levels).map(level).collect();
                write!(
                    f,
                    ", {}: counted for the caches of PE {pe} alone. That these are all sets, ways and levels rests on \
                     the operands, as no trace has CCSIDR_EL1 and CLIDR_EL1; a system cache was not reached",
                    levels.join(", ")
                )
            }
            Outcome::Unfinished => f.write_str(": not counted, for no DSB completed it"),
            Outcome::NotWhole(level, 0) => {
                write!(f, ": not counted, for it left out level {level}, or did not come to it last")
            }
            Outcome::NotWhole(level, operands) => write!(
                f,
                ": not counted, for its {operands} operands of level {level} are not all ways (an even number) of all \
                 sets (a power of two)"
            ),
            Outcome::CachesOn => write!(f, ": not counted, for the data caches of PE {pe} were on"),
            Outcome::Another(other) => {
                write!(f, ": not counted, for PE {other} has had its caches on too, which set and way do not reach")
            }
        }
    }
}

const fn operation(upkeep: Upkeep) -> &'static str {
    match (upkeep.cleans, upkeep.invalidates) {
        (false, _) => "ISW",
        (true, false) => "CSW",
        (true, true) => "CISW",
    }
}

impl Sweep {
    /// A line is named. Once more, and it is a new sweep of that level; what lies below is yet to come.
    fn name(&mut self, SetAndWay { level, line }: SetAndWay) {
        let _ = self.levels.split_off(&(level + 1));
        let lines = self.levels.entry(level).or_default();
        if lines.contains(&line) || lines.len() >= MOST_LINES {
            lines.clear();
        }
        lines.insert(line);
        self.stage = Stage::Open;
    }

    /// Whether naming this line begins it anew.
    fn is_begun_by(&self, named: SetAndWay) -> bool {
        let lowest = self.levels.first_key_value();
        lowest
            .is_none_or(|(level, lines)| named.level < *level || (named.level == *level && lines.contains(&named.line)))
    }

    /// What its levels are, if each is whole, from level 1 to the `last`; else the first that is not, and how much of
    /// it there is.
    fn whole(&self, last: u8, line_bytes: u16) -> Result<Vec<Geometry>, (u8, usize)> {
        let level = |level| {
            let lines = self.levels.get(&level).ok_or((level, 0))?;
            geometry(lines, line_bytes).ok_or((level, lines.len()))
        };
        (1..=last).map(level).collect()
    }
}

/// Sets and ways of a level of which these lines are all.
///
/// The bits that are set anywhere are those of the ways, from bit 31 down, and of the sets, from a line's size up. So
/// many lines as there are sets times ways, each below both bounds, are all of them.
fn geometry(lines: &BTreeSet<u32>, line_bytes: u16) -> Option<Geometry> {
    let bits = lines.iter().fold(0, |bits, line| bits | line);
    let of_ways = u32::MAX.checked_shl(32 - bits.leading_ones()).unwrap_or(0);
    let of_sets = bits & !of_ways;
    let shift = of_sets.trailing_zeros().min(31);
    if of_ways == 0 || of_sets == 0 || shift < line_bytes.trailing_zeros() {
        return None;
    }
    let way = |line: u32| line >> of_ways.trailing_zeros();
    let ways = lines.iter().map(|line| way(*line)).max()? + 1;
    let sets = (of_sets >> shift) + 1;
    let is_all = lines.len() as u64 == u64::from(sets) * u64::from(ways);
    (sets.is_power_of_two() && ways.is_multiple_of(2) && is_all).then_some((sets, ways))
}

impl Obligations {
    /// What became of DC by set and way, in the order of the trace; of each instruction and outcome the first.
    #[must_use]
    pub fn by_set_and_way(&self) -> Vec<BySetAndWay> {
        let mut shown = self.report.swept.clone();
        for (pe, state) in self.pes.iter().enumerate() {
            state.sweeps.iter().for_each(|sweep| note(&mut shown, self.came_to(pe as u32, sweep)));
        }
        shown.sort_by_key(BySetAndWay::line);
        shown
    }

    /// What `sweep` of `pe` has come to so far.
    fn outcome(&self, pe: u32, sweep: &Sweep) -> Outcome {
        if sweep.stage == Stage::Settled && !sweep.counted.0.is_empty() {
            return Outcome::Counted(sweep.counted.0.clone());
        }
        match (sweep.whole(self.deepest, self.params.of(pe).line_bytes), self.cached_by_others(pe)) {
            (Err((level, operands)), _) => Outcome::NotWhole(level, operands),
            (Ok(_), _) if sweep.stage == Stage::Open => Outcome::Unfinished,
            (Ok(levels), 0) => Outcome::Counted(levels),
            (Ok(_), others) => Outcome::Another(first(others)),
        }
    }

    /// The same, for whoever reads the verdict.
    fn came_to(&self, pe: u32, sweep: &Sweep) -> BySetAndWay {
        let outcome = match self.outcome(pe, sweep) {
            // It counted before it was begun upon another level.
            Outcome::NotWhole(..) | Outcome::Unfinished if !sweep.counted.0.is_empty() => {
                Outcome::Counted(sweep.counted.0.clone())
            }
            outcome => outcome,
        };
        BySetAndWay { at: sweep.at.0, operation: operation(sweep.upkeep), outcome, times: 1 }
    }

    /// DC by set and way.
    pub(super) fn sweep(&mut self, pe: u32, operand: u64, upkeep: Upkeep) {
        if upkeep.cleans {
            // Any line may be the one that it names.
            let pushed = self.memory.push_all();
            pushed.into_iter().for_each(|page| self.judge_pushed(page, &Words::span(0, 512)));
        }
        let Some(named) = SetAndWay::decode(operand) else { return };
        self.deepest = self.deepest.max(named.level);
        let at = self.report.at;
        if self.pes[pe as usize].might_cache() {
            let says = BySetAndWay { at, operation: operation(upkeep), outcome: Outcome::CachesOn, times: 1 };
            return note(&mut self.report.swept, says);
        }
        let mut sweeps = std::mem::take(&mut self.pe(pe).sweeps);
        let known = sweeps.iter().position(|sweep| sweep.upkeep == upkeep);
        let place = known.unwrap_or(sweeps.len());
        if known.is_none_or(|place| sweeps[place].is_begun_by(named)) {
            if known.is_some() {
                let before = sweeps.remove(place);
                let says = self.came_to(pe, &before);
                note(&mut self.report.swept, says);
            }
            let (levels, overtaken, counted) = (BTreeMap::new(), self.unordered_words(), Evidence(Vec::new()));
            sweeps.insert(place, Sweep { upkeep, levels, overtaken, stage: Stage::Open, at: Evidence(at), counted });
        }
        sweeps[place].name(named);
        sweeps[place].at = Evidence(at);
        self.pe(pe).sweeps = sweeps;
    }

    /// Words, by page, whose stores are not ordered before what maintenance comes next.
    fn unordered_words(&self) -> BTreeMap<u64, Words> {
        let pages = self.pes.iter().flat_map(|state| &state.unordered);
        let words = |pa: &u64| Some((pa >> super::memory::SHIFT, self.memory.page(*pa)?.lines.unordered));
        pages.filter_map(words).collect()
    }

    /// `words` of a page are stored: what was begun before may have passed their lines.
    pub(super) fn overtake_sweeps(&mut self, page: u64, words: &Words) {
        for pe in 0..self.pes.len() {
            if self.pes[pe].sweeps.is_empty() {
                continue;
            }
            for sweep in &mut self.pe(pe as u32).sweeps {
                let overtaken = sweep.overtaken.entry(page).or_default();
                *overtaken = overtaken.or(words);
            }
        }
    }

    /// `pe` did something: from the moment on that its data caches are on, lines move.
    pub(super) fn watch_caches(&mut self, pe: u32) {
        let state = &self.pes[pe as usize];
        if (self.cached & bit(pe) != 0 && state.sweeps.is_empty()) || !state.might_cache() {
            return;
        }
        self.cached |= bit(pe);
        for sweep in std::mem::take(&mut self.pe(pe).sweeps) {
            let says = self.came_to(pe, &sweep);
            note(&mut self.report.swept, says);
        }
    }

    /// PEs but `pe` that have had their caches on: what these hold, no DC by set and way of `pe` reaches.
    fn cached_by_others(&self, pe: u32) -> Pes {
        let on = (0..).zip(&self.pes).filter(|(_, state)| state.exists && state.might_cache());
        on.fold(self.cached, |pes, (other, _)| pes | bit(other)) & !bit(pe)
    }

    /// A DSB of `pe` completes what it has swept.
    pub(super) fn finish_sweeps(&mut self, pe: u32) {
        if self.pes[pe as usize].sweeps.iter().any(|sweep| sweep.stage == Stage::Open) {
            let open = |sweep: &&mut Sweep| sweep.stage == Stage::Open;
            self.pe(pe).sweeps.iter_mut().filter(open).for_each(|sweep| sweep.stage = Stage::Finished);
            self.finished |= bit(pe);
        }
    }

    /// Something other than the next operand happens: what was swept, and is whole, is swept.
    pub(super) fn settle_sweeps(&mut self) {
        while self.finished != 0 {
            let pe = first(self.finished);
            self.finished &= !bit(pe);
            let mut sweeps = std::mem::take(&mut self.pe(pe).sweeps);
            for sweep in sweeps.iter_mut().filter(|sweep| sweep.stage == Stage::Finished) {
                let Outcome::Counted(levels) = self.outcome(pe, sweep) else { continue };
                self.memory.sweep(sweep.upkeep, &sweep.overtaken);
                (sweep.stage, sweep.counted) = (Stage::Settled, Evidence(levels));
            }
            self.pe(pe).sweeps = sweeps;
            if self.debts.any_detour() {
                let tables: Vec<u64> = self.pages_of_tables().collect();
                tables.into_iter().for_each(|page| self.reveal_lines(page));
            }
        }
    }
}

/// Whether `event` may be what a sweep was for: none of those of which a sweep consists.
pub(super) fn ends_sweeps(event: &Event) -> bool {
    match event {
        Event::Msr { register, .. } => Control::of(*register).is_some(),
        Event::Fetch { .. } | Event::Mrs { .. } | Event::Isb | Event::Dsb(_) | Event::Dmb(_) => false,
        Event::Maintain { operation, .. } => operation.zeroes(),
        _ => true,
    }
}

/// Notes what became of a sweep: with those of that instruction that came to the same.
fn note(shown: &mut Vec<BySetAndWay>, says: BySetAndWay) {
    let is_like = |known: &BySetAndWay| {
        (known.at.pe, known.at.pc, known.operation) == (says.at.pe, says.at.pc, says.operation)
            && known.outcome.is_like(&says.outcome)
    };
    match shown.iter().position(is_like) {
        Some(known) => shown[known].times += 1,
        None if shown.len() < MOST_SHOWN => shown.push(says),
        None => {}
    }
}
