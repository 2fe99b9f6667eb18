//! What boot leaves: the same registers on every CPU, first tables that nothing walks any more, all RAM in its place,
//! and a supply of frames that are nobody else's.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::facts!(
    registers_of_each_cpu,
    registers_not_trapped_to_el3,
    old_tables_reused,
    ram_reachable,
    claimed_frames_kept,
    firmware_memory_kept,
    owned_memory_alone
);

#[cfg(target_os = "none")]
mod facts {
    use super::supply;
    use breakwater_boot_tests::prelude::*;

    mod seen {
        use breakwater_boot::el2;
        use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

        /// SCTLR_EL2, TTBR0_EL2, TCR_EL2, MAIR_EL2 of the CPU that looked last.
        static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

        pub(super) fn look(_: usize) {
            let own = el2::translation();
            for (place, value) in SEEN.iter().zip([own.sctlr, own.ttbr0, own.tcr, own.mair]) {
                place.store(value, Relaxed);
            }
        }

        pub(super) fn registers() -> [u64; 4] {
            [0, 1, 2, 3].map(|index| SEEN[index].load(Relaxed))
        }
    }

    /// What a part can trap to EL3 is EL2's, where nobody is at EL3.
    pub(super) fn registers_not_trapped_to_el3(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        booted.require(booted.start.entry_level() == 3, "it was not entered at EL3");
        probe::use_what_el3_could_trap();
        booted.holds("pointer authentication, HFGRTR_EL2, HCRX_EL2 and ICC_SRE_EL2 are not trapped")
    }

    /// Every CPU runs in the same tables with the same translation registers, WXN, M, C and I set.
    pub(super) fn registers_of_each_cpu(start: Start) -> ! {
        const WXN: u64 = 1 << 19;
        const ON: u64 = 1 | 1 << 2 | 1 << 12;
        let booted = Booted::after_boot(start);
        seen::look(0);
        let boot_cpu = seen::registers();
        for index in core::iter::once(0).chain(booted.handover.cpus().others()) {
            if index != 0 {
                booted.on_cpu(index, seen::look, 0);
            }
            let own = seen::registers();
            let [sctlr, ttbr0, tcr, mair] = own;
            say!("fact: CPU {index} SCTLR_EL2 {sctlr:#x} TTBR0_EL2 {ttbr0:#x} TCR_EL2 {tcr:#x} MAIR_EL2 {mair:#x}");
            booted
                .require(sctlr & (WXN | ON) == WXN | ON, format_args!("CPU {index}: WXN, M, C and I are not all set"));
            booted.require(own == boot_cpu, format_args!("CPU {index} differs from CPU 0"));
            booted.require(ttbr0 & 0xfff == 0, format_args!("CPU {index}: CnP or reserved bits of TTBR0_EL2 are set"));
        }
        let pool = booted.start.physical(booted.start.map().pool);
        booted.require(pool.contains(PhysAddr::at(boot_cpu[1])), "the root is not a frame of the pool");
        let count = booted.handover.cpus().count();
        booted.holds(format_args!("{count} CPUs run in the same tables"))
    }

    /// The first tables' frames come back through the supply; when they hold rubbish, nothing notices, because nothing
    /// translates through them.
    pub(super) fn old_tables_reused(start: Start) -> ! {
        use breakwater::addr::Level;
        use breakwater::audit::Declared;
        use breakwater::descriptor::{Access, Attributes};
        let booted = Booted::after_boot(start);

        let old = booted.start.physical(booted.start.map().first_tables);
        // The table for these pages first: it is not to be one of the frames that this is about.
        let vmap = VirtSpan::of(breakwater::layout::VMAP.start(), old.bytes()).unwrap_or(breakwater::layout::VMAP);
        let populated = booted.handover.edit(|mut space| space.mapper().populate(vmap, Level::L3));
        booted.require(populated.is_ok(), format_args!("vmap cannot be populated: {populated:?}"));

        let mut reused = 0;
        loop {
            let frame = booted.handover.frames().lock().take();
            let Some(free) = frame.filter(|_| reused < old.bytes() / PAGE_BYTES) else { break };
            let frame = free.frame();
            if !old.contains(frame.start()) {
                continue;
            }
            let start = VirtAddr::at(breakwater::layout::VMAP.start().raw() + reused * PAGE_BYTES);
            let virt = VirtSpan::of(start, PAGE_BYTES).unwrap_or(breakwater::layout::VMAP);
            // Read-only: the image's own mapping stays the one through which they are written.
            let attributes = Attributes::Normal(Access::ReadOnly);
            let region = Declared { name: "reused table", virt, output: Some(frame.start()), attributes };
            let mapped = booted.handover.edit(|mut space| space.map(region, Level::L3));
            booted.require(mapped.is_ok(), format_args!("{:?} cannot be mapped: {mapped:?}", frame.start()));
            fill_with_rubbish(&booted, frame.start(), start.raw());
            reused += 1;
        }
        booted.require(reused * PAGE_BYTES == old.bytes(), format_args!("only {reused} frames of {old} came back"));
        for index in booted.handover.cpus().others() {
            booted.on_cpu(index, |_| (), 0);
        }
        let identity = booted.start.identity().start().raw();
        booted.require(probe::translate(identity).is_none(), "the identity page translates");
        booted.require_clean_audit(&[]);
        booted.holds(format_args!("{reused} frames of the first tables are reused, nothing translates through them"))
    }

