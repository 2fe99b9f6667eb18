//! The faults that are known of other page-table managers, each as a claim: what ours does in that place (`good_`), and that the sequence of
//! the peer is condemned by the judge, or its answer is not ours (`bad_`).
//!
//! Vectors that are not up before the first fault, which makes a hang silent, are on the target: tests/boot, `exception_before_console`.

mod sequences;

use super::bench::{Ask, Bench, CODE, CONSTANTS, Cpus, DATA, virt};
use super::judged::{Judged, slot_in};
use breakwater::addr::{Level, PhysAddr};
use breakwater::bbm::Live;
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::geometry::{Geometry, Granule4K, Granule4KLpa2, Slot};
use breakwater::machine::Footing;
use breakwater::mapper::{Error, Request};
use breakwater_trace::{Access, Event};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const AT: u64 = 4 * GIB;
const OUT: u64 = 64 * GIB;

const SECOND: Cpus = Cpus { two: true, ..Cpus::PLAIN };

fn request(start: u64, bytes: u64, largest: Level) -> Request {
    Request::new(virt(start, bytes), PhysAddr::at(OUT + (start - AT)), DATA, largest)
}

/// Live tables with these mappings.
fn with(cpus: Cpus, requests: &[Request]) -> Bench<Granule4K, Live> {
    Bench::live(cpus, 64, requests)
}

/// A table full of pages.
fn pages() -> Bench<Granule4K, Live> {
    with(SECOND, &[request(AT, 2 * MIB, Level::L3)])
}

/// A contiguous run of sixteen pages.
fn run() -> Bench<Granule4K, Live> {
    with(SECOND, &[request(AT, 16 * PAGE, Level::L3).with_contiguous()])
}

fn slot(bench: &Bench<Granule4K, Live>, level: Level, at: u64) -> Slot {
    slot_in(bench.machine(), bench.tables.root(), level, at)
}

/// Where the first step that `is` stands, and where the last.
fn ends<G: Geometry>(machine: &Judged<G>, is: fn(&Event) -> bool) -> (usize, usize) {
    let at = |(at, event): (usize, &Event)| is(event).then_some(at);
    let all: Vec<usize> = machine.events().enumerate().filter_map(at).collect();
    (*all.first().expect("one such step"), *all.last().expect("one such step"))
}

fn is_give(event: &Event) -> bool {
    matches!(event, Event::Give { .. })
}

fn is_tlbi(event: &Event) -> bool {
    matches!(event, Event::Maintain { .. })
}

fn is_dsb(event: &Event) -> bool {
    matches!(event, Event::Dsb(_))
}

/// The frames of tables come back behind the last TLBI and its DSB.
fn assert_freed_after_invalidation(bench: &Bench<Granule4K, Live>) {
    let machine = bench.machine();
    let (given, ..) = ends(machine, is_give);
    let (_, tlbi) = ends(machine, is_tlbi);
    let complete = machine.events().skip(tlbi).position(is_dsb).expect("a DSB after the TLBI") + tlbi;
    assert!(complete < given, "DSB at {complete}, frame free at {given}");
}

/// A peer frees the table first, and issues one TLBI for 512 leaves.
#[test]
fn good_unmapping_512_pages_frees_their_table_after_the_last_tlbi() {
    let mut bench = pages();
    let cost = bench.granted(Ask::Unmap(virt(AT, 2 * MIB)));
    assert_freed_after_invalidation(&bench);
    assert_eq!((cost.freed, cost.tlbis), (3, 1), "its table and those above, and everything invalidated at once");
}

/// A peer compacts a table in use, frees its frames, and issues no TLBI at all.
#[test]
fn good_merging_a_table_frees_it_after_the_last_tlbi() {
    let mut bench = pages();
    let cost = bench.granted(Ask::Merge(virt(AT, 2 * MIB), Level::L2, false));
    assert_freed_after_invalidation(&bench);
    assert_eq!((cost.freed, cost.frames), (1, 0));
    assert_eq!(bench.picture().leaves.len(), 1, "one block");
}

/// A peer changes the one page of the sixteen, leaves the hint on the others, and says that all is well. Another sets the hint and can never
/// take it away again.
#[test]
fn good_changing_a_page_of_a_contiguous_run_takes_the_hint_from_all() {
    for ask in [Ask::Unmap(virt(AT + 5 * PAGE, PAGE)), Ask::Protect(virt(AT + 5 * PAGE, PAGE), CONSTANTS)] {
        let mut bench = run();
        let before = bench.picture().pages::<Granule4K>();
        let cost = bench.granted(ask);
        assert_eq!(cost.tlbis, 16, "every entry of the run is invalidated (RLQLSD)");
        let now = bench.picture();
        assert!(now.leaves.iter().all(|leaf| !leaf.contiguous));
        assert_eq!(now.pages::<Granule4K>(), ask.applied::<Granule4K>(before));
    }
}

