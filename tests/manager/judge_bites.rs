//! The judge itself: each of its rules has a sequence that trips it, and the right one beside it that does not.

use super::bits::attribute_bits;
use super::event::{Dsb, Event};
use super::judge::Judge;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE};

const ROOT: u64 = 0x1000;
const L1: u64 = 0x2000;
const L2: u64 = 0x3000;
const L3: u64 = 0x4000;
const SPARE: u64 = 0x5000;

const ISHST: Event = Event::Dsb(Dsb::IshSt);
const ISH: Event = Event::Dsb(Dsb::Ish);
const NSH: Event = Event::Dsb(Dsb::Nsh);
const ISB: Event = Event::Isb;

/// A page that maps to `output`.
fn page(output: u64) -> u64 {
    output | attribute_bits(DATA) | 3
}

fn store(table: u64, level: u8, index: u64, value: u64) -> Event {
    Event::Store { address: table + 8 * index, level, value }
}

/// A store to the page slot of address 0x3000.
fn slot(value: u64) -> Event {
    store(L3, 3, 3, value)
}

fn tlbi(broadcast: bool) -> Event {
    Event::TlbiLeafVa { broadcast, operand: 3 }
}

/// Tables in force for the lowest 2 MiB, with a page at 0x3000.
fn judge() -> Judge {
    let mut judge = Judge::new(ROOT);
    let tables = [Event::Zero { frame: L1 }, Event::Zero { frame: L2 }, Event::Zero { frame: L3 }, ISHST];
    let links =
        [store(L2, 2, 0, L3 | 3), store(L1, 1, 0, L2 | 3), ISHST, store(ROOT, 0, 0, L1 | 3), slot(page(0x8000))];
    tables.into_iter().chain(links).chain([ISHST, ISB]).for_each(|step| judge.step(step));
    judge.end_of_request();
    assert_eq!(judge.violations, Vec::<String>::new());
    judge
}

fn complaints(mut judge: Judge, steps: &[Event]) -> Vec<String> {
    steps.iter().for_each(|&step| judge.step(step));
    judge.end_of_request();
    judge.violations
}

fn good(judge: Judge, steps: &[Event]) {
    assert_eq!(complaints(judge, steps), Vec::<String>::new());
}

/// One of the complaints has `what` in it.
fn bad(judge: Judge, steps: &[Event], what: &str) {
    let said = complaints(judge, steps);
    assert!(said.iter().any(|line| line.contains(what)), "{what}: {said:?}");
}

fn shared() -> Judge {
    let mut judge = judge();
    judge.share();
    judge
}

#[test]
fn good_break_before_make() {
    let remade = slot(page(0x9000));
    good(judge(), &[slot(0), ISHST, tlbi(false), NSH, ISB, remade, ISHST, ISB]);
    good(judge(), &[slot(0), NSH, tlbi(false), ISH, ISB, remade, NSH, ISB]);
    good(judge(), &[slot(0), ISH, Event::TlbiAll { broadcast: true }, ISH, ISB, remade, ISH, ISB]);
    good(shared(), &[slot(0), ISHST, tlbi(true), ISH, ISB, remade, ISHST, ISB]);
}

#[test]
fn bad_break_before_make_with_a_step_missing_or_misplaced() {
    let (broken, remade) = (slot(0), slot(page(0x9000)));
    let owed = "made at";
    bad(judge(), &[remade, ISHST, ISB], "without a break");
    bad(judge(), &[broken, remade, ISHST, ISB], owed);
    bad(judge(), &[broken, tlbi(false), NSH, ISB, remade, ISHST, ISB], owed);
    bad(judge(), &[broken, ISHST, NSH, ISB, remade, ISHST, ISB], owed);
    bad(judge(), &[broken, ISHST, tlbi(false), ISB, remade, ISHST, ISB], owed);
    bad(judge(), &[broken, ISHST, tlbi(false), ISHST, ISB, remade, ISHST, ISB], owed);
    bad(judge(), &[broken, ISHST, tlbi(false), NSH, remade, ISHST, ISB], owed);
    bad(judge(), &[broken, ISHST, tlbi(true), NSH, ISB, remade, ISHST, ISB], owed);
    bad(shared(), &[broken, ISHST, tlbi(false), ISH, ISB, remade, ISHST, ISB], owed);
    bad(shared(), &[broken, ISHST, tlbi(true), NSH, ISB, remade, ISHST, ISB], owed);
    bad(shared(), &[broken, NSH, tlbi(true), ISH, ISB, remade, ISHST, ISB], owed);
}

#[test]
fn bad_break_that_is_left_or_hidden() {
    bad(judge(), &[slot(0)], "owed at the end");
    bad(judge(), &[slot(page(0x8000) & !1), slot(0), ISHST, NSH, ISB], "owed at the end");
}

#[test]
fn good_and_bad_operands_of_tlbi() {
    let invalidate = |operand| [slot(0), ISHST, Event::TlbiLeafVa { broadcast: false, operand }, NSH, ISB];
    let hint = |ttl: u64| invalidate(3 | ttl << 44);
    good(judge(), &hint(0b0111));
    for ttl in [0b0001, 0b0011, 0b0101, 0b0110, 0b1011, 0b1111] {
        bad(judge(), &hint(ttl), "owed at the end");
    }
    bad(judge(), &invalidate(4), "owed at the end");
    bad(judge(), &invalidate(0x3000), "owed at the end");
    bad(judge(), &invalidate(3 | 1 << 36), "owed at the end");
    bad(judge(), &invalidate(3 | 1 << 48), "RES0");
}

