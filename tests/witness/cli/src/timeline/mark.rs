//! What one CPU did, folded into a bounded number of runs.
//!
//! Why it exists: a boot has millions of barriers and a picture has a thousand columns. What must hold: nothing is dropped, only merged
//! (a run says how many it stands for and from where to where), and what happened around a control register's change stays as
//! it was, because that is what the picture is looked at for.

use std::fmt;

/// Runs kept for one CPU; beyond that, neighbours of one kind merge.
pub(super) const MOST_RUNS: usize = 4096;
/// Runs on either side of a change of control that never merge.
const NEIGHBOURS: usize = 12;
/// Changes of control of one CPU whose neighbours are kept so.
const MOST_PROTECTED: usize = 48;
/// Names of operations that one run remembers.
const MOST_NAMES: usize = 4;

/// A kind of mark: each has a row of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum MarkKind {
    /// A store to a frame that became a table later.
    Fill,
    /// A store to a table in force.
    Store,
    /// A store that left a valid descriptor of a table in force invalid.
    Break,
    Tlbi,
    Dsb,
    Isb,
    Dc,
    Ic,
    /// A write of SCTLR, TTBR0, TCR, MAIR, HCR and the like.
    Control,
    /// An exception taken to EL2.
    Exception,
    /// SMC or HVC.
    Call,
}

impl MarkKind {
    pub(super) const ALL: [Self; 11] = [
        Self::Control,
        Self::Fill,
        Self::Store,
        Self::Break,
        Self::Tlbi,
        Self::Dsb,
        Self::Isb,
        Self::Dc,
        Self::Ic,
        Self::Exception,
        Self::Call,
    ];

    /// How much room it is worth where marks are squeezed: a loop that waits is barriers without end.
    pub(super) const fn worth(self) -> f64 {
        match self {
            Self::Fill | Self::Store | Self::Break | Self::Tlbi | Self::Control => 1.0,
            Self::Exception | Self::Call => 0.3,
            Self::Dsb | Self::Isb | Self::Dc | Self::Ic => 0.1,
        }
    }

    /// What stands before its row.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fill => "stores to coming tables",
            Self::Store => "stores to tables in force",
            Self::Break => "breaks",
            Self::Tlbi => "TLBI",
            Self::Dsb => "DSB",
            Self::Isb => "ISB",
            Self::Dc => "DC",
            Self::Ic => "IC",
            Self::Control => "control registers",
            Self::Exception => "exceptions",
            Self::Call => "SMC, HVC",
        }
    }
}

/// A moment of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Point {
    /// Line of the trace: the order in which everything arrived.
    pub(super) line: u64,
    /// Ordinal of the instruction among this CPU's.
    pub(super) instruction: u64,
}

/// One or more marks of a kind with none of another kind between them, or merged for want of room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) kind: MarkKind,
    pub(super) first: Point,
    pub(super) last: Point,
    pub(super) count: u64,
    /// The instructions by name, the first few of them.
    names: Vec<&'static str>,
    /// A control register changed within a few runs of this one.
    pub(super) is_near: bool,
}

impl Run {
    pub(super) fn new(kind: MarkKind, name: Option<&'static str>, point: Point) -> Self {
        let names = name.into_iter().collect();
        Self { kind, first: point, last: point, count: 1, names, is_near: false }
    }

    /// The line after the last of it.
    pub(super) const fn line_end_exclusive(&self) -> u64 {
        self.last.line.saturating_add(1)
    }

    pub(super) fn absorb(&mut self, other: &Self) {
        if other.first.line < self.first.line {
            self.first = other.first;
        }
        if other.last.line > self.last.line {
            self.last = other.last;
        }
        self.count = self.count.saturating_add(other.count);
        for name in &other.names {
            if self.names.len() < MOST_NAMES && !self.names.contains(name) {
                self.names.push(name);
            }
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count > 1 {
            write!(f, "{} × ", grouped(self.count))?;
        }
        f.write_str(self.kind.name())?;
        if !self.names.is_empty() {
            write!(f, " ({})", self.names.join(", "))?;
        }
        let (first, last) = (self.first.instruction, self.last.instruction);
        if first == last {
            write!(f, ", instruction {}", grouped(first))
        } else {
            write!(f, ", instructions {} to {}", grouped(first), grouped(last))
        }
    }
}

/// `1,364,467`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 place`, `1,024 places`.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// All runs of one CPU, by their first line but for the fills, which are learnt of later.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    /// Runs still to come that stand near the last change of control.
    near_left: usize,
    protected: usize,
}

impl Runs {
    /// One mark more.
    pub(super) fn add(&mut self, kind: MarkKind, name: Option<&'static str>, point: Point) {
        let one = Run::new(kind, name, point);
        if let Some(last) = self.runs.last_mut().filter(|last| last.kind == kind && kind != MarkKind::Control) {
            last.absorb(&one);
            return;
        }
        self.push(one);
    }

    /// A run that somebody else has folded.
    pub(super) fn push(&mut self, mut run: Run) {
        if self.runs.len() >= MOST_RUNS {
            self.merge();
        }
        if self.near_left > 0 {
            run.is_near = true;
            self.near_left -= 1;
        }
        self.runs.push(run);
    }

    /// The run last added is a change of control: it and its neighbours stay as they are.
    pub(super) fn protect(&mut self) {
        if self.protected >= MOST_PROTECTED {
            return;
        }
        self.protected += 1;
        self.near_left = NEIGHBOURS;
        let first = self.runs.len().saturating_sub(NEIGHBOURS + 1);
        for run in &mut self.runs[first..] {
            run.is_near = true;
        }
    }

    pub(super) fn as_slice(&self) -> &[Run] {
        &self.runs
    }

    /// Halves what is not protected, at least: of each kind, those closest to each other become one run.
    fn merge(&mut self) {
        self.runs.sort_by_key(|run| run.first.line);
        let gaps = self.gaps();
        let mut sizes: Vec<u64> = gaps.iter().flatten().map(|gap| gap.1).collect();
        sizes.sort_unstable();
        let Some(limit) = sizes.get(sizes.len() / 2).copied() else { return };
        let mut kept: Vec<Run> = Vec::with_capacity(self.runs.len());
        // Where the run with this index went.
        let mut place = Vec::with_capacity(self.runs.len());
        for (run, gap) in self.runs.drain(..).zip(gaps) {
            match gap.filter(|(_, size)| *size <= limit) {
                Some((previous, _)) => {
                    let at: usize = place[previous];
                    kept[at].absorb(&run);
                    place.push(at);
                }
                None => {
                    place.push(kept.len());
                    kept.push(run);
                }
            }
        }
        self.runs = kept;
    }

    /// For each run, the one of its kind before it and how many lines lie between; nothing where a change of control does.
    fn gaps(&self) -> Vec<Option<(usize, u64)>> {
        let mut previous: [Option<usize>; MarkKind::ALL.len()] = [None; _];
        let gap = |(index, run): (usize, &Run)| {
            if run.is_near {
                previous.fill(None);
                return None;
            }
            let before = previous[run.kind as usize].replace(index)?;
            Some((before, run.first.line.saturating_sub(self.runs[before].last.line)))
        };
        self.runs.iter().enumerate().map(gap).collect()
    }
}
