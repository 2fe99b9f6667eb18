//! Boot as a whole on the host machine: what each phase leaves behind, and the audit over all of it.

use super::booted::{Booted, CONSOLE, FIRST_TABLES, IMAGE_PAGES, Setup};
use super::expansion::mrs;
use super::raw;
use super::rig::{CODE, CONSTANTS, DATA, DEVICE, GIB, MIB, PAGE, phys};
use super::step::{is_marker, stored_word};
use breakwater::addr::{Level, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::audit::Declared;
use breakwater::errata::Errata;
use breakwater::geometry::{Geometry, Granule4K};
use breakwater::layout;
use breakwater::mapper::Error;
use breakwater::memory_map::{Module, ModuleKind};
use breakwater::regions::Failure;
use breakwater::regions::image::{INIT, SEALED};
use breakwater::regions::stacks;
use breakwater::walk::walk;
use breakwater_trace::Event;

const RAM: u64 = 0x4000_0000;

/// QEMU's virt with 2 GiB, the image where a Linux kernel would be, no-map, reserved memory and a module here and there.
fn virt_machine() -> Setup {
    let mut setup = Setup::new(&[phys(RAM, 2 * GIB)], RAM + 2 * MIB, phys(RAM + 0x800_0000, 0x12345));
    setup.memory.add_no_map(phys(RAM + 0x1000_0800, 0x3000)).unwrap();
    setup.memory.add_reserved(phys(RAM + 0x2000_0000, MIB)).unwrap();
    let module = Module { span: phys(RAM + 0x3000_0100, 0x1234), kind: ModuleKind::Kernel };
    setup.memory.add_module(module).unwrap();
    setup
}

/// Level, output and attributes of what `at` translates to.
fn query(booted: &mut Booted, at: u64) -> Option<(Level, u64, breakwater::descriptor::Attributes)> {
    let Booted { bringup, tables, .. } = booted;
    let mapper = bringup.mapper(tables);
    mapper.query(VirtAddr::at(at)).map(|(level, leaf)| (level, leaf.output().raw(), leaf.attributes()))
}

#[test]
fn good_boot_ends_in_an_audit_without_findings() {
    for errata in [Errata::empty(), Errata::REPEAT_TLBI, Errata::BBM_ALWAYS, Errata::BBM_FOR_XN] {
        let mut setup = virt_machine();
        setup.errata = errata | Errata::ISB_BEFORE_MMU_OFF;
        let booted = Booted::boot(&setup).unwrap();
        let audit = booted.audit();
        assert_eq!((audit.mismatches, audit.writable_executable), (0, 0), "{:?}", audit.first);
        assert_eq!(audit.pages as usize, raw::leaves(booted.world(), booted.root()).iter().map(pages).sum::<usize>());
    }
}

fn pages(leaf: &raw::Leaf) -> usize {
    1 << (9 * (3 - leaf.level))
}

#[test]
fn bad_audit_of_tables_that_were_tampered_with() {
    let mut booted = Booted::boot(&virt_machine()).unwrap();
    let root = booted.root();
    let text = raw::leaf(booted.world(), root, layout::LINK_ADDRESS + 30 * PAGE).unwrap();
    let steps = walk(booted.world(), booted.tables.root(), VirtAddr::at(text.virt));
    let page = *steps.steps().last().unwrap();
    let slot = Granule4K::slot(page.table, Level::L3, VirtAddr::at(text.virt));
    booted.world_mut().plant(slot, text.descriptor & !(1 << 7));
    let audit = booted.audit();
    assert!(audit.mismatches > 0 && audit.writable_executable == 1);
}

#[test]
fn good_build_stores_no_slot_twice_and_owes_nothing() {
    let booted = Booted::switched(&virt_machine()).unwrap();
    let steps: Vec<&Event> = booted.world().events_since(0).filter(|event| !is_marker(event)).collect();
    let switch = steps.iter().position(|&step| *step == mrs("sctlr_el2")).unwrap();
    assert!(steps[..switch].iter().all(|step| matches!(step, Event::Store(_))));
    let mut stored: Vec<u64> = steps.iter().filter_map(|step| stored_word(step)).map(|(address, _)| address).collect();
    let stores = stored.len();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), stores, "no slot twice");
    assert_eq!(stores as u64, IMAGE_PAGES - 2 + 1 + 7, "a page each, the identity page, seven links");
    assert_eq!(booted.bringup.protocol().counts().stores as usize, stores);
}

