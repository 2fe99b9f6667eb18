//! The example payload: what a hypervisor does first with what `breakwater::boot::boot` hands over.
//!
//! It shows how page tables are edited after boot, when several CPUs share them: under the page-table lock, from any CPU, each request
//! complete on every CPU when it returns. On two CPUs it maps, remaps and unmaps:
//!
//! 1. CPU 0 maps a page; CPU 1 reads through it.
//! 2. CPU 1 remaps the page to another frame (break, invalidate by broadcast, make); CPU 0, whose TLB held the old translation, sees
//!    the new frame.
//! 3. CPU 0 unmaps the page and gives the frames back, which nothing maps any more; neither CPU can reach it any more.
//! 4. Both CPUs do all of it at once, many times, each on pages of its own.
//!
//! A mapping that stays would be declared in `handover.regions()`, so that an audit knows of it. These do not stay, and a last audit finds
//! the tables as boot left them.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot::entry!(main);

#[cfg(target_os = "none")]
fn main(start: breakwater_boot::el2::Start) -> ! {
    payload::hand_over(breakwater_boot_tests::Booted::after_boot(start))
}

#[cfg(target_os = "none")]
mod payload {
    use breakwater::addr::{Level, PAGE_BYTES, VirtAddr, VirtSpan};
    use breakwater::descriptor::{Access, Attributes};
    use breakwater::frames::OwnedRam;
    use breakwater::layout::VMAP;
    use breakwater::mapper::Request;
    use breakwater_boot::el2::El2;
    use breakwater_boot_tests::{Booted, prelude::say, probe};
    use core::sync::atomic::{AtomicU64, Ordering};
    use spin::Once;

    const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
    /// How often each CPU maps, remaps and unmaps in the last step.
    const ROUNDS: u64 = 200;

    /// The machine, for all CPUs: they share tables and frames through its locks.
    static BOOTED: Once<Booted> = Once::new();
    /// What CPU 1 read.
    static READ_BY_CPU_1: AtomicU64 = AtomicU64::new(0);

    fn booted() -> &'static Booted {
        BOOTED.get().unwrap_or_else(|| unreachable!("hand_over sets it before any work is given out"))
    }

    /// Where a hypervisor takes over.
    pub(super) fn hand_over(machine: Booted) -> ! {
        let booted = BOOTED.call_once(|| machine);
        let cpus = booted.handover.cpus();
        say!("payload: {} CPUs, {} frames", cpus.count(), booted.handover.frames().lock().available());
        let free_before = booted.handover.frames().lock().available();
        shared_page(booted);

        let work: fn(usize) = |cpu| (0..ROUNDS).for_each(|round| own_page(cpu as u64, round));
        for index in cpus.others() {
            cpus.run(index, work, index);
        }
        work(0);
        cpus.others().for_each(|index| cpus.wait(index));
        say!("payload: {ROUNDS} rounds of map, remap and unmap on each of {} CPUs at once", cpus.count());

        booted.require_clean_audit(&[]);
        let free_after = booted.handover.frames().lock().available();
        booted.require(free_after == free_before, format_args!("{free_before} frames before, {free_after} after"));
        say!("payload: every frame came back, those of tables too");
        breakwater_boot::el2::leave(booted.handover.exit(), breakwater_boot::el2::Status::Success)
    }

    /// Steps 1 to 3.
    fn shared_page(booted: &Booted) {
        let page = page(0);
        let (first, second) = (frame_with(0x1111), frame_with(0x2222));
        map(page, &first);
        booted.on_cpu(1, |virt| READ_BY_CPU_1.store(probe::read(virt as u64), Ordering::Relaxed), page.start().raw());
        expect(READ_BY_CPU_1.load(Ordering::Relaxed), 0x1111, "CPU 1 reads what CPU 0 mapped");

        expect(probe::read(page.start().raw()), 0x1111, "CPU 0 reads the first frame");
        booted.on_cpu(
            1,
            |frame| remap(self::page(0), breakwater::addr::PhysAddr::at(frame as u64)),
            second.span().start().raw(),
        );
        expect(probe::read(page.start().raw()), 0x2222, "CPU 0 reads the frame that CPU 1 remapped the page to");

        unmap(page, [first, second]);
        booted.on_cpu(1, |virt| READ_BY_CPU_1.store(translates(virt as u64), Ordering::Relaxed), page.start().raw());
        expect(translates(page.start().raw()), 0, "the page is gone on CPU 0");
        expect(READ_BY_CPU_1.load(Ordering::Relaxed), 0, "the page is gone on CPU 1");
        say!("payload: mapped on CPU 0, remapped on CPU 1, unmapped on CPU 0");
    }

    /// Step 4, one round: on a page that no other CPU uses.
    fn own_page(cpu: u64, round: u64) {
        let page = page(1 + cpu);
        let virt = page.start().raw();
        let (one, other) = (cpu << 32 | round << 1, cpu << 32 | round << 1 | 1);
        let (first, second) = (frame_with(one), frame_with(other));
        map(page, &first);
        expect(probe::read(virt), one, "a mapped page shows its frame");
        remap(page, second.span().start());
        expect(probe::read(virt), other, "a remapped page shows its new frame");
        probe::write(virt, !other);
        expect(
            probe::read(booted().directmap(second.span().start())),
            !other,
            "what is written through the page is in its frame",
        );
        unmap(page, [first, second]);
        expect(translates(virt), 0, "an unmapped page is gone");
    }

    /// The page number `index` of vmap.
    fn page(index: u64) -> VirtSpan {
        let start = VMAP.start().raw() + index * PAGE_BYTES;
        VirtSpan::of(VirtAddr::at(start), PAGE_BYTES).unwrap_or_else(|| unreachable!("vmap has room"))
    }

    /// A frame of free RAM whose first word is `value`.
    fn frame_with(value: u64) -> OwnedRam<El2> {
        let (ram, virt) = booted().take_ram();
        probe::write(virt, value);
        ram
    }

    fn map(virt: VirtSpan, ram: &OwnedRam<El2>) {
        let request = Request::new(virt, ram.span().start(), DATA, Level::L3);
        if let Err(error) = booted().handover.edit(|mut space| space.mapper().map(request)) {
            booted().failed(error);
        }
    }

    fn remap(virt: VirtSpan, output: breakwater::addr::PhysAddr) {
        if let Err(error) = booted().handover.edit(|mut space| space.mapper().remap(virt, output, DATA)) {
            booted().failed(error);
        }
    }

    /// Unmaps `virt` and gives back the frames that it has shown, which nothing maps any more.
    fn unmap(virt: VirtSpan, shown: [OwnedRam<El2>; 2]) {
        booted().handover.edit(|mut space| {
            if let Err(error) = space.mapper().unmap(virt) {
                booted().failed(error);
            }
            for ram in shown {
                if let Err((failure, _)) = space.give_back(ram) {
                    booted().failed(failure);
                }
            }
        });
    }

    /// Where the hardware translates `virt` to; 0 for nowhere.
    fn translates(virt: u64) -> u64 {
        probe::translate(virt).map_or(0, breakwater::addr::PhysAddr::raw)
    }

    fn expect(found: u64, expected: u64, what: &str) {
        booted().require(found == expected, format_args!("{what}: {found:#x}, not {expected:#x}"));
    }
}
