//! The fixmap on the host machine: what a slot shows, what it refuses, what it costs.

use super::demand::{Demand, NO_MAP, RTC};
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, frame, phys};
use super::step::is_tlbi;
use breakwater::addr::{PhysAddr, VirtAddr};
use breakwater::errata::Errata;
use breakwater::layout::{FIXMAP, FIXMAP_CONSOLE, NOWHERE};
use breakwater::mapper::Error as MapperError;
use breakwater::regions::Failure;
use breakwater::regions::alias::{Alias, Ram, Refusal};
use breakwater::regions::fixmap::{self, Error, Purpose};

#[test]
fn good_set_shows_the_frame_and_clear_takes_it_out() {
    let mut demand = Demand::new();
    demand.leave_frames(0);
    for slot in Purpose::ALL {
        let at = demand.granted(|_, space| fixmap::set(space, Ram::Declared, slot, frame(RTC), DEVICE));
        assert!(FIXMAP.contains(at) && !FIXMAP_CONSOLE.contains(at));
        assert_eq!(demand.translate(at.raw()), Some(RTC), "without a frame to take");
        for guard in [at.raw() - PAGE, at.raw() + PAGE] {
            assert_eq!(demand.translate(guard), None, "{slot:?} has a page on either side that nothing maps");
        }
        demand.assert_audit();
        let unmapped = demand.granted(|_, space| fixmap::clear(space, slot));
        assert_eq!((unmapped.cost.stores, unmapped.cost.frames), (2, 0));
        assert_eq!(demand.translate(at.raw()), None);
    }
    demand.assert_audit();
}

#[test]
fn good_slots_are_apart_and_set_together() {
    let mut demand = Demand::new();
    for (index, slot) in (0..).zip(Purpose::ALL) {
        demand.granted(|_, space| fixmap::set(space, Ram::Declared, slot, frame(RTC + index * PAGE), DEVICE));
    }
    demand.assert_audit();
    for (index, slot) in (0..).zip(Purpose::ALL) {
        assert_eq!(demand.translate(slot.virt().start().raw()), Some(RTC + index * PAGE));
        let above = slot.virt().end_exclusive().raw();
        assert_eq!(demand.translate(above), None, "the page after {slot:?}");
    }
}

