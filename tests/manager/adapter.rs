//! The adapter itself: its records are the target's instructions, and the model listens to all of its CPUs.

use super::rig::{CODE, DATA, GIB, PAGE, Rig, request};
use super::step::{DSB_ISHST, is_marker, stored_word, zeroed_pair};
use breakwater::addr::{Level, VirtAddr};
use breakwater::bbm::{Live, Reach};
use breakwater_trace::{Event, HEADER, Reader};

const AT: u64 = 4 * GIB;

/// Tables in force for two CPUs, with a page of code that CPU 0 has just mapped.
fn code_for_two() -> Rig<Live> {
    let mut rig = Rig::live(Reach::Domain, 8);
    rig.map(request(AT, PAGE, GIB, CODE, Level::L3)).unwrap();
    rig
}

#[test]
fn good_a_fill_is_the_instructions_of_the_target() {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    rig.map(request(AT, PAGE, GIB, DATA, Level::L3)).unwrap();
    let from = rig.world().now();
    rig.map(request(AT + PAGE, PAGE, GIB + PAGE, DATA, Level::L3)).unwrap();
    let events: Vec<Event> = rig.world().events_since(from).copied().collect();
    assert_eq!(stored_word(&events[0]).map(|(_, value)| value & 1), Some(1));
    assert_eq!(events[1..], [DSB_ISHST, Event::Isb, Event::Settled]);
}

#[test]
fn good_a_new_table_is_zeroed_by_sixteen_bytes_at_a_time() {
    let mut rig = Rig::live(Reach::ThisPe, 8);
    let from = rig.world().now();
    let table = rig.frames.take().unwrap();
    let table = std::mem::ManuallyDrop::new(rig.protocol.new_table(table, Level::L1, VirtAddr::at(0)));
    let steps = rig.world().events_since(from).filter(|event| !is_marker(event));
    let expected = (0..256).map(|pair| Some(table.frame().start().raw() + 16 * pair));
    assert!(steps.map(zeroed_pair).eq(expected));
}

#[test]
fn good_another_cpu_runs_new_code_after_its_own_isb() {
    let mut rig = code_for_two();
    rig.world_mut().emit(1, Event::Isb);
    rig.world_mut().fetch(1, AT);
    rig.check();
}

#[test]
fn bad_another_cpu_runs_new_code_without_its_isb() {
    let mut rig = code_for_two();
    rig.world_mut().fetch(1, AT);
    let complaint = rig.verdict().unwrap_err();
    assert!(complaint.contains("ISB by PE 1"), "{}", complaint.lines().next().unwrap());
}

#[test]
fn good_a_recording_is_a_trace_that_reads_back() {
    let mut rig = code_for_two();
    rig.world_mut().end();
    let trace = rig.world().trace();
    assert!(trace.starts_with(HEADER));
    let records: Vec<_> = Reader::new(trace.as_bytes()).collect::<Result<_, _>>().unwrap();
    assert_eq!(records, rig.world().records());
}
