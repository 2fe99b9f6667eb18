//! A guarded load that finds nothing mapped comes back with the address and the syndrome; one that finds something, with the value. So does a
//! guarded store, also where it may not write. Of every other fault of the same instructions the image's exception path speaks, as of
//! any.

#![cfg_attr(target_os = "none", no_std, no_main)]

breakwater_boot_tests::fact!(|booted| {
    use breakwater::addr::Level;
    use breakwater::descriptor::{Attributes, DataAccess, DeviceKind};
    use breakwater::fault::FaultKind;
    use breakwater::mapper::Request;

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

    // Walks that end at level 0, 1, 2 and 3: above the directmap, between vmap and frametable, the frametable of frames that nobody has, a guard page.
    let guard = booted.start.map().stack.start().raw() - PAGE_BYTES;
    for address in
        [0xffff_0000_0000, no_table - MARKED_OFFSET, breakwater::layout::FRAMETABLE.start().raw() + (512 << 20), guard]
    {
        let address = address + MARKED_OFFSET;
        match probe::read_or_fault(address) {
            Ok(value) => booted.failed(format_args!("{address:#x} holds {value:#x}")),
            Err(fault) => {
                booted.require(fault.address == address, format_args!("{address:#x}: FAR {:#x}", fault.address));
                let kind = fault.syndrome.fault().map(|fault| fault.kind);
                booted.require(kind == Some(FaultKind::Translation), format_args!("{address:#x}: {}", fault.syndrome));
                say!("fact: {address:#x}: {}", fault.syndrome);
            }
        }
    }
    // Nothing answers at this address of QEMU's machine `virt`.
    let page = VirtSpan::of(breakwater::layout::VMAP.start(), PAGE_BYTES).unwrap_or_else(|| booted.failed("no vmap"));
    let attributes = Attributes::Device(DeviceKind::NGnRnE, DataAccess::ReadOnly);
    let request = Request::new(page, PhysAddr::at(0x0b00_0000), attributes, Level::L3);
    if let Err(error) = booted.handover.edit(|mut space| space.mapper().map(request)) {
        booted.failed(error);
    }
    say!("fact: {:?} read, six faults survived; a load where nothing answers now", ram.span());
    let found = probe::read_or_fault(page.start().raw() + MARKED_OFFSET);
    booted.failed(format_args!("it came back: {found:x?}"))
});
