//! The parts of the recorder that can be wrong without QEMU. The plugin itself cannot be linked into a test: the symbols it calls exist only
//! inside QEMU.

#[path = "../src/atomics.rs"]
mod atomics;
#[path = "../src/blocks.rs"]
mod blocks;
#[path = "../src/options.rs"]
mod options;
#[path = "../src/repeats.rs"]
mod repeats;
#[path = "../src/shared.rs"]
mod shared;

use atomics::Atomics;
use blocks::Blocks;
use breakwater_trace::atomic::Update;
use breakwater_trace::{Access, Atomic, Barrier, Event, Step};
use options::{Entry, Loads, Options, Runs};
use repeats::{Fetches, Repeats};
use shared::Shared;

fn access(bytes: u8, pa: u64, value: u64) -> Access {
    Access { bytes, va: pa, pa, value: [value, 0], device: false, release: false }
}

fn parsed(text: &str) -> Result<Options, String> {
    Options::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
}

/// Two CPUs that have started.
fn two() -> Shared {
    let shared = Shared::new(2);
    assert!(!shared.several());
    shared.starts();
    assert!(!shared.several());
    shared.starts();
    assert!(shared.several());
    shared
}

#[test]
fn good_arguments_are_read() {
    let options = parsed("out=t,cap=5,limit=6,until=a000023e920,until=0x40200000,fetches=on,loads=shared").unwrap();
    assert_eq!(options.out.to_str(), Some("t"));
    assert_eq!((options.cap_bytes, options.limit, options.fetches), (5, Some(6), Runs::Always));
    assert_eq!(options.until, [0xa00_0023_e920, 0x4020_0000]);
    assert_eq!(options.loads, Loads::Shared);
    let plain = parsed("out=t").unwrap();
    assert_eq!((plain.until.len(), plain.limit, plain.loads), (0, None, Loads::MmuOff));
}

#[test]
fn good_an_entry_is_an_address_or_code_that_lies_somewhere() {
    let options = parsed("out=t,from=0x40200000,entry=40:4a000:d503201fd65f03c0").unwrap();
    let words = vec![0xd503_201f, 0xd65f_03c0];
    assert_eq!(options.entries, [Entry::At(0x4020_0000), Entry::Code { offset: 0x40, bytes: 0x4_a000, words }]);
    let may_be = |pc, word| options.entries.iter().map(|entry| entry.may_be(pc, word)).collect::<Vec<_>>();
    assert_eq!(may_be(0x4020_0000, 0), [true, false]);
    assert_eq!(may_be(0xbc3b_0040, 0xd503_201f), [false, true]);
    assert_eq!(may_be(0xbc3b_0044, 0xd65f_03c0), [false, false], "not its first");
}

#[test]
fn good_a_run_is_written_once_for_its_page_and_age() {
    let fetches = Fetches::new(2);
    for (site, pc) in [(0, 0x4008_0000), (1, 0x4008_0ffc), (2, 0x4008_1000), (3, 0xffff_0000_4008_0000)] {
        fetches.begins(site, pc);
    }
    assert!(fetches.tells(0, 0));
    assert!(!fetches.tells(0, 1), "the same page");
    assert!(fetches.tells(0, 2), "another page");
    assert!(fetches.tells(0, 1), "and back");
    assert!(fetches.tells(0, 3), "the same offset of another range");
    assert!(fetches.tells(1, 3), "another CPU");
    assert!(!fetches.tells(1, 3));
    fetches.happened(&Event::Load(access(8, 0x4008_0000, 0)));
    assert!(!fetches.tells(0, 3), "a load changes nothing");
    fetches.happened(&Event::Isb);
    assert!(fetches.tells(0, 3) && fetches.tells(1, 3));
    assert!(fetches.tells(0, u32::MAX) && fetches.tells(0, u32::MAX), "a run that nobody remembers");
}

#[test]
fn bad_arguments_are_refused_by_name() {
    for (text, named) in [
        ("cap=5", "out=FILE"),
        ("out=t,until=", "until="),
        ("out=t,until=main", "until=main"),
        ("out=t,until=0x+4", "until=0x+4"),
        ("out=t,limit=ff", "limit=ff"),
        ("out=t,loads=some", "loads=some"),
        ("out=t,cap", "cap="),
        ("out=t,from=main", "from=main"),
        ("out=t,entry=40:4a000", "OFFSET:BYTES:CODE"),
        ("out=t,entry=40:4a000:d503201", "OFFSET:BYTES:CODE"),
        ("out=t,entry=40:4a000:", "OFFSET:BYTES:CODE"),
    ] {
        let refused = parsed(text).expect_err(text);
        assert!(refused.contains(named), "{text}: {refused}");
    }
}

