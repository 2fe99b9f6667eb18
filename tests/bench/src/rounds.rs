//! Rounds: each candidate once, then each once more, so that whatever the machine does besides falls on all of them.

use crate::arena::{self, Arena, Maintenance};
use crate::candidate::{Bare, Candidate, Refused};
use crate::ours::Ours;
use crate::paging;
use crate::request::Work;
use serde::Serialize;
use std::hint::black_box;
use std::time::Instant;

/// What a candidate's tables say at the end; `None` for what has no tables.
pub type Ending = Option<Vec<Extent>>;

/// One candidate, ready to run any work.
#[derive(Clone, Copy)]
pub struct Runner {
    /// The candidate's name.
    pub name: &'static str,
    /// What it does not do, or does beyond.
    pub note: &'static str,
    run: fn(&Arena, &Work) -> Result<Run, Refused>,
    end: fn(&Arena, &Work) -> Result<Ending, Refused>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// One run of one candidate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Run {
    /// Nanoseconds that the timed steps took.
    pub nanoseconds: f64,
    /// Barriers and TLBIs of the timed steps.
    pub maintenance: Maintenance,
}

impl Runner {
    const fn of<C: Candidate>() -> Self {
        Self { name: C::NAME, note: C::NOTE, run: run::<C>, end: end::<C> }
    }

    /// Does `work` on fresh tables.
    ///
    /// # Errors
    /// The candidate refused.
    pub fn run(&self, arena: &Arena, work: &Work) -> Result<Run, Refused> {
        (self.run)(arena, work)
    }

    /// What the candidate's tables say when `work` is done, or `None` for the bare loop.
    ///
    /// # Errors
    /// The candidate refused.
    pub fn end(&self, arena: &Arena, work: &Work) -> Result<Ending, Refused> {
        (self.end)(arena, work)
    }
}

/// Everyone, ours first and the limit last.
pub const RUNNERS: [Runner; 5] = [
    Runner::of::<Ours>(),
    Runner::of::<paging::NotLive>(),
    Runner::of::<paging::Invalidated>(),
    Runner::of::<paging::Live>(),
    Runner::of::<Bare>(),
];

fn prepared<C: Candidate>(arena: &Arena, work: &Work) -> Result<C, Refused> {
    arena.refresh(arena::FRAMES);
    let mut candidate = C::new(arena);
    work.before.iter().try_for_each(|step| candidate.step(step))?;
    Ok(candidate)
}

fn run<C: Candidate>(arena: &Arena, work: &Work) -> Result<Run, Refused> {
    let mut candidate = prepared::<C>(arena, work)?;
    let (steps, before, began) = (black_box(work.timed.as_slice()), arena::done(), Instant::now());
    for step in steps {
        candidate.step(step)?;
    }
    let took = began.elapsed();
    black_box(&mut candidate);
    Ok(Run { nanoseconds: took.as_nanos() as f64, maintenance: arena::done() - before })
}

fn end<C: Candidate>(arena: &Arena, work: &Work) -> Result<Ending, Refused> {
    let mut candidate = prepared::<C>(arena, work)?;
    work.timed.iter().try_for_each(|step| candidate.step(step))?;
    Ok(candidate.root().map(extents))
}

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// A span that translates in one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first virtual address.
    pub virt: u64,
    /// Bytes.
    pub bytes: u64,
    /// The first physical address.
    pub output: u64,
    /// The leaves' bits without address and type: memory type, shareability, rights.
    pub bits: u64,
    /// log2 of what one leaf spans.
    pub shift: u32,
}

/// What the tables below `root` translate, in ascending order, read by nobody's code but this. Bits 1:0 of a descriptor: 3 is a table, at
/// level 3 a page; 1 is a block at levels 1 and 2. An address is bits 47:12.
///
/// # Panics
/// On a descriptor that the architecture reserves.
#[must_use]
pub fn extents(root: u64) -> Vec<Extent> {
    let mut extents = Vec::new();
    table(root, 0, 0, &mut extents);
    extents
}

fn table(table_at: u64, level: u32, virt: u64, extents: &mut Vec<Extent>) {
    let shift = 39 - 9 * level;
    for index in 0..512 {
        let (descriptor, virt) = (arena::load(table_at + 8 * index), virt | index << shift);
        match (descriptor & 3, level) {
            (3, 0..=2) => table(descriptor & ADDRESS, level + 1, virt, extents),
            (3, 3) | (1, 1 | 2) => {
                let (output, bits) = (descriptor & ADDRESS & !((1 << shift) - 1), descriptor & !ADDRESS & !3);
                add(extents, Extent { virt, bytes: 1 << shift, output, bits, shift });
            }
            (1, _) => panic!("reserved descriptor {descriptor:#x} at level {level} for {virt:#x}"),
            _ => {}
        }
    }
}

