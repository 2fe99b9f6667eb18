//! ioremap and vmap on the host machine: what they map, what they keep free, what they refuse, and that nothing is left of it.

use super::booted::CONSOLE;
use super::demand::{Demand, NO_MAP, RTC};
use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, frame, phys};
use super::step::is_tlbi;
use super::world::World;
use breakwater::addr::{Frame, PhysAddr, VirtAddr};
use breakwater::descriptor::{Attributes, DataAccess, DeviceKind};
use breakwater::errata::Errata;
use breakwater::frames::OwnedRam;
use breakwater::layout::VMAP_AREAS;
use breakwater::mapper::Error as MapperError;
use breakwater::regions::alias::{Alias, Refusal};
use breakwater::regions::vmap::{AREAS_MAX, Error};
use breakwater::regions::{Failure, MAX_REGIONS, NO_REGION};

const KIND: DeviceKind = DeviceKind::NGnRE;
/// A large device, where nothing else is.
const FLASH: u64 = 0x10_0000_0000;

fn ioremap(demand: &mut Demand, start: u64, bytes: u64) -> VirtAddr {
    demand.granted(|on_demand, space| on_demand.vmap.ioremap(space, phys(start, bytes), KIND))
}

fn vmap(demand: &mut Demand, frames: &[Frame]) -> VirtAddr {
    demand.granted(|on_demand, space| on_demand.vmap.vmap(space, frames, DATA))
}

/// Unmaps, and holds every address against the tables: nothing of the area is left.
fn unmap(demand: &mut Demand, at: VirtAddr) {
    let area = *demand.on_demand.vmap.areas().iter().find(|area| area.contains(at)).unwrap();
    demand.granted(|on_demand, space| on_demand.vmap.unmap(space, at));
    for page in (area.start().raw()..area.end_exclusive().raw()).step_by(PAGE as usize) {
        assert_eq!(demand.translate(page), None);
    }
    assert!(demand.booted.regions.iter().all(|region| region.virt.intersection(area).is_none()));
}

/// Between areas, and at both ends, there is a page that nothing maps.
fn assert_guards(demand: &Demand) {
    let areas = demand.on_demand.vmap.areas();
    for area in areas {
        assert!(VMAP_AREAS.covers(*area));
        for guard in [area.start().raw() - PAGE, area.end_exclusive().raw()] {
            assert_eq!(demand.translate(guard), None, "beside {area}");
            assert!(areas.iter().all(|other| !other.contains(VirtAddr::at(guard))));
        }
    }
}

#[test]
fn good_ioremap_of_registers_at_any_byte() {
    let mut demand = Demand::new();
    for (start, bytes, pages) in
        [(RTC, PAGE, 1), (RTC, 1, 1), (RTC + 0xfe8, 0x10, 1), (RTC + 0xffc, 8, 2), (RTC + 1, 3 * PAGE, 4)]
    {
        let at = ioremap(&mut demand, start, bytes);
        assert_eq!(at.raw() % PAGE, start % PAGE);
        assert_eq!(demand.translate(at.raw()), Some(start));
        assert_eq!(demand.translate(at.raw() + bytes - 1), Some(start + bytes - 1), "the last byte");
        assert_eq!(demand.leaves().len(), pages);
        assert_guards(&demand);
        demand.assert_audit();
        unmap(&mut demand, at);
    }
    demand.assert_audit();
}

#[test]
fn good_large_ioremap_by_blocks() {
    for (start, bytes, blocks, pages) in [
        (FLASH, 2 * MIB, 1, 0),
        (FLASH + MIB, 2 * MIB, 0, 512),
        (FLASH + MIB, 64 * MIB, 31, 512),
        (FLASH - PAGE, 4 * MIB + 2 * PAGE, 2, 2),
    ] {
        let mut demand = Demand::new();
        let at = ioremap(&mut demand, start, bytes);
        if blocks > 0 {
            assert_eq!(at.raw() % (2 * MIB), start % (2 * MIB), "congruent");
        }
        let leaves = demand.leaves();
        let of = |level| leaves.iter().filter(|leaf| leaf.level == level).count();
        assert_eq!((of(2), of(3)), (blocks, pages));
        assert_guards(&demand);
        demand.assert_audit();
        unmap(&mut demand, at);
        assert_eq!(demand.leaves(), []);
    }
}

