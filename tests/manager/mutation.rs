//! Recordings with a step taken away, weakened or swapped with its neighbour, and what the model says of them.
//!
//! A scenario runs once and is recorded; its mutants are replayed from the records. What is changed is what the model is told, so a mutant is
//! what the trace of a manager would be that had forgotten the step. A mutant that the model accepts must have a reason: two
//! neighbours that commute by a rule stated here ([`commute`]), or a later step that covers what was lost ([`cover`]), and then the
//! model must reject the recording without both.

use super::step::{event_of, is_marker, is_tlbi, stored_word, zeroed_pair};
use super::world::{POISON, World};
use breakwater_oracle::maintenance::stored_words;
use breakwater_oracle::obligations::Obligations;
use breakwater_trace::{Barrier, Event, Operation, Record, Step};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// A change of a recording, by index of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// The step is missing.
    Delete(usize),
    /// A step that does less is in its place.
    Weaken(usize),
    /// The step and its successor have changed places.
    Swap(usize),
}

/// What becomes of an edited recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The model rejects it.
    Flagged,
    /// Nothing has changed, by this rule.
    Commutes(&'static str),
    /// Two stores to one word: memory is another in the end, which is for the map of pages to notice ([`super::rig::Rig::verdict`]).
    OtherMemory,
    /// The step is redundant here: a later one covers it, and without both the model rejects the recording.
    Covered(&'static str),
    /// The step is for CPUs with this erratum alone; the scenario runs under it too.
    Erratum(&'static str),
    /// The model accepts it, and nobody knows why.
    Survives,
}

/// A scenario's records.
pub(crate) struct Recording {
    records: Vec<Record>,
    /// Where the scenario begins.
    from: usize,
}

impl Recording {
    /// What `world` recorded; the scenario begins at the place `from`. Frames that become tables hold [`POISON`] before, so that
    /// whoever links one that was not zeroed exposes it.
    pub(crate) fn of(world: &World, from: usize) -> Self {
        let recorded = world.records();
        let first_step = recorded.iter().position(|record| event_of(record).is_some()).expect("something happened");
        let poison: Vec<Record> = poisoned(recorded)
            .into_iter()
            .flat_map(|frame| (0..512).map(move |index| Record::Word { pa: frame + 8 * index, value: POISON }))
            .collect();
        let from = from + poison.len();
        let records = [&recorded[..first_step], &poison, &recorded[first_step..]].concat();
        Self { records, from }
    }

    /// The event at an index.
    pub(crate) fn event(&self, index: usize) -> Option<&Event> {
        self.records.get(index).and_then(event_of)
    }

    /// The record at an index, to print.
    pub(crate) fn record(&self, index: usize) -> &Record {
        &self.records[index]
    }

    /// Applies every edit that `edits` proposes at an index of the scenario, one at a time, and hands on what becomes of it.
    ///
    /// # Panics
    /// When the model rejects the recording as it is.
    pub(crate) fn each(&self, edits: impl Fn(&Self, usize) -> Option<Edit>, mut verdict: impl FnMut(Edit, Outcome)) {
        let mut before = Obligations::new();
        for (index, record) in self.records.iter().enumerate() {
            if index >= self.from
                && let Some(edit) = edits(self, index)
            {
                verdict(edit, self.outcome(&before, index, edit));
            }
            before.step(index as u64 + 2, record);
        }
        assert!(before.violations().is_empty(), "as it is: {}", before.violations()[0]);
    }

    /// The frames that the scenario zeroes.
    pub(crate) fn zeroed_frames(&self) -> BTreeSet<u64> {
        let events = self.records[self.from..].iter().filter_map(event_of);
        events.filter_map(zeroed_pair).map(|pair| pair & !0xfff).collect()
    }

    /// Whether the model rejects the recording when the scenario has none of the steps that `is_gone` names.
    pub(crate) fn is_flagged_without(&self, is_gone: impl Fn(&Event) -> bool) -> bool {
        self.is_flagged(&Obligations::new(), 0, |index| {
            let is_gone = index >= self.from && self.event(index).is_some_and(&is_gone);
            (!is_gone).then(|| Cow::Borrowed(&self.records[index]))
        })
    }

    fn outcome(&self, before: &Obligations, index: usize, edit: Edit) -> Outcome {
        if let Edit::Swap(first) = edit
            && let Some(rule) = commute(self, first)
        {
            return Outcome::Commutes(rule);
        }
        if self.is_flagged(before, index, |at| self.edited(edit, at)) {
            return Outcome::Flagged;
        }
        if matches!(edit, Edit::Swap(first) if self.changes_memory(first)) {
            return Outcome::OtherMemory;
        }
        if let Some(erratum) = erratum(self, edit) {
            return Outcome::Erratum(erratum);
        }
        // An ISB that has moved next to another is one that was deleted.
        let edit = match edit {
            Edit::Swap(first) if [first, first + 2].map(|at| self.event(at)) == [Some(&Event::Isb); 2] => {
                Edit::Delete(first)
            }
            _ => edit,
        };
        match cover(self, edit) {
            Some((step, rule))
                if self.is_flagged(before, index, |at| (at != step).then(|| self.edited(edit, at)).flatten()) =>
            {
                Outcome::Covered(rule)
            }
            _ => Outcome::Survives,
        }
    }

    /// Replays the records from `from` on, as `record_at` gives them, on what came `before`.
    fn is_flagged<'a>(
        &'a self,
        before: &Obligations,
        from: usize,
        record_at: impl Fn(usize) -> Option<Cow<'a, Record>>,
    ) -> bool {
        let mut judge = before.clone();
        for index in from..self.records.len() {
            if let Some(record) = record_at(index) {
                judge.step(index as u64 + 2, &record);
            }
            if !judge.violations().is_empty() {
                return true;
            }
        }
        false
    }

    /// The record at an index of the edited recording.
    fn edited(&self, edit: Edit, index: usize) -> Option<Cow<'_, Record>> {
        let with = |event: Event| match &self.records[index] {
            Record::Step(step) => Some(Cow::Owned(Record::Step(Step { event, ..*step }))),
            _ => None,
        };
        match edit {
            Edit::Delete(at) if at == index => None,
            Edit::Weaken(at) if at == index => with(weakened(*self.event(index)?)),
            Edit::Swap(at) if at == index => with(*self.event(index + 1)?),
            Edit::Swap(at) if at + 1 == index => with(*self.event(index - 1)?),
            _ => Some(Cow::Borrowed(&self.records[index])),
        }
    }

    /// Whether the record at `index` is a barrier, maintenance or a break: what deletion takes away.
    pub(crate) fn owes(&self, index: usize) -> bool {
        match self.event(index) {
            Some(Event::Dsb(_) | Event::Isb | Event::Maintain { .. }) => true,
            Some(store) => {
                let breaks = |(pa, value): (u64, u64)| value & 1 == 0 && self.word_before(index, pa) & 1 == 1;
                stored_word(store).is_some_and(breaks) && !self.is_free(index)
            }
            None => false,
        }
    }

    /// Whether the record at `index` stores into a frame that has just been given back: the link of a list, and no descriptor.
    fn is_free(&self, index: usize) -> bool {
        let stored = self.event(index).and_then(stored_word).map(|(pa, _)| pa);
        matches!(index.checked_sub(1).and_then(|before| self.event(before)), Some(Event::Give { pa, .. }) if Some(*pa) == stored)
    }

    /// Whether an ISB follows `index` with nothing but reads and writes of registers before it, M not among them.
    fn is_synchronised(&self, index: usize) -> bool {
        let turns_on = |event: &Event| matches!(event, Event::Msr { register, value } if register.name() == Some("sctlr_el2") && value & 1 == 1);
        let mut events = (index..self.records.len()).filter_map(|at| self.event(at));
        let next = events.find(|event| !matches!(event, Event::Mrs { .. } | Event::Msr { .. }) || turns_on(event));
        next == Some(&Event::Isb)
    }

    /// Whether the record at `index` stores a valid descriptor where none was.
    fn fills(&self, index: usize) -> bool {
        let stored = self.event(index).and_then(stored_word);
        stored.is_some_and(|(pa, value)| value & 1 == 1 && self.word_before(index, pa) & 1 == 0)
    }

    /// Where the next descriptor in a table in use is stored after `index`, in the same request.
    fn next_store(&self, index: usize) -> Option<usize> {
        let is_store = |at: &usize| self.event(*at).is_some_and(|event| stored_word(event).is_some());
        let of_request = |at: &usize| self.event(*at) != Some(&Event::Settled);
        let mut later = (index + 1..self.records.len()).take_while(of_request);
        later.find(|at| is_store(at) && !self.is_free(*at))
    }

    /// Whether the next descriptor stored after `index` makes a broken one valid: an invalid word that is not 0.
    fn makes_next(&self, index: usize) -> bool {
        self.next_store(index).is_some_and(|at| {
            let (pa, _) = self.event(at).and_then(stored_word).unwrap_or_default();
            self.fills(at) && self.word_before(at, pa) != 0
        })
    }

    /// Whether the next descriptor stored after `index` leads to a table: valid, and with no attribute, not even AF.
    fn links_next(&self, index: usize) -> bool {
        let stored = self.next_store(index).and_then(|at| self.event(at)).and_then(stored_word);
        stored.is_some_and(|(_, value)| value & 0xfff == 3)
    }

    /// Whether two neighbouring stores that change places leave another value where both store.
    fn changes_memory(&self, first: usize) -> bool {
        let words = |index: usize| match self.event(index) {
            Some(Event::Store(access)) => stored_words(access).collect(),
            _ => Vec::new(),
        };
        let (a, b) = (words(first), words(first + 1));
        a.iter().any(|(pa, _, value)| b.iter().any(|(other, _, last)| pa == other && value != last))
    }

    /// What the word at `pa` held before the record at `index`.
    fn word_before(&self, index: usize, pa: u64) -> u64 {
        let value = |record: &Record| match record {
            Record::Word { pa: at, value } if *at == pa => Some(*value),
            record => {
                let event = event_of(record)?;
                let zeroed = zeroed_pair(event).filter(|pair| pair & !0xf == pa & !0xf).map(|_| 0);
                zeroed.or_else(|| stored_word(event).filter(|(at, _)| *at == pa).map(|(_, value)| value))
            }
        };
        self.records[..index].iter().rev().find_map(value).unwrap_or(POISON)
    }

    /// The next step of the same request and CPU after `index` that `is` accepts.
    fn next(&self, index: usize, is: impl Fn(&Event) -> bool) -> Option<usize> {
        let cpu_of = |at: usize| match &self.records[at] {
            Record::Step(step) => Some(step.cpu),
            _ => None,
        };
        let of_request = |at: &usize| self.event(*at).is_some_and(|event| *event != Event::Settled);
        let mut later = (index + 1..self.records.len()).take_while(of_request);
        later.find(|&at| cpu_of(at) == cpu_of(index) && self.event(at).is_some_and(&is))
    }
}

