//! Claims about the replay, in pairs, on traces made by hand.
//!
//! The machine: 39-bit addresses, so that walks begin at level 1. Each root holds one table entry for the GiB at 0x4000_0000; the level
//! 2 table maps the code's 2 MiB at 0x4000_0000 (R-X) and the data's at 0x4020_0000 (RW-).

use super::replay::replay;
use super::result::{Limits, Measurement, RootSwitch};
use crate::loader::Loaded;

const TCR: u64 = 0x8080_3519;
const WXN: u64 = 1 << 19;
/// A block of Normal memory with the access flag, read-only and executable.
const RX: u64 = 0x4000_0000 | 0x781;
/// The next block, writable and never executed.
const RW: u64 = 0x4020_0000 | 1 << 54 | 0x701;
/// The same, executable.
const RWX: u64 = 0x4020_0000 | 0x701;

/// A trace under construction: lines of CPU 0 get ascending ordinals.
struct Trace {
    text: String,
    instruction: u64,
}

impl Trace {
    /// Two roots, 0x40201000 and 0x40203000, with a level 2 table each on the next frame, all in place before the start.
    fn new() -> Self {
        let mut text = String::from("breakwater-trace 1\n");
        for root in [0x4020_1000_u64, 0x4020_3000] {
            text += &format!("word {:x} {:x}\n", root + 8, (root + 0x1000) | 3);
            text += &format!("word {:x} {RX:x}\nword {:x} {RW:x}\n", root + 0x1000, root + 0x1008);
        }
        let trace = Self { text, instruction: 0 };
        trace.at(1, "start 2")
    }

    fn at(mut self, instruction: u64, event: &str) -> Self {
        self.instruction = instruction;
        self.text += &format!("0 {instruction} {:x} {event}\n", 0x4000_0000 + 4 * instruction);
        self
    }

    fn then(self, event: &str) -> Self {
        let next = self.instruction + 1;
        self.at(next, event)
    }

    /// The line as it stands.
    fn line(mut self, line: &str) -> Self {
        self.text += line;
        self.text.push('\n');
        self
    }

    fn store(self, pa: u64, value: u64) -> Self {
        self.then(&format!("store 8 {pa:x} {pa:x} {value:x}"))
    }

    /// WXN first, then the first root and M.
    fn mmu_on(self) -> Self {
        self.then(&format!("msr tcr_el2 {TCR:x}"))
            .then("msr ttbr0_el2 40201000")
            .then(&format!("msr sctlr_el2 {WXN:x}"))
            .then("isb")
            .then(&format!("msr sctlr_el2 {:x}", WXN | 1))
            .then("isb")
    }

    /// The strict switch to the second root, with `inside` while M = 0.
    fn switch(self, inside: &[&str]) -> Self {
        let off = self.then(&format!("msr sctlr_el2 {WXN:x}")).then("isb").then("tlbi alle2 0").then("dsb nsh");
        let off = inside.iter().fold(off.then("isb").then("msr ttbr0_el2 40203000"), |trace, event| trace.then(event));
        off.then(&format!("msr sctlr_el2 {:x}", WXN | 1)).then("isb")
    }

    /// The result, after 100 more instructions.
    fn measure(self) -> Measurement {
        let last = self.instruction + 100;
        let text = self.line(&format!("count 0 {last}")).line("end exit").text;
        replay(text.as_bytes(), &[]).expect("the trace is well-formed").measurement
    }
}

fn broken(measurement: &Measurement) -> Vec<String> {
    measurement.broken_promises(Limits::PROMISED)
}

#[test]
fn good_a_strict_boot_keeps_every_promise() {
    let measured = Trace::new().mmu_on().switch(&[]).measure();
    assert_eq!(broken(&measured), [""; 0]);
    assert_eq!(measured.to_runtime_root, Some(15));
    let cpu = &measured.cpus[0];
    assert_eq!((cpu.instructions, cpu.mmu_on), (115, 115 - 6 - 6));
    let switch =
        RootSwitch { from: 0x4020_1000, to: 0x4020_3000, began: 8, mmu_off: 6, in_force: 15, ..cpu.switches[0] };
    assert_eq!(cpu.switches, [switch]);
}

