//! The window on the host machine: no request for what the directmap has, few for what it has not, and never two frames at one address.

use super::demand::{Demand, NO_MAP, RTC};
use super::rig::{CONSTANTS, DATA, DEVICE, PAGE, frame, phys};
use super::step::is_tlbi;
use breakwater::addr::{Frame, PhysAddr};
use breakwater::descriptor::{Attributes, DataAccess, DeviceKind};
use breakwater::layout::{DIRECTMAP, MAX_CPUS, WINDOW, WINDOW_SLOTS};
use breakwater::regions::alias::{Alias, Refusal};
use breakwater::regions::window::{CpuSlots, Error, Mapped};

/// The device's page number `index`.
fn device(index: u64) -> Frame {
    frame(RTC + index * PAGE)
}

fn map(demand: &mut Demand, cpu: usize, frame: Frame, attributes: Attributes) -> Mapped {
    let mapped = demand.granted(|on_demand, space| on_demand.window.map(space, cpu, frame, attributes));
    assert_eq!(demand.translate(mapped.virt().raw()), Some(frame.start().raw()));
    mapped
}

/// How many steps the machine has made.
fn steps(demand: &Demand) -> usize {
    demand.booted.world().judged().steps as usize
}

#[test]
fn good_ram_by_arithmetic_alone() {
    let mut demand = Demand::new();
    let ram = demand.take();
    let declared = demand.booted.regions.count();
    for attributes in [DATA, CONSTANTS] {
        let before = demand.booted.bringup.protocol().counts();
        let mapped = map(&mut demand, 1, ram, attributes);
        assert!(mapped.is_direct() && DIRECTMAP.contains(mapped.virt()));
        assert_eq!(mapped.virt(), demand.booted.directmap.virt(phys(ram.start().raw(), PAGE)).unwrap().start());
        demand.on_demand.window.unmap(mapped);
        assert_eq!(demand.booted.bringup.protocol().counts(), before, "no request at all");
    }
    assert_eq!(demand.booted.regions.count(), declared);
}

#[test]
fn good_other_frames_in_slots_without_a_frame_to_take() {
    let mut demand = Demand::new();
    demand.leave_frames(0);
    let image = *demand.booted.bringup.image();
    let data = frame(image.physical(image.parts[5].virt.start()).raw());
    let text = frame(image.physical(image.parts[2].virt.start()).raw());
    let shown = [(data, DATA), (text, CONSTANTS), (device(0), DEVICE)];
    let mapped = shown.map(|(frame, attributes)| map(&mut demand, 1, frame, attributes));
    demand.assert_audit();
    assert!(mapped.iter().all(|mapped| !mapped.is_direct() && WINDOW.contains(mapped.virt())));
    mapped.into_iter().for_each(|mapped| demand.on_demand.window.unmap(mapped));
    demand.assert_audit();
}

#[test]
fn good_the_same_frame_again_costs_nothing() {
    let mut demand = Demand::new();
    let first = map(&mut demand, 0, device(0), DEVICE);
    let at = first.virt();
    let before = demand.booted.bringup.protocol().counts();
    let again = map(&mut demand, 0, device(0), DEVICE);
    assert_eq!(again.virt(), at, "while it is in use");
    demand.on_demand.window.unmap(first);
    demand.on_demand.window.unmap(again);
    let idle = map(&mut demand, 0, device(0), DEVICE);
    assert_eq!(idle.virt(), at, "and when it is idle");
    assert_eq!(demand.booted.bringup.protocol().counts(), before);
    demand.on_demand.window.unmap(idle);
}

#[test]
fn good_idle_slots_are_reused_in_turn_after_their_invalidation() {
    let mut demand = Demand::new();
    let slots = WINDOW_SLOTS as u64;
    let mut addresses = Vec::new();
    for index in 0..3 * slots {
        let before = demand.booted.bringup.protocol().counts().maintenance.tlbis;
        let mapped = map(&mut demand, 0, device(index), DEVICE);
        let tlbis = demand.booted.bringup.protocol().counts().maintenance.tlbis - before;
        assert_eq!(tlbis > 0, index >= slots, "the first of a slot is a fill, each other a break-before-make");
        addresses.push(mapped.virt());
        demand.on_demand.window.unmap(mapped);
        demand.assert_audit();
    }
    let of_turn = |turn: usize| &addresses[turn * WINDOW_SLOTS..][..WINDOW_SLOTS];
    assert_eq!((of_turn(0), of_turn(1)), (of_turn(1), of_turn(2)), "each in its turn");
}

#[test]
fn bad_reuse_without_the_invalidation_is_seen_by_the_model() {
    let mut demand = Demand::new();
    for index in 0..WINDOW_SLOTS as u64 {
        let mapped = map(&mut demand, 0, device(index), DEVICE);
        demand.on_demand.window.unmap(mapped);
    }
    demand.booted.world_mut().forgets = Some(is_tlbi);
    let mapped = demand.on_demand.window.map(&mut demand.booted.space(), 0, device(9), DEVICE).unwrap();
    demand.on_demand.window.unmap(mapped);
    assert!(demand.booted.world().verdict().is_err());
}