#[test]
fn good_image_with_final_rights_and_guards() {
    let mut booted = Booted::switched(&virt_machine()).unwrap();
    let image = *booted.bringup.image();
    for part in image.parts {
        let (first, last) = (part.virt.start().raw(), part.virt.end_exclusive().raw() - PAGE);
        for at in [first, last] {
            let output = image.physical(VirtAddr::at(at)).raw();
            assert_eq!(query(&mut booted, at), Some((Level::L3, output, part.attributes)), "{}", part.name);
        }
    }
    let guards = [image.parts[6].virt.start().raw() - PAGE, image.parts[7].virt.start().raw() - PAGE];
    for guard in guards.into_iter().chain([image.parts[7].virt.end_exclusive().raw(), layout::LINK_ADDRESS - PAGE]) {
        assert_eq!(query(&mut booted, guard), None, "guard at {guard:#x}");
    }
    let identity = image.identity.start().raw();
    assert_eq!(query(&mut booted, identity), Some((Level::L3, identity, CODE)));
    assert_eq!(query(&mut booted, identity - PAGE), None);
    assert_eq!(query(&mut booted, identity + PAGE), None);
}

#[test]
fn good_first_tables_come_back_after_the_switch() {
    let mut booted = Booted::switched(&virt_machine()).unwrap();
    let pool = layout::POOL_FRAMES as u64;
    assert_eq!(
        booted.bringup.frames().available(),
        pool - 8 + FIRST_TABLES,
        "root, 3 for the image, 1 for the fixmap, 3 for identity"
    );
    let all: Vec<u64> =
        core::iter::from_fn(|| booted.bringup.frames_mut().take()).map(|free| free.frame().start().raw()).collect();
    let tables = raw::tables(booted.world(), booted.root());
    assert!(all.iter().all(|frame| !tables.contains(frame)), "none of them is in use");
}

#[test]
fn good_device_tree_by_its_pages_exactly() {
    for (start, bytes) in
        [(0x800_0000, 0x100), (0x800_0ff0, 0x20), (0x800_0008, 2 * MIB), (0x81f_f000, 0x3000), (0x800_0fff, 2 * MIB)]
    {
        let mut setup = virt_machine();
        let tree = phys(RAM + start, bytes);
        setup.memory.device_tree = Some(tree);
        let mut booted = Booted::switched(&setup).unwrap();
        booted.map_fixed().unwrap();
        let area = layout::DEVICE_TREE;
        let extents = raw::extents(booted.world(), booted.root());
        let mapped: Vec<_> = extents.range(area.start().raw()..area.end_exclusive().raw()).collect();
        let pages = tree.page_cover();
        assert_eq!(mapped.len(), 1);
        assert_eq!(
            (*mapped[0].0, mapped[0].1.output, mapped[0].1.bytes),
            (area.start().raw(), pages.start().raw(), pages.bytes())
        );
        assert_eq!(query(&mut booted, area.start().raw()), Some((Level::L3, pages.start().raw(), CONSTANTS)));
    }
}

#[test]
fn good_console_is_device_memory_in_its_place() {
    let mut booted = Booted::switched(&virt_machine()).unwrap();
    booted.map_fixed().unwrap();
    let start = layout::FIXMAP_CONSOLE.start().raw();
    assert_eq!(query(&mut booted, start), Some((Level::L3, CONSOLE, DEVICE)));
    assert_eq!(query(&mut booted, start + PAGE), Some((Level::L3, CONSOLE + PAGE, DEVICE)), "registers that straddle");
    assert_eq!(query(&mut booted, start + 2 * PAGE), None);
}

#[test]
fn good_stacks_have_guards_and_frames_of_their_own() {
    let mut booted = Booted::boot(&virt_machine()).unwrap();
    let mut outputs = Vec::new();
    for cpu in 1..4 {
        let stacks = stacks::stacks_of(cpu, stacks::STACK_BYTES);
        for stack in [stacks.stack, stacks.exception_stack] {
            let mut page = stack.start().raw();
            assert_eq!(query(&mut booted, page - PAGE), None, "a guard below");
            assert_eq!(query(&mut booted, stack.end_exclusive().raw()), None, "and nothing above");
            while page < stack.end_exclusive().raw() {
                let (level, output, attributes) = query(&mut booted, page).unwrap();
                assert_eq!((level, attributes), (Level::L3, DATA));
                outputs.push(output);
                page += PAGE;
            }
        }
    }
    let free: Vec<PhysSpan> = booted.bringup.frames().ram().collect();
    let count = outputs.len();
    outputs.sort_unstable();
    outputs.dedup();
    assert_eq!((outputs.len(), count), (30, 30));
    assert!(outputs.iter().all(|&output| !free.iter().any(|span| span.contains(PhysAddr::at(output)))));
}

#[test]
fn good_identity_page_is_broken_once() {
    let mut booted = Booted::boot(&virt_machine()).unwrap();
    let identity = booted.bringup.image().identity.start().raw();
    assert_eq!(query(&mut booted, identity), None);
    assert!(booted.regions.iter().all(|region| region.name != "identity page"));
    assert_eq!(
        raw::leaves(booted.world(), booted.root()).iter().filter(|leaf| leaf.virt < layout::XEN_BASE).count(),
        0
    );
}

