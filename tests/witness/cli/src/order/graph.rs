//! Linear orders of the events of a recording that fit what is known of their order.

use breakwater_trace::{Event, Record, Step};

use super::{Edge, Moment};

/// Something that must be there before an event may follow: so many events of another CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Need {
    /// The event, by its number among those of its CPU.
    event: usize,
    /// The other CPU, and how many of its events.
    cpu: usize,
    events: usize,
}

/// The events of one CPU, by their numbers among the records, and what they need.
#[derive(Default, Debug)]
struct Lane {
    events: Vec<usize>,
    needs: Vec<Need>,
}

/// How many events of each CPU, by number.
type Clock = Vec<usize>;

/// The events of a recording and what is known of their order.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    records: &'a [(u64, Record)],
    lanes: Vec<Lane>,
    /// Records that are no events: declarations, and what stands at the end.
    head: Vec<usize>,
    tail: Vec<usize>,
}

/// How to choose among the events that may come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// The one that arrived first.
    Arrival,
    /// What must be before this event, then the event, then the others as they arrived.
    Early(Moment),
    /// Everything that may be before this event, as it arrived, and then the event.
    Late(Moment),
    /// At random.
    Random(u64),
}

impl<'a> Order<'a> {
    /// The order of `records` (line and record, in the order of arrival) by `edges`, which may speak of lines that are not there.
    pub(crate) fn new(records: &'a [(u64, Record)], edges: &[Edge]) -> Self {
        let mut order = Self { records, lanes: Vec::new(), head: Vec::new(), tail: Vec::new() };
        for (number, (_, record)) in records.iter().enumerate() {
            match record {
                Record::Step(step) => {
                    let cpu = step.cpu as usize;
                    if order.lanes.len() <= cpu {
                        order.lanes.resize_with(cpu + 1, Lane::default);
                    }
                    order.lanes[cpu].events.push(number);
                }
                _ if order.lanes.is_empty() => order.head.push(number),
                _ => order.tail.push(number),
            }
        }
        edges.iter().for_each(|edge| order.add(edge));
        order.lanes.iter_mut().for_each(|lane| lane.needs.sort_unstable());
        order
    }

    /// How many events of the CPU have lines that `belong`, which hold for its first ones.
    fn count(&self, cpu: u32, belong: impl Fn(u64) -> bool) -> usize {
        let lane = self.lanes.get(cpu as usize);
        lane.map_or(0, |lane| lane.events.partition_point(|number| belong(self.records[*number].0)))
    }

    fn add(&mut self, edge: &Edge) {
        let Edge { before, after } = *edge;
        let events = self.count(before.cpu, |line| line <= before.line);
        let event = self.count(after.cpu, |line| line < after.line);
        let Some(lane) = self.lanes.get_mut(after.cpu as usize) else { return };
        if events > 0 && event < lane.events.len() {
            lane.needs.push(Need { event, cpu: before.cpu as usize, events });
        }
    }

    /// Records in all.
    pub(crate) const fn len(&self) -> usize {
        self.records.len()
    }

    /// The record with this number: its line and itself.
    pub(crate) fn record(&self, number: usize) -> (u64, &'a Record) {
        let (line, record) = &self.records[number];
        (*line, record)
    }

    /// What must be before the event, with the event itself.
    fn past(&self, of: Moment) -> Clock {
        let mut clock = vec![0; self.lanes.len()];
        let mut looked_at = clock.clone();
        if let Some(own) = clock.get_mut(of.cpu as usize) {
            *own = self.count(of.cpu, |line| line <= of.line);
        }
        loop {
            let mut grown = false;
            for (cpu, lane) in self.lanes.iter().enumerate() {
                while let Some(need) = lane.needs.get(looked_at[cpu]).filter(|need| need.event < clock[cpu]) {
                    looked_at[cpu] += 1;
                    clock[need.cpu] = clock[need.cpu].max(need.events);
                    grown = true;
                }
            }
            if !grown {
                return clock;
            }
        }
    }

    /// How many records, from the first on, stand in the same place in every order: what is declared, and what one CPU did before any other
    /// can have done anything.
    pub(crate) fn settled(&self) -> usize {
        let first = |lane: &Lane| lane.events.first().copied();
        let Some(cpu) = (0..self.lanes.len()).min_by_key(|cpu| first(&self.lanes[*cpu]).unwrap_or(usize::MAX)) else {
            return self.len();
        };
        let others = self.lanes.iter().enumerate().filter(|(other, _)| *other != cpu);
        let alone = others.filter_map(|(other, lane)| {
            let (line, _) = self.record(first(lane)?);
            Some(self.past(Moment { cpu: other as u32, line })[cpu])
        });
        match alone.min() {
            Some(events) => self.head.len() + events,
            None => self.len(),
        }
    }