#[test]
fn good_vmap_of_scattered_frames_side_by_side() {
    let mut demand = Demand::new();
    let scattered = demand.scattered(5);
    let follows = scattered[0].checked_add(1).unwrap();
    let order = [scattered[4], scattered[0], follows, scattered[2], scattered[2], scattered[1]];
    let at = vmap(&mut demand, &order);
    for (index, frame) in (0..).zip(order) {
        assert_eq!(demand.translate(at.raw() + index * PAGE), Some(frame.start().raw()));
    }
    let pieces = demand.booted.regions.iter().filter(|region| region.name == "vmap").count();
    assert_eq!(pieces, 5, "frames that follow each other are one");
    assert_guards(&demand);
    demand.assert_audit();
    unmap(&mut demand, at);
    demand.assert_audit();
}

#[test]
fn good_frames_are_given_away_after_unmap() {
    let mut demand = Demand::new();
    let (kept, frames) = borrowed(&mut demand);
    let at = vmap(&mut demand, &frames);
    demand.granted(|on_demand, space| on_demand.vmap.unmap(space, at));
    for (index, ram) in kept.into_iter().enumerate() {
        demand.booted.world_mut().give(ram.span());
        let returned = demand.booted.space().give_back(ram);
        assert!(returned.is_ok() || index > 20, "the supply's list of separate spans is short");
    }
    demand.booted.settled("the frames are the supply's, and no TLB of either CPU shows them in vmap");
}

/// RAM of which no two frames follow each other, and the frames.
fn borrowed(demand: &mut Demand) -> (Vec<OwnedRam<World>>, Vec<Frame>) {
    let all: Vec<OwnedRam<World>> = (0..80).map(|_| demand.borrow()).collect();
    let kept: Vec<OwnedRam<World>> = all.into_iter().step_by(2).collect();
    let frames = kept.iter().map(|ram| Frame::containing(ram.span().start())).collect();
    (kept, frames)
}

#[test]
fn bad_frames_given_away_while_they_are_mapped() {
    let mut demand = Demand::new();
    let (mut kept, frames) = borrowed(&mut demand);
    let at = vmap(&mut demand, &frames);
    let before = demand.booted.bringup.frames().available();
    let ram = kept.pop().unwrap();
    let (failure, ram) = demand.booted.space().give_back(ram).unwrap_err();
    let Failure::Mapping { error: MapperError::InUse { frames, slot, descriptor }, .. } = failure else {
        panic!("{failure}");
    };
    assert_eq!((frames, slot.virt().raw()), (ram.span(), at.raw() + 39 * PAGE), "{failure}");
    assert_eq!(descriptor & ((1 << 48) - 1) & !0xfff, ram.span().start().raw());
    assert_eq!(failure.to_string().rsplit_once('(').unwrap().1, "what is mapped is not free)");
    assert_eq!(demand.booted.bringup.frames().available(), before, "they are not in the supply");
    demand.granted(|on_demand, space| on_demand.vmap.unmap(space, at));
    demand.booted.world_mut().give(ram.span());
    assert!(demand.booted.space().give_back(ram).is_ok(), "and then they are the supply's");
}

#[test]
fn bad_frames_given_away_without_the_invalidation() {
    let mut demand = Demand::new();
    let frames = demand.scattered(2);
    let at = vmap(&mut demand, &frames);
    demand.booted.world_mut().forgets = Some(is_tlbi);
    demand.on_demand.vmap.unmap(&mut demand.booted.space(), at).unwrap();
    assert!(demand.booted.world().verdict().is_err(), "the model knows that a TLB may hold them");
}

#[test]
fn good_addresses_return_and_gaps_are_reused() {
    let mut demand = Demand::new();
    let frames = demand.scattered(3);
    let areas: Vec<VirtAddr> = (0..4).map(|_| vmap(&mut demand, &frames)).collect();
    unmap(&mut demand, areas[1]);
    unmap(&mut demand, areas[2]);
    let wide: Vec<Frame> = frames.iter().copied().cycle().take(7).collect();
    assert_eq!(vmap(&mut demand, &wide), areas[1], "two areas and the guard between them are one gap");
    assert_guards(&demand);
    unmap(&mut demand, areas[1]);
    assert!(vmap(&mut demand, &wide[..1]) == areas[1]);
    let next = vmap(&mut demand, &frames);
    assert_eq!(next.raw(), areas[1].raw() + 2 * PAGE);
    assert_guards(&demand);
    demand.assert_audit();
}

