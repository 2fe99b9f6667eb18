//! Every refusal, by its variant and evidence; [`super::rig::Rig`] sees to it that tables, frames and counters are as before.

use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, Rig, phys, request, virt};
use breakwater::addr::{Level, PhysAddr, VirtAddr};
use breakwater::bbm::{Live, Reach};
use breakwater::change::Why;
use breakwater::machine::Slot;
use breakwater::mapper::Error;

const AT: u64 = 4 * GIB;

/// A page, a 2 MiB block and a 1 GiB block.
fn furnished() -> Rig<Live> {
    let mut rig = Rig::live(Reach::Domain, 32);
    rig.map(request(AT, PAGE, 0, DATA, Level::L3)).unwrap();
    rig.map(request(AT + 2 * MIB, 2 * MIB, 2 * MIB, DATA, Level::L2)).unwrap();
    rig.map(request(AT + GIB, GIB, 0, CODE, Level::L1)).unwrap();
    rig
}

/// The slot of the leaf that maps `at`.
fn slot_of(rig: &Rig<Live>, at: u64) -> Slot {
    let leaf = raw::leaf(rig.world(), rig.root(), at).unwrap();
    let level = [Level::L0, Level::L1, Level::L2, Level::L3][usize::from(leaf.level)];
    let mut table = rig.tables.root();
    for above in [Level::L0, Level::L1, Level::L2].into_iter().take_while(|&above| above < level) {
        table = rig.protocol.child(Slot::new(table, above, VirtAddr::at(at))).unwrap();
    }
    Slot::new(table, level, VirtAddr::at(at))
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
    let in_the_way = [(AT, AT), (AT + 2 * MIB, AT + 3 * MIB), (AT + GIB, AT + GIB + 5 * PAGE)];
    for (mapped, wanted) in in_the_way {
        let slot = slot_of(&rig, mapped);
        let occupied = Err(Error::Occupied { slot, descriptor: rig.world().word(slot.address().raw()) });
        assert_eq!(rig.map(request(wanted, PAGE, 8 * GIB, CONSTANTS, Level::L3)), occupied, "{wanted:#x}");
        assert_eq!(rig.map(request(mapped - PAGE, 2 * PAGE, 8 * GIB - PAGE, DATA, Level::L1)), occupied, "from below");
        let same = raw::translate(rig.world(), rig.root(), wanted).unwrap();
        assert_eq!(rig.map(request(wanted, PAGE, same, DATA, Level::L3)), occupied, "not even the same again");
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
        let occupied = Err(Error::Occupied { slot, descriptor: rig.world().word(slot.address().raw()) });
        assert_eq!(rig.populate(at, PAGE, Level::L3), occupied);
    }
}

#[test]
fn bad_changing_what_is_not_mapped() {
    let mut rig = furnished();
    for (start, bytes, hole) in [
        (AT + PAGE, PAGE, AT + PAGE),
        (AT, 2 * PAGE, AT + PAGE),
        (AT - PAGE, 2 * PAGE, AT - PAGE),
        (AT + 4 * MIB, 2 * MIB, AT + 4 * MIB),
        (0, 1 << 48, 0),
        (600 * GIB, PAGE, 600 * GIB),
    ] {
        let not_mapped = Err(Error::NotMapped { virt: VirtAddr::at(hole) });
        assert_eq!(rig.unmap(start, bytes), not_mapped);
        assert_eq!(rig.protect(start, bytes, CONSTANTS), not_mapped);
        assert_eq!(rig.remap(start, bytes, 0, DATA), not_mapped);
    }
}

#[test]
fn bad_cutting_a_block() {
    let mut rig = furnished();
    for (block, bytes) in [(AT + 2 * MIB, 2 * MIB), (AT + GIB, GIB)] {
        let slot = slot_of(&rig, block);
        for part in
            [virt(block, PAGE), virt(block + PAGE, PAGE), virt(block, bytes - PAGE), virt(block + bytes - PAGE, PAGE)]
        {
            let (start, bytes) = (part.start().raw(), part.bytes());
            let would_split = Err(Error::WouldSplit { slot, part });
            assert_eq!(rig.unmap(start, bytes), would_split);
            assert_eq!(rig.protect(start, bytes, CONSTANTS), would_split);
            assert_eq!(rig.remap(start, bytes, 8 * GIB, DATA), would_split);
        }
    }
}

