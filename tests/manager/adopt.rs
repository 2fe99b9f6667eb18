//! Tables that somebody else made: what says the same as one of ours is adopted, bits that mean nothing are named or
//! mended, and anything else is refused with the tables as they were.

use super::bench::{Ask, Bench, CODE, CONSTANTS, Cpus, DATA, DEVICE, virt};
use super::judged::slot_in;
use breakwater::addr::{Frame, Level, PhysAddr};
use breakwater::bbm::{Adopted, Foreign, Ignored, Live, Oddity};
use breakwater::geometry::{Granule4K, Slot};
use breakwater::machine::Machine;
use breakwater::mapper::{Error, Request};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const AT: u64 = 4 * GIB;
const OUT: u64 = 64 * GIB;
const RUN: u64 = AT + 512 * PAGE * 2;
/// Root, level 1, level 2, three of level 3; a block, eight pages, a run of sixteen.
const ALL: Adopted = Adopted { tables: 5, leaves: 1 + 8 + 16, mended: 0 };
const CPUS: Cpus = Cpus { two: true, ..Cpus::PLAIN };

type Desk = Bench<Granule4K, Live>;

fn request(start: u64, bytes: u64, output: u64, attributes: breakwater::descriptor::Attributes) -> Request {
    Request::new(virt(start, bytes), PhysAddr::at(output), attributes, Level::L2)
}

fn desk() -> Desk {
    let run = request(RUN, 16 * PAGE, OUT + RUN, CODE).with_contiguous();
    Desk::live(
        CPUS,
        64,
        &[
            request(AT, 4 * PAGE, OUT, DATA),
            request(AT + 8 * PAGE, 4 * PAGE, 2 * OUT, DEVICE),
            request(AT + 2 * MIB, 2 * MIB, OUT + 2 * MIB, CONSTANTS),
            run,
        ],
    )
}

impl Desk {
    fn place(&self, level: Level, at: u64) -> Slot {
        slot_in(self.machine(), self.tables.root(), level, at)
    }

    /// Sets and clears bits, as somebody else would.
    fn flip(&mut self, slot: Slot, bits: u64) -> u64 {
        let odd = self.machine().load(slot) ^ bits;
        self.protocol.machine_mut().plant(slot, odd);
        odd
    }

    /// Adopts its own tables, by their root alone.
    fn adopt(&mut self, ignored: Ignored) -> Result<Adopted, Foreign> {
        let mut room = [None; 8];
        let (tables, adopted) = self.protocol.adopt_simulated(self.tables.root(), ignored, &mut room)?;
        self.tables = tables;
        Ok(adopted)
    }

    fn is_refused(&mut self, ignored: Ignored, slot: Slot, why: Oddity) {
        let (memory, counts) = (self.machine().memory().clone(), self.protocol.counts());
        let descriptor = self.machine().load(slot);
        assert_eq!(self.adopt(ignored), Err(Foreign { slot, descriptor, why }));
        assert!(*self.machine().memory() == memory && self.protocol.counts() == counts, "a refusal changes nothing");
    }
}

#[test]
fn good_tables_like_ours_are_adopted_and_edited() {
    let mut desk = desk();
    let (memory, counts) = (desk.machine().memory().clone(), desk.protocol.counts());
    assert_eq!(desk.adopt(Ignored::Refuse), Ok(ALL));
    assert!(*desk.machine().memory() == memory && desk.protocol.counts() == counts, "nothing is stored");
    desk.granted(Ask::Protect(virt(AT, PAGE), CONSTANTS));
    let cleared = desk.granted(Ask::Clear(virt(0, 1 << 48)));
    assert_eq!(cleared.freed, ALL.tables - 1);
    assert!(desk.picture().leaves.is_empty());
}

/// A protocol that has mapped nothing itself knows where code is.
#[test]
fn bad_an_alias_of_what_was_adopted() {
    let other = desk();
    let mut desk = Desk::live(CPUS, 64, &[]);
    *desk.protocol.machine_mut() = other.machine().clone();
    desk.tables = other.tables;
    assert_eq!(desk.adopt(Ignored::Refuse), Ok(ALL));
    while desk.frames.take().is_some_and(|frame| frame.frame().start().raw() < super::bench::POOL + 16 * PAGE) {}
    let writable = Ask::Map(request(8 * GIB, PAGE, OUT + RUN + 5 * PAGE, DATA));
    assert!(matches!(desk.refused(writable), Error::Aliased { slot, .. } if slot.virt().raw() == RUN + 5 * PAGE));
    desk.granted(Ask::Map(request(8 * GIB, PAGE, OUT + RUN + 16 * PAGE, DATA)));
}

const NG: u64 = 1 << 11;
const NS: u64 = 1 << 5;

#[test]
fn good_bits_that_mean_nothing_are_named_or_mended() {
    let cases = [
        (Level::L3, AT, vec![NG, NS, 1 << 53, 1 << 55, 1 << 58, NG | NS | 0xf << 55]),
        (Level::L2, AT + 2 * MIB, vec![NG, NS, NG | NS, 1 << 56]),
        (Level::L3, RUN + 3 * PAGE, vec![NG | NS]),
        (Level::L2, AT, vec![0xf7c, 1 << 51, 1 << 55, 0x3ff << 2]), // 0xf7c is what Xen has there
        (Level::L0, AT, vec![0xf7c | 0xf << 55]),
    ];
    for (level, at, bits) in cases {
        for bits in bits {
            let mut desk = desk();
            let (slot, clean) = (desk.place(level, at), desk.machine().memory().clone());
            desk.flip(slot, bits);
            desk.is_refused(Ignored::Refuse, slot, Oddity::Ignored(bits));
            let before = desk.protocol.counts();
            assert_eq!(desk.adopt(Ignored::Mend), Ok(Adopted { mended: 1, ..ALL }), "{bits:#x} at {level:?}");
            assert!(*desk.machine().memory() == clean, "{bits:#x} at {level:?}");
            let (done, then) = (desk.protocol.counts(), before);
            let tlbis = done.maintenance.tlbis - then.maintenance.tlbis;
            assert_eq!((done.stores - then.stores, tlbis), (1, 1), "one store, and everything is invalidated");
            desk.machine().verdict().unwrap_or_else(|complaint| panic!("{complaint}"));
            desk.granted(Ask::Clear(virt(0, 1 << 48)));
        }
    }
}