/// Frames that a descriptor was stored in, or that a table descriptor may lead to, and that were zeroed first.
fn poisoned(records: &[Record]) -> BTreeSet<u64> {
    let events = || records.iter().filter_map(event_of);
    let zeroed: BTreeSet<u64> = events().filter_map(zeroed_pair).filter(|pair| pair & 0xfff == 0).collect();
    let tables = events().filter_map(stored_word).flat_map(|(pa, value)| {
        let next = (value & 3 == 3).then_some(value & super::bits::OUTPUT);
        [Some(pa & !0xfff), next].into_iter().flatten()
    });
    tables.filter(|frame| zeroed.contains(frame)).collect()
}

/// A step that looks like `event` and does less; the event itself when there is none.
pub(crate) fn weakened(event: Event) -> Event {
    let barrier = |crm| Event::Dsb(Barrier { crm, without_xs: false });
    match event {
        // ISH, SY: for this PE alone. NSH: for stores alone. ISHST: a DMB, which orders and completes nothing.
        Event::Dsb(Barrier { crm: 11 | 15, .. }) => barrier(7),
        Event::Dsb(Barrier { crm: 7, .. }) => barrier(10),
        Event::Dsb(kind @ Barrier { crm: 10, .. }) => Event::Dmb(kind),
        Event::Maintain { operation, operand } => {
            let local = |name| Operation::from_text(name).expect("a name of the format");
            let by = |name, operand| Event::Maintain { operation: local(name), operand };
            match operation.name() {
                Some("alle2is") => by("alle2", operand),
                Some("vale2is") => by("vale2", operand),
                Some("vae2is") => by("vae2", operand),
                Some("rvale2is") => by("rvale2", operand),
                Some("rvae2is") => by("rvae2", operand),
                // The last level alone, where tables went, too.
                Some("vae2") => by("vale2", operand),
                Some("rvae2") => by("rvale2", operand),
                // A hint at another level; without one, the address shifted by one bit too few: what a wrong shift gives.
                Some("vale2") if operand >> 44 != 0 => by("vale2", operand ^ 1 << 44),
                Some("vale2") => by("vale2", operand << 1),
                // A shorter range; where there is none, one that begins too late.
                Some("rvale2") if operand >> 39 & 31 != 0 => by("rvale2", operand - (1 << 39)),
                Some("rvale2") => by("rvale2", operand + 1),
                _ => event,
            }
        }
        other => other,
    }
}

