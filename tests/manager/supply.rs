//! A supply that owns nothing: each request asks a host for the frames that it lacks, before its first store, and the
//! host gets former tables back. With any number too few, tables, counters and the host's frames are as if the request
//! had never been made.

use super::bench::{Ask, Cpus, DATA, POOL, virt};
use super::judged::Judged;
use super::out_of_frames::{AT, Case, FRAMES, changes, fills, request};
use super::picture::Picture;
use breakwater::addr::{Level, PhysAddr, PhysSpan};
use breakwater::bbm::{Counts, Detached, FreeFrame, FreeTables, Live, Protocol, Tables};
use breakwater::features::Features;
use breakwater::frames::{OwnedRam, Supply};
use breakwater::geometry::Granule4K;
use breakwater::machine::Footing;
use breakwater::mapper::{Cost, Error, Mapper};
use std::collections::BTreeMap;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const CPUS: Cpus = Cpus { two: true, ..Cpus::PLAIN };

type Machine = Judged<Granule4K>;

/// A host's allocator, and the list between it and the mapper.
struct Host {
    free: Vec<OwnedRam<Machine>>,
    list: FreeTables<Machine>,
    /// Frames that it keeps for others.
    reserved: usize,
    asked: u64,
}

impl Supply<Machine> for Host {
    fn tables(&self) -> &FreeTables<Machine> {
        &self.list
    }
    fn tables_mut(&mut self) -> &mut FreeTables<Machine> {
        &mut self.list
    }
    fn ask(&mut self) -> Option<FreeFrame<Machine>> {
        if self.free.len() <= self.reserved {
            return None;
        }
        self.asked += 1;
        self.free.pop()?.into_frame().ok()
    }
    fn take_back(&mut self, frame: FreeFrame<Machine>) {
        self.free.push(frame.into_ram());
    }
}

struct Desk {
    protocol: Protocol<Machine>,
    host: Host,
    tables: Tables<Machine, Live>,
}

impl Desk {
    /// Tables of `case`, in force; its host has all frames that are left.
    fn of(case: &Case, cpus: Cpus) -> Self {
        let mut protocol = Protocol::simulated(Judged::new(cpus.features, cpus.errata), cpus.errata);
        protocol.use_features(cpus.features);
        let page = |index: u64| PhysSpan::of(PhysAddr::at(POOL + index * PAGE), PAGE).expect("a frame");
        let free = (0..=FRAMES).map(|index| OwnedRam::simulated(page(index))).collect();
        let mut host = Host { free, list: FreeTables::none(), reserved: 0, asked: 0 };
        let mut tables = protocol.new_root(host.ask().expect("a frame"));
        for &request in &case.furniture {
            Mapper::new(&mut protocol, &mut host, &mut tables).map(request).expect("furniture");
        }
        let (tables, _) = protocol.switch_root(tables, Detached::none());
        if cpus.two {
            protocol.share(cpus.errata);
            protocol.machine_mut().start_second(tables.root().start().raw());
        }
        Self { protocol, host, tables }
    }

    fn empty() -> Self {
        Self::of(&Case { name: "", furniture: vec![], ask: Ask::Unmap(virt(AT, PAGE)), frames: 0 }, CPUS)
    }

    fn mapper(&mut self) -> Mapper<'_, Machine, Live, Host> {
        Mapper::new(&mut self.protocol, &mut self.host, &mut self.tables)
    }

    /// The host has `left` frames for us.
    fn leave(&mut self, left: u64) {
        self.host.reserved = self.host.free.len() - left as usize;
    }

    fn ask(&mut self, ask: Ask) -> Result<Cost, Error> {
        let answer = ask.planned(&mut self.mapper());
        self.protocol.machine().verdict().unwrap_or_else(|complaint| panic!("{ask:x?}: {complaint}"));
        answer
    }

    fn picture(&self) -> Picture {
        Picture::of(self.protocol.machine(), self.tables.root().start().raw())
    }

    /// All that a refusal leaves as it was: what is in memory that is not the host's, counters, the host's frames, the
    /// list.
    fn standing(&self) -> (BTreeMap<u64, Vec<u64>>, Counts, Vec<u64>, u64) {
        let host = self.hosts();
        let mut memory = self.protocol.machine().memory().clone();
        memory.retain(|frame, _| !host.contains(frame));
        (memory, self.protocol.counts(), host, self.host.list.count())
    }

    /// The host's frames, which are different ones.
    fn hosts(&self) -> Vec<u64> {
        let mut frames: Vec<u64> = self.host.free.iter().map(|ram| ram.span().start().raw()).collect();
        frames.sort_unstable();
        let all = frames.len();
        frames.dedup();
        assert_eq!(frames.len(), all, "a frame came back twice");
        frames
    }

    fn is_complete(&self) -> bool {
        let tables = self.picture().tables.len() as u64;
        tables + self.host.list.count() + self.hosts().len() as u64 == FRAMES + 1
    }
}