#[test]
fn bad_unmapping_what_is_no_area() {
    let mut demand = Demand::new();
    let frames = demand.scattered(2);
    let at = vmap(&mut demand, &frames);
    let end = at.raw() + 2 * PAGE;
    let inside = demand.on_demand.vmap.areas()[0];
    for (address, inside) in [
        (at.raw() - 1, None),
        (end, None),
        (end - 1, Some(inside)),
        (at.raw() + PAGE, Some(inside)),
        (0, None),
        (1 << 48, None),
        (super::booted::CONSOLE, None),
    ] {
        let address = VirtAddr::at(address);
        let error = demand.refused(|on_demand, space| on_demand.vmap.unmap(space, address));
        assert_eq!(error, Error::NoArea { address, inside });
    }
    unmap(&mut demand, VirtAddr::at(at.raw() + 0x123));
    let error = demand.refused(|on_demand, space| on_demand.vmap.unmap(space, at));
    assert_eq!(error, Error::NoArea { address: at, inside: None }, "unmapped once");
}

#[test]
fn bad_nothing_to_map() {
    let mut demand = Demand::new();
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, phys(RTC + 5, 0), KIND));
    assert_eq!(error, Error::Empty);
    assert_eq!(demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &[], DATA)), Error::Empty);
}

#[test]
fn bad_ram_as_a_device() {
    let mut demand = Demand::new();
    let ram = demand.take();
    // A register before the bank's first byte: the span runs into RAM.
    let first = phys(GIB, PAGE);
    let virt = demand.booted.directmap.virt(first).unwrap().start();
    let mapped = Alias { name: "directmap", virt, phys: first, attributes: DATA };
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, phys(GIB - 8, 16), KIND));
    assert_eq!(error, Error::Refused(Refusal::MixedMemory { wanted: DEVICE, mapped }));
    let said = error.to_string();
    let wanted = "0x000040000000..0x000040001000 is rw- normal in directmap at 0x800000000000";
    assert!(said.contains(wanted), "{said}");

    let within = phys(ram.start().raw() + 0x20, 1);
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, within, KIND));
    assert!(matches!(error, Error::Refused(Refusal::MixedMemory { .. })));
    let image = phys(demand.booted.image.start().raw() + 30 * PAGE, PAGE);
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, image, KIND));
    assert!(matches!(error, Error::Refused(Refusal::MixedMemory { mapped: Alias { name: "text", .. }, .. })));
}

#[test]
fn bad_one_device_as_two_kinds() {
    let mut demand = Demand::new();
    let console = phys(CONSOLE, PAGE);
    for kind in [DeviceKind::NGnRnE, DeviceKind::Gre] {
        let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, console, kind));
        assert!(matches!(error, Error::Refused(Refusal::MixedMemory { mapped: Alias { name: "console", .. }, .. })));
    }
    let at = ioremap(&mut demand, CONSOLE, PAGE);
    assert_eq!(demand.translate(at.raw()), Some(CONSOLE), "as the same kind it may be mapped again");
    demand.assert_audit();
}

#[test]
fn bad_normal_memory_that_is_no_ram() {
    let mut demand = Demand::new();
    let (ram, no_map) = (demand.take(), frame(NO_MAP.start().raw()));
    let non_cacheable = Attributes::NonCacheable(DataAccess::ReadWrite);
    for (frames, attributes, phys) in [
        (vec![ram, no_map], DATA, NO_MAP.start()),
        (vec![ram, frame(RTC)], CONSTANTS, PhysAddr::at(RTC)),
        (vec![frame(RTC)], non_cacheable, PhysAddr::at(RTC)),
    ] {
        let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &frames, attributes));
        assert_eq!(error, Error::Refused(Refusal::NotRam { phys, wanted: attributes }));
    }
    let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &[ram], non_cacheable));
    assert!(matches!(error, Error::Refused(Refusal::MixedMemory { .. })), "RAM is cacheable in the directmap");
    let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &[ram], CODE));
    assert!(matches!(error, Error::Refused(Refusal::WritableExecutable { .. })), "and writable");
}