    /// Fills the frame at `phys` with descriptors that would map the whole image's span to itself as writable code, and
    /// reads them back through the page at `virt`.
    fn fill_with_rubbish(booted: &Booted, phys: breakwater::addr::PhysAddr, virt: u64) {
        const RUBBISH: u64 = 0x0000_0000_dead_0701;
        let link = booted.start.map().whole.start().raw() + (phys.raw() - booted.start.image_start().raw());
        for offset in (0..PAGE_BYTES).step_by(8) {
            probe::write(link + offset, RUBBISH + (offset << 40));
            let read = probe::read(virt + offset);
            booted.require(read == RUBBISH + (offset << 40), format_args!("{virt:#x} is not {phys:?}: {read:#x}"));
        }
    }

    /// Every page of every bank can be read and written through the directmap, at its place; what lies beyond the last
    /// bank cannot.
    pub(super) fn ram_reachable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let first = booted.argument("ram");
        let end_exclusive = first + booted.argument("ram-bytes");
        let image = booted.image_without_init();
        let mut pages = 0;
        for phys in (first..end_exclusive).step_by(PAGE_BYTES as usize).map(PhysAddr::at) {
            let expected = Some(phys).filter(|&phys| !image.contains(phys));
            let found = probe::translate_write(booted.directmap(phys));
            booted.require(found == expected, format_args!("{phys:?} translates to {found:?}, not {expected:?}"));
            pages += 1;
        }
        let beyond = PhysAddr::at(end_exclusive);
        booted.require(
            probe::translate(booted.directmap(beyond)).is_none(),
            format_args!("{beyond:?}, no RAM, is mapped"),
        );
        booted.holds(format_args!("{pages} pages of RAM are where they should be"))
    }

    /// Memory that someone else has (memreserve, reserved-memory, a boot module, the device tree, the image, no-map) is
    /// never handed out: the supply is emptied, every frame of it written to, and everything else is as it was.
    pub(super) fn claimed_frames_kept(start: Start) -> ! {
        let booted = Booted::after_boot(start);

        let claimed = booted.claimed().page_cover();
        let tree_start = PhysAddr::at(booted.start.device_tree());
        let tree = PhysSpan::of(tree_start, booted.handover.device_tree().len() as u64).unwrap_or(claimed).page_cover();
        let map = booted.start.map();
        let part = |virt| map.physical(booted.start.image_start(), virt);
        let (image, pool) = (booted.start.image(), part(map.pool));
        let (init, old_tables) = (part(map.init), part(map.first_tables));

        for region in booted.handover.regions().lock().iter().filter(|region| region.name != "directmap") {
            let output = region.output.and_then(|start| PhysSpan::of(start, region.virt.bytes()));
            let hit = output.and_then(|output| output.intersection(claimed));
            booted.require(hit.is_none(), format_args!("{} takes {hit:?}, which is claimed", region.name));
        }
        let is_mapped = probe::translate(booted.directmap(claimed.start())).is_some();
        let sum_before = if is_mapped { supply::sum(&booted, claimed) } else { 0 };
        let tree_before = supply::sum(&booted, tree);
        let available = booted.handover.frames().lock().available();

        let drained = supply::drain(&booted, |frame| {
            let at = frame.start();
            let ours = pool.contains(at) || init.contains(at) || old_tables.contains(at);
            for (name, taken) in [("claimed memory", claimed), ("the device tree", tree), ("the image", image)] {
                let hit = taken.contains(at) && !(ours && taken == image);
                booted.require(!hit, format_args!("{at:?} was handed out of {name}, {taken:?}"));
            }
        });
        booted.require(drained.count == available, format_args!("{} frames, not {available}", drained.count));
        booted.require(drained.is_whole(), "a frame was handed out twice, or something wrote to it");
        booted.require(supply::sum(&booted, tree) == tree_before, "the device tree has changed");
        if is_mapped {
            booted.require(supply::sum(&booted, claimed) == sum_before, "claimed memory has changed");
        }
        booted.require_clean_audit(if is_mapped { &[] } else { core::slice::from_ref(&claimed) });
        let count = drained.count;
        booted.holds(format_args!("{count} frames handed out, all free"))
    }

    /// What UEFI keeps by its own map is neither mapped nor in the supply, which is emptied and written to. The rest of
    /// RAM is there.
    pub(super) fn firmware_memory_kept(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let map = booted.handover.firmware_map().unwrap_or_else(|| booted.failed("UEFI did not start the image"));
        let keeps = |at: PhysAddr| map.kept().find(|kept| kept.span.contains(at));
        let mut kept_pages = 0;
        for kept in map.kept().filter(|kept| kept.kind().starts_with("runtime services")) {
            let pages = kept.span.start().raw()..kept.span.end_exclusive().raw();
            for at in pages.step_by(PAGE_BYTES as usize).map(PhysAddr::at) {
                let found = probe::translate(booted.directmap(at));
                booted.require(found.is_none(), format_args!("{at:?} of {} is mapped", kept.kind()));
                kept_pages += 1;
            }
        }
        for region in booted.handover.regions().lock().iter().filter(|region| region.name != "console") {
            let output = region.output.and_then(|start| PhysSpan::of(start, region.virt.bytes()));
            let hit = map.kept().find_map(|kept| kept.span.intersection(output?));
            booted.require(hit.is_none(), format_args!("{} takes {hit:?}, which the firmware keeps", region.name));
        }
        let drained = supply::drain(&booted, |frame| {
            let kept = keeps(frame.start());
            booted.require(kept.is_none(), format_args!("{frame:?} was handed out of {kept:?}"));
        });
        booted.require(drained.is_whole(), "a frame was handed out twice, or something wrote to it");
        let free = drained.count;
        booted.require(kept_pages > 0 && free > 0, "there is nothing to look at");
        booted.holds(format_args!("{kept_pages} pages of runtime services are kept, {free} others are free"))
    }

    /// Safe code asks for what would let it reach memory that it does not own, through the manager or through what the
    /// image stands on. Each request is refused, and what the supply gives to a table is what was given to the supply.
    pub(super) fn owned_memory_alone(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        ask(&booted);
        booted.holds("nothing but what is owned is reached")
    }

    #[forbid(unsafe_code)]
    fn ask(booted: &Booted) {
        use breakwater::addr::Level;
        use breakwater::descriptor::{Access, Attributes};
        use breakwater::frames::FrameSupply;
        use breakwater::mapper::{Error, Request};
        use breakwater::regions::stacks;
        const DATA: Attributes = Attributes::Normal(Access::ReadWrite);

        // All of a contiguous run of 2 MiB blocks: what splitting one breaks is nobody else's.
        const RUN_BYTES: u64 = 32 << 20;
        let run = booted.handover.frames().lock().take_ram(RUN_BYTES, RUN_BYTES);
        let parts = run.and_then(|run| run.split_at(PAGE_BYTES).ok());
        let (ram, _rest) = parts.unwrap_or_else(|| booted.failed("no free RAM"));
        let window = booted.directmap(ram.span().start());
        let page = |at: u64| VirtSpan::of(VirtAddr::at(at), PAGE_BYTES).unwrap_or_else(|| booted.failed("an address"));
        let map = |virt, output| {
            let request = Request::new(virt, output, DATA, Level::L3);
            booted.handover.edit(|mut space| space.mapper().map(request).map(drop))
        };
        let remap = |virt, output| booted.handover.edit(|mut space| space.mapper().remap(virt, output, DATA).map(drop));
        let refused = |what: &str, answer: Result<(), Error>| match answer {
            Err(error @ (Error::Misdirected { .. } | Error::Guarded { .. } | Error::WouldBreakSelf { .. })) => {
                say!("fact: {what}: {error}");
            }
            other => booted.failed(format_args!("{what}: {other:?}")),
        };

        let (own, victim) = (ram.span().start(), booted.start.physical(booted.start.map().data).start());
        let shown = page(window);
        refused("remapped window", remap(shown, victim));
        let unmapped = booted.handover.edit(|mut space| space.mapper().unmap(shown).map(drop));
        booted.require(unmapped.is_ok(), "a frame of one's own may go from the directmap");
        refused("window", map(shown, victim));
        booted.require(map(shown, own).is_ok(), "it may come back");

        refused("sealed data", remap(page(booted.start.map().sealed.start().raw()), own));
        refused("device tree", remap(page(breakwater::layout::DEVICE_TREE.start().raw()), own));
        for stack in [
            booted.start.map().stack,
            booted.start.map().exception_stack,
            stacks::stacks_of(1, stacks::STACK_BYTES).stack,
        ] {
            refused("guard", map(page(stack.start().raw() - PAGE_BYTES), own));
        }

        let at = VirtSpan::of(VirtAddr::at(breakwater::layout::VMAP.start().raw() + (512 << 20)), 4 << 20);
        let at = at.unwrap_or_else(|| booted.failed("no vmap"));
        booted.handover.edit(|mut space| {
            let theirs = core::mem::replace(space.frames(), FrameSupply::new(ram));
            let two = space.mapper().populate(at, Level::L3);
            booted.require(matches!(two, Err(Error::OutOfFrames { needed: 2, available: 1 })), "one frame, two tables");
            let one = space.mapper().populate(page(at.start().raw()), Level::L3);
            booted.require(one.is_ok_and(|cost| cost.frames == 1), "one frame, one table");
            let table = space.mapper().walk(at.start()).last().map(|step| step.slot.table().start());
            booted.require(table == Some(own), "the table stands in the frame that was given");
            *space.frames() = theirs;
        });
    }
}