#[test]
fn good_what_is_broken_and_settled_is_reclaimed() {
    let mut desk = desk();
    let slot = desk.place(Level::L3, AT + 100 * PAGE);
    desk.flip(slot, OUT | 0x702);
    desk.is_refused(Ignored::Refuse, slot, Oddity::Broken);
    assert_eq!(desk.adopt(Ignored::Mend), Ok(Adopted { mended: 1, ..ALL }));
    assert_eq!(desk.machine().load(slot), 0);
}

#[test]
fn bad_bits_that_mean_something() {
    let cases = [
        (Level::L3, AT, vec![1 << 8, 1 << 9, 3 << 8, 1 << 10, 1 << 6, 1 << 51, 1 << 59, 1 << 62]),
        (Level::L2, AT + 2 * MIB, vec![3 << 8, 1 << 10, 1 << 51]),
        (Level::L1, AT, vec![1 << 59, 1 << 60, 1 << 61, 1 << 62, 1 << 63]),
    ];
    for (level, at, bits) in cases {
        for bits in bits {
            let mut desk = desk();
            let slot = desk.place(level, at);
            desk.flip(slot, bits | NG);
            desk.is_refused(Ignored::Mend, slot, Oddity::Meant(bits));
        }
    }
}

#[test]
fn bad_no_leaf_of_ours() {
    // Writable and executable; Device and executable; a block off its size.
    let cases = [(Level::L3, AT, 1 << 54), (Level::L3, AT + 8 * PAGE, 1 << 54), (Level::L2, AT + 2 * MIB, 1 << 16)];
    for (level, at, bits) in cases {
        let mut desk = desk();
        let slot = desk.place(level, at);
        desk.flip(slot, bits);
        desk.is_refused(Ignored::Mend, slot, Oddity::NoLeaf);
    }
}

#[test]
fn bad_runs_that_are_none() {
    let contiguous = 1 << 52;
    for (at, flipped, first) in [
        (AT, contiguous, AT),                     // alone, and its outputs begin a run
        (RUN + 7 * PAGE, contiguous, RUN),        // one of them is none
        (RUN + 7 * PAGE, 1 << 40, RUN),           // one leads elsewhere
        (RUN + 15 * PAGE, 1 << 7 | 1 << 54, RUN), // one has other rights
    ] {
        let mut desk = desk();
        let slot = desk.place(Level::L3, at);
        desk.flip(slot, flipped);
        let named = desk.place(Level::L3, first);
        desk.is_refused(Ignored::Mend, named, Oddity::TornRun);
    }
}

#[test]
fn bad_tables_that_lead_to_tables_twice() {
    for (level, from, to) in [(Level::L0, 9, Level::L0), (Level::L1, 9, Level::L0), (Level::L2, 9, Level::L3)] {
        let mut desk = desk();
        let (table, slot) = (desk.place(to, AT).table(), desk.place(level, AT).first().step(from));
        desk.flip(slot, table.start().raw() | 3);
        desk.is_refused(Ignored::Mend, slot, Oddity::TableTwice);
    }
}

#[test]
fn bad_more_tables_than_room() {
    let mut desk = desk();
    for room in 0..ALL.tables as usize {
        let mut room: Vec<Option<Frame>> = vec![None; room];
        let answer = desk.protocol.adopt_simulated(desk.tables.root(), Ignored::Mend, &mut room);
        let refused = answer.err().expect("too little room");
        assert_eq!(refused.why, Oddity::TooManyTables);
        assert!(refused.to_string().contains("more tables than there is room for"), "{refused}");
    }
    let mut room = vec![None; ALL.tables as usize];
    assert!(desk.protocol.adopt_simulated(desk.tables.root(), Ignored::Refuse, &mut room).is_ok());
}

/// Whatever single bit differs: the tables are refused as they were, or from then on hold nothing that is not ours.
#[test]
fn good_any_bit_is_refused_or_ours() {
    let mut adopted = 0;
    for (level, at) in [(Level::L0, AT), (Level::L2, AT), (Level::L2, AT + 2 * MIB), (Level::L3, AT), (Level::L3, RUN)]
    {
        for bit in 0..64 {
            let mut desk = desk();
            let slot = desk.place(level, at);
            // Behind the judge's back: not every such change is one that a live table may see.
            desk.protocol.machine_mut().forgets = Some(|_| true);
            desk.flip(slot, 1 << bit);
            let memory = desk.machine().memory().clone();
            match desk.adopt(Ignored::Mend) {
                Err(_) => assert!(*desk.machine().memory() == memory, "bit {bit} at {level:?}"),
                Ok(_) => {
                    adopted += 1;
                    let picture = desk.picture();
                    assert!(picture.odd.is_empty(), "bit {bit} at {level:?}: {:x?}", picture.odd);
                    assert_eq!(desk.adopt(Ignored::Refuse).map(|adopted| adopted.mended), Ok(0));
                }
            }
        }
    }
    assert!(adopted > 5 * 8, "{adopted}");
}