#[test]
fn bad_remapping_a_block_to_a_misaligned_output() {
    let mut rig = furnished();
    for (block, bytes, output) in [(AT + 2 * MIB, 2 * MIB, MIB), (AT + GIB, GIB, 2 * MIB)] {
        let slot = slot_of(&rig, block);
        let misaligned = Err(Error::OutputMisaligned { slot, output: PhysAddr::at(output) });
        assert_eq!(rig.remap(block, bytes, output, DATA), misaligned);
    }
    rig.map(request(AT + 4 * MIB, PAGE, 0, DATA, Level::L3)).unwrap();
    let slot = slot_of(&rig, AT + 2 * MIB);
    rig.map(request(AT + 2 * MIB - PAGE, PAGE, 0, DATA, Level::L3)).unwrap();
    let output = PhysAddr::at(8 * GIB + PAGE);
    let page_then_block = rig.remap(AT + 2 * MIB - PAGE, 2 * MIB + 2 * PAGE, 8 * GIB, DATA);
    assert_eq!(page_then_block, Err(Error::OutputMisaligned { slot, output }));
}

#[test]
fn bad_touching_what_the_manager_never_writes() {
    for foreign in [1 << 52 | 0x40_0000_0000_0703, 1 << 55 | 0x40_0000_0000_0703, 0x703, 0x40_0000_0000_0303] {
        let mut rig = furnished();
        let slot = slot_of(&rig, AT);
        rig.world_mut().plant(slot, foreign);
        let refused = Err(Error::Refused { slot, why: Why::Foreign });
        let memory = rig.world().snapshot();
        assert_eq!(rig.unmap(AT, PAGE), refused, "{foreign:#x}");
        assert_eq!(rig.protect(AT, PAGE, CONSTANTS), refused);
        assert_eq!(rig.remap(AT, PAGE, 0, DATA), refused);
        let occupied = Err(Error::Occupied { slot, descriptor: foreign });
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
    let refused = Err(Error::Refused { slot, why: Why::InvalidationOwed });
    assert_eq!(rig.unmap(AT, PAGE), refused);
    assert_eq!(rig.protect(AT, PAGE, CONSTANTS), refused);
    assert_eq!(rig.remap(AT, PAGE, 0, DATA), refused);
    let occupied = Err(Error::Occupied { slot, descriptor: broken });
    assert_eq!(rig.map(request(AT, PAGE, 0, DATA, Level::L3)), occupied);
}

#[test]
fn bad_walking_through_a_table_with_hierarchical_rights() {
    let mut rig = furnished();
    let slot = Slot::new(rig.tables.root(), Level::L0, VirtAddr::at(AT));
    let foreign = rig.world().word(slot.address().raw()) | 1 << 60;
    rig.world_mut().plant(slot, foreign);
    assert_eq!(rig.unmap(AT, PAGE), Err(Error::Refused { slot, why: Why::Foreign }));
    let occupied = Err(Error::Occupied { slot, descriptor: foreign });
    assert_eq!(rig.map(request(AT + 8 * PAGE, PAGE, 0, DATA, Level::L3)), occupied);
    assert_eq!(rig.populate(AT, GIB, Level::L3), occupied);
}

/// Runs `ask` with every number of frames that is too small, and then with just enough.
fn out_of_frames_everywhere(needed: u64, ask: impl Fn(&mut Rig<Live>) -> Result<super::rig::Done, Error>) {
    for available in 0..needed {
        let mut rig = Rig::live(Reach::ThisPe, available);
        assert_eq!(ask(&mut rig), Err(Error::OutOfFrames { needed, available }));
        let more = phys(0x80_0000, (needed - available) * PAGE);
        rig.frames.add_ram(more).unwrap();
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
    let hole = Err(Error::NotMapped { virt: VirtAddr::at(AT + 1023 * PAGE) });
    assert_eq!(rig.unmap(AT, 1024 * PAGE), hole);
    assert_eq!(rig.protect(AT, 1024 * PAGE, CONSTANTS), hole);
    let occupied = rig.map(request(AT + 1023 * PAGE, 1025 * PAGE, 0, DATA, Level::L3));
    assert!(matches!(occupied, Err(Error::Occupied { .. })));
    assert_eq!(rig.frames.available(), 32 - 5);
}
