//! What is not mapped, any more or at all: address 0, init, the identity page, no-map memory, the guards of each stack.
//! An access there faults, and the report says where.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::facts!(
    null_unmapped,
    init_unmapped,
    identity_page_gone,
    identity_page_gone_elsewhere,
    no_map_unmapped,
    guards_unmapped,
    boot_stack_guard,
    secondary_stack_guard
);

#[cfg(target_os = "none")]
mod facts {
    use breakwater_boot_tests::prelude::*;

    /// Address 0 is not mapped.
    pub(super) fn null_unmapped(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        say!("fact: read of address 0");
        let value = probe::read(0);
        booted.failed(format_args!("address 0 was read: {value:#x}"));
    }

    /// Init is gone: its first page, the header, does not translate any more.
    pub(super) fn init_unmapped(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let init = booted.start.map().init;
        for page in 1..init.bytes() / PAGE_BYTES {
            let address = init.start().raw() + page * PAGE_BYTES;
            booted.require(probe::translate(address).is_none(), format_args!("init is mapped at {address:#x}"));
        }
        let address = init.start().raw();
        say!("fact: read of init at {address:#x}");
        let value = probe::read(address);
        booted.failed(format_args!("init was read: {value:#x}"));
    }

    /// Nothing is mapped where the identity page was.
    pub(super) fn identity_page_gone(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = booted.start.identity().start().raw() + MARKED_OFFSET;
        say!("fact: call to the identity page at {address:#x}");
        probe::call(address);
        booted.failed("the identity page was executed");
    }

    /// Nothing is mapped where the identity page was, on a CPU that came in through it either: its TLB, too, was told.
    pub(super) fn identity_page_gone_elsewhere(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = booted.start.identity().start().raw() + MARKED_OFFSET;
        say!("fact: read of the identity page at {address:#x} on CPU 1");
        let read = |address| {
            let _ = probe::read(address as u64);
        };
        booted.on_cpu(1, read, address);
        booted.failed("CPU 1 read the identity page");
    }

    /// `no-map` memory in the middle of RAM is not mapped; its neighbours are.
    pub(super) fn no_map_unmapped(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let hole = booted.claimed();
        for neighbour in [hole.start().raw() - PAGE_BYTES, hole.end_exclusive().raw()] {
            let address = booted.directmap(PhysAddr::at(neighbour));
            let found = probe::translate_write(address);
            booted.require(
                found == Some(PhysAddr::at(neighbour)),
                format_args!("{neighbour:#x} translates to {found:?}"),
            );
            let _ = probe::read(address);
        }
        for page in 0..hole.bytes() / PAGE_BYTES {
            let phys = hole.start().raw() + page * PAGE_BYTES;
            let found = probe::translate(booted.directmap(PhysAddr::at(phys)));
            booted.require(found.is_none(), format_args!("{phys:#x}, which is no-map, is mapped"));
        }
        let address = booted.directmap(hole.start()) + MARKED_OFFSET;
        say!("fact: read of no-map memory at {address:#x}");
        let value = probe::read(address);
        booted.failed(format_args!("no-map memory was read: {value:#x}"));
    }

    fn check_guards(booted: &Booted, what: &str, index: usize, stack: breakwater::addr::VirtSpan) {
        for page in 0..stack.bytes() / PAGE_BYTES {
            let address = stack.start().raw() + page * PAGE_BYTES;
            booted.require(
                probe::translate_write(address).is_some(),
                format_args!("{what} of CPU {index}: hole at {address:#x}"),
            );
        }
        for address in [stack.start().raw() - PAGE_BYTES, stack.start().raw() - 8, stack.end_exclusive().raw()] {
            let hit = probe::translate(address);
            booted.require(hit.is_none(), format_args!("{what} of CPU {index}: {address:#x} is mapped to {hit:?}"));
        }
        say!("fact: {what} of CPU {index} at {stack} is guarded");
    }

    /// A page below and a page above every stack is not mapped, on every CPU; the stacks themselves are, in whole.
    pub(super) fn guards_unmapped(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        check_guards(&booted, "stack", 0, booted.start.map().stack);
        check_guards(&booted, "exception stack", 0, booted.start.map().exception_stack);
        for index in booted.handover.cpus().others() {
            let stacks = breakwater::regions::stacks::stacks_of(index, breakwater::regions::stacks::STACK_BYTES);
            check_guards(&booted, "stack", index, stacks.stack);
            check_guards(&booted, "exception stack", index, stacks.exception_stack);
        }
        booted.holds("every stack has its guards")
    }

    /// An overflow of the boot CPU's stack is reported as one, on a stack of its own.
    pub(super) fn boot_stack_guard(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        say!("fact: endless recursion on CPU 0");
        let depth = overflow_stack(0);
        booted.failed(format_args!("endless recursion ended: {depth}"));
    }

    /// An overflow of another CPU's stack is reported as one, by that CPU, on its own exception stack.
    pub(super) fn secondary_stack_guard(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        say!("fact: endless recursion on CPU 1");
        let overflow = |depth| {
            let _ = overflow_stack(depth as u64);
        };
        booted.on_cpu(1, overflow, 0);
        booted.failed("endless recursion on CPU 1 ended");
    }
}
