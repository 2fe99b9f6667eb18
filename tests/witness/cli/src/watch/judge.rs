//! A recording before the oracle, as it is written.
//!
//! What the recorder cannot know is declared in front: what QEMU loads, what is memory, and what the CPU says of itself in its ID
//! registers. Besides the oracle, figures are taken (`measure`), and an image that asks for it is held to house rules (`recorded::conduct`).

use std::collections::BTreeMap;

use anyhow::Result;
use breakwater_oracle::obligations::{BySetAndWay, Doubt, NotKept, Obligations, Unknown, Violation};
use breakwater_trace::{End, Event, Feature, Record, Step};

use super::features::{Found, features};
use super::subject::Subject;
use crate::measure::Measurement;
use crate::measure::replay::Replay;
use crate::recorded::{Conduct, Lapse};

/// So many exceptions, each taken in the vector of the one before, are a loop.
const LOOP: u32 = 16;

/// What is known of one CPU.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CpuSeen {
    /// Executed at least one instruction.
    pub started: bool,
    /// SCTLR_EL2.M was 1 at some time.
    pub mmu_was_on: bool,
    mmu_is_on: bool,
    /// Executed so far.
    instructions: u64,
    /// Exceptions taken to EL2.
    pub exceptions: u64,
    /// The last of them: syndrome, where it came from, fault address.
    pub last: (u64, u64, u64),
    /// Vector of the last exception, and how often it was taken from itself since.
    repeated: (u64, u32),
}

impl CpuSeen {
    /// True if it takes one exception after the other, each from the vector of the one before.
    #[must_use]
    pub const fn loops(&self) -> bool {
        self.repeated.1 >= LOOP
    }
}

/// Judges a recording record by record.
pub(crate) struct Judge {
    obligations: Obligations,
    conduct: Option<Conduct>,
    replay: Option<Replay>,
    unmeasured: Option<String>,
    promised: Vec<Feature>,
    /// What is true before the first event.
    declared: Vec<Record>,
    /// The first CPU's registers, until its features are known, and what was read meanwhile.
    arriving: Option<(Found, Vec<(u64, Record)>)>,
    cpus: BTreeMap<u32, CpuSeen>,
    events: u64,
    /// What is judged is entered later, and where the image then lay.
    awaits_entry: bool,
    entered: Option<u64>,
}

/// What was found.
pub(crate) struct Judged {
    /// By the oracle.
    pub(crate) violations: Vec<Violation>,
    /// What was counted besides.
    pub(crate) not_kept: Vec<NotKept>,
    /// What nothing in the recording settles.
    pub(crate) doubts: Vec<Doubt>,
    /// DC by set and way, and what it counted for.
    pub(crate) swept: Vec<BySetAndWay>,
    /// Beyond it, by house rules.
    pub(crate) lapses: Vec<Lapse>,
    /// What a verdict would have to rest on besides, and is not known.
    pub(crate) unknowns: Vec<Unknown>,
    /// Each CPU that appears.
    pub(crate) cpus: BTreeMap<u32, CpuSeen>,
    /// The figures, or why there are none.
    pub(crate) measured: Result<Measurement, String>,
    /// What stands in front of the recording, for whoever judges it again.
    pub(crate) declared: Vec<Record>,
    /// Events.
    pub(crate) events: u64,
    /// Where the image lay whose entry was waited for.
    pub(crate) entered: Option<u64>,
    /// What was to be judged was never entered.
    pub(crate) never_entered: bool,
}

impl Judge {
    /// Before the first record.
    ///
    /// # Errors
    /// An image at an address that is no multiple of 8.
    pub(crate) fn new(subject: &Subject) -> Result<Self> {
        let memory = subject.memory.iter().cloned();
        let words = subject.loaded.iter().flat_map(crate::loader::Loaded::words);
        let words = words.map(|(pa, value)| Record::Word { pa, value });
        Ok(Self {
            obligations: Obligations::new(),
            // They are about a boot from the image's first instruction on.
            conduct: (subject.house_rules && subject.from.is_reset()).then(|| Conduct::new(subject.extent())),
            replay: if subject.is_measured && subject.from.is_reset() {
                Some(Replay::new(&subject.loaded)?)
            } else {
                None
            },
            unmeasured: Some("a loader was at work".to_owned()),
            promised: [subject.promised.as_slice(), subject.house_rules.then_some(Feature::StrictSwitch).as_slice()]
                .concat(),
            declared: memory.chain(words).collect(),
            arriving: Some((Found::default(), Vec::new())),
            cpus: BTreeMap::new(),
            events: 0,
            awaits_entry: !subject.from.is_reset(),
            entered: None,
        })
    }