/// Whether the record at `index` and its successor are instructions of one CPU, next to each other.
pub(crate) fn are_neighbours(recording: &Recording, index: usize) -> bool {
    match (recording.records.get(index), recording.records.get(index + 1)) {
        (Some(Record::Step(a)), Some(Record::Step(b))) => {
            a.cpu == b.cpu && !is_marker(&a.event) && !is_marker(&b.event)
        }
        _ => false,
    }
}

/// The rule by which two neighbours may change places, checked on what they do.
fn commute(recording: &Recording, first: usize) -> Option<&'static str> {
    let (a, b) = (recording.event(first)?, recording.event(first + 1)?);
    let words = |event: &Event| match event {
        Event::Store(access) => Some(access.pa..access.pa + u64::from(access.bytes)),
        _ => None,
    };
    if a == b {
        return Some("they are the same");
    }
    if let (Some(a), Some(b)) = (words(a), words(b))
        && (a.end <= b.start || b.end <= a.start)
    {
        return Some("stores to different words: no barrier stands between, so nobody is promised their order");
    }
    if is_tlbi(a) && is_tlbi(b) {
        return Some("TLBIs: what each invalidates is gone when the DSB after both completes");
    }
    match (a, b) {
        (Event::Mrs { register: read }, Event::Msr { register: written, .. })
        | (Event::Msr { register: written, .. }, Event::Mrs { register: read })
            if read == written => {}
        (Event::Mrs { .. }, _) | (_, Event::Mrs { .. }) => {
            return Some("a register is read: that orders nothing and changes nothing");
        }
        (Event::Msr { .. }, Event::Msr { .. }) if recording.is_synchronised(first + 1) => {
            return Some("writes of two registers: neither is sure to be in force before the ISB after both");
        }
        _ => {}
    }
    let is_nothing = |at: usize, event: &Event| {
        stored_word(event).is_some_and(|(pa, value)| value & 1 == 0 && recording.word_before(at, pa) & 1 == 0)
    };
    if is_nothing(first, a) || is_nothing(first + 1, b) {
        return Some("an invalid descriptor over an invalid one: to a walk nothing was stored");
    }
    None
}

