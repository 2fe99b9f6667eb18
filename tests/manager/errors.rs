//! Every refusal, by its variant and evidence; [`super::rig::Rig`] sees to it that tables, frames and counters are as before.

use super::bits::attribute_bits;
use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, phys, request, virt};
use breakwater::addr::{Level, PhysAddr};
use breakwater::bbm::{Live, Reach};
use breakwater::change::Why;
use breakwater::frames::{FrameSupply, OwnedRam};
use breakwater::geometry::Slot;
use breakwater::mapper::Error;

const AT: u64 = 4 * GIB;

/// A page, a 2 MiB block and a 1 GiB block.
fn furnished() -> Rig<Live> {
    let mut rig = Rig::live(Reach::Domain, 32);
    rig.map(request(AT, PAGE, 0, DATA, Level::L3)).unwrap();
    rig.map(request(AT + 2 * MIB, 2 * MIB, 2 * MIB, DATA, Level::L2)).unwrap();
    rig.map(request(AT + GIB, GIB, 64 * GIB, CODE, Level::L1)).unwrap();
    rig
}

/// The slot of the leaf that maps `at`.
fn slot_of(rig: &Rig<Live>, at: u64) -> Slot {
    let leaf = raw::leaf(rig.world(), rig.root(), at).unwrap();
    rig.slot(at, [Level::L0, Level::L1, Level::L2, Level::L3][leaf.level as usize])
}

/// The refusal of a request for which `slot` is not free.
fn in_the_way(rig: &Rig<Live>, slot: Slot, requested: Option<u64>) -> Error {
    Error::Occupied { slot, descriptor: rig.world().word(slot.address().raw()), requested }
}

#[test]
fn bad_empty_spans() {
    let mut rig = furnished();
    let empty = Err(Error::Empty { virt: virt(AT, 0) });
    assert_eq!(rig.map(request(AT, 0, 0, DATA, Level::L3)), empty);
    assert_eq!(rig.populate(AT, 0, Level::L3), empty);
    assert_eq!(rig.unmap(AT, 0), empty);
    assert_eq!(rig.protect(AT, 0, DATA), empty);
    assert_eq!(rig.remap(AT, 0, 0, DATA), empty);
}

#[test]
fn bad_misaligned_spans() {
    let mut rig = furnished();
    for (start, bytes) in [(AT + 1, PAGE), (AT, PAGE + 8), (AT + 0x800, 0x800), (AT - 0x800, PAGE)] {
        let misaligned = Err(Error::Misaligned { virt: virt(start, bytes), output: None });
        assert_eq!(rig.map(request(start, bytes, 0, DATA, Level::L3)), misaligned);
        assert_eq!(rig.populate(start, bytes, Level::L3), misaligned);
        assert_eq!(rig.unmap(start, bytes), misaligned);
        assert_eq!(rig.protect(start, bytes, DATA), misaligned);
        assert_eq!(rig.remap(start, bytes, 0, DATA), misaligned);
    }
}

#[test]
fn bad_misaligned_outputs() {
    let mut rig = furnished();
    let misaligned = |start| Err(Error::Misaligned { virt: virt(start, PAGE), output: Some(PhysAddr::at(0x1800)) });
    assert_eq!(rig.map(request(2 * GIB, PAGE, 0x1800, DATA, Level::L3)), misaligned(2 * GIB));
    assert_eq!(rig.remap(AT, PAGE, 0x1800, DATA), misaligned(AT));
}

#[test]
fn bad_outputs_beyond_48_bits() {
    let mut rig = furnished();
    let top = (1 << 48) - PAGE;
    let beyond = |start, bytes| Err(Error::BeyondAddressSize { virt: virt(start, bytes), output: PhysAddr::at(top) });
    assert_eq!(rig.map(request(2 * GIB, 2 * PAGE, top, DATA, Level::L3)), beyond(2 * GIB, 2 * PAGE));
    assert_eq!(rig.remap(AT + 2 * MIB, 2 * MIB, top, DATA), beyond(AT + 2 * MIB, 2 * MIB));
}

#[test]
fn bad_outputs_beyond_what_the_cpus_put_out() {
    let mut rig = furnished();
    rig.protocol.limit_output(40);
    rig.protocol.limit_output(44);
    assert_eq!(rig.protocol.output_bits(), 40, "the least that any CPU has");
    let top = 1 << 40;
    let beyond =
        |start, output| Err(Error::BeyondAddressSize { virt: virt(start, PAGE), output: PhysAddr::at(output) });
    for output in [top, 2 * top, (1 << 48) - PAGE] {
        assert_eq!(rig.map(request(2 * GIB, PAGE, output, DATA, Level::L3)), beyond(2 * GIB, output));
        assert_eq!(rig.remap(AT, PAGE, output, DATA), beyond(AT, output));
    }
    assert!(rig.map(request(2 * GIB, 2 * PAGE, top - PAGE, DATA, Level::L3)).is_err(), "not its end either");
    rig.map(request(2 * GIB, PAGE, top - PAGE, DATA, Level::L3)).unwrap();
    rig.remap(AT, PAGE, top - 2 * PAGE, DATA).unwrap();
}

