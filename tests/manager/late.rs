//! A CPU that did not report within the limit, and arrives after boot is over: what it gets wrong, and what it lacks, was not known when the
//! tables were edited, and is not known when they are edited again.

use super::booted::{Booted, Setup};
use super::rig::{CODE, CONSTANTS, DATA, GIB, MIB, PAGE, phys, request, virt};
use breakwater::addr::Level;
use breakwater::errata::Errata;
use breakwater::features::Features;
use breakwater::layout::VMAP;
use breakwater::regions::image::SEALED;
use breakwater::regions::stacks;

/// The one that comes late.
const LATE: u32 = 2;
/// The image's part that is text.
const TEXT: usize = 2;
const FEATURES: Features = Features::TLBIRANGE.union(Features::TTL).union(Features::RESIZE);

/// Boot on three CPUs, of which the last, which has `errata`, does not report in time; whether it may still arrive is what the firmware
/// says of it. Then it arrives.
fn arrived(errata: Errata, features: Features, may_still_arrive: bool) -> Booted {
    let setup = Setup::new(&[phys(GIB, GIB)], GIB + 2 * MIB, phys(GIB + 128 * MIB, MIB));
    let mut booted = Booted::switched(&setup).unwrap();
    booted.map_fixed().unwrap();
    booted.map_memory().unwrap();
    booted.bringup.share(Errata::empty());
    for index in [1, LATE] {
        let stacks = stacks::map(&mut booted.space(), index as usize, stacks::STACK_BYTES).unwrap().stacks();
        for stack in [stacks.stack, stacks.exception_stack] {
            let output = booted.regions.iter().find(|region| region.virt == stack).unwrap().output.unwrap();
            booted.world_mut().take(phys(output.raw(), stack.bytes()));
        }
        booted.settled("stacks");
    }
    booted.world_mut().start_pe(1);
    booted.bringup.all_cpus_known(features, may_still_arrive);
    booted.bringup.seal(&mut booted.tables, &mut booted.regions).unwrap();
    booted.settled("seal");
    booted.world_mut().note_errata(LATE, errata);
    booted.world_mut().start_pe(LATE);
    booted.settled("the late CPU");
    booted
}

/// Requests after it has come: rights that are lost, in place where nothing stands against it, blocks that are split, pages that go.
fn edit(booted: &mut Booted) {
    let ram = booted.bringup.frames_mut().take_ram(4 * MIB, 2 * MIB).unwrap();
    booted.world_mut().take(ram.span());
    let (at, to) = (VMAP.start().raw() + 64 * MIB, ram.span().start().raw());
    let Booted { bringup, tables, .. } = booted;
    let mut mapper = bringup.mapper(tables);
    mapper.map(request(at, 2 * MIB, to, DATA, Level::L2)).unwrap();
    mapper.map(request(at + 2 * MIB, 2 * MIB, to + 2 * MIB, DATA, Level::L3)).unwrap();
    mapper.protect(virt(at + 2 * MIB, PAGE), CONSTANTS).unwrap();
    mapper.split(virt(at, 2 * MIB), Level::L3).unwrap();
    mapper.unmap(virt(at + 3 * MIB, 64 * PAGE)).unwrap();
    mapper.unmap(virt(at, 3 * MIB)).unwrap();
    booted.world_mut().settle();
}

/// Code that is data again: what 2645198 is about. On a frame of text, which nothing maps to be written.
fn loses_execution(booted: &mut Booted) {
    let at = VMAP.start().raw() + 128 * MIB;
    let image = *booted.bringup.image();
    let text = image.physical(image.parts[TEXT].virt.start()).raw();
    let Booted { bringup, tables, .. } = booted;
    let mut mapper = bringup.mapper(tables);
    mapper.map(request(at, PAGE, text, CODE, Level::L3)).unwrap();
    mapper.protect(virt(at, PAGE), CONSTANTS).unwrap();
    booted.world_mut().settle();
}

#[test]
fn good_requests_after_a_cpu_with_any_erratum_has_come_late() {
    for errata in [Errata::empty(), Errata::REPEAT_TLBI, Errata::BBM_ALWAYS, Errata::BBM_FOR_XN, Errata::all()] {
        let mut booted = arrived(errata, FEATURES, true);
        edit(&mut booted);
        loses_execution(&mut booted);
        booted.settled_so_far("requests");
    }
}

#[test]
fn good_a_late_cpu_has_none_of_the_features_that_the_others_have() {
    let booted = arrived(Errata::empty(), FEATURES, true);
    assert_eq!(booted.bringup.protocol().features(), Features::empty());
    assert_eq!(booted.bringup.protocol().errata(), Errata::all());
    let known = super::demand::booted();
    assert_eq!(known.bringup.protocol().errata(), Errata::empty(), "nobody is late");
}

#[test]
fn bad_late_cpu_that_was_believed_never_to_come() {
    // The judge knows what the manager was not told.
    for errata in [Errata::REPEAT_TLBI, Errata::BBM_ALWAYS, Errata::BBM_FOR_XN] {
        let mut booted = arrived(errata, Features::empty(), false);
        edit(&mut booted);
        loses_execution(&mut booted);
        assert!(booted.world().verdict().is_err(), "{errata:?} goes unnoticed");
    }
}

#[test]
fn good_the_identity_page_stays_for_it() {
    let mut booted = arrived(Errata::REPEAT_TLBI, FEATURES, true);
    let identity = booted.bringup.image().identity.start().raw();
    assert_eq!(super::raw::translate(booted.world(), booted.root(), identity), Some(identity));
    let sealed = booted.bringup.image().parts[SEALED].virt;
    let Booted { bringup, tables, .. } = &mut booted;
    let mapper = bringup.mapper(tables);
    assert_ne!(mapper.query(sealed.start()).unwrap().1.attributes(), DATA);
    let audit = booted.audit();
    assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
}
