//! What is mapped on demand after boot is where it was asked for, on every CPU, and nothing is left of it afterwards: the fixmap, a device by
//! ioremap, scattered frames by vmap, and the window.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    let free = booted.handover.frames().lock().available();
    on_demand::fixmap(&booted);
    on_demand::device(&booted);
    on_demand::scattered(&booted);
    on_demand::window(&booted);
    booted.require_clean_audit(&[]);
    let after = booted.handover.frames().lock().available();
    say!("fact: {} frames became tables or stayed with the program", free - after);
    booted.holds("what is mapped on demand is there, guarded, and gone when it is unmapped")
});

#[cfg(target_os = "none")]
mod on_demand {
    use breakwater::addr::Frame;
    use breakwater::descriptor::{Access, Attributes, DataAccess, DeviceKind};
    use breakwater::frames::OwnedRam;
    use breakwater::regions::alias::{Ram, Refusal};
    use breakwater::regions::fixmap::{self, Purpose};
    use breakwater::regions::vmap;
    use breakwater_boot::el2::El2;
    use breakwater_boot_tests::prelude::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    const DATA: Attributes = Attributes::Normal(Access::ReadWrite);
    const DEVICE: Attributes = Attributes::Device(DeviceKind::NGnRE, DataAccess::ReadWrite);
    /// QEMU's PL031 and PL011: the first identification registers of each, read as 64 bits.
    const RTC: u64 = 0x0901_0000;
    const UART: u64 = 0x0900_0000;
    const RTC_ID: u64 = 0x10_0000_0031;
    const UART_ID: u64 = 0x10_0000_0011;
    const ID_OFFSET: u64 = 0xfe0;

    /// What CPU 1 read, or where it translates an address to; 0 for nowhere.
    static SEEN: AtomicU64 = AtomicU64::new(0);

    /// A frame of free RAM with `value` in its first word.
    fn frame_with(booted: &Booted, value: u64) -> Frame {
        frame_of(&ram_with(booted, value))
    }

    fn ram_with(booted: &Booted, value: u64) -> OwnedRam<El2> {
        let (ram, virt) = booted.take_ram();
        probe::write(virt, value);
        ram
    }

    fn frame_of(ram: &OwnedRam<El2>) -> Frame {
        Frame::containing(ram.span().start())
    }

    /// Every CPU reads `value` at `address`.
    fn require_read(booted: &Booted, address: u64, value: u64, what: &str) {
        let read = probe::read(address);
        booted.require(read == value, format_args!("{what} at {address:#x}: {read:#x}, not {value:#x}"));
        if booted.handover.cpus().count() > 1 {
            booted.on_cpu(1, |at| SEEN.store(probe::read(at as u64), Ordering::Relaxed), address);
            let read = SEEN.load(Ordering::Relaxed);
            booted.require(read == value, format_args!("{what} at {address:#x} on CPU 1: {read:#x}, not {value:#x}"));
        }
    }

    /// No CPU translates `address`.
    fn require_gone(booted: &Booted, address: u64, what: &str) {
        let hit = probe::translate(address);
        booted.require(hit.is_none(), format_args!("{what} at {address:#x} is mapped to {hit:?}"));
        if booted.handover.cpus().count() > 1 {
            let work = |at: usize| SEEN.store(probe::translate(at as u64).map_or(0, PhysAddr::raw), Ordering::Relaxed);
            booted.on_cpu(1, work, address);
            let hit = SEEN.load(Ordering::Relaxed);
            booted.require(hit == 0, format_args!("{what} at {address:#x} is mapped to {hit:#x} on CPU 1"));
        }
    }

    fn granted<T>(booted: &Booted, answer: Result<T, impl core::fmt::Display>) -> T {
        answer.unwrap_or_else(|error| booted.failed(error))
    }

    pub(super) fn fixmap(booted: &Booted) {
        let (first, second) = (frame_with(booted, 0x1111), frame_with(booted, 0x2222));
        let set = |frame| {
            booted.handover.edit_on_demand(|space, _| fixmap::set(space, Ram::Declared, Purpose::Misc, frame, DATA))
        };
        let clear = || booted.handover.edit_on_demand(|space, _| fixmap::clear(space, Purpose::Misc));
        let at = granted(booted, set(first)).raw();
        require_read(booted, at, 0x1111, "the fixmap");
        let in_use = fixmap::Error::InUse { slot: Purpose::Misc, shows: first.start() };
        booted.require(set(second) == Err(in_use), "a slot was set twice");
        granted(booted, clear());
        require_gone(booted, at, "a cleared slot");
        granted(booted, set(second));
        require_read(booted, at, 0x2222, "the fixmap, set again");
        granted(booted, clear());
        booted.require(clear().is_err(), "a slot was cleared twice");
        say!("fact: the fixmap shows a frame, then another, then none");
    }