#[test]
fn bad_a_writable_executable_leaf_is_counted_until_it_is_gone() {
    let trace = Trace::new().store(0x4020_2008, RWX).mmu_on().at(50, "isb").store(0x4020_2008, RW);
    let cpu = &trace.measure().cpus[0];
    // M was set by instruction 7, the leaf repaired by 51.
    assert_eq!(cpu.writable_executable_leaves, 51 - 7);
    assert_eq!(cpu.writable_executable, 0, "WXN was set");
    assert_eq!(cpu.writable_executable_leaf.map(|leaf| leaf.va), Some(0x4020_0000));
}

#[test]
fn good_what_other_levels_execute_is_not_exposed() {
    let trace = Trace::new().store(0x4020_2008, RWX).mmu_on().at(50, "eret 1").at(60, "exception 0 0 0");
    let trace = trace.at(65, "exception 0 0 0 3").at(68, "eret");
    let cpu = &trace.at(71, "store 8 40202008 40202008 40000040200701").measure().cpus[0];
    // At EL2 from 7 to 50, from the vector at 60 to before that at 65, and after 68.
    assert_eq!(cpu.writable_executable_leaves, (50 - 7) + (64 - 59) + (71 - 68));
    assert_eq!(cpu.mmu_on, cpu.writable_executable_leaves + 100);
}

#[test]
fn bad_without_wxn_the_exposure_is_real() {
    let trace = Trace::new().store(0x4020_2008, RWX).then(&format!("msr tcr_el2 {TCR:x}"));
    let trace = trace.then("msr ttbr0_el2 40201000").then("msr sctlr_el2 1").at(40, "isb");
    let measured = trace.then("msr sctlr_el2 80001").measure();
    let cpu = &measured.cpus[0];
    assert_eq!((cpu.writable_executable, cpu.writable_executable_until), (41 - 5, 41));
    assert!(!cpu.enables[0].wxn_before);
    assert!(broken(&measured).iter().any(|promise| promise.contains("WXN was not in force before M")));
}

#[test]
fn good_hierarchical_controls_take_rights_away() {
    for control in [1 << 62, 1 << 60] {
        let trace = Trace::new().store(0x4020_2008, RWX).store(0x4020_1008, control | 0x4020_2003).mmu_on();
        assert_eq!(trace.measure().cpus[0].writable_executable_leaves, 0);
    }
}

#[test]
fn bad_hierarchical_controls_that_tcr_switches_off_do_not() {
    let trace = Trace::new().store(0x4020_2008, RWX).store(0x4020_1008, 1 << 60 | 0x4020_2003);
    let trace = trace.then(&format!("msr tcr_el2 {:x}", TCR | 1 << 24)).then("msr ttbr0_el2 40201000");
    assert!(trace.then("msr sctlr_el2 80001").measure().cpus[0].writable_executable_leaves > 0);
}

#[test]
fn good_a_leaf_without_the_access_flag_exposes_nothing() {
    let measured = Trace::new().store(0x4020_2008, RWX & !(1 << 10)).mmu_on().measure();
    assert_eq!(measured.cpus[0].writable_executable_leaves, 0);
}

#[test]
fn bad_a_table_linked_later_brings_its_leaves() {
    let trace = Trace::new().mmu_on().store(0x4020_5000, RWX & !2 | 1);
    let measured = trace.store(0x4020_1010, 0x4020_5003).at(60, "isb").measure();
    assert_eq!(measured.cpus[0].writable_executable_leaves, measured.cpus[0].instructions - 9);
    assert_eq!(measured.cpus[0].writable_executable_leaf.map(|leaf| leaf.va), Some(0x8000_0000));
}

#[test]
fn good_tables_that_point_at_themselves_end() {
    let mut trace = Trace::new();
    for slot in 0..512 {
        trace = trace.line(&format!("word {:x} 40201003", 0x4020_1000 + 8 * slot));
    }
    let trace = trace.line(&format!("word 40202000 {RX:x}"));
    assert!(trace.mmu_on().measure().cpus[0].mmu_on > 0);
}