    /// The next record, but for the last.
    pub(crate) fn record(&mut self, line: u64, record: &Record) {
        let Some((found, held)) = &mut self.arriving else { return self.step(line, record) };
        match record {
            Record::Step(Step { event: Event::Found { register, value }, .. }) => {
                if let Some(name) = register.name() {
                    found.insert(name.to_owned(), *value);
                }
                held.push((line, record.clone()));
            }
            Record::Step(Step { event: Event::Start { .. }, .. }) if held.is_empty() => {
                held.push((line, record.clone()));
            }
            _ => {
                self.declare();
                self.step(line, record);
            }
        }
    }

    /// Declares what is true from the beginning, the features of the first CPU included, and goes on with what was held back.
    fn declare(&mut self) {
        let Some((found, held)) = self.arriving.take() else { return };
        let known = features(&found).into_iter().chain(std::mem::take(&mut self.promised));
        self.declared.splice(0..0, known.map(|feature| Record::Feature { cpu: None, feature }));
        for record in std::mem::take(&mut self.declared) {
            self.obligations.step(0, &record);
            if let Some(conduct) = &mut self.conduct {
                conduct.record(0, &record);
            }
            self.declared.push(record);
        }
        held.iter().for_each(|(line, record)| self.step(*line, record));
    }

    fn step(&mut self, line: u64, record: &Record) {
        let changes = self.replay.as_ref().map(|replay| replay.changes(record, &self.obligations)).unwrap_or_default();
        self.obligations.step(line, record);
        if let Some(conduct) = &mut self.conduct {
            conduct.record(line, record);
        }
        let replayed = self.replay.as_mut().map(|replay| replay.record(record, &changes, &self.obligations));
        if let Some(Err(error)) = replayed {
            (self.replay, self.unmeasured) = (None, Some(format!("trace line {line}: {error:#}")));
        }
        if let Record::Step(step) = record {
            self.events += 1;
            if let Event::Enter { pa, .. } = step.event {
                self.entered = Some(pa);
                self.cpus.values_mut().for_each(CpuSeen::enter);
            }
            self.cpus.entry(step.cpu).or_default().step(step);
        }
    }

    /// How far the machine has come.
    pub(crate) fn progress(&self) -> String {
        let instructions: u64 = self.cpus.values().map(|cpu| cpu.instructions).sum();
        format!("{instructions} instructions, {} events", self.events)
    }

    /// The oracle as it is now.
    pub(crate) fn oracle(&mut self) -> Obligations {
        self.declare();
        self.obligations.clone()
    }

    /// The recording ended so; nothing where it breaks off.
    pub(crate) fn finish(mut self, end: Option<End>) -> Judged {
        self.declare();
        if let Some(end) = end {
            self.obligations.step(0, &Record::End(end));
        }
        let measured = match self.replay {
            Some(replay) => Ok(replay.measured(end.unwrap_or(End::Cap))),
            None => Err(self.unmeasured.unwrap_or_default()),
        };
        let never_entered = self.awaits_entry && self.entered.is_none();
        if never_entered {
            self.obligations = Obligations::new();
        }
        Judged {
            violations: self.obligations.violations().to_vec(),
            not_kept: self.obligations.not_kept(),
            doubts: self.obligations.doubts().to_vec(),
            swept: self.obligations.by_set_and_way(),
            lapses: self.conduct.map(Conduct::into_lapses).unwrap_or_default(),
            unknowns: self.obligations.unknowns().to_vec(),
            cpus: self.cpus,
            measured,
            declared: self.declared,
            events: self.events,
            entered: self.entered,
            never_entered,
        }
    }
}

