//! What comes of panics and exceptions, before there is a console and after: they are reported, with the registers as
//! they were; one inside the exception path ends there; an access that was prepared for its fault goes on. What was
//! said before the console is shown later.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::facts!(
    panic_reported,
    panic_before_console,
    exception_before_console,
    exception_in_exception,
    registers_reported,
    abort_of_a_lower_el,
    early_lines_shown_later,
    guarded_accesses
);

#[cfg(target_os = "none")]
mod facts {
    use breakwater_boot_tests::prelude::*;

    /// A panic is reported with its message and place.
    pub(super) fn panic_reported(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        panic!("a promise was broken, on purpose, with {} CPU", booted.handover.cpus().count())
    }

    /// A panic before the console is known reaches the debugger that the image was built for, with all that was said
    /// before.
    pub(super) fn panic_before_console(start: Start) -> ! {
        say!("fact: said before the console is known");
        assert!(
            start.entry_level() != 2,
            "a promise was broken before the console, entered at EL{}",
            start.entry_level()
        );
        Booted::after_boot(start).failed("the assertion held")
    }

    /// An exception in the first tables, before the console is known, is reported with its walk.
    pub(super) fn exception_before_console(start: Start) -> ! {
        say!("fact: read of address 0 before boot");
        let value = probe::read(0);
        Booted::after_boot(start).failed(format_args!("address 0 was read in the first tables: {value:#x}"))
    }

    /// An exception inside the exception path ends there, with a message of its own: no loop, no silence.
    pub(super) fn exception_in_exception(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        say!("fact: read of address 0 without an exception stack");
        // The first store of the exception frame faults at this address less 0x110.
        probe::set_exception_stack(0x1000);
        let value = probe::read(0);
        booted.failed(format_args!("address 0 was read: {value:#x}"));
    }

    /// An abort of a lower EL is reported, and not by a walk of EL2's own tables, which have no part in it.
    pub(super) fn abort_of_a_lower_el(start: Start) -> ! {
        use core::sync::atomic::AtomicU64;

        #[repr(align(4096))]
        struct Table([AtomicU64; 512]);
        static EMPTY: Table = Table([const { AtomicU64::new(0) }; 512]);
        let booted = Booted::after_boot(start);
        say!("fact: EL1 fetches where stage 2 maps nothing; {} CPU", booted.handover.cpus().count());
        let offset = EMPTY.0.as_ptr() as u64 - booted.start.map().whole.start().raw();
        probe::abort_at_el1(PhysAddr::at(booted.start.image_start().raw() + offset), 0x5a8)
    }

    /// An exception is reported with the registers as they were.
    pub(super) fn registers_reported(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        say!("fact: BRK with known registers; {} CPU", booted.handover.cpus().count());
        probe::break_with_known_registers()
    }

    /// What is said before the console is known is shown once it is; when it is too much, the end of it.
    pub(super) fn early_lines_shown_later(start: Start) -> ! {
        // 3,000 lines of 33 bytes: more than the log's 64 KiB.
        for number in 0..3000 {
            say!("fact: early line number {number:08}");
        }
        let booted = Booted::after_boot(start);
        booted.require(booted.handover.console().is_known, "the console is not known");
        booted.holds("early lines were kept")
    }

    /// A guarded load that finds nothing mapped comes back with the address and the syndrome; one that finds something,
    /// with the value. So does a guarded store, also where it may not write. Of every other fault of the same
    /// instructions the image's exception path speaks, as of any.
    pub(super) fn guarded_accesses(start: Start) -> ! {
        use breakwater::addr::Level;
        use breakwater::descriptor::{Attributes, DataAccess, DeviceKind};
        use breakwater::fault::FaultKind;
        use breakwater::mapper::Request;
        let booted = Booted::after_boot(start);

        let (ram, virt) = booted.take_ram();
        probe::write(virt + MARKED_OFFSET, 0x1234_5678_9abc_def0);
        booted.require(probe::read_or_fault(virt + MARKED_OFFSET) == Ok(0x1234_5678_9abc_def0), "a word of RAM");

        booted.require(probe::write_or_fault(virt + MARKED_OFFSET, 0x1122).is_ok(), "a word of RAM may be written");
        booted.require(probe::read(virt + MARKED_OFFSET) == 0x1122, "what is written is there");
        let rodata = booted.start.map().rodata.start().raw() + MARKED_OFFSET;
        let before = probe::read(rodata);
        let no_table = breakwater::layout::XEN_BASE + (8 << 30) + MARKED_OFFSET;
        for address in [rodata, no_table] {
            match probe::write_or_fault(address, !before) {
                Err(fault) if fault.address == address => say!("fact: write to {address:#x}: {}", fault.syndrome),
                other => booted.failed(format_args!("write to {address:#x}: {other:x?}")),
            }
        }
        booted.require(probe::read(rodata) == before, "what may not be written is as it was");

        // Walks that end at level 0, 1, 2 and 3: above the directmap, between vmap and frametable, the frametable of
        // frames that nobody has, a guard page.
        let guard = booted.start.map().stack.start().raw() - PAGE_BYTES;
        for address in [
            0xffff_0000_0000,
            no_table - MARKED_OFFSET,
            breakwater::layout::FRAMETABLE.start().raw() + (512 << 20),
            guard,
        ] {
            let address = address + MARKED_OFFSET;
            match probe::read_or_fault(address) {
                Ok(value) => booted.failed(format_args!("{address:#x} holds {value:#x}")),
                Err(fault) => {
                    booted.require(fault.address == address, format_args!("{address:#x}: FAR {:#x}", fault.address));
                    let kind = fault.syndrome.fault().map(|fault| fault.kind);
                    booted.require(
                        kind == Some(FaultKind::Translation),
                        format_args!("{address:#x}: {}", fault.syndrome),
                    );
                    say!("fact: {address:#x}: {}", fault.syndrome);
                }
            }
        }
        // Nothing answers at this address of QEMU's machine `virt`.
        let page =
            VirtSpan::of(breakwater::layout::VMAP.start(), PAGE_BYTES).unwrap_or_else(|| booted.failed("no vmap"));
        let attributes = Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadOnly);
        let request = Request::new(page, PhysAddr::at(0x0b00_0000), attributes, Level::L3);
        if let Err(error) = booted.handover.edit(|mut space| space.mapper().map(request)) {
            booted.failed(error);
        }
        say!("fact: {:?} read, six faults survived; a load where nothing answers now", ram.span());
        let found = probe::read_or_fault(page.start().raw() + MARKED_OFFSET);
        booted.failed(format_args!("it came back: {found:x?}"))
    }
}