    pub(super) fn device(booted: &Booted) {
        let ioremap = |start, bytes| {
            let span = PhysSpan::of(PhysAddr::at(start), bytes);
            let span = span.unwrap_or_else(|| booted.failed("a device beyond 48 bits"));
            booted.handover.edit_on_demand(|space, on_demand| on_demand.vmap.ioremap(space, span, DeviceKind::NGnRE))
        };
        let rtc = granted(booted, ioremap(RTC + ID_OFFSET, 0x20));
        let uart = granted(booted, ioremap(UART, PAGE_BYTES));
        require_read(booted, rtc.raw(), RTC_ID, "the clock's identification");
        require_read(booted, uart.raw() + ID_OFFSET, UART_ID, "the console's identification");
        for page in [rtc, uart].map(|at| at.raw() / PAGE_BYTES * PAGE_BYTES) {
            require_gone(booted, page - PAGE_BYTES, "the guard below a device");
            require_gone(booted, page + PAGE_BYTES, "the guard above a device");
        }
        booted.require_clean_audit(&[]);
        let (ram, _) = booted.take_ram();
        match ioremap(ram.span().start().raw(), 8) {
            Err(vmap::Error::Refused(refusal @ Refusal::MixedMemory { .. })) => say!("fact: refused: {refusal}"),
            answer => booted.failed(format_args!("RAM as a device: {answer:?}")),
        }
        for at in [rtc, uart] {
            granted(booted, booted.handover.edit_on_demand(|space, on_demand| on_demand.vmap.unmap(space, at)));
            require_gone(booted, at.raw(), "an unmapped device");
        }
        say!("fact: two devices were mapped, read, and unmapped");
    }

    pub(super) fn scattered(booted: &Booted) {
        let taken = [0, 1, 2, 3, 4, 5].map(|index| ram_with(booted, 0x1000 + index));
        let order = [5_usize, 0, 3, 1];
        let frames = order.map(|index| frame_of(&taken[index]));
        let at = booted.handover.edit_on_demand(|space, on_demand| on_demand.vmap.vmap(space, &frames, DATA));
        let at = granted(booted, at);
        for (page, index) in (0..).zip(order) {
            require_read(booted, at.raw() + page * PAGE_BYTES, 0x1000 + index as u64, "a scattered frame");
        }
        require_gone(booted, at.raw() - PAGE_BYTES, "the guard below");
        require_gone(booted, at.raw() + 4 * PAGE_BYTES, "the guard above");
        booted.require_clean_audit(&[]);
        granted(booted, booted.handover.edit_on_demand(|space, on_demand| on_demand.vmap.unmap(space, at)));
        for page in 0..4 {
            require_gone(booted, at.raw() + page * PAGE_BYTES, "an unmapped frame");
        }
        for ram in taken {
            let returned = booted.handover.edit(|mut space| space.give_back(ram));
            granted(booted, returned.map_err(|(failure, _)| failure));
        }
        say!("fact: scattered frames were side by side, and are free again");
    }

    pub(super) fn window(booted: &Booted) {
        let map = |frame, attributes| {
            granted(booted, booted.handover.edit_on_demand(|space, all| all.window.map(space, 0, frame, attributes)))
        };
        let unmap = |mapped| booted.handover.edit_on_demand(|_, all| all.window.unmap(mapped));
        let ram = frame_with(booted, 0x3333);
        let direct = map(ram, DATA);
        booted.require(direct.is_direct(), "RAM is reached through the directmap");
        booted.require(direct.virt().raw() == booted.directmap(ram.start()), "at another distance");
        require_read(booted, direct.virt().raw(), 0x3333, "RAM");
        unmap(direct);
        let devices = [RTC, UART].map(|start| map(Frame::containing(PhysAddr::at(start)), DEVICE));
        require_read(booted, devices[0].virt().raw() + ID_OFFSET, RTC_ID, "the clock in the window");
        require_read(booted, devices[1].virt().raw() + ID_OFFSET, UART_ID, "the console in the window");
        booted.require_clean_audit(&[]);
        let at = devices[0].virt().raw();
        devices.into_iter().for_each(unmap);
        let low = PhysSpan::of(PhysAddr::at(0), RTC + PAGE_BYTES).unwrap_or_else(|| booted.failed("48 bits"));
        let released = granted(booted, booted.handover.edit_on_demand(|space, all| all.window.release(space, low)));
        booted.require(released == 2, "two slots were idle");
        require_gone(booted, at, "a released slot");
        say!("fact: the window shows RAM without a slot, and devices in slots");
    }
}