/// The same: the hint comes and goes on live pages.
#[test]
fn good_the_contiguous_hint_can_be_set_and_removed() {
    let mut bench = with(SECOND, &[request(AT, 32 * PAGE, Level::L3)]);
    let hints = |bench: &Bench<Granule4K, Live>| bench.picture().leaves.iter().filter(|leaf| leaf.contiguous).count();
    bench.granted(Ask::Merge(virt(AT, 32 * PAGE), Level::L3, true));
    assert_eq!(hints(&bench), 32);
    bench.granted(Ask::Split(virt(AT, 32 * PAGE), Level::L3));
    assert_eq!(hints(&bench), 0);
}

/// A peer takes a misaligned output address as it comes, and drops what does not fit.
#[test]
fn bad_misaligned_outputs() {
    let mut bench = pages();
    for output in [OUT + 8, OUT + PAGE / 2, OUT + 1] {
        let map = Request { output: PhysAddr::at(output), ..request(AT + GIB, PAGE, Level::L3) };
        assert!(matches!(bench.refused(Ask::Map(map)), Error::Misaligned { output: Some(_), .. }));
        let remap = Ask::Remap(virt(AT, PAGE), output, DATA);
        assert!(matches!(bench.refused(remap), Error::Misaligned { output: Some(_), .. }));
    }
}

/// The same for a block: where its output is not aligned to 2 MiB, pages come instead.
#[test]
fn good_blocks_only_where_the_output_is_aligned() {
    let mut bench = with(SECOND, &[]);
    let map = Request { output: PhysAddr::at(OUT + PAGE), ..request(AT, 2 * MIB, Level::L1) };
    bench.granted(Ask::Map(map));
    assert!(bench.picture().leaves.iter().all(|leaf| leaf.level == 3));
}

/// A peer drops the bits of an output address that the CPUs do not have.
#[test]
fn bad_outputs_beyond_what_the_cpus_put_out() {
    let mut bench = pages();
    bench.protocol.limit_output(40);
    for output in [1 << 40, (1 << 40) - PAGE, 1 << 47] {
        let map = Request { output: PhysAddr::at(output), ..request(AT + GIB, 2 * PAGE, Level::L3) };
        assert!(matches!(bench.refused(Ask::Map(map)), Error::BeyondAddressSize { .. }), "{output:#x}");
        let remap = Ask::Remap(virt(AT, 2 * PAGE), output, DATA);
        assert!(matches!(bench.refused(remap), Error::BeyondAddressSize { .. }), "{output:#x}");
    }
}

/// A peer lets high bits of a VA land in the hint of a level.
#[test]
fn good_no_address_lands_in_the_level_hint() {
    let top = (1 << 52) - PAGE;
    for (features, hint) in [(Features::empty(), 0), (Features::TTL, 0b0111)] {
        let page = Request::new(virt(top, PAGE), PhysAddr::at(OUT), DATA, Level::L3);
        let mut bench = Bench::<Granule4KLpa2, Live>::live(Cpus { features, ..SECOND }, 16, &[page]);
        bench.granted(Ask::Protect(virt(top, PAGE), CONSTANTS));
        let operands = bench.machine().events().filter_map(|event| match event {
            Event::Maintain { operand, .. } => Some(*operand),
            _ => None,
        });
        assert!(operands.eq([hint << 44 | top >> 12]));
    }
}

/// A peer invalidates EL1 at EL2; another issues TLBIs without a DSB before.
#[test]
fn good_every_tlbi_is_of_el2_and_between_two_dsbs() {
    for cpus in [Cpus::PLAIN, SECOND, Cpus { errata: Errata::REPEAT_TLBI, ..SECOND }] {
        let mut bench = with(cpus, &[request(AT, 2 * MIB, Level::L3), request(AT + GIB, GIB, Level::L1)]);
        for ask in [Ask::Protect(virt(AT, 9 * PAGE), CONSTANTS), Ask::Unmap(virt(AT + GIB, 2 * MIB))] {
            bench.granted(ask);
            let events: Vec<&Event> = bench.machine().events().collect();
            let tlbis = events.iter().enumerate().filter(|(_, event)| is_tlbi(event));
            for (at, tlbi) in tlbis {
                assert!(matches!(tlbi, Event::Maintain { operation, .. } if operation.invalidates_el2()));
                let before = events[..at].iter().rev().find(|event| !is_tlbi(event));
                let after = events[at..].iter().find(|event| !is_tlbi(event));
                assert!(
                    before.is_some_and(|event| is_dsb(event)) && after.is_some_and(|event| is_dsb(event)),
                    "{events:?}"
                );
            }
        }
    }
}