impl CpuSeen {
    /// What its loader did with it does not count.
    fn enter(&mut self) {
        let Self { mmu_is_on, instructions, .. } = *self;
        *self = Self { started: true, mmu_was_on: mmu_is_on, mmu_is_on, instructions, ..Self::default() };
    }

    fn step(&mut self, step: &Step) {
        (self.started, self.instructions) = (true, step.instruction);
        match step.event {
            Event::Msr { register, value } | Event::Found { register, value }
                if register.name() == Some("sctlr_el2") =>
            {
                self.mmu_is_on = value & 1 != 0;
                self.mmu_was_on |= self.mmu_is_on;
            }
            Event::Exception { to: 2, syndrome, link, fault_address } => {
                self.exceptions += 1;
                self.last = (syndrome, link, fault_address);
                // A handler that faults in its first instructions comes back to its own slot of 128 bytes.
                let itself = self.repeated.0 == step.pc && link & !0x7f == step.pc & !0x7f;
                self.repeated = (step.pc, if itself { self.repeated.1 + 1 } else { 0 });
            }
            Event::Eret { .. } => self.repeated = (0, 0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use breakwater_oracle::xen::{Story, scenario};
    use breakwater_trace::text::{PACKED_HEADER, pack};
    use breakwater_trace::{HEADER, Reader};

    use super::*;
    use crate::qemu::Qemu;
    use crate::watch::{From, Subject};

    /// Nothing but what is declared in front of a recording.
    fn subject(memory: Vec<Record>) -> Subject {
        let qemu = Qemu { program: PathBuf::new(), version: String::new() };
        let tools = crate::Tools { qemu, plugin: PathBuf::new(), scratch: PathBuf::new(), cache: PathBuf::new() };
        Subject {
            name: String::new(),
            tools,
            arguments: Vec::new(),
            cpus: 1,
            one_thread: false,
            loaded: Vec::new(),
            memory,
            symbols: crate::names::Names::default(),
            promised: Vec::new(),
            house_rules: false,
            is_measured: false,
            from: From::Reset,
            own_end: None,
            baseline: None,
        }
    }

    #[test]
    fn good_the_live_verdict_is_that_of_judge_on_the_kept_trace() {
        for story in [Story::Xen411, Story::Xen00c96d77422a] {
            let (events, declared): (Vec<Record>, Vec<Record>) = scenario(story, 77)
                .into_iter()
                .filter(|record| !matches!(record, Record::End(_)))
                .partition(|record| matches!(record, Record::Step(_) | Record::Count { .. }));
            // Live: what the recorder packs, behind what is declared.
            let (mut bytes, mut line) = (format!("{PACKED_HEADER}\n").into_bytes(), String::new());
            events.iter().for_each(|record| pack(record, &mut bytes, &mut line));
            let mut live = Judge::new(&subject(declared)).expect("nothing is loaded");
            let mut reader = Reader::new(bytes.as_slice());
            while let Some(record) = reader.next_record().expect("well-formed") {
                live.record(reader.line(), &record);
            }
            let live = live.finish(Some(End::Exit));
            // Kept: the same as text.
            let end = [Record::End(End::Exit)];
            let text = live.declared.iter().chain(&events).chain(&end).map(|record| format!("{record}\n"));
            let text: String = std::iter::once(format!("{HEADER}\n")).chain(text).collect();
            let mut kept = Obligations::new();
            // Lines are those of the recording: what is declared stands on none.
            let ahead = live.declared.len() as u64;
            let lines = (2_u64..).map(|line| line.saturating_sub(ahead));
            for (line, record) in lines.zip(Reader::new(text.as_bytes())) {
                let record = record.expect("well-formed");
                let is_event = matches!(record, Record::Step(_) | Record::Count { .. });
                kept.step(if is_event { line } else { 0 }, &record);
            }
            assert!(live.violations.len() >= 2, "{story:?}");
            assert_eq!(live.violations, kept.violations(), "{story:?}");
        }
    }
}
