//! What peers do, instruction by instruction, on the tables of [`super`]: the judge condemns each, by the rule that is named here.

use super::super::bench::{Ask, Bench, DATA, virt};
use super::super::expansion::{self, DSB_NSH};
use super::super::judged::translation;
use super::{AT, GIB, MIB, OUT, PAGE, SECOND, is_tlbi, pages, request, run, slot, with};
use breakwater::addr::Level;
use breakwater::bbm::Live;
use breakwater::geometry::{Granule4K, Slot};
use breakwater::machine::Machine;
use breakwater_oracle::descriptor::Descriptor;
use breakwater_oracle::obligations::Rule;
use breakwater_oracle::params;
use breakwater_oracle::regime::Controls;
use breakwater_trace::{Access, Event};

type Desk = Bench<Granule4K, Live>;

const DSB_ISHST: Event = expansion::dsb(10);
const DSB_ISH: Event = expansion::dsb(11);
/// A page of data, but for its address.
const LEAF: u64 = 0x40_0000_0000_0743;

fn store(slot: Slot, value: u64) -> Event {
    part(slot, 8, 0, value)
}

fn part(slot: Slot, bytes: u8, offset: u64, value: u64) -> Event {
    let pa = slot.address().raw() + offset;
    Event::Store(Access { bytes, va: 1 << 60 | pa, pa, value: [value, 0], device: false, release: false })
}

fn give(frame: u64) -> Event {
    Event::Give { pa: frame, bytes: PAGE }
}

fn tlbi(name: &str, at: u64) -> Event {
    expansion::tlbi(name, at >> 12)
}

/// The rules that CPU 0 breaks by `steps`, and by claiming afterwards that nothing is owed.
fn broken(mut bench: Desk, steps: &[Event]) -> Vec<Rule> {
    assert!(bench.machine().verdict().is_ok(), "the beginning is lawful");
    let machine = bench.protocol.machine_mut();
    steps.iter().for_each(|&step| machine.emit(0, step));
    machine.emit(0, Event::Settled);
    machine.rules()
}

/// The frame of the table that holds the pages at [`AT`].
fn table(bench: &Desk) -> u64 {
    slot(bench, Level::L3, AT).table().start().raw()
}

fn invalidated(at: u64) -> [Event; 4] {
    [DSB_ISHST, tlbi("vae2is", at), DSB_ISH, Event::Isb]
}

#[test]
fn bad_a_table_freed_before_its_invalidation() {
    let bench = pages();
    let (link, frame) = (slot(&bench, Level::L2, AT), table(&bench));
    let [dsb, tlbi, complete, isb] = invalidated(AT);
    let rules = broken(bench, &[store(link, 0), give(frame), dsb, tlbi, complete, isb]);
    assert!(rules.contains(&Rule::FrameReuse), "{rules:?}");
}

#[test]
fn bad_a_table_freed_before_its_invalidation_completes() {
    let bench = with(SECOND, &[request(AT, PAGE, Level::L3)]);
    let (link, frame) = (slot(&bench, Level::L2, AT), table(&bench));
    let [dsb, tlbi, complete, isb] = invalidated(AT);
    let rules = broken(bench, &[store(link, 0), dsb, tlbi, give(frame), complete, isb]);
    assert!(rules.contains(&Rule::FrameReuse), "{rules:?}");
    let bench = with(SECOND, &[request(AT, PAGE, Level::L3)]);
    let rules = broken(bench, &[store(link, 0), dsb, tlbi, complete, isb, give(frame)]);
    assert_eq!(rules, [], "with one page and in order it is lawful");
}

#[test]
fn bad_one_tlbi_for_512_leaves() {
    let bench = pages();
    let (link, frame) = (slot(&bench, Level::L2, AT), table(&bench));
    let [dsb, tlbi, complete, isb] = invalidated(AT);
    let rules = broken(bench, &[store(link, 0), dsb, tlbi, complete, isb, give(frame)]);
    assert!(rules.contains(&Rule::FrameReuse), "{rules:?}");
}

#[test]
fn bad_a_table_compacted_without_a_tlbi() {
    let bench = pages();
    let (link, frame) = (slot(&bench, Level::L2, AT), table(&bench));
    let block = store(link, LEAF & !2 | OUT);
    let rules = broken(bench, &[store(link, 0), DSB_ISHST, block, DSB_ISHST, give(frame)]);
    assert!(rules.contains(&Rule::SizeChange) && rules.contains(&Rule::FrameReuse), "{rules:?}");
}

#[test]
fn bad_one_page_of_a_contiguous_run_changed() {
    let bench = run();
    let page = slot(&bench, Level::L3, AT + 5 * PAGE);
    let [dsb, tlbi, complete, isb] = invalidated(AT + 5 * PAGE);
    let rules =
        broken(bench, &[store(page, 0), dsb, tlbi, complete, isb, store(page, LEAF | (2 * OUT)), DSB_ISHST, isb]);
    assert!(rules.contains(&Rule::RunMisprogrammed) || rules.contains(&Rule::RunInvalidation), "{rules:?}");
}

