//! The image as a UEFI application, up to the point where the firmware is gone: copies the device tree or, where there
//! is none that says anything of the machine, ACPI's tables, keeps the load options and the memory map, leaves boot
//! services. boot/efi.S calls [`prepare`] and then turns the firmware's MMU off.
//!
//! This runs where the firmware loaded the image, before any table of ours: no absolute address may be used, so no
//! `fmt`, no `dyn`, no `&str`, nothing that can panic.
//!
//! What the `SAFETY` comments lean on: boot/efi.S calls [`prepare`] once, with what the firmware passed to the image's
//! entry point, and the UEFI specification 2.10 says what that is. Refused, with one line on the firmware's console: no
//! EL2, neither device tree nor ACPI, a tree without its magic or above [`TREE_BYTES`], tables that lead nowhere, no
//! memory for a copy, no memory map, and a map or load options that are larger than their room. What they say is judged
//! later, where it can be reported.

use super::firmware::{self, MAP_ROOM, OPTIONS_ROOM, keep_map, keep_options, map_room, options_room};
use aarch64_cpu::registers::{CurrentEL, Readable};
use breakwater::acpi;
use breakwater::addr::{ADDRESS_BITS, PAGE_BYTES, PhysAddr, PhysSpan};
use breakwater::device_tree;
use breakwater::layout;
use core::ffi::c_void;
use core::ptr::null_mut;
use r_efi::efi::{
    ACPI_20_TABLE_GUID, ALLOCATE_ANY_PAGES, BootServices, ConfigurationTable, DTB_TABLE_GUID, Guid, Handle,
    LOADER_DATA, Status, SystemTable,
};
use r_efi::protocols::loaded_image;

/// The largest device tree that the ordinary path takes.
const TREE_BYTES: u32 = layout::DEVICE_TREE_BYTES_MAX as u32;
/// The smallest: its header.
const HEADER_BYTES: u32 = device_tree::HEADER_BYTES as u32;
/// The first word of a device tree, as it is stored.
const TREE_MAGIC: u32 = 0xd00d_feed_u32.to_be();
/// How often leaving is tried: each failure means that the map changed since its key was taken.
const TRIES: usize = 8;

/// `text` as the firmware prints it: 16 bits a character. Evaluated by the compiler.
const fn ucs2<const N: usize>(text: &[u8; N]) -> [u16; N] {
    let mut wide = [0; N];
    let mut index = 0;
    while index < N {
        wide[index] = text[index] as u16;
        index += 1;
    }
    wide
}

macro_rules! refusals {
    ($($name:ident = $text:literal;)*) => {$(
        static $name: [u16; concat!("breakwater: refused: ", $text, "\r\n\0").len()] =
            ucs2(concat!("breakwater: refused: ", $text, "\r\n\0").as_bytes().first_chunk().unwrap());
    )*};
}

refusals! {
    NOT_EL2 = "the firmware runs at EL1; a hypervisor starts at EL2";
    NO_TREE = "the firmware gives neither a device tree nor ACPI 2.0";
    BAD_ACPI = "the firmware's ACPI tables lead out of its memory or have more than 128 KiB";
    BAD_TREE = "the firmware's device tree has a wrong magic or no size up to 2 MiB";
    NO_ROOM = "the firmware has no memory below 48 bits for a copy of the device tree or of ACPI's tables";
    LONG_OPTIONS = "the load options have more than 2048 characters";
    LARGE_MAP = "the firmware's memory map has more than 32 KiB";
    NO_MAP = "the firmware gives no memory map";
}

/// Leaves the firmware. Out: the address of the device tree, boot services gone; or an error status, which has bit 63
/// set.
///
/// # Safety
/// Called once, by boot/efi.S, with what UEFI passed to the image's entry point.
pub(super) unsafe extern "efiapi" fn prepare(image: Handle, system: *const SystemTable) -> usize {
    // SAFETY: UEFI, EFI_IMAGE_ENTRY_POINT: the second argument is the system table, which lives as long as boot
    // services do.
    let system = unsafe { &*system };
    // SAFETY: UEFI, EFI_SYSTEM_TABLE: the field points to the boot services table until ExitBootServices, after which
    // `boot` is not used.
    let boot = unsafe { &*system.boot_services };
    if CurrentEL.read(CurrentEL::EL) != 2 {
        return refuse(system, &NOT_EL2, Status::UNSUPPORTED);
    }
    let described = match (table(system, DTB_TABLE_GUID), table(system, ACPI_20_TABLE_GUID)) {
        (Some(tree), _) if !is_tree(tree.cast()) => return refuse(system, &BAD_TREE, Status::COMPROMISED_DATA),
        (Some(tree), Some(rsdp)) if is_stub(tree.cast()) => acpi_tables(boot, rsdp),
        (Some(tree), _) => copied(boot, tree.cast()).ok_or(&NO_ROOM[..]),
        (None, Some(rsdp)) => acpi_tables(boot, rsdp),
        (None, None) => return refuse(system, &NO_TREE, Status::NOT_FOUND),
    };
    let described = match described {
        Ok(described) => described,
        Err(why) => return refuse(system, why, Status::OUT_OF_RESOURCES),
    };
    if keep_load_options(boot, image).is_none() {
        return refuse(system, &LONG_OPTIONS, Status::BAD_BUFFER_SIZE);
    }
    if let Err(status) = keep_memory_map(boot) {
        return refuse(system, without_map(status), status);
    }
    let status = leave_boot_services(boot, image);
    // After the first try only memory services are left (UEFI, ExitBootServices): nothing more is said.
    if status == Status::SUCCESS { described.addr() } else { status.as_usize() }
}

