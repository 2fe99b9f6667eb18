//! What may not be written, and what may not be executed, is not: each access faults, and the report of the fault says
//! which one it was.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::facts!(
    text_not_writable,
    rodata_not_writable,
    sealed_not_writable,
    device_tree_read_only,
    rodata_not_executable,
    data_not_executable,
    stack_not_executable,
    directmap_not_executable,
    console_not_executable
);

#[cfg(target_os = "none")]
mod facts {
    use breakwater_boot_tests::prelude::*;

    /// Code cannot be written.
    pub(super) fn text_not_writable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = booted.start.map().text.start().raw() + MARKED_OFFSET;
        say!("fact: write to text at {address:#x}");
        probe::write(address, 0);
        booted.failed("text was written");
    }

    /// Constants cannot be written.
    pub(super) fn rodata_not_writable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = booted.start.map().rodata.start().raw() + MARKED_OFFSET;
        say!("fact: write to rodata at {address:#x}");
        probe::write(address, 0);
        booted.failed("rodata was written");
    }

    /// What is read-only after boot is.
    pub(super) fn sealed_not_writable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let sealed = booted.start.map().sealed;
        let address = sealed.start().raw();
        booted.require(!sealed.is_empty() && probe::translate(address).is_some(), "sealed data is not mapped");
        // Read first: the TLB then holds the page.
        let value = probe::read(address);
        say!("fact: write to sealed data at {address:#x}");
        probe::write(address, value);
        booted.failed("sealed data was written");
    }

    /// The device tree cannot be written where it is mapped for reading.
    pub(super) fn device_tree_read_only(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = booted.handover.device_tree().as_ptr() as u64;
        say!("fact: write to the device tree at {address:#x}");
        probe::write(address, 0);
        booted.failed("the device tree was written");
    }

    static CONSTANTS: probe::ReturningPage<u32> = probe::ReturningPage([probe::RET; 1024]);

    /// Constants cannot be executed, not even when they are instructions.
    pub(super) fn rodata_not_executable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = core::hint::black_box(&raw const CONSTANTS) as u64 + MARKED_OFFSET;
        booted.require(booted.start.map().rodata.contains(VirtAddr::at(address)), "the constants are not in rodata");
        say!("fact: call to rodata at {address:#x}");
        probe::call(address);
        booted.failed("rodata was executed");
    }

    static VARIABLES: probe::ReturningPage<core::sync::atomic::AtomicU32> =
        probe::ReturningPage([const { core::sync::atomic::AtomicU32::new(probe::RET) }; 1024]);

    /// Data cannot be executed.
    pub(super) fn data_not_executable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = core::hint::black_box(&raw const VARIABLES) as u64 + MARKED_OFFSET;
        booted.require(booted.start.map().data.contains(VirtAddr::at(address)), "the variables are not in data");
        say!("fact: call to data at {address:#x}");
        probe::call(address);
        booted.failed("data was executed");
    }

    /// The stack cannot be executed.
    pub(super) fn stack_not_executable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let code = core::hint::black_box(probe::ReturningPage([probe::RET; 1024]));
        let address = &raw const code as u64 + MARKED_OFFSET;
        booted.require(booted.start.map().stack.contains(VirtAddr::at(address)), "the page is not on the boot stack");
        probe::publish_code(address);
        say!("fact: call to the stack at {address:#x}");
        probe::call(address);
        booted.failed("the stack was executed");
    }

    /// RAM cannot be executed through the directmap.
    pub(super) fn directmap_not_executable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = booted.take_ram().1 + MARKED_OFFSET;
        probe::write(address, probe::RET.into());
        probe::publish_code(address);
        say!("fact: call to the directmap at {address:#x}");
        probe::call(address);
        booted.failed("the directmap was executed");
    }

    /// Device memory is never fetched from: a speculative fetch could have effects.
    pub(super) fn console_not_executable(start: Start) -> ! {
        let booted = Booted::after_boot(start);
        let address = breakwater::layout::FIXMAP_CONSOLE.start().raw();
        say!("fact: call to the console's registers at {address:#x}");
        probe::call(address);
        booted.failed("device memory was executed");
    }
}