#[test]
fn bad_addresses_run_out() {
    let mut demand = Demand::new();
    let longest = VMAP_AREAS.bytes() - 2 * PAGE;
    let bytes = longest + PAGE;
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, phys(FLASH + PAGE, bytes), KIND));
    assert_eq!(error, Error::NoAddresses { bytes, longest });
    let at = ioremap(&mut demand, FLASH + PAGE, longest);
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, phys(RTC, 1), KIND));
    assert_eq!(error, Error::NoAddresses { bytes: PAGE, longest: 0 });
    assert_guards(&demand);
    demand.assert_audit();
    unmap(&mut demand, at);
    ioremap(&mut demand, RTC, 1);
}

#[test]
fn bad_more_areas_than_the_list_holds() {
    let mut demand = Demand::new();
    let ram = demand.take();
    let before = demand.booted.regions.count();
    assert!(before + AREAS_MAX <= MAX_REGIONS, "each can be declared");
    let areas: Vec<VirtAddr> = (0..AREAS_MAX).map(|_| vmap(&mut demand, &[ram])).collect();
    let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &[ram], DATA));
    assert_eq!(error, Error::TooManyAreas { capacity: AREAS_MAX });
    assert_guards(&demand);
    demand.assert_audit();
    areas.into_iter().for_each(|at| unmap(&mut demand, at));
    assert_eq!(demand.booted.regions.count(), before);
}

#[test]
fn bad_more_pieces_than_can_be_declared() {
    let mut demand = Demand::new();
    let left = MAX_REGIONS - demand.booted.regions.count();
    let two = demand.scattered(2);
    let many: Vec<Frame> = two.iter().copied().cycle().take(left + 1).collect();
    let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &many, DATA));
    assert_eq!(error, Error::TooManyPieces { pieces: left + 1, left });
    vmap(&mut demand, &many[..left]);
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, phys(RTC, 1), KIND));
    assert_eq!(error, Error::Mapping(Failure::TooMany { name: "ioremap" }));
}

#[test]
fn good_more_can_be_declared_once_there_is_room() {
    let mut demand = Demand::new();
    let before = demand.booted.regions.as_slice().to_vec();
    demand.booted.regions.give_room(vec![NO_REGION; MAX_REGIONS + 2].leak());
    assert_eq!(demand.booted.regions.as_slice(), before, "what was declared stays");
    let left = MAX_REGIONS + 2 - before.len();
    assert_eq!(demand.booted.regions.left(), left);
    let two = demand.scattered(2);
    let many: Vec<Frame> = two.iter().copied().cycle().take(left).collect();
    let at = vmap(&mut demand, &many);
    demand.assert_audit();
    unmap(&mut demand, at);
    assert_eq!(demand.booted.regions.as_slice(), before);
}

#[test]
fn bad_less_room_than_there_is_changes_nothing() {
    let mut demand = Demand::new();
    let left = demand.booted.regions.left();
    demand.booted.regions.give_room(vec![NO_REGION; MAX_REGIONS - 1].leak());
    assert_eq!(demand.booted.regions.left(), left);
}

#[test]
fn bad_address_in_use_by_someone_else() {
    // Someone maps a page by hand where vmap gives out addresses: nothing is mapped over it, and nothing is left half done.
    let mut demand = Demand::new();
    let frames = demand.scattered(3);
    let at = vmap(&mut demand, &frames);
    unmap(&mut demand, at);
    let intruder = super::rig::request(at.raw() + 2 * PAGE, PAGE, RTC, DEVICE, breakwater::addr::Level::L3);
    demand.granted(|_, space| space.mapper().map(intruder));
    let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &frames, DATA));
    assert!(matches!(error, Error::Mapping(Failure::Mapping { error: MapperError::Occupied { .. }, .. })));
    assert_eq!(demand.on_demand.vmap.areas(), []);
}