#[test]
fn good_a_load_of_what_another_stored_tells() {
    let shared = two();
    shared.stored(0, &access(8, 0x1000, 1));
    assert!(shared.tells(1, &access(8, 0x1000, 1)));
    assert!(!shared.tells(1, &access(8, 0x1000, 1)), "it is known now");
    assert!(!shared.tells(0, &access(8, 0x1000, 1)), "its own");
    assert!(!shared.tells(1, &access(8, 0x1008, 0)), "nobody stored there");
}

#[test]
fn good_a_lock_that_came_back_free_tells() {
    let shared = two();
    shared.stored(1, &access(1, 0x1000, 0));
    shared.stored(0, &access(1, 0x1000, 1));
    shared.stored(0, &access(1, 0x1000, 0));
    // The value is what this CPU left there; that another CPU held the lock in between is what matters.
    assert!(shared.tells(1, &access(1, 0x1000, 0)));
}

#[test]
fn good_a_load_before_the_report_of_its_store_tells() {
    let shared = two();
    assert!(!shared.tells(1, &access(4, 0x1000, 0)));
    assert!(shared.tells(1, &access(4, 0x1000, 7)), "the value changed");
    shared.stored(0, &access(4, 0x1000, 7));
    assert!(shared.tells(1, &access(4, 0x1000, 7)), "the store was reported after");
}

#[test]
fn good_each_byte_is_known_by_itself() {
    let shared = two();
    assert!(!shared.tells(1, &access(1, 0x1001, 5)));
    assert!(!shared.tells(1, &access(8, 0x1000, 0x1122_3344_5566_0577)));
    assert!(!shared.tells(1, &access(2, 0x1006, 0x1122)));
    assert!(shared.tells(1, &access(2, 0x1006, 0x1123)));
    // Across two words, and of 16 bytes across three.
    assert!(!shared.tells(1, &access(8, 0x100c, 0x8877_6655_4433_2211)));
    assert!(shared.tells(1, &access(1, 0x1013, 0x89)));
    let wide = Access { bytes: 16, value: [0x1111, 0x2222], ..access(8, 0x1024, 0) };
    assert!(!shared.tells(1, &wide));
    shared.stored(0, &access(4, 0x1030, 0));
    assert!(shared.tells(1, &wide));
}

#[test]
fn good_a_word_pushed_out_is_one_line_too_many_and_none_too_few() {
    let shared = two();
    let apart = 8 << 18;
    shared.stored(0, &access(8, 0x1000, 1));
    assert!(shared.tells(1, &access(8, 0x1000, 1)));
    // The same place in both tables.
    shared.stored(1, &access(8, 0x1000 + apart, 1));
    assert!(shared.tells(1, &access(8, 0x1000, 1)));
    shared.stored(0, &access(8, 0x1000, 1));
    shared.stored(1, &access(8, 0x1000 + apart, 1));
    assert!(shared.tells(1, &access(8, 0x1000, 1)), "CPU 0 stored in between");
}

#[test]
fn good_what_an_atomic_instruction_stored() {
    let atomics = Atomics::new(1);
    let at = |value| access(8, 0x1000, value);
    let swap = Atomic::CompareAndSwap { rs: 0, pair: false, bytes: 8 };
    assert_eq!(atomics.load(0, Atomic::LoadExclusive, at(5)), Some(at(5)));
    assert_eq!(atomics.load(0, Atomic::StoreExclusive, at(5)), None, "not a load");
    assert_eq!(atomics.store(0, Atomic::StoreExclusive, at(6)), Some(at(6)));
    atomics.begins(0, [6, 0]);
    assert_eq!(atomics.load(0, swap, at(6)), Some(at(6)));
    assert_eq!(atomics.store(0, swap, at(7)), Some(at(7)));
    let add = Atomic::Update { update: Update::Add, rs: 0 };
    atomics.begins(0, [0x40, 0]);
    assert_eq!(atomics.load(0, add, at(7)), Some(at(7)));
    assert_eq!(atomics.store(0, add, at(0x40)), Some(at(0x47)));
}

#[test]
fn bad_attempts_that_failed_are_no_stores() {
    let atomics = Atomics::new(1);
    let at = |value| access(8, 0x1000, value);
    let swap = Atomic::CompareAndSwap { rs: 0, pair: false, bytes: 8 };
    atomics.load(0, Atomic::LoadExclusive, at(5));
    atomics.load(0, Atomic::StoreExclusive, at(9));
    assert_eq!(atomics.store(0, Atomic::StoreExclusive, at(6)), None);
    atomics.begins(0, [5, 0]);
    atomics.load(0, swap, at(9));
    assert_eq!(atomics.store(0, swap, at(7)), None);
}

const DSB: Event = Event::Dsb(Barrier { crm: 15, without_xs: false });
const FETCH: Event = Event::Fetch { instructions: 3 };