#[test]
fn good_and_bad_fills() {
    let fill = store(L3, 3, 4, page(0));
    good(judge(), &[fill, ISHST, ISB]);
    good(judge(), &[fill, NSH, ISB]);
    bad(judge(), &[fill, ISB, ISHST], "a fill is");
    bad(judge(), &[fill, ISHST], "a fill is");
    bad(judge(), &[fill, ISB], "a fill is");
    bad(shared(), &[fill, NSH, ISB], "a fill is");
}

#[test]
fn good_and_bad_changes_in_place() {
    let leaf = |attributes| slot(0x8000 | attribute_bits(attributes) | 3);
    let invalidate = [ISHST, tlbi(false), NSH, ISB];
    let change = |attributes| [&[leaf(attributes)], &invalidate[..]].concat();
    good(judge(), &change(CONSTANTS));
    good(judge(), &[change(CODE), change(CONSTANTS)].concat());
    bad(judge(), &[leaf(CONSTANTS)], "owed at the end");
    bad(judge(), &change(DEVICE), "without a break");
    let mut always = judge();
    always.flaws.always_break = true;
    bad(always, &change(CONSTANTS), "without a break");
    let mut on_loss = judge();
    on_loss.flaws.break_for_execute_never = true;
    bad(on_loss, &[change(CODE), change(CONSTANTS)].concat(), "without a break");
}

#[test]
fn good_and_bad_repetition() {
    let flawed = || {
        let mut judge = shared();
        judge.flaws.repeat_tlbi = true;
        judge
    };
    let again = Event::TlbiLeafVa { broadcast: true, operand: 77 };
    good(flawed(), &[slot(0), ISHST, tlbi(true), ISH, again, ISH, ISB]);
    bad(flawed(), &[slot(0), ISHST, tlbi(true), ISH, ISB], "owed at the end");
    bad(flawed(), &[slot(0), ISHST, tlbi(true), again, ISH, ISB], "owed at the end");
    bad(flawed(), &[slot(0), ISHST, tlbi(true), ISH, tlbi(false), ISH, ISB], "owed at the end");
    bad(flawed(), &[slot(0), ISHST, tlbi(true), ISH, again, ISHST, ISB], "owed at the end");
}

#[test]
fn good_and_bad_links() {
    let (zero, link) = (Event::Zero { frame: SPARE }, store(L2, 2, 1, SPARE | 3));
    let child = store(SPARE, 3, 0, page(0));
    good(judge(), &[zero, child, ISHST, link, ISHST, ISB]);
    bad(judge(), &[zero, ISHST, child, link, ISHST, ISB], "not visible");
    bad(judge(), &[zero, link, ISHST, ISB], "not visible");
    bad(judge(), &[link, ISHST, ISB], "never zeroed");
    bad(judge(), &[store(L2, 2, 1, L3 | 3), ISHST, ISB], "linked twice");
    bad(judge(), &[Event::Zero { frame: L3 }], "while a table links to it");
    bad(judge(), &[store(L2, 2, 0, 0)], "unlinked");
    bad(judge(), &[store(SPARE, 3, 0, page(0))], "where no table is");
    bad(judge(), &[store(L3, 2, 9, 0)], "edited as one of level");
}

#[test]
fn bad_descriptors() {
    let faulty = |value| [store(L3, 3, 9, value), ISHST, ISB];
    good(judge(), &faulty(page(0)));
    bad(judge(), &faulty(page(0) & !(1 << 54)), "writable and executable");
    bad(judge(), &faulty(attribute_bits(DEVICE) & !(1 << 54) | 1 << 7 | 3), "executable, and no Normal");
    bad(judge(), &faulty(page(0) & !(1 << 10)), "AF");
    bad(judge(), &faulty(page(0) | 1 << 52), "must be 0");
    bad(judge(), &faulty(page(0) & !2), "no leaf of this level");
    bad(judge(), &faulty(page(0) & !(3 << 8)), "shareability");
    bad(judge(), &faulty(page(0) & !(7 << 2) | 6 << 2), "MAIR");
    bad(judge(), &[store(L2, 2, 9, 0x1000 | attribute_bits(DATA) | 1), ISHST, ISB], "misaligned");
}

#[test]
fn bad_root_switches() {
    let prepare = [Event::Zero { frame: SPARE }, ISH, ISB, Event::MmuOff];
    let all = Event::TlbiAll { broadcast: false };
    let ttbr = Event::Ttbr { root: SPARE };
    let switch = |rest: &[Event]| [&prepare[..], rest].concat();
    good(judge(), &switch(&[ISB, all, NSH, ISB, ttbr, ISB, Event::MmuOn, ISB]));
    bad(judge(), &switch(&[all, NSH, ISB, ttbr, ISB, Event::MmuOn, ISB]), "too early");
    bad(judge(), &switch(&[ISB, all, NSH, ISB, slot(0), ttbr, ISB, Event::MmuOn, ISB]), "data access");
    bad(judge(), &switch(&[ISB, all, NSH, ttbr, Event::MmuOn, ISB]), "too early");
    bad(judge(), &switch(&[ISB, tlbi(false), NSH, ISB, ttbr, ISB, Event::MmuOn, ISB]), "too early");
    bad(judge(), &[ttbr], "while walks may go on");
    bad(shared(), &switch(&[]), "other PEs");
    bad(judge(), &[Event::Zero { frame: SPARE }, Event::MmuOff], "before stores are visible");
}