#[test]
fn good_freed_init_comes_back_through_the_directmap() {
    let mut booted = Booted::boot(&virt_machine()).unwrap();
    let image = *booted.bringup.image();
    let init = image.parts[INIT].virt;
    let frames = PhysSpan::of(image.physical(init.start()), init.bytes()).unwrap();
    let directmap = booted.directmap.virt(frames).unwrap();
    for page in (0..init.bytes()).step_by(PAGE as usize) {
        assert_eq!(query(&mut booted, init.start().raw() + page), None);
        let output = frames.start().raw() + page;
        assert_eq!(query(&mut booted, directmap.start().raw() + page), Some((Level::L3, output, DATA)));
    }
    let before_ram: u64 = booted.bringup.frames().available();
    let ram: u64 = booted.bringup.frames().ram().map(PhysSpan::bytes).sum::<u64>() / PAGE;
    assert!(before_ram - ram >= init.bytes() / PAGE, "they are in the supply");
}

#[test]
fn bad_init_that_is_mapped_elsewhere_is_not_free() {
    let mut booted = Booted::switched(&virt_machine()).unwrap();
    booted.map_fixed().unwrap();
    booted.map_memory().unwrap();
    let output = booted.image.start();
    let elsewhere = VirtSpan::of(layout::LIVEPATCH.start(), PAGE).unwrap();
    let region = Declared { name: "patch", virt: elsewhere, output: Some(output), attributes: CONSTANTS };
    booted.space().map(region, Level::L3).unwrap();
    let free = booted.bringup.frames().available();
    let refused = booted.free().unwrap_err();
    assert!(matches!(refused, Failure::Mapping { error: Error::InUse { .. }, .. }), "{refused}");
    let back = 3; // tables of the identity page
    assert_eq!(booted.bringup.frames().available(), free + back, "none of init's frames");
}

#[test]
fn good_sealed_data_is_read_only() {
    let mut booted = Booted::boot(&virt_machine()).unwrap();
    let sealed = booted.bringup.image().parts[SEALED];
    let output = booted.bringup.image().physical(sealed.virt.start()).raw();
    assert_eq!(query(&mut booted, sealed.virt.start().raw()), Some((Level::L3, output, CONSTANTS)));
    let declared = booted.regions.iter().find(|region| region.virt == sealed.virt).unwrap();
    assert_eq!(declared.attributes, CONSTANTS);
}

#[test]
fn good_supply_holds_nothing_that_is_in_use() {
    let mut setup = virt_machine();
    setup.memory.banks = breakwater::memory_map::SpanList::new();
    setup.memory.add_bank(phys(RAM, GIB)).unwrap();
    let mut booted = Booted::boot(&setup).unwrap();
    let root = booted.root();
    let tables = raw::tables(booted.world(), root);
    let offset = layout::DIRECTMAP.start().raw() - booted.base.raw();
    let image_rest = PhysSpan::new(PhysAddr::at(setup.image + 20 * PAGE), booted.image.end_exclusive()).unwrap();
    let memory = &setup.memory;
    let claimed: Vec<PhysSpan> = memory
        .no_map
        .iter()
        .chain(memory.reserved.iter())
        .chain(memory.device_tree)
        .chain(memory.modules().map(|module| module.span))
        .collect();
    let mapped_elsewhere: Vec<PhysSpan> = booted
        .regions
        .iter()
        .filter(|region| region.name != "directmap" && region.name != "data")
        .filter_map(|region| PhysSpan::of(region.output?, region.virt.bytes()))
        .collect();
    let available = booted.bringup.frames().available();
    let mut taken = 0;
    let Booted { bringup, tables: in_force, .. } = &mut booted;
    let mut mapper = bringup.mapper(in_force);
    let all: Vec<_> = core::iter::from_fn(|| mapper.take()).map(|free| free.frame()).collect();
    for frame in all {
        let span = phys(frame.start().raw(), PAGE);
        let overlaps = |spans: &[PhysSpan]| spans.iter().any(|other| other.intersection(span).is_some());
        assert!(!overlaps(&claimed), "{span:?} is claimed");
        assert!(!overlaps(&mapped_elsewhere), "{span:?} is mapped elsewhere");
        assert!(!tables.contains(&frame.start().raw()), "{span:?} is a table");
        let in_image = image_rest.covers(span);
        let reached = in_image
            || (taken % 64 != 0)
            || raw::translate(booted.world(), root, frame.start().raw() + offset) == Some(frame.start().raw());
        assert!(reached, "{span:?} is in the directmap");
        taken += 1;
    }
    assert_eq!(taken, available);
}