fn load(value: u64) -> Event {
    Event::Load(access(8, 0x5000, value))
}

fn store(value: u64) -> Event {
    Event::Store(access(8, 0x6000, value))
}

/// What is written of events given as CPU, address and event; the instructions are numbered from 1.
fn written(repeats: &mut Repeats, events: impl IntoIterator<Item = (u32, u64, Event)>) -> Vec<(u32, u64, Event)> {
    let mut all = Vec::new();
    for (number, (cpu, pc, event)) in events.into_iter().enumerate() {
        let step = Step { cpu, instruction: number as u64 + 1, pc, event };
        // As the recorder does it.
        if repeats.only_changes(&event) {
            all.push((cpu, step.instruction, event));
        } else {
            repeats.happens(step, |step| all.push((step.cpu, step.instruction, step.event)));
        }
    }
    repeats.let_go(|step| all.push((step.cpu, step.instruction, step.event)));
    all
}

#[test]
fn good_the_short_way_of_a_change_writes_what_the_long_way_does() {
    let kinds = [Event::Isb, DSB, load(0), load(1), FETCH, store(1), Event::Start { exception_level: 2 }];
    // Any order of kinds, CPUs and addresses will do: the high bits of a multiplicative sequence.
    let event = |number: u32| {
        let random = number.wrapping_mul(2_654_435_769) >> 16;
        (random % 3, 0x10 + 4 * u64::from(random / 3 % 2), kinds[(random / 6) as usize % kinds.len()])
    };
    let short = written(&mut Repeats::new(3, false), (0..5000).map(event));
    let (mut repeats, mut long) = (Repeats::new(3, false), Vec::new());
    for (number, (cpu, pc, event)) in (0..5000).map(event).enumerate() {
        let step = Step { cpu, instruction: number as u64 + 1, pc, event };
        repeats.happens(step, |step| long.push((step.cpu, step.instruction, step.event)));
    }
    repeats.let_go(|step| long.push((step.cpu, step.instruction, step.event)));
    assert!(short.len() > 1000 && short.len() < 5000, "some are left out: {}", short.len());
    assert_eq!(short, long);
}

#[test]
fn good_a_loop_that_waits_is_written_once() {
    let turn = [(0, 0x10, Event::Isb), (0, 0x14, load(0)), (0, 0x1c, FETCH)];
    let mut repeats = Repeats::new(2, false);
    let many = turn.into_iter().cycle().take(300_000);
    assert_eq!(written(&mut repeats, many), [(0, 1, Event::Isb), (0, 2, load(0)), (0, 3, FETCH)]);
    // The flag is set, and cleared again.
    let after = [(0, 0x10, Event::Isb), (0, 0x14, load(1)), (0, 0x14, load(0))];
    assert_eq!(written(&mut repeats, after), [(0, 1, Event::Isb), (0, 2, load(1)), (0, 3, load(0))]);
}

#[test]
fn good_two_that_wait_for_each_other_do_not_fill_the_trace() {
    let turn = |cpu| [(cpu, 0x10, Event::Isb), (cpu, 0x14, load(0)), (cpu, 0x18, DSB), (cpu, 0x1c, FETCH)];
    let turns = [0, 1, 2].map(turn).into_iter().flatten().cycle().take(120_000);
    let lines = written(&mut Repeats::new(3, false), turns).len();
    // Each DSB once, and of each CPU a turn or two after each of those.
    assert!(lines < 3 + 2 * 3 * 3 * 4, "{lines} lines");
}

#[test]
fn good_an_isb_before_and_one_after_the_dsb_of_another_are_written() {
    let events = [
        (0, 0x10, Event::Isb),
        (0, 0x10, Event::Isb),
        (1, 0x40, store(5)),
        (0, 0x10, Event::Isb),
        (1, 0x44, DSB),
        (0, 0x10, Event::Isb),
        (1, 0x44, DSB),
        (0, 0x10, Event::Isb),
        (0, 0x14, load(0)),
    ];
    let wanted = [
        (0, 1, Event::Isb),
        // Held, and written before what it must not be taken to come after.
        (0, 2, Event::Isb),
        (1, 3, store(5)),
        (0, 4, Event::Isb),
        (1, 5, DSB),
        (0, 6, Event::Isb),
        // The second DSB completes nothing; what stood directly before the load is known all the same.
        (0, 8, Event::Isb),
        (0, 9, load(0)),
        (1, 7, DSB),
    ];
    assert_eq!(written(&mut Repeats::new(2, false), events), wanted);
}