#[test]
fn bad_tlbis_that_invalidate_nothing_of_el2() {
    let at = AT + 3 * PAGE;
    let high = 0xffff_0000_0000_0000 | at;
    for tlbi in [expansion::tlbi("vmalle1is", 0), tlbi("vae1is", at), tlbi("vae2is", high), tlbi("vae2", at)] {
        let bench = pages();
        let page = slot(&bench, Level::L3, at);
        let rules = broken(bench, &[store(page, 0), DSB_ISHST, tlbi, DSB_ISH, Event::Isb]);
        assert!(rules.contains(&Rule::StaleLeaf), "{tlbi:?}: {rules:?}");
    }
}

#[test]
fn bad_no_dsb_before_the_tlbi_or_after() {
    let at = AT + 3 * PAGE;
    let [dsb, tlbi, complete, isb] = invalidated(at);
    for steps in [&[tlbi, complete, isb][..], &[dsb, tlbi, isb], &[dsb, tlbi, DSB_ISHST, isb], &[dsb, tlbi, complete]] {
        let bench = pages();
        let page = slot(&bench, Level::L3, at);
        let rules = broken(bench, &[&[store(page, 0)], steps].concat());
        assert!(!rules.is_empty(), "{steps:?}");
    }
    let bench = pages();
    let page = slot(&bench, Level::L3, at);
    assert_eq!(broken(bench, &[store(page, 0), dsb, tlbi, complete, isb]), [], "the whole of it is lawful");
}

/// CPU 1 comes into the tables in force by these steps.
fn secondary(steps: &[Event]) -> Vec<Rule> {
    let mut bench = with(super::Cpus::PLAIN, &[request(AT, PAGE, Level::L3)]);
    let machine = bench.protocol.machine_mut();
    machine.emit(1, Event::Start { exception_level: 2 });
    steps.iter().for_each(|&step| machine.emit(1, step));
    machine.emit(1, Event::Settled);
    machine.rules()
}

#[test]
fn bad_a_tlbi_after_the_mmu_is_on() {
    let root = with(super::Cpus::PLAIN, &[]).root();
    let lawful = expansion::secondary(root, &translation::<Granule4K>());
    assert_eq!(secondary(&lawful), []);
    let at = lawful.iter().position(is_tlbi).expect("a TLBI before M = 1");
    let invalidation = [lawful[at], lawful[at + 1], lawful[at + 2]];
    assert_eq!(invalidation[1..], [DSB_NSH, Event::Isb]);
    let late = [&lawful[..at], &lawful[at + 3..], &invalidation].concat();
    assert!(secondary(&late).contains(&Rule::FirstEnable));
}

/// TCR_EL1 has the address size in bits 34:32, where TCR_EL2 has it in 18:16: with 4 GiB of physical addresses, nothing above is mapped.
#[test]
fn bad_an_address_size_where_el1_has_it() {
    let tcr = translation::<Granule4K>().tcr;
    let misplaced = tcr & !(7 << 16) | (tcr >> 16 & 7) << 32;
    let read = |tcr| Controls { tcr, ..Controls::default() }.format(&params::Features::default()).expect("a format");
    assert!(matches!(read(tcr).decode(LEAF | OUT, 3), Descriptor::Leaf(_)));
    assert_eq!(read(misplaced).decode(LEAF | OUT, 3), Descriptor::Invalid);
    assert_eq!((tcr >> 31 & 1, tcr >> 23 & 1, tcr >> 32 & 1), (1, 1, 0), "RES1, RES1, DS");
}

#[test]
fn bad_a_table_linked_before_it_is_filled() {
    let bench = pages();
    let link = slot(&bench, Level::L2, AT + 2 * MIB);
    let unknown = 0x7000_0000;
    let rules = broken(bench, &[store(link, unknown | 3), DSB_ISHST, Event::Isb]);
    assert!(rules.contains(&Rule::ChildContents), "{rules:?}");
}

#[test]
fn bad_a_descriptor_in_two_stores() {
    let bench = with(SECOND, &[request(AT, PAGE, Level::L3)]);
    let page = slot(&bench, Level::L3, AT + PAGE);
    let value = LEAF | (OUT + PAGE);
    let halves = [part(page, 4, 0, value & 0xffff_ffff), part(page, 4, 4, value >> 32)];
    let rules = broken(bench, &[halves[0], halves[1], DSB_ISHST, Event::Isb]);
    assert!(rules.contains(&Rule::WriteExecute) && rules.contains(&Rule::OutputChange), "{rules:?}");
}

#[test]
fn bad_running_from_what_is_broken() {
    let mut bench = with(SECOND, &[request(AT, 2 * MIB, Level::L2)]);
    let block = slot(&bench, Level::L2, AT);
    let word = bench.machine().load(block);
    let machine = bench.protocol.machine_mut();
    machine.emit(0, store(block, word & !1));
    machine.emit_at(0, AT + MIB, Event::Fetch { instructions: 1 });
    assert!(machine.rules().contains(&Rule::BrokenUse), "{:?}", machine.rules());
}

/// What peers get wrong by refusing it: a live block is split on the way, and stays mapped but for that moment.
#[test]
fn good_a_live_block_is_split() {
    let mut bench = with(SECOND, &[request(AT, GIB, Level::L1)]);
    let cost = bench.granted(Ask::Unmap(virt(AT + 5 * MIB, PAGE)));
    assert_eq!((cost.frames, cost.tlbis, cost.stores), (2, 1, 2 + 512 + 511));
    let remap = bench.granted(Ask::Remap(virt(AT, 2 * MIB), 2 * OUT, DATA));
    assert_eq!((remap.stores, remap.tlbis), (2, 1), "a block of what was split is remapped as one");
}