/// What the firmware's configuration table `guid` points to. Bit 63 would read as an error status in boot/efi.S; no
/// address has it.
fn table(system: &SystemTable, guid: Guid) -> Option<*const c_void> {
    (0..system.number_of_table_entries).find_map(|index| {
        let entry: *const ConfigurationTable = system.configuration_table.wrapping_add(index);
        // SAFETY: UEFI, EFI_SYSTEM_TABLE: the array has `number_of_table_entries` entries, and `index` is below that.
        let entry = unsafe { &*entry };
        let address = entry.vendor_table.addr();
        let usable = address != 0 && address >> 48 == 0 && address.is_multiple_of(4);
        (entry.vendor_guid == guid && usable).then_some(entry.vendor_table.cast_const())
    })
}

/// Whether there is a device tree: it is copied, and boot/efi.S cleans as many bytes as it says it has.
fn is_tree(tree: *const u32) -> bool {
    // SAFETY: the firmware names `tree` under the device tree's GUID; `table` checked that it is aligned and not
    // null.
    let magic = unsafe { tree.read() };
    magic == TREE_MAGIC && (HEADER_BYTES..=TREE_BYTES).contains(&tree_bytes(tree))
}

/// How many bytes the device tree says it has.
fn tree_bytes(tree: *const u32) -> u32 {
    // SAFETY: as for `is_tree`: a device tree's header is 40 bytes, of which this is the second word.
    let bytes = unsafe { tree.wrapping_add(1).read() };
    u32::from_be(bytes)
}

/// Whether the device tree leaves the machine to ACPI.
fn is_stub(tree: *const u32) -> bool {
    // SAFETY: as for `is_tree`, which has found the header and the size to be a device tree's: the firmware, whose
    // memory is mapped flat, keeps as many bytes there and nobody writes them now.
    let bytes = unsafe { core::slice::from_raw_parts(tree.cast::<u8>(), tree_bytes(tree) as usize) };
    device_tree::is_stub(bytes)
}

/// A copy of the device tree in memory that is the image's to keep: the firmware's own may lie in memory that it keeps.
fn copied(boot: &BootServices, tree: *const u32) -> Option<*const u32> {
    let bytes = tree_bytes(tree) as usize;
    let copy = allocated(boot, bytes)?;
    // SAFETY: UEFI, CopyMem: the tree has `bytes` bytes, says `is_tree`, and so have the pages that were allocated.
    unsafe { (boot.copy_mem)(copy, tree.cast_mut().cast(), bytes) };
    Some(copy.cast_const().cast())
}

/// Memory for `bytes` bytes, which is the image's to keep.
fn allocated(boot: &BootServices, bytes: usize) -> Option<*mut c_void> {
    let (pages, mut start) = (bytes.div_ceil(PAGE_BYTES as usize), 0);
    // SAFETY: UEFI, AllocatePages: it writes the address of as many pages to a live local.
    let status = unsafe { (boot.allocate_pages)(ALLOCATE_ANY_PAGES, LOADER_DATA, pages, &raw mut start) };
    (status == Status::SUCCESS && start >> ADDRESS_BITS == 0).then_some(start as *mut c_void)
}

/// Why there is no memory map.
fn without_map(status: Status) -> &'static [u16] {
    if status == Status::BUFFER_TOO_SMALL { &LARGE_MAP } else { &NO_MAP }
}