/// The erratum that a step is for, when it is for no other CPU: what was deleted, or passed by its neighbour, is the barrier it asks for.
fn erratum(recording: &Recording, edit: Edit) -> Option<&'static str> {
    let turns_off =
        |event: &Event| matches!(event, Event::Msr { value, .. } if writes(event, "sctlr_el2") && value & 1 == 0);
    let is = |index: usize, is: &dyn Fn(&Event) -> bool| recording.event(index).is_some_and(is);
    let writes_hcr = |event: &Event| writes(event, "hcr_el2");
    let touched = match edit {
        Edit::Delete(at) | Edit::Weaken(at) => at..=at,
        Edit::Swap(at) => at..=at + 1,
    };
    touched.into_iter().find_map(|at| match recording.event(at) {
        Some(Event::Isb) if is(at + 1, &turns_off) => Some(FALKOR),
        Some(Event::Dsb(_)) if is(at + 1, &writes_hcr) => Some(AMPERE),
        Some(Event::Isb) if at > 0 && is(at - 1, &writes_hcr) => Some(AMPERE),
        _ => None,
    })
}

const FALKOR: &str = "E1041: an ISB before M goes from 1 to 0";
const AMPERE: &str = "AC04_CPU_23: a DSB before HCR_EL2 is written, an ISB after";

/// The later step of the same request that makes up for a barrier that was lost, or that a neighbour has passed, and why it does.
fn cover(recording: &Recording, edit: Edit) -> Option<(usize, &'static str)> {
    let is_isb = |event: &Event| *event == Event::Isb;
    let is_dsb = |event: &Event| matches!(event, Event::Dsb(_));
    let isb = |index: usize| recording.event(index).is_some_and(is_isb);
    let lost_isb = match edit {
        Edit::Delete(at) | Edit::Weaken(at) => Some(at).filter(|&at| isb(at)),
        Edit::Swap(first) => [first, first + 1].into_iter().find(|&at| isb(at)),
    };
    if let Some(lost) = lost_isb {
        let rule = if recording.makes_next(lost) {
            MAKE
        } else if matches!(recording.event(lost + 1), Some(event) if writes(event, "ttbr0_el2")) {
            ROOT
        } else {
            return None;
        };
        let after = if let Edit::Swap(first) = edit { first + 1 } else { lost };
        return Some((recording.next(after, is_isb)?, rule));
    }
    match edit {
        // Without the DMB that the DSB has become, it is rejected.
        Edit::Weaken(at) if recording.links_next(at) => Some((at, LINK)),
        Edit::Swap(first) if recording.fills(first) && recording.event(first + 1).is_some_and(is_dsb) => {
            Some((recording.next(first + 1, is_dsb)?, FILL))
        }
        _ => None,
    }
}

const MAKE: &str = "the ISB after the make: before a make, break-before-make asks for the DSB alone; this PE's own lag (RBLDZX) may last until then";
const LINK: &str =
    "a DMB, which orders a table before its link as well: a walk that sees the link sees the table (RTGRMW)";
const ROOT: &str = "the ISB after the write of TTBR0_EL2, which comes before M = 1 as well";
const FILL: &str = "the request's last DSB: until then a walk may find the slot as it was, which is invalid";

fn writes(event: &Event, name: &str) -> bool {
    matches!(event, Event::Msr { register, .. } if register.name() == Some(name))
}