/// Emptying the frame supply, and proving what came out of it.
#[cfg(target_os = "none")]
mod supply {
    use breakwater::addr::Frame;
    use breakwater_boot_tests::prelude::*;

    /// Ends the chain of frames.
    const NOTHING: u64 = u64::MAX;

    /// How a program reaches frames: the image's through their link address, the others through the directmap.
    #[derive(Clone, Copy, Debug)]
    struct Reach {
        image: PhysSpan,
        link_offset: u64,
        directmap_offset: u64,
    }

    impl Reach {
        fn virt(self, frame: u64) -> u64 {
            let in_image = self.image.contains(PhysAddr::at(frame));
            frame.wrapping_add(if in_image { self.link_offset } else { self.directmap_offset })
        }
    }

    /// All frames of the supply, chained: each holds the address of the one taken before it, then its own.
    #[derive(Debug)]
    pub(super) struct Drained {
        reach: Reach,
        last: u64,
        /// How many there are.
        pub(super) count: u64,
    }

    /// Takes every frame of the supply, shows each to `look`, and writes to each.
    pub(super) fn drain(booted: &Booted, mut look: impl FnMut(Frame)) -> Drained {
        let reach = Reach {
            image: booted.image_without_init(),
            link_offset: booted.start.map().whole.start().raw().wrapping_sub(booted.start.image_start().raw()),
            directmap_offset: booted.directmap_offset(),
        };
        let mut drained = Drained { reach, last: NOTHING, count: 0 };
        booted.handover.edit(|mut space| {
            let mut mapper = space.mapper();
            while let Some(free) = mapper.take() {
                let frame = free.frame();
                look(frame);
                let frame = frame.start().raw();
                probe::write(reach.virt(frame), drained.last);
                probe::write(reach.virt(frame) + 8, frame);
                drained.last = frame;
                drained.count += 1;
            }
        });
        drained
    }

    impl Drained {
        /// Whether every frame still holds what was written to it: none was handed out twice, none is anything else's.
        #[must_use]
        pub(super) fn is_whole(&self) -> bool {
            let (mut next, mut count) = (self.last, 0);
            while next != NOTHING && count < self.count {
                let virt = self.reach.virt(next);
                if probe::read(virt + 8) != next {
                    return false;
                }
                next = probe::read(virt);
                count += 1;
            }
            next == NOTHING && count == self.count
        }
    }

    /// A sum over the pages of `span`, read through the directmap, that changes when any of their words does.
    #[must_use]
    pub(super) fn sum(booted: &Booted, span: PhysSpan) -> u64 {
        let pages = span.page_cover();
        let first = booted.directmap(pages.start());
        (0..pages.bytes() / 8).fold(0, |sum: u64, word| sum.rotate_left(5) ^ probe::read(first + 8 * word))
    }
}