#[test]
fn bad_mapping_over_anything() {
    let mut rig = furnished();
    let mappings = [(AT, AT, DATA), (AT + 2 * MIB, AT + 3 * MIB, DATA), (AT + GIB, AT + GIB + 5 * PAGE, CODE)];
    for (mapped, wanted, attributes) in mappings {
        let slot = slot_of(&rig, mapped);
        let page = |output: u64, attributes| {
            let requested = (slot.level() == Level::L3).then_some(output | attribute_bits(attributes) | 3);
            Err(in_the_way(&rig, slot, requested))
        };
        let same = raw::translate(rig.world(), rig.root(), wanted).unwrap();
        let (over, over_data, over_same) = (page(8 * GIB, CONSTANTS), page(8 * GIB, DATA), page(same, attributes));
        assert_eq!(rig.map(request(wanted, PAGE, 8 * GIB, CONSTANTS, Level::L3)), over, "{wanted:#x}");
        let from_below = rig.map(request(mapped - PAGE, 2 * PAGE, 8 * GIB - PAGE, DATA, Level::L1));
        assert_eq!(from_below, over_data, "from below");
        assert_eq!(rig.map(request(wanted, PAGE, same, attributes, Level::L3)), over_same, "not even the same again");
    }
}

#[test]
fn bad_mapping_a_block_over_a_table_with_leaves() {
    let mut rig = furnished();
    for bytes in [GIB, 2 * GIB] {
        let asked = rig.map(request(AT, bytes, 0, DATA, Level::L1));
        assert!(matches!(asked, Err(Error::Occupied { .. })), "{bytes:#x}");
    }
}

#[test]
fn good_an_empty_table_answers_alike_however_long_the_request() {
    let ask = |bytes| {
        let mut rig = Rig::live(Reach::ThisPe, 8);
        rig.populate(AT, GIB, Level::L2).unwrap();
        rig.map(request(AT, bytes, 0, DATA, Level::L1)).is_ok()
    };
    assert_eq!(ask(GIB), ask(2 * GIB), "whether the request is one slot of the table above or two");
}

#[test]
fn bad_populating_under_a_block() {
    let mut rig = furnished();
    for at in [AT + 2 * MIB, AT + GIB] {
        let slot = slot_of(&rig, at);
        let occupied = Err(in_the_way(&rig, slot, None));
        assert_eq!(rig.populate(at, PAGE, Level::L3), occupied);
    }
}

#[test]
fn bad_changing_what_is_not_mapped() {
    let mut rig = furnished();
    for (start, bytes, hole, level) in [
        (AT + PAGE, PAGE, AT + PAGE, Level::L3),
        (AT, 2 * PAGE, AT + PAGE, Level::L3),
        (AT - PAGE, 2 * PAGE, AT - PAGE, Level::L1),
        (AT + 4 * MIB, 2 * MIB, AT + 4 * MIB, Level::L2),
        (0, 1 << 48, 0, Level::L1),
        (600 * GIB, PAGE, 600 * GIB, Level::L0),
    ] {
        let not_mapped = Err(Error::NotMapped { slot: rig.slot(hole, level) });
        assert_eq!(rig.unmap(start, bytes), not_mapped);
        assert_eq!(rig.protect(start, bytes, CONSTANTS), not_mapped);
        assert_eq!(rig.remap(start, bytes, 0, DATA), not_mapped);
        assert_eq!(rig.split(start, bytes, Level::L3), not_mapped);
        assert_eq!(rig.merge(start, bytes, Level::L1, true), not_mapped);
    }
}

#[test]
fn bad_touching_what_the_manager_never_writes() {
    for foreign in [1 << 51 | 0x40_0000_0000_0703, 1 << 55 | 0x40_0000_0000_0703, 0x703, 0x40_0000_0000_0303] {
        let mut rig = furnished();
        let slot = slot_of(&rig, AT);
        rig.world_mut().plant(slot, foreign);
        let refused = Err(Error::Refused { slot, descriptor: foreign, why: Why::Foreign });
        let memory = rig.world().snapshot();
        assert_eq!(rig.unmap(AT, PAGE), refused, "{foreign:#x}");
        assert_eq!(rig.protect(AT, PAGE, CONSTANTS), refused);
        assert_eq!(rig.remap(AT, PAGE, 0, DATA), refused);
        let occupied = Err(in_the_way(&rig, slot, Some(attribute_bits(DATA) | 3)));
        assert_eq!(rig.map(request(AT, PAGE, 0, DATA, Level::L3)), occupied);
        assert_eq!(rig.query(AT), None);
        assert!(rig.world().snapshot() == memory);
    }
}