#[test]
fn good_what_stands_directly_before_is_what_stood_there() {
    let events = [(0, 0x10, DSB), (0, 0x14, Event::Isb), (0, 0x10, DSB), (0, 0x20, store(1))];
    let wanted = [(0, 1, DSB), (0, 2, Event::Isb), (0, 3, DSB), (0, 4, store(1))];
    assert_eq!(written(&mut Repeats::new(1, false), events), wanted);
    // A load that was left out stands between: the one written before it is no barrier.
    let events =
        [(0, 0x10, Event::Isb), (0, 0x14, load(0)), (0, 0x10, Event::Isb), (0, 0x14, load(0)), (0, 0x20, store(1))];
    let wanted = [(0, 1, Event::Isb), (0, 2, load(0)), (0, 5, store(1))];
    assert_eq!(written(&mut Repeats::new(1, false), events), wanted);
}

#[test]
fn bad_what_changes_something_is_never_left_out() {
    for event in [store(1), Event::Eret { to: None }, Event::Start { exception_level: 2 }] {
        let lines = written(&mut Repeats::new(1, false), [(0, 0x10, event); 5]).len();
        assert_eq!(lines, 5, "{event:?}");
    }
    let uses = [(0, 0x10, load(0)), (0, 0x14, Event::Isb), (0, 0x10, load(0)), (0, 0x20, store(1)), (0, 0x10, load(0))];
    assert_eq!(written(&mut Repeats::new(1, false), uses).len(), 5, "after a barrier and after a store");
    let elsewhere = [(0, 0x10, load(0)), (0, 0x18, load(0)), (1, 0x10, load(0))];
    assert_eq!(written(&mut Repeats::new(2, false), elsewhere).len(), 3, "another instruction, another CPU");
}

#[test]
fn good_a_profile_has_every_fetch_until_a_second_cpu_starts() {
    let start = |cpu| (cpu, 0x10, Event::Start { exception_level: 2 });
    let one = [start(0), (0, 0x14, FETCH), (0, 0x14, FETCH)];
    assert_eq!(written(&mut Repeats::new(2, true), one).len(), 3);
    assert_eq!(written(&mut Repeats::new(2, false), one).len(), 2);
    let two = [start(0), start(1), (0, 0x14, FETCH), (0, 0x14, FETCH)];
    assert_eq!(written(&mut Repeats::new(2, true), two).len(), 3);
}

/// Two CPUs of model 1, one of model 2, and one that QEMU says nothing of.
fn four() -> Blocks {
    let mut blocks = Blocks::new(4);
    [Some(1), Some(1), Some(2), None].into_iter().zip(0..).for_each(|(model, cpu)| blocks.starts(cpu, model, None));
    blocks
}

/// `cpu` reads DCZID_EL0 into x13 at address 0x10, and finds `value` there.
fn read(blocks: &mut Blocks, cpu: u32, is_el2: bool, value: u64) -> Option<u64> {
    blocks.reads(cpu, 0x10, 13);
    blocks.has_read(cpu, 0x14, is_el2, |rt| if rt == 13 { value } else { 0x1234 })
}

#[test]
fn good_what_a_cpu_has_read_of_dczid_is_told_once() {
    let mut blocks = four();
    assert_eq!(read(&mut blocks, 0, true, 6), Some(6));
    assert_eq!(read(&mut blocks, 0, true, 6), None);
    assert_eq!(blocks.zeroes(0), None, "it is told");
    assert_eq!(read(&mut blocks, 0, true, 0x16), Some(0x16), "another value");
}

#[test]
fn good_a_cpu_that_did_not_ask_has_what_its_model_has() {
    let mut blocks = four();
    assert_eq!(blocks.zeroes(1), None);
    read(&mut blocks, 0, false, 6);
    assert_eq!((blocks.zeroes(1), blocks.zeroes(1)), (Some(6), None), "told before its first");
    assert_eq!((blocks.zeroes(2), blocks.zeroes(3)), (None, None), "another model, no model");
}

#[test]
fn bad_what_cannot_be_told_of_dczid_is_not() {
    // An MRS that faults; below EL2, that the level may not; no value of the register.
    let mut blocks = four();
    blocks.reads(0, 0x10, 13);
    assert_eq!(blocks.has_read(0, 0x8000, true, |_| 4), None);
    assert_eq!(blocks.has_read(1, 0x14, true, |_| 4), None, "another CPU");
    assert_eq!(read(&mut blocks, 0, false, 0x14), None);
    assert_eq!(read(&mut blocks, 0, true, 0xa), None);
    assert_eq!(read(&mut blocks, 0, true, 0x1234), None);
    assert_eq!((blocks.zeroes(0), blocks.zeroes(1)), (None, None));
    assert_eq!(read(&mut blocks, 9, true, 4), None, "no such CPU");
    assert!(!blocks.follows_read(0x1000));
    blocks.ends_with_read(0x1000);
    assert!(blocks.follows_read(0x1000));
}