fn add(extents: &mut Vec<Extent>, leaf: Extent) {
    if let Some(last) = extents.last_mut()
        && (last.virt + last.bytes, last.output + last.bytes) == (leaf.virt, leaf.output)
        && (last.bits, last.shift) == (leaf.bits, leaf.shift)
    {
        last.bytes += leaf.bytes;
    } else {
        extents.push(leaf);
    }
}

/// The middle of some numbers and how far they lie apart.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// A quarter of them are below.
    pub lower: f64,
    /// Half of them are.
    pub median: f64,
    /// A quarter of them are above.
    pub upper: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of `numbers`, of which there is at least one.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        // Between the two nearest, as far as the quarter lies between them.
        let at = |part: f64| {
            let place = part * last as f64;
            let (low, share) = (place as usize, place.fract());
            sorted[low] + share * (sorted[(low + 1).min(last)] - sorted[low])
        };
        Self { least: sorted[0], lower: at(0.25), median: at(0.5), upper: at(0.75), greatest: sorted[last] }
    }
}

/// What one candidate took for one work.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub candidate: &'static str,
    /// Why it was refused, if it was; then there is nothing else.
    pub refused: Option<String>,
    /// Nanoseconds a leaf.
    pub nanoseconds: Option<Spread>,
    /// Ours over this one, round by round.
    pub ours_over_this: Option<Spread>,
    /// This one over the bare loop, round by round.
    pub this_over_limit: Option<Spread>,
    /// Barriers and TLBIs of all timed steps.
    pub maintenance: Option<Maintenance>,
}

/// What one work took each candidate.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The work's name.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Requests timed in a round.
    pub requests: usize,
    /// Leaves that they concern.
    pub leaves: u64,
    /// Everyone's row, in the order of [`RUNNERS`].
    pub rows: Vec<Row>,
}

/// Runs `work` in `rounds` rounds after one that is thrown away.
#[must_use]
pub fn measure(arena: &Arena, work: &Work, rounds: usize) -> Measured {
    let mut runs: [Vec<Result<Run, Refused>>; RUNNERS.len()] = Default::default();
    for round in 0..=rounds {
        for (runner, runs) in RUNNERS.iter().zip(&mut runs) {
            let run = runner.run(arena, work);
            if round > 0 {
                runs.push(run);
            }
        }
    }
    let leaves = work.leaves();
    let times: Vec<Vec<f64>> = runs.iter().map(|runs| times(runs, leaves)).collect();
    let (ours, limit) = (&times[0], &times[RUNNERS.len() - 1]);
    let rows = RUNNERS.iter().zip(&runs).zip(&times).map(|((runner, runs), these)| Row {
        candidate: runner.name,
        refused: runs.iter().find_map(|run| run.as_ref().err()).map(|refused| refused.0.clone()),
        nanoseconds: (!these.is_empty()).then(|| Spread::of(these.iter().copied())),
        ours_over_this: ratio(ours, these),
        this_over_limit: ratio(these, limit),
        maintenance: runs.iter().flatten().next().filter(|_| !these.is_empty()).map(|run| run.maintenance),
    });
    let rows = rows.collect();
    Measured { name: work.name, title: work.title, requests: work.timed.len(), leaves, rows }
}

/// Nanoseconds a leaf, round by round; nothing when a round was refused.
fn times(runs: &[Result<Run, Refused>], leaves: u64) -> Vec<f64> {
    let all: Option<Vec<f64>> = runs.iter().map(|run| Some(run.as_ref().ok()?.nanoseconds / leaves as f64)).collect();
    all.unwrap_or_default()
}

/// One over the other, in rounds that both were in.
fn ratio(one: &[f64], other: &[f64]) -> Option<Spread> {
    let both = one.iter().zip(other);
    (both.len() > 0).then(|| Spread::of(both.map(|(one, other)| one / other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_quartiles() {
        let spread = Spread::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(spread, Spread { least: 1.0, lower: 2.0, median: 3.0, upper: 4.0, greatest: 5.0 });
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
        assert_eq!(Spread::of([7.0]).upper, 7.0);
    }

    #[test]
    fn bad_a_refused_candidate_has_no_figures() {
        let run = Ok(Run { nanoseconds: 8.0, maintenance: Maintenance::default() });
        assert_eq!(times(&[run.clone(), run.clone()], 4), [2.0, 2.0]);
        assert!(times(&[run, Err(Refused("no".to_owned()))], 4).is_empty());
        assert_eq!(ratio(&[], &[1.0]), None);
    }
}