/// A bundle of the ACPI tables that `rsdp` leads to, or what to say instead. What lies outside the memory of UEFI's map
/// is not looked at.
fn acpi_tables(boot: &BootServices, rsdp: *const c_void) -> Result<*const u32, &'static [u16]> {
    let Some(start) = allocated(boot, acpi::ROOM) else { return Err(&NO_ROOM) };
    if let Err(status) = keep_memory_map(boot) {
        return Err(without_map(status));
    }
    let Ok(Some(map)) = firmware::memory_map() else { return Err(&NO_MAP) };
    // SAFETY: UEFI, SetMem: the pages were allocated for as many bytes.
    unsafe { (boot.set_mem)(start, acpi::ROOM, 0) };
    // SAFETY: as many bytes, all 0, that nobody else knows of.
    let room = unsafe { core::slice::from_raw_parts_mut(start.cast::<u8>(), acpi::ROOM) };
    let copy = |address, to: &mut [u8]| {
        let from = PhysAddr::new(address).and_then(|start| PhysSpan::of(start, to.len() as u64));
        let can_be_read = from.is_some_and(|from| map.can_be_read(from));
        if can_be_read {
            // SAFETY: UEFI, CopyMem, whose memory is mapped flat: the map says that there are as many bytes.
            unsafe { (boot.copy_mem)(to.as_mut_ptr().cast(), address as *mut c_void, to.len()) };
        }
        can_be_read
    };
    if acpi::gather(rsdp.addr() as u64, room, copy).is_none() {
        return Err(&BAD_ACPI);
    }
    Ok(start.cast_const().cast())
}

/// Keeps the load options. `None` when there are more than there is room for.
fn keep_load_options(boot: &BootServices, image: Handle) -> Option<()> {
    let (mut guid, mut found) = (loaded_image::PROTOCOL_GUID, null_mut());
    // SAFETY: UEFI, HandleProtocol: it writes the address of this image's own protocol to a live local.
    let status = unsafe { (boot.handle_protocol)(image, &raw mut guid, &raw mut found) };
    let loaded: *const loaded_image::Protocol = found.cast_const().cast();
    if status != Status::SUCCESS || loaded.is_null() {
        return Some(());
    }
    // SAFETY: UEFI, EFI_LOADED_IMAGE_PROTOCOL: it lives as long as the image is loaded.
    let loaded = unsafe { &*loaded };
    let bytes = if loaded.load_options.is_null() { 0 } else { loaded.load_options_size as usize };
    if bytes > OPTIONS_ROOM {
        return None;
    }
    // SAFETY: UEFI, CopyMem: as many bytes as the firmware says there are, and no more than there is room for.
    unsafe { (boot.copy_mem)(options_room().cast(), loaded.load_options, bytes) };
    keep_options(bytes);
    Some(())
}

/// Takes the memory map and keeps it. Returns its key, or why there is none.
fn keep_memory_map(boot: &BootServices) -> Result<usize, Status> {
    let (mut bytes, mut key, mut descriptor_bytes, mut version) = (MAP_ROOM, 0, 0, 0);
    let (bytes_out, key_out) = (&raw mut bytes, &raw mut key);
    let (descriptor_out, version_out) = (&raw mut descriptor_bytes, &raw mut version);
    // SAFETY: UEFI, GetMemoryMap: it writes at most `bytes` bytes, for which there is room, and four live locals.
    let status = unsafe { (boot.get_memory_map)(bytes_out, map_room().cast(), key_out, descriptor_out, version_out) };
    if status != Status::SUCCESS {
        return Err(status);
    }
    keep_map(bytes, descriptor_bytes);
    Ok(key)
}

/// Ends boot services. The key says that the firmware's map is still the one that was taken: if it is not, it is taken
/// again.
fn leave_boot_services(boot: &BootServices, image: Handle) -> Status {
    let mut status = Status::ABORTED;
    for _ in 0..TRIES {
        let key = match keep_memory_map(boot) {
            Ok(key) => key,
            Err(why) => return why,
        };
        // SAFETY: UEFI, ExitBootServices: it takes this image's own handle; after success nothing of the firmware's is
        // used.
        status = unsafe { (boot.exit_boot_services)(image, key) };
        if status != Status::INVALID_PARAMETER {
            break;
        }
    }
    status
}

/// Says one line on the firmware's console, if it has one, and hands `status` back.
fn refuse(system: &SystemTable, text: &'static [u16], status: Status) -> usize {
    let console = system.con_out;
    if !console.is_null() {
        // SAFETY: UEFI, EFI_SYSTEM_TABLE: ConOut is the console's protocol; `prepare` refuses only before
        // ExitBootServices.
        let output_string = unsafe { (*console).output_string };
        // SAFETY: UEFI, OutputString: it reads up to the 0 that `refusals!` puts at the end, and writes nothing there.
        unsafe { output_string(console, text.as_ptr().cast_mut()) };
    }
    status.as_usize()
}