    /// Whether this event of the CPU is a register as it was found: nothing comes between a CPU's start and these.
    fn is_found(&self, cpu: usize, event: usize) -> bool {
        let number = self.lanes[cpu].events.get(event);
        let record = number.map(|number| self.record(*number).1);
        matches!(record, Some(Record::Step(Step { event: Event::Found { .. }, .. })))
    }

    /// The numbers of all records in an order that fits what is known. Should that contradict itself, as no recording does, the event
    /// that arrived first goes ahead.
    pub(crate) fn linear(&self, choice: Choice) -> Vec<usize> {
        let mut chooser = Chooser::new(self, choice);
        let mut sequence = self.head.clone();
        let mut state = Scheduled { done: vec![0; self.lanes.len()], met: vec![0; self.lanes.len()] };
        let mut ready: Vec<(usize, usize)> = Vec::new();
        loop {
            ready.clear();
            ready.extend(state.next(self).filter(|(cpu, _)| state.may_go(self, *cpu)));
            if ready.is_empty() {
                ready.extend(state.next(self).min_by_key(|(_, number)| *number));
            }
            let Some(cpu) = chooser.choose(&ready, &state.done) else { break };
            loop {
                sequence.push(self.lanes[cpu].events[state.done[cpu]]);
                state.advance(self, cpu);
                if !self.is_found(cpu, state.done[cpu]) {
                    break;
                }
            }
        }
        sequence.extend(&self.tail);
        sequence
    }
}

/// How far a linear order has got: by CPU, its events, and those of its needs that are met or gone.
struct Scheduled {
    done: Clock,
    met: Vec<usize>,
}

impl Scheduled {
    /// The next event of each CPU that has one.
    fn next(&self, order: &Order<'_>) -> impl Iterator<Item = (usize, usize)> {
        order
            .lanes
            .iter()
            .zip(&self.done)
            .enumerate()
            .filter_map(|(cpu, (lane, done))| Some((cpu, *lane.events.get(*done)?)))
    }

    fn may_go(&self, order: &Order<'_>, cpu: usize) -> bool {
        let needs = order.lanes[cpu].needs[self.met[cpu]..].iter();
        needs.take_while(|need| need.event <= self.done[cpu]).all(|need| self.done[need.cpu] >= need.events)
    }

    fn advance(&mut self, order: &Order<'_>, cpu: usize) {
        let needs = &order.lanes[cpu].needs;
        while needs.get(self.met[cpu]).is_some_and(|need| need.event <= self.done[cpu]) {
            self.met[cpu] += 1;
        }
        self.done[cpu] += 1;
    }
}

/// Makes one choice after the other.
struct Chooser {
    choice: Choice,
    /// What must be before the event in question, with it.
    past: Clock,
    random: u64,
    /// The CPU that goes on, and for how many events.
    burst: (usize, u64),
    /// Half as many bits as the number of records has.
    scales: u64,
}

impl Chooser {
    fn new(order: &Order<'_>, choice: Choice) -> Self {
        let (past, random) = match choice {
            Choice::Early(event) | Choice::Late(event) => (order.past(event), 0),
            Choice::Random(seed) => (Vec::new(), seed),
            Choice::Arrival => (Vec::new(), 0),
        };
        Self { choice, past, random, burst: (0, 0), scales: u64::from(order.len().max(1).ilog2() / 2 + 1) }
    }

    /// One of the CPUs that are `ready`, given with their next events; nothing if there is none.
    fn choose(&mut self, ready: &[(usize, usize)], done: &Clock) -> Option<usize> {
        let first =
            |among: &mut dyn Iterator<Item = &(usize, usize)>| among.min_by_key(|(_, number)| *number).map(|at| at.0);
        let chosen = match self.choice {
            Choice::Arrival => None,
            Choice::Early(_) => first(&mut ready.iter().filter(|(cpu, _)| done[*cpu] < self.past[*cpu])),
            Choice::Late(event) => {
                let own = event.cpu as usize;
                first(&mut ready.iter().filter(|(cpu, _)| *cpu != own || done[own] + 1 != self.past[own]))
            }
            Choice::Random(seed) => self.random(seed, ready),
        };
        chosen.or_else(|| first(&mut ready.iter()))
    }

    /// Any CPU, which then goes on for a while: for one event in the orders of some seeds, to the end in those of others.
    fn random(&mut self, seed: u64, ready: &[(usize, usize)]) -> Option<usize> {
        let (cpu, left) = self.burst;
        if left > 0 && ready.iter().any(|at| at.0 == cpu) {
            self.burst.1 -= 1;
            return Some(cpu);
        }
        // Eight seeds in a row spread over all scales, and fewer over as many as they can.
        let mean = 1 << (2 * (5 * (seed % 8) % 8 * self.scales / 8));
        let cpu = ready.get(self.below(ready.len() as u64) as usize)?.0;
        self.burst = (cpu, self.below(2 * mean));
        Some(cpu)
    }

    /// A number below `bound` (SplitMix64).
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