#[test]
fn good_a_slot_in_use_is_never_taken() {
    let mut demand = Demand::new();
    let kept = map(&mut demand, 0, device(0), DEVICE);
    for index in 1..4 * WINDOW_SLOTS as u64 {
        let other = map(&mut demand, 0, device(index), DEVICE);
        assert_ne!(other.virt(), kept.virt());
        demand.on_demand.window.unmap(other);
        assert_eq!(demand.translate(kept.virt().raw()), Some(device(0).start().raw()));
    }
    demand.on_demand.window.unmap(kept);
}

#[test]
fn bad_all_slots_of_a_cpu_in_use() {
    let mut demand = Demand::new();
    let mut held: Vec<Mapped> =
        (0..WINDOW_SLOTS as u64).map(|index| map(&mut demand, 1, device(index), DEVICE)).collect();
    let error = demand.refused(|on_demand, space| on_demand.window.map(space, 1, device(9), DEVICE));
    assert_eq!(error, Error::AllInUse { cpu: 1 });
    held.push(map(&mut demand, MAX_CPUS - 1, device(9), DEVICE));
    demand.assert_audit();
    held.into_iter().for_each(|mapped| demand.on_demand.window.unmap(mapped));
    let now = map(&mut demand, 1, device(9), DEVICE);
    demand.on_demand.window.unmap(now);
}

#[test]
fn bad_frames_that_may_not_be_shown() {
    let mut demand = Demand::new();
    let strict = Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadWrite);
    let image = *demand.booted.bringup.image();
    let text = frame(image.physical(image.parts[2].virt.start()).raw());
    let ram = demand.take();
    let mapped = map(&mut demand, 0, device(0), DEVICE);
    let error = demand.refused(|on_demand, space| on_demand.window.map(space, 1, device(0), strict));
    assert!(matches!(error, Error::Refused(Refusal::MixedMemory { mapped: Alias { name: "window", .. }, .. })));
    let error = demand.refused(|on_demand, space| on_demand.window.map(space, 0, text, DATA));
    assert!(matches!(error, Error::Refused(Refusal::WritableExecutable { .. })));
    let error = demand.refused(|on_demand, space| on_demand.window.map(space, 0, ram, DEVICE));
    assert!(matches!(error, Error::Refused(Refusal::MixedMemory { mapped: Alias { name: "directmap", .. }, .. })));
    let phys = NO_MAP.start();
    let no_map = Frame::containing(phys);
    let error = demand.refused(|on_demand, space| on_demand.window.map(space, 0, no_map, DATA));
    assert_eq!(error, Error::Refused(Refusal::NotRam { phys, wanted: DATA }));
    let end = Frame::containing(PhysAddr::at(1 << 48));
    demand.refused(|on_demand, space| on_demand.window.map(space, 0, end, DEVICE));
    demand.on_demand.window.unmap(mapped);
}

#[test]
fn good_released_frames_may_become_something_else() {
    let mut demand = Demand::new();
    let strict = Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadWrite);
    let of_both = [0, 1].map(|cpu| map(&mut demand, cpu, device(0), DEVICE));
    let other = map(&mut demand, 0, device(1), DEVICE);
    let page = phys(RTC, PAGE);
    let error = demand.refused(|on_demand, space| on_demand.window.release(space, page));
    assert_eq!(error, Error::InUse { cpu: 0, frame: device(0) });
    of_both.into_iter().for_each(|mapped| demand.on_demand.window.unmap(mapped));
    assert_eq!(demand.granted(|on_demand, space| on_demand.window.release(space, page)), 2, "a slot of each CPU");
    assert_eq!(demand.leaves().len(), 1, "only the other frame is shown");
    let now = map(&mut demand, 0, device(0), strict);
    demand.assert_audit();
    let before = steps(&demand);
    assert_eq!(demand.on_demand.window.release(&mut demand.booted.space(), phys(RTC + 5 * PAGE, 1)), Ok(0));
    assert_eq!(steps(&demand), before, "nothing to release, nothing done");
    demand.on_demand.window.unmap(now);
    demand.on_demand.window.unmap(other);
}

#[test]
#[should_panic(expected = "dropped instead of unmapped")]
fn bad_forgotten_mapping() {
    let mut demand = Demand::new();
    let mapped = map(&mut demand, 0, device(0), DEVICE);
    drop(mapped);
}

#[test]
#[should_panic(expected = "CPUs get their slots once")]
fn bad_slots_given_twice() {
    let mut demand = Demand::new();
    demand.on_demand.window.give(vec![CpuSlots::EMPTY; 1].leak());
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn bad_no_such_cpu() {
    let mut demand = Demand::new();
    let _ = demand.on_demand.window.map(&mut demand.booted.space(), MAX_CPUS, device(0), DEVICE);
}