#[test]
fn bad_another_cpus_store_exposes_the_cpus_that_share_the_tables() {
    let trace = Trace::new().mmu_on().line(&format!("1 3 0 msr tcr_el2 {TCR:x}")).line("1 4 0 msr ttbr0_el2 40201000");
    let trace = trace.line("1 5 0 msr sctlr_el2 80001").store(0x4020_2008, RWX).store(0x4020_2008, RW);
    let measured = trace.line("1 9 0 isb").line("count 1 20").measure();
    // When it happened between its events 5 and 9 is unknown: all of them count.
    assert_eq!(measured.cpus[1].writable_executable_leaves, 4);
    assert_eq!(measured.cpus[0].writable_executable_leaves, 1);
}

#[test]
fn bad_accesses_with_the_mmu_off_are_counted() {
    let events = ["load 8 40200000 40200000 0", "store 16 40200000 40200000 0 0", "store 1 9000000 9000000 41 device"];
    let measured = Trace::new().mmu_on().switch(&events).measure();
    let switch = measured.cpus[0].switches[0];
    assert_eq!((switch.loads, switch.stores, switch.mmu_off), (1, 2, 9));
    assert!(broken(&measured).iter().any(|promise| promise.contains("1 loads and 2 stores")));
}

#[test]
fn bad_a_long_window_and_a_late_root_break_promises() {
    let nothing = ["isb"; 40];
    let measured = Trace::new().mmu_on().switch(&nothing).measure();
    assert!(broken(&measured).iter().any(|promise| promise.contains("46 instructions with the MMU off")));
    let late = Trace::new().mmu_on().at(15_000, "isb").switch(&[]).measure();
    assert!(broken(&late).iter().any(|promise| promise.contains("15008 instructions to the runtime root")));
}

#[test]
fn bad_a_root_written_with_the_mmu_on_is_named() {
    let measured = Trace::new().mmu_on().then("msr ttbr0_el2 40203000").then("isb").measure();
    assert!(measured.cpus[0].switches[0].mmu_on);
    assert!(broken(&measured).iter().any(|promise| promise.contains("with the MMU on at instruction 8")));
    assert_eq!(measured.to_runtime_root, Some(9));
}

#[test]
fn good_zeroing_a_frame_before_it_is_linked_is_no_store_of_the_slot() {
    let trace = Trace::new().mmu_on().then("dc zva 40204000").store(0x4020_4000, RX).store(0x4020_4008, RW);
    let measured = trace.store(0x4020_3008, 0x4020_4003).switch(&[]).measure();
    assert_eq!(measured.stored_twice, []);
    // DC ZVA of 64 bytes, then three stores.
    assert_eq!(measured.runtime_tables.stores, 8 + 3);
}

#[test]
fn good_a_block_is_as_large_as_the_cpu_says() {
    for (dczid, words) in [(4, 8), (6, 32), (9, 256)] {
        let asked = Trace::new().mmu_on().then("mrs dczid_el0").then(&format!("found dczid_el0 {dczid}"));
        let measured = asked.then("dc zva 40204040").store(0x4020_3008, 0x4020_4003).switch(&[]).measure();
        assert_eq!(measured.runtime_tables.stores, words + 1, "DCZID_EL0 {dczid}");
    }
}

#[test]
fn good_a_dc_zva_stores_to_each_descriptor_of_its_block() {
    let zeroed = |dczid| {
        let found = Trace::new().at(1, &format!("found dczid_el0 {dczid}"));
        found.mmu_on().then("dc zva 40202080").measure().live_stores
    };
    assert_eq!([4, 6].map(zeroed), [8, 32]);
}

#[test]
fn bad_a_slot_stored_twice_or_zeroed_after_linking_is_found() {
    let trace = Trace::new().mmu_on().store(0x4020_4008, RW | 1 << 55).store(0x4020_4008, RW);
    let trace = trace.store(0x4020_3008, 0x4020_4003).store(0x4020_4010, 0).store(0x4020_4010, 1 << 11);
    let measured = trace.switch(&[]).measure();
    let slots: Vec<_> = measured.stored_twice.iter().map(|twice| (twice.slot, twice.stores)).collect();
    assert_eq!(slots, [(0x4020_4008, 2), (0x4020_4010, 2)]);
    assert!(broken(&measured).iter().any(|promise| promise.contains("stored 2 times")));
}