fn check(case: &Case, cpus: Cpus) {
    let Case { name, ask, frames, .. } = case;
    for left in 0..*frames {
        let mut desk = Desk::of(case, cpus);
        desk.leave(left);
        let before = desk.standing();
        assert_eq!(desk.ask(*ask), Err(Error::OutOfFrames { needed: *frames, available: left }), "{name}");
        assert!(desk.standing() == before, "{name}: with {left} of {frames} frames something changed");
        // The same request, once the host has enough.
        desk.leave(*frames);
        desk.host.asked = 0;
        let cost = desk.ask(*ask).expect("as many as it needs");
        assert_eq!((cost.frames, desk.host.asked), (*frames, *frames), "{name}: neither more nor less");
        assert_eq!(desk.host.list.count(), cost.freed, "{name}");
        assert!(desk.is_complete(), "{name}: a frame was lost");
        desk.mapper().drain();
        assert!(desk.host.list.count() == 0 && desk.is_complete(), "{name}: a frame was lost on its way back");
    }
}

#[test]
fn bad_a_host_that_refuses_at_any_frame_of_a_fill() {
    fills().iter().for_each(|case| check(case, CPUS));
}

#[test]
fn bad_a_host_that_refuses_at_any_frame_of_a_change() {
    changes().iter().for_each(|case| check(case, Cpus::PLAIN));
    changes().iter().for_each(|case| check(case, Cpus { features: Features::RESIZE, ..CPUS }));
}

#[test]
fn good_former_tables_are_tables_again_before_anybody_is_asked() {
    let mut desk = Desk::empty();
    assert_eq!(desk.ask(Ask::Map(request(AT, PAGE, Level::L3))).unwrap().frames, 3);
    assert_eq!(desk.ask(Ask::Unmap(virt(AT, PAGE))).unwrap().freed, 3);
    desk.host.asked = 0;
    desk.ask(Ask::Map(request(2 * AT, PAGE, Level::L3))).unwrap();
    assert_eq!((desk.host.asked, desk.host.list.count()), (0, 0));
    assert!(desk.is_complete());
}

/// Some are there and some are asked for: what was there stays there, and what was asked for goes back.
#[test]
fn bad_a_host_that_refuses_the_rest() {
    let mut desk = Desk::empty();
    desk.ask(Ask::Map(request(AT, PAGE, Level::L3))).unwrap();
    desk.ask(Ask::Unmap(virt(AT, PAGE))).unwrap();
    desk.leave(2);
    let (before, next) = (desk.standing(), desk.host.list.next());
    let six = Ask::Map(request(AT - PAGE, 2 * PAGE, Level::L3));
    assert_eq!(desk.ask(six), Err(Error::OutOfFrames { needed: 6, available: 5 }));
    assert!(desk.standing() == before && desk.host.list.next() == next);
    desk.leave(3);
    assert_eq!(desk.ask(six).unwrap().frames, 6);
    assert!(desk.is_complete());
}

/// A plan that is dropped, and a request that is refused for another reason, have asked already: the host gets that
/// back when it drains.
#[test]
fn good_what_was_asked_for_in_vain_goes_back() {
    let mut desk = Desk::empty();
    let all = desk.hosts();
    drop(desk.mapper().plan_map(request(AT, PAGE, Level::L3)).unwrap());
    assert_eq!(desk.host.list.count(), 3);
    desk.mapper().drain();
    assert_eq!((desk.hosts(), desk.host.list.count()), (all, 0));
}

/// The frame that the host gives for the split is reached through the very page that the split would break.
#[test]
fn bad_the_window_to_a_frame_that_the_host_just_gave() {
    const WINDOW: u64 = 1 << 40;
    let window = breakwater::mapper::Request::new(virt(WINDOW, 512 * MIB), PhysAddr::at(0), DATA, Level::L2);
    let case = Case { name: "", furniture: vec![window], ask: Ask::Unmap(virt(WINDOW, PAGE)), frames: 1 };
    // Only that page is broken: the block becomes a table in place.
    let mut desk = Desk::of(&case, Cpus { features: Features::RESIZE, ..CPUS });
    desk.protocol.machine_mut().window = Some(WINDOW);
    let next = desk.hosts().last().copied().expect("a frame");
    let refused = desk.ask(Ask::Unmap(virt(WINDOW + next, PAGE))).unwrap_err();
    let Error::WouldBreakSelf { footing: Footing { name, .. }, .. } = refused else { panic!("{refused}") };
    assert_eq!(name, "the window to a free frame");
    assert!(desk.is_complete());
}

/// Memory that is no frame becomes no frame.
#[test]
fn bad_memory_that_is_not_one_frame() {
    let ram = |start, bytes| OwnedRam::<Machine>::simulated(PhysSpan::of(PhysAddr::at(start), bytes).unwrap());
    for (start, bytes) in [(POOL, 2 * PAGE), (POOL, 0), (POOL, PAGE / 2), (POOL + 8, PAGE), (POOL + 8, 2 * PAGE)] {
        let back = ram(start, bytes).into_frame().expect_err("no frame");
        assert_eq!((back.span().start().raw(), back.span().bytes()), (POOL.max(start), bytes));
    }
    let frame = ram(POOL, PAGE).into_frame().expect("a frame");
    assert_eq!(frame.frame().start().raw(), POOL);
    assert_eq!(frame.into_ram().span(), ram(POOL, PAGE).span());
}