#[test]
fn bad_touching_what_someone_left_broken() {
    let mut rig = furnished();
    let slot = slot_of(&rig, AT);
    let broken = rig.world().word(slot.address().raw()) & !1;
    rig.world_mut().plant(slot, broken);
    let refused = Err(Error::Refused { slot, descriptor: broken, why: Why::InvalidationOwed });
    assert_eq!(rig.unmap(AT, PAGE), refused);
    assert_eq!(rig.protect(AT, PAGE, CONSTANTS), refused);
    assert_eq!(rig.remap(AT, PAGE, 0, DATA), refused);
    let occupied = Err(in_the_way(&rig, slot, Some(attribute_bits(DATA) | 3)));
    assert_eq!(rig.map(request(AT, PAGE, 0, DATA, Level::L3)), occupied);
}

#[test]
fn bad_walking_through_a_table_with_hierarchical_rights() {
    let mut rig = furnished();
    let slot = rig.slot(AT, Level::L0);
    let foreign = rig.world().word(slot.address().raw()) | 1 << 60;
    rig.world_mut().plant(slot, foreign);
    assert_eq!(rig.unmap(AT, PAGE), Err(Error::Refused { slot, descriptor: foreign, why: Why::Foreign }));
    let occupied = Err(in_the_way(&rig, slot, None));
    assert_eq!(rig.map(request(AT + 8 * PAGE, PAGE, 0, DATA, Level::L3)), occupied);
    assert_eq!(rig.populate(AT, GIB, Level::L3), occupied);
}

/// Runs `ask` with every number of frames that is too small, and then with just enough.
fn out_of_frames_everywhere(needed: u64, ask: impl Fn(&mut Rig<Live>) -> super::rig::Answer) {
    for available in 0..needed {
        let mut rig = Rig::live(Reach::ThisPe, available);
        assert_eq!(ask(&mut rig), Err(Error::OutOfFrames { needed, available }));
        rig.frames = FrameSupply::new(OwnedRam::simulated(phys(0x80_0000, needed * PAGE)));
        assert_eq!(ask(&mut rig).map(|done| done.frames), Ok(needed), "the same request, once there are enough");
        assert_eq!(rig.frames.available(), 0);
    }
}

#[test]
fn bad_out_of_frames_at_every_point() {
    out_of_frames_everywhere(3, |rig| rig.map(request(AT, PAGE, 0, DATA, Level::L3)));
    out_of_frames_everywhere(2, |rig| rig.map(request(AT, 2 * MIB, 0, DEVICE, Level::L2)));
    let straddling = |rig: &mut Rig<Live>| rig.map(request(512 * GIB - PAGE, 2 * PAGE, 0, DATA, Level::L3));
    out_of_frames_everywhere(6, straddling);
    let ragged = 3 * GIB - 2 * MIB - PAGE;
    out_of_frames_everywhere(5, move |rig| rig.map(request(ragged, GIB + 4 * MIB + 2 * PAGE, ragged, DATA, Level::L1)));
    out_of_frames_everywhere(6, |rig| rig.populate(AT, 8 * MIB, Level::L3));
}

#[test]
fn bad_out_of_frames_when_some_tables_are_there() {
    let mut rig = Rig::live(Reach::ThisPe, 4);
    rig.map(request(AT, PAGE, 0, DATA, Level::L3)).unwrap();
    let refused = rig.map(request(AT + 2 * MIB - PAGE, 4 * MIB + PAGE, GIB, DATA, Level::L3));
    assert_eq!(refused, Err(Error::OutOfFrames { needed: 2, available: 1 }));
    rig.map(request(AT + 2 * MIB - PAGE, 2 * MIB + PAGE, GIB, DATA, Level::L3)).unwrap();
}

#[test]
fn bad_refused_at_the_last_page_of_a_long_request() {
    let mut rig = Rig::live(Reach::ThisPe, 32);
    rig.map(request(AT, 1023 * PAGE, 0, DATA, Level::L3)).unwrap();
    rig.map(request(AT + 8 * MIB - PAGE, PAGE, 0, DATA, Level::L3)).unwrap();
    let hole = Err(Error::NotMapped { slot: rig.slot(AT + 1023 * PAGE, Level::L3) });
    assert_eq!(rig.unmap(AT, 1024 * PAGE), hole);
    assert_eq!(rig.protect(AT, 1024 * PAGE, CONSTANTS), hole);
    let occupied = rig.map(request(AT + 1023 * PAGE, 1025 * PAGE, 0, DATA, Level::L3));
    assert!(matches!(occupied, Err(Error::Occupied { .. })));
    assert_eq!(rig.frames.available(), 32 - 5);
}