#[test]
fn good_break_invalidate_make_of_a_live_slot_passes() {
    let trace = Trace::new().mmu_on().store(0x4020_2008, 0).then("dsb ishst").then("tlbi vae2is 40200");
    let measured = trace.then("dsb ish").store(0x4020_2008, RW + 0x20_0000).then("dsb ish").then("isb").measure();
    assert_eq!(measured.live_changes, []);
}

#[test]
fn good_rights_change_in_place() {
    let measured = Trace::new().mmu_on().store(0x4020_2008, RW | 1 << 7).measure();
    assert_eq!(measured.live_changes, []);
}

#[test]
fn bad_each_missing_step_of_a_live_change_is_named() {
    let moved = RW + 0x20_0000;
    let missing = |trace: Trace| {
        let measured = trace.measure();
        assert_eq!(measured.live_changes.len(), 1);
        assert_eq!((measured.live_changes[0].old, measured.live_changes[0].new), (RW, moved));
        measured.live_changes[0].missing
    };
    let live = || Trace::new().mmu_on();
    assert_eq!(missing(live().store(0x4020_2008, moved)), "an invalid descriptor, TLBI and DSB");
    let cut = || live().store(0x4020_2008, 0).then("dsb ishst");
    assert_eq!(missing(cut().store(0x4020_2008, moved)), "TLBI and DSB after the invalid descriptor");
    let guest = cut().then("tlbi vmalls12e1is 0").then("dsb ish");
    assert_eq!(missing(guest.store(0x4020_2008, moved)), "TLBI and DSB after the invalid descriptor");
    let stores_only = cut().then("tlbi alle2is 0").then("dsb ishst");
    assert_eq!(missing(stores_only.store(0x4020_2008, moved)), "DSB after the TLBI");
}

#[test]
fn good_fetches_give_a_profile_up_to_the_runtime_root() {
    let trace = Trace::new().line("0 1 40000000 fetch 9").mmu_on().switch(&[]).at(16, "fetch 4");
    let text = trace.line("count 0 20").line("end limit").text;
    let image = Loaded { pa: 0x4000_0000, bytes: vec![0; 64] };
    let replayed = replay(text.as_bytes(), &[image]).expect("the trace is well-formed");
    // Nine of the fifteen: the run was announced as nine long.
    assert_eq!(replayed.profile.values().sum::<u64>(), 9);
    assert!(replayed.measurement.milestones.iter().any(|milestone| milestone.name == "image entered"));
}

#[test]
fn bad_traces_end_in_an_error_with_a_line() {
    let error = |text: &str| format!("{:#}", replay(text.as_bytes(), &[]).err().expect(text));
    assert!(error("").contains("line 1"));
    assert!(error("breakwater-trace 1\n0 2 0 isb\n0 1 0 isb\nend exit\n").contains("line 3: CPU 0 goes back"));
    assert!(error("breakwater-trace 1\n0 2 0 isb\n").contains("breaks off after line 2"));
    assert!(error("breakwater-trace 1\n9999999 2 0 isb\n").contains("at most 128 CPUs"));
    let other_granule = "breakwater-trace 1\n0 2 0 msr tcr_el2 4019\n0 3 0 msr sctlr_el2 1\nend exit\n";
    assert!(error(other_granule).contains("granule other than 4 KiB"));
    let host_extension = "breakwater-trace 1\n0 2 0 msr hcr_el2 400000000\n0 3 0 msr sctlr_el2 1\nend exit\n";
    assert!(error(host_extension).contains("E2H"));
}

/// The example of the format's documentation.
#[test]
fn good_the_documented_example_is_a_trace_and_breaks_properly() {
    let readme = include_str!("../../../oracle/README.md");
    let from_reset = readme.split("### The same tables from reset").nth(1).expect("the example is there");
    let lines = from_reset.lines().filter_map(|line| line.strip_prefix("    "));
    let text: Vec<&str> = lines.collect();
    let measured = replay(text.join("\n").as_bytes(), &[]).expect("the example is well-formed").measurement;
    let cpu = &measured.cpus[0];
    assert_eq!((cpu.instructions, cpu.mmu_on, cpu.writable_executable_leaves), (30, 17, 0));
    assert_eq!(measured.live_changes, []);
    assert!(cpu.enables[0].wxn_before);
}