#[test]
fn bad_later_piece_with_an_alias_that_nobody_declared() {
    // Someone writes to constants by hand, at an address that is not declared: the mapper knows, the declarations do not.
    let mut demand = Demand::new();
    let image = *demand.booted.bringup.image();
    let of_part = |part: usize| frame(image.physical(image.parts[part].virt.start()).raw());
    let (text, constants) = (of_part(2), of_part(3));
    let at = VMAP_AREAS.end_exclusive().raw() - 2 * PAGE;
    let intruder = super::rig::request(at, PAGE, constants.start().raw(), DATA, breakwater::addr::Level::L3);
    demand.granted(|_, space| space.mapper().map(intruder));
    let before =
        (demand.leaves(), demand.booted.regions.as_slice().to_vec(), demand.booted.bringup.frames().available());
    let answer = demand.on_demand.vmap.vmap(&mut demand.booted.space(), &[text, constants], CODE);
    assert!(matches!(answer, Err(Error::Mapping(Failure::Mapping { error: MapperError::Aliased { .. }, .. }))));
    demand.booted.settled("what was mapped is unmapped and invalidated");
    let after =
        (demand.leaves(), demand.booted.regions.as_slice().to_vec(), demand.booted.bringup.frames().available());
    assert!(after == before, "the first piece is gone, its declaration withdrawn, its table freed");
    assert_eq!(demand.on_demand.vmap.areas(), []);
}

#[test]
fn bad_beyond_what_the_cpus_put_out() {
    let mut demand = Demand::new();
    demand.booted.bringup.note_cpu(Errata::empty(), 40);
    let beyond = [phys(1 << 40, PAGE), phys((1 << 40) - 8, 16), phys((1 << 48) - PAGE, PAGE)];
    for registers in beyond {
        let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, registers, KIND));
        let refused = |error| matches!(error, MapperError::BeyondAddressSize { .. });
        assert!(matches!(error, Error::Mapping(Failure::Mapping { name: "ioremap", error }) if refused(error)));
    }
    let end = Frame::containing(PhysAddr::at(1 << 48));
    let within = frame(RTC);
    for order in [[end, within], [within, end], [within, Frame::containing(PhysAddr::at(1 << 40))]] {
        let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &order, DEVICE));
        let refused = |error| matches!(error, MapperError::BeyondAddressSize { .. });
        assert!(matches!(error, Error::Mapping(Failure::Mapping { name: "vmap", error }) if refused(error)));
    }
}

#[test]
fn bad_out_of_frames_for_a_later_piece() {
    let mut demand = Demand::new();
    // 511 pages up to a multiple of 2 MiB, and one that wants another table.
    let run = demand.booted.bringup.frames_mut().take_ram(511 * PAGE, PAGE).unwrap();
    let mut frames: Vec<Frame> = (0..511).map(|index| frame(run.span().start().raw() + index * PAGE)).collect();
    frames.push(demand.scattered(2)[1]);
    demand.leave_frames(1);
    let error = demand.refused(|on_demand, space| on_demand.vmap.vmap(space, &frames, DATA));
    let out = MapperError::OutOfFrames { needed: 2, available: 1 };
    assert_eq!(error, Error::Mapping(Failure::Mapping { name: "vmap", error: out }));
    let at = vmap(&mut demand, &frames[..511]);
    assert_eq!(demand.booted.bringup.frames().available(), 0);
    unmap(&mut demand, at);
    assert_eq!(demand.booted.bringup.frames().available(), 1, "the table came back");
    demand.assert_audit();
}

#[test]
fn bad_out_of_frames_for_one_piece() {
    let mut demand = Demand::new();
    demand.leave_frames(0);
    let error = demand.refused(|on_demand, space| on_demand.vmap.ioremap(space, phys(RTC, 1), KIND));
    let out = MapperError::OutOfFrames { needed: 1, available: 0 };
    assert_eq!(error, Error::Mapping(Failure::Mapping { name: "ioremap", error: out }));
    let at = ioremap(&mut demand, FLASH, 2 * MIB);
    assert_eq!(raw::leaf(demand.booted.world(), demand.booted.root(), at.raw()).unwrap().level, 2, "needs no table");
}