#[test]
fn good_ram_that_only_the_device_tree_knows() {
    use super::booted::{Booted, Setup};
    let mut setup = Setup::new(&[phys(GIB, GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    setup.memory.add_no_map(NO_MAP).unwrap();
    let mut booted = Booted::switched(&setup).unwrap();
    let module = frame(GIB + 256 * MIB);
    let set = |booted: &mut Booted, ram: Ram<'_>, frame, attributes| {
        fixmap::set(&mut booted.space(), ram, Purpose::Pmap0, frame, attributes)
    };
    let known = Ram::Known(&setup.memory);
    let unknown = Refusal::NotRam { phys: module.start(), wanted: DATA };
    assert_eq!(set(&mut booted, Ram::Declared, module, DATA), Err(Error::Refused(unknown)), "there is no directmap");
    let no_map = Refusal::NotRam { phys: NO_MAP.start(), wanted: DATA };
    assert_eq!(set(&mut booted, known, frame(NO_MAP.start().raw()), DATA), Err(Error::Refused(no_map)));
    let device = Refusal::DeviceOverRam { phys: phys(module.start().raw(), PAGE), wanted: DEVICE };
    assert_eq!(set(&mut booted, known, module, DEVICE), Err(Error::Refused(device)));
    let rodata = booted.bringup.image().parts[3].virt.start();
    let constants = frame(booted.bringup.image().physical(rodata).raw());
    let sealed = Refusal::NotRam { phys: constants.start(), wanted: DATA };
    assert_eq!(set(&mut booted, known, constants, DATA), Err(Error::Refused(sealed)), "constants stay constants");
    booted.settled("refusals");
    set(&mut booted, known, module, DATA).unwrap();
    booted.settled("set");
    assert_eq!(booted.audit().mismatches, 0);
}

#[test]
fn bad_setting_a_slot_in_use() {
    let mut demand = Demand::new();
    let (first, other) = (demand.take(), demand.take());
    demand.granted(|_, space| fixmap::set(space, Ram::Declared, Purpose::Misc, first, DATA));
    for frame in [first, other] {
        let error = demand.refused(|_, space| fixmap::set(space, Ram::Declared, Purpose::Misc, frame, DATA));
        assert_eq!(error, Error::InUse { slot: Purpose::Misc, shows: first.start() });
    }
}

#[test]
fn bad_clearing_a_slot_that_is_not_set() {
    let mut demand = Demand::new();
    let error = demand.refused(|_, space| fixmap::clear(space, Purpose::Pmap1));
    assert_eq!(error, Error::NotSet { slot: Purpose::Pmap1 });
    let frame = demand.take();
    demand.granted(|_, space| fixmap::set(space, Ram::Declared, Purpose::Pmap1, frame, CONSTANTS));
    demand.granted(|_, space| fixmap::clear(space, Purpose::Pmap1));
    let error = demand.refused(|_, space| fixmap::clear(space, Purpose::Pmap1));
    assert_eq!(error, Error::NotSet { slot: Purpose::Pmap1 }, "cleared once");
}

#[test]
fn bad_ram_as_a_device_and_code_to_write() {
    let mut demand = Demand::new();
    let ram = demand.take();
    let virt = demand.booted.directmap.virt(phys(ram.start().raw(), PAGE)).unwrap().start();
    let mapped = Alias { name: "directmap", virt, phys: phys(ram.start().raw(), PAGE), attributes: DATA };
    let error = demand.refused(|_, space| fixmap::set(space, Ram::Declared, Purpose::EarlyIo0, ram, DEVICE));
    assert_eq!(error, Error::Refused(Refusal::MixedMemory { wanted: DEVICE, mapped }));
    let said = error.to_string();
    assert!(said.contains("in directmap at") && said.contains("device nGnRE would be another memory type"), "{said}");
    let error = demand.refused(|_, space| fixmap::set(space, Ram::Declared, Purpose::Misc, ram, CODE));
    assert_eq!(error, Error::Refused(Refusal::WritableExecutable { wanted: CODE, mapped }));

    let image = *demand.booted.bringup.image();
    let text = image.parts[2];
    let code = image.physical(text.virt.start());
    let mapped = Alias { name: "text", virt: text.virt.start(), phys: phys(code.raw(), PAGE), attributes: CODE };
    let error = demand.refused(|_, space| fixmap::set(space, Ram::Declared, Purpose::Misc, frame(code.raw()), DATA));
    assert_eq!(error, Error::Refused(Refusal::WritableExecutable { wanted: DATA, mapped }));
    demand.granted(|_, space| fixmap::set(space, Ram::Declared, Purpose::Misc, frame(code.raw()), CONSTANTS));
    demand.assert_audit();
}

#[test]
fn bad_constants_to_write() {
    let mut demand = Demand::new();
    let image = *demand.booted.bringup.image();
    for part in [3, 4] {
        let phys = image.physical(image.parts[part].virt.start());
        let constants = frame(phys.raw());
        let error = demand.refused(|_, space| fixmap::set(space, Ram::Declared, Purpose::Misc, constants, DATA));
        assert_eq!(error, Error::Refused(Refusal::NotRam { phys, wanted: DATA }), "{}", image.parts[part].name);
    }
}

#[test]
fn bad_frame_beyond_what_the_cpus_put_out() {
    let mut demand = Demand::new();
    demand.booted.bringup.note_cpu(Errata::empty(), 40);
    let output = PhysAddr::at(1 << 40);
    let error = demand.refused(|_, space| {
        fixmap::set(space, Ram::Declared, Purpose::EarlyIo1, breakwater::addr::Frame::containing(output), DEVICE)
    });
    let beyond = MapperError::BeyondAddressSize { virt: NOWHERE, output };
    assert_eq!(error, Error::Mapping(Failure::Mapping { name: "fixmap early I/O 1", error: beyond }));
    let end = breakwater::addr::Frame::containing(PhysAddr::at(1 << 48));
    demand.refused(|_, space| fixmap::set(space, Ram::Declared, Purpose::EarlyIo1, end, DEVICE));
}

#[test]
fn bad_clear_without_its_invalidation_is_seen_by_the_model() {
    let mut demand = Demand::new();
    let shown = demand.take();
    let at = demand.granted(|_, space| fixmap::set(space, Ram::Declared, Purpose::Pmap0, shown, DATA));
    assert_eq!(at, VirtAddr::at(Purpose::Pmap0.virt().start().raw()));
    demand.booted.world_mut().forgets = Some(is_tlbi);
    fixmap::clear(&mut demand.booted.space(), Purpose::Pmap0).unwrap();
    assert!(demand.booted.world().verdict().is_err(), "a TLB may still show the frame");
}
