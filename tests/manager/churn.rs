//! Mappings on demand at random: whatever comes and goes, in whatever order, each address shows what it was asked to, its guards show
//! nothing, the audit finds what is declared, and the model has no complaint.

use super::demand::{Demand, RTC};
use super::rig::{DATA, DEVICE, MIB, PAGE, frame, phys};
use breakwater::addr::{Frame, VirtAddr};
use breakwater::descriptor::DeviceKind;
use breakwater::layout::WINDOW_SLOTS;
use breakwater::regions::alias::Ram;
use breakwater::regions::fixmap::{self, Purpose};
use breakwater::regions::{vmap, window};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRunner};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;

/// Frames of RAM that are mapped now and then.
const FRAMES: usize = 6;

/// What someone asks for. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Wish {
    Ioremap { offset: u64, bytes: u64 },
    Vmap(Vec<usize>),
    Unmap(usize),
    Set(usize, usize),
    Clear(usize),
    Show { cpu: usize, page: u64 },
    Hide(usize),
    Release { page: u64, pages: u64 },
}

fn wish() -> impl Strategy<Value = Wish> {
    let any = 0..64_usize;
    let bytes = prop_oneof![3 => 1..5 * PAGE, 1 => Just(2 * MIB), 1 => 2 * MIB..7 * MIB];
    prop_oneof![
        3 => (0..4 * MIB, bytes).prop_map(|(offset, bytes)| Wish::Ioremap { offset, bytes }),
        4 => vec(0..FRAMES, 0..9).prop_map(Wish::Vmap),
        5 => any.clone().prop_map(Wish::Unmap),
        2 => (any.clone(), 0..FRAMES).prop_map(|(slot, frame)| Wish::Set(slot, frame)),
        2 => any.clone().prop_map(Wish::Clear),
        4 => (0..2_usize, 0..7_u64).prop_map(|(cpu, page)| Wish::Show { cpu, page }),
        3 => any.prop_map(Wish::Hide),
        1 => (0..7_u64, 1..4_u64).prop_map(|(page, pages)| Wish::Release { page, pages }),
    ]
}

/// What was granted, and is not over.
struct Asked {
    demand: Demand,
    frames: Vec<Frame>,
    /// Areas of vmap: the address given, the first page and what each page shows.
    areas: BTreeMap<u64, (u64, Vec<u64>)>,
    slots: BTreeMap<u64, (Purpose, u64)>,
    /// Kept from being dropped: a failure is to be shown, not drowned by the promise that then breaks.
    shown: Vec<(usize, u64, ManuallyDrop<window::Mapped>)>,
}

impl Asked {
    fn new() -> Self {
        let mut demand = Demand::new();
        let frames = demand.scattered(FRAMES);
        Self { demand, frames, areas: BTreeMap::new(), slots: BTreeMap::new(), shown: Vec::new() }
    }

    fn ask(&mut self, wish: &Wish) {
        match wish {
            Wish::Ioremap { offset, bytes } => self.ioremap(RTC + 64 * MIB + offset, *bytes),
            Wish::Vmap(order) => self.vmap(order),
            Wish::Unmap(number) => self.unmap(*number),
            Wish::Set(slot, frame) => self.set(Purpose::ALL[slot % Purpose::ALL.len()], self.frames[*frame]),
            Wish::Clear(slot) => self.clear(Purpose::ALL[slot % Purpose::ALL.len()]),
            Wish::Show { cpu, page } => self.show(*cpu, RTC + page * PAGE),
            Wish::Hide(number) if !self.shown.is_empty() => {
                let (.., mapped) = self.shown.swap_remove(number % self.shown.len());
                self.demand.on_demand.window.unmap(ManuallyDrop::into_inner(mapped));
            }
            Wish::Hide(_) => {}
            Wish::Release { page, pages } => self.release(RTC + page * PAGE, *pages * PAGE),
        }
    }

    fn ioremap(&mut self, start: u64, bytes: u64) {
        let registers = phys(start, bytes);
        let at = self.demand.granted(|all, space| all.vmap.ioremap(space, registers, DeviceKind::NGnRE));
        let pages = registers.page_cover();
        let shows = (pages.start().raw()..pages.end_exclusive().raw()).step_by(PAGE as usize);
        self.areas.insert(at.raw(), (at.raw() - start % PAGE, shows.collect()));
    }