/// A peer links a table and fills it afterwards.
#[test]
fn good_a_table_is_filled_and_visible_before_its_link() {
    let mut bench = with(SECOND, &[]);
    bench.granted(Ask::Map(request(AT, 2 * MIB + 5 * PAGE, Level::L3)));
    let root = bench.root();
    let links = |event: &Event| matches!(event, Event::Store(Access { pa, .. }) if pa & !0xfff == root);
    let events: Vec<&Event> = bench.machine().events().collect();
    let link = events.iter().position(|event| links(event)).expect("a link");
    let fills = events.iter().rposition(|event| matches!(event, Event::Store(_)) && !links(event)).expect("fills");
    assert!(fills < link && events[fills..link].iter().any(|event| is_dsb(event)), "fills, DSB, link");
}

/// A peer writes a descriptor in two halves.
#[test]
fn good_every_descriptor_is_one_store() {
    let mut bench = pages();
    for ask in [
        Ask::Split(virt(AT, 2 * MIB), Level::L3),
        Ask::Protect(virt(AT, 3 * PAGE), CODE),
        Ask::Remap(virt(AT + MIB, MIB), 2 * OUT, CONSTANTS),
        Ask::Map(request(AT + GIB, GIB, Level::L2)),
        Ask::Unmap(virt(AT, 2 * MIB)),
    ] {
        bench.granted(ask);
        let whole = |event: &Event| match event {
            Event::Store(Access { bytes: 16, value, .. }) => *value == [0, 0], // of a frame that nothing links to
            Event::Store(Access { bytes, pa, .. }) => *bytes == 8 && pa % 8 == 0,
            _ => true,
        };
        assert!(bench.machine().events().all(whole), "{ask:?}");
    }
}

/// A peer splits the very mapping that it runs from; others refuse to split any live block.
#[test]
fn bad_splitting_what_one_executes_from() {
    let text = Footing { name: "text", virt: virt(AT + MIB, PAGE) };
    let mut bench = with(SECOND, &[request(AT, 2 * MIB, Level::L2), request(AT + 2 * MIB, 2 * MIB, Level::L2)]);
    bench.protocol.machine_mut().footings = vec![text];
    for ask in
        [Ask::Split(virt(AT, 2 * MIB), Level::L3), Ask::Protect(virt(AT, PAGE), CONSTANTS), Ask::Unmap(virt(AT, PAGE))]
    {
        let error = bench.refused(ask);
        assert!(matches!(error, Error::WouldBreakSelf { footing, .. } if footing == text), "{error}");
    }
    bench.granted(Ask::Split(virt(AT + 2 * MIB, 2 * MIB), Level::L3));
}

/// A peer does two `dsb sy` for every descriptor.
#[test]
fn good_a_few_barriers_for_any_number_of_descriptors() {
    let mut bench = with(SECOND, &[]);
    let cost = bench.granted(Ask::Map(request(AT, 8 * MIB, Level::L3)));
    assert_eq!((cost.stores, cost.dsbs, cost.isbs, cost.tlbis), (2048 + 4 + 2, 2, 1, 0));
    let cost = bench.granted(Ask::Protect(virt(AT, 8 * MIB), CONSTANTS));
    assert_eq!((cost.stores, cost.dsbs, cost.isbs), (2048, 2, 1));
}

/// A peer issues one TLBI for every 4 KiB of a block.
#[test]
fn good_one_tlbi_for_a_block_of_any_size() {
    for (bytes, level) in [(2 * MIB, Level::L2), (GIB, Level::L1)] {
        let mut bench = with(SECOND, &[request(AT, bytes, level)]);
        assert_eq!(bench.granted(Ask::Protect(virt(AT, bytes), CONSTANTS)).tlbis, 1);
        assert_eq!(bench.granted(Ask::Unmap(virt(AT, bytes))).tlbis, 1);
    }
    let features = Features::TLBIRANGE;
    let mut bench = with(Cpus { features, ..SECOND }, &[request(AT, 2 * MIB, Level::L3)]);
    assert_eq!(bench.granted(Ask::Protect(virt(AT, 2 * MIB), CONSTANTS)).tlbis, 1, "512 pages by one range");
}