    fn vmap(&mut self, order: &[usize]) {
        let frames: Vec<Frame> = order.iter().map(|&index| self.frames[index]).collect();
        if frames.is_empty() {
            let error = self.demand.refused(|all, space| all.vmap.vmap(space, &frames, DATA));
            assert_eq!(error, vmap::Error::Empty);
            return;
        }
        let at = self.demand.granted(|all, space| all.vmap.vmap(space, &frames, DATA)).raw();
        self.areas.insert(at, (at, frames.iter().map(|frame| frame.start().raw()).collect()));
    }

    fn unmap(&mut self, number: usize) {
        let Some(&at) = self.areas.keys().nth(number % self.areas.len().max(1)) else { return };
        self.areas.remove(&at);
        let at = VirtAddr::at(at);
        self.demand.granted(|all, space| all.vmap.unmap(space, at));
        let error = self.demand.refused(|all, space| all.vmap.unmap(space, at));
        assert_eq!(error, vmap::Error::NoArea { address: at, inside: None }, "once");
    }

    fn set(&mut self, slot: Purpose, frame: Frame) {
        let at = slot.virt().start().raw();
        if let Some(&(slot, shows)) = self.slots.get(&at) {
            let error = self.demand.refused(|_, space| fixmap::set(space, Ram::Declared, slot, frame, DATA));
            assert!(matches!(error, fixmap::Error::InUse { shows: found, .. } if found.raw() == shows));
            return;
        }
        let given = self.demand.granted(|_, space| fixmap::set(space, Ram::Declared, slot, frame, DATA));
        assert_eq!(given.raw(), at);
        self.slots.insert(at, (slot, frame.start().raw()));
    }

    fn clear(&mut self, slot: Purpose) {
        if self.slots.remove(&slot.virt().start().raw()).is_some() {
            self.demand.granted(|_, space| fixmap::clear(space, slot));
        } else {
            let error = self.demand.refused(|_, space| fixmap::clear(space, slot));
            assert_eq!(error, fixmap::Error::NotSet { slot });
        }
    }

    fn show(&mut self, cpu: usize, page: u64) {
        let mut own: Vec<u64> = self.shown.iter().filter(|shown| shown.0 == cpu).map(|shown| shown.1).collect();
        own.sort_unstable();
        own.dedup();
        if own.len() == WINDOW_SLOTS && !own.contains(&page) {
            let error = self.demand.refused(|all, space| all.window.map(space, cpu, frame(page), DEVICE));
            assert_eq!(error, window::Error::AllInUse { cpu });
            return;
        }
        let mapped = self.demand.granted(|all, space| all.window.map(space, cpu, frame(page), DEVICE));
        self.shown.push((cpu, page, ManuallyDrop::new(mapped)));
    }

    fn release(&mut self, start: u64, bytes: u64) {
        let span = phys(start, bytes);
        let in_use = self.shown.iter().any(|&(_, page, _)| span.start().raw() <= page && page < start + bytes);
        if in_use {
            let error = self.demand.refused(|all, space| all.window.release(space, span));
            assert!(matches!(error, window::Error::InUse { .. }));
        } else {
            self.demand.granted(|all, space| all.window.release(space, span));
        }
    }

    /// Every address shows what it should, and what lies between areas nothing.
    fn check(&self) {
        for (first, shows) in self.areas.values() {
            assert_eq!(self.demand.translate(first - PAGE), None, "the guard below");
            for (page, &output) in (0..).zip(shows) {
                assert_eq!(self.demand.translate(first + page * PAGE), Some(output));
            }
            assert_eq!(self.demand.translate(first + shows.len() as u64 * PAGE), None, "the guard above");
        }
        let slots = self.slots.iter().map(|(&at, &(_, shows))| (at, shows));
        let windows = self.shown.iter().map(|(_, page, mapped)| (mapped.virt().raw(), *page));
        for (at, shows) in slots.chain(windows) {
            assert_eq!(self.demand.translate(at), Some(shows));
        }
        self.demand.assert_audit();
    }

    /// Ends everything: what is left is what there was.
    fn end(mut self) {
        while !self.areas.is_empty() {
            self.unmap(0);
        }
        Purpose::ALL.into_iter().for_each(|slot| self.clear(slot));
        for (.., mapped) in self.shown.drain(..) {
            self.demand.on_demand.window.unmap(ManuallyDrop::into_inner(mapped));
        }
        self.release(RTC, 8 * PAGE);
        assert_eq!(self.demand.leaves(), []);
        self.demand.assert_audit();
    }
}

#[test]
fn good_whatever_is_mapped_on_demand() {
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&vec(wish(), 1..40), |wishes| {
        let mut asked = Asked::new();
        for wish in &wishes {
            asked.ask(wish);
            asked.check();
        }
        asked.end();
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
