//! The image as a UEFI application, up to the point where the firmware is gone: finds the device tree, takes the memory
//! map for its key, leaves boot services. boot/efi.S calls [`prepare`] and then turns the firmware's MMU off.
//!
//! This runs where the firmware loaded the image, before any table of ours: no absolute address may be used, so no
//! `fmt`, no `dyn`, no `&str`, nothing that can panic.
//!
//! What the `SAFETY` comments lean on: boot/efi.S calls [`prepare`] once, with what the firmware passed to the image's
//! entry point, and the UEFI specification 2.10 says what that is. Refused, with one line on the firmware's console: no
//! EL2, no device tree, one without its magic or above [`TREE_BYTES`], no memory map.

use aarch64_cpu::registers::{CurrentEL, Readable};
use breakwater::layout;
use core::ffi::c_void;
use core::ptr::null_mut;
use r_efi::efi::{
    BootServices, ConfigurationTable, DTB_TABLE_GUID, Handle, LOADER_DATA, MemoryDescriptor, Status, SystemTable,
};

/// The largest device tree that the ordinary path takes.
const TREE_BYTES: u32 = layout::DEVICE_TREE_BYTES_MAX as u32;
/// The first word of a device tree, as it is stored.
const TREE_MAGIC: u32 = 0xd00d_feed_u32.to_be();
/// Descriptors that the memory map may grow by between asking for its size and leaving: our own pool allocation splits
/// one, and what the firmware's drivers do on the way out a few more.
const SPARE_DESCRIPTORS: usize = 16;
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
    NO_TREE = "the firmware gives no device tree (ACPI only?)";
    BAD_TREE = "the firmware's device tree has a wrong magic or is above 2 MiB";
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
    let Some(tree) = device_tree(system) else {
        return refuse(system, &NO_TREE, Status::NOT_FOUND);
    };
    if !is_tree(tree) {
        return refuse(system, &BAD_TREE, Status::COMPROMISED_DATA);
    }
    let Some(mut map) = MapBuffer::of(boot) else {
        return refuse(system, &NO_MAP, Status::OUT_OF_RESOURCES);
    };
    let status = leave_boot_services(boot, image, &mut map);
    // After the first try only memory services are left (UEFI, ExitBootServices): nothing more is said.
    if status == Status::SUCCESS { tree.addr() } else { status.as_usize() }
}

/// The device tree by its configuration table's GUID. Bit 63 would read as an error status in boot/efi.S; no address
/// has it.
fn device_tree(system: &SystemTable) -> Option<*const u32> {
    (0..system.number_of_table_entries).find_map(|index| {
        let entry: *const ConfigurationTable = system.configuration_table.wrapping_add(index);
        // SAFETY: UEFI, EFI_SYSTEM_TABLE: the array has `number_of_table_entries` entries, and `index` is below that.
        let entry = unsafe { &*entry };
        let address = entry.vendor_table.addr();
        let usable = address != 0 && address >> 48 == 0 && address.is_multiple_of(4);
        (entry.vendor_guid == DTB_TABLE_GUID && usable).then_some(entry.vendor_table.cast_const().cast())
    })
}

/// Whether there is a device tree: boot/efi.S cleans as many bytes as it says it has.
fn is_tree(tree: *const u32) -> bool {
    // SAFETY: the firmware names `tree` under the device tree's GUID; `device_tree` checked that it is aligned and not
    // null.
    let magic = unsafe { tree.read() };
    // SAFETY: as above: a device tree's header is 40 bytes, of which this is the second word.
    let bytes = unsafe { tree.wrapping_add(1).read() };
    magic == TREE_MAGIC && u32::from_be(bytes) <= TREE_BYTES
}

/// Pool memory for the memory map, never freed: only the map's key matters, and the firmware's pool is gone with boot
/// services.
struct MapBuffer {
    start: *mut MemoryDescriptor,
    bytes: usize,
}

impl MapBuffer {
    fn of(boot: &BootServices) -> Option<Self> {
        let mut nothing = Self { start: null_mut(), bytes: 0 };
        let (needed, descriptor_bytes, _) = nothing.fill(boot).err()?;
        let bytes = descriptor_bytes.checked_mul(SPARE_DESCRIPTORS)?.checked_add(needed)?;
        let mut start: *mut c_void = null_mut();
        // SAFETY: UEFI, AllocatePool: it writes the address of `bytes` bytes, 8-byte aligned, to a live local.
        let status = unsafe { (boot.allocate_pool)(LOADER_DATA, bytes, &raw mut start) };
        (status == Status::SUCCESS).then_some(Self { start: start.cast(), bytes })
    }

    /// Takes the memory map. Returns its key, or how many bytes it wants, how many a descriptor has, and why there is
    /// no map.
    fn fill(&mut self, boot: &BootServices) -> Result<usize, (usize, usize, Status)> {
        let (mut bytes, mut key, mut descriptor_bytes, mut version) = (self.bytes, 0, 0, 0);
        let (bytes_out, key_out) = (&raw mut bytes, &raw mut key);
        let (descriptor_out, version_out) = (&raw mut descriptor_bytes, &raw mut version);
        // SAFETY: UEFI, GetMemoryMap: it writes at most `bytes` bytes, which is what `of` allocated (or 0), and four
        // live locals.
        let status = unsafe { (boot.get_memory_map)(bytes_out, self.start, key_out, descriptor_out, version_out) };
        if status == Status::SUCCESS { Ok(key) } else { Err((bytes, descriptor_bytes, status)) }
    }
}

/// Ends boot services. The key says that the firmware's map is still the one that was taken: if it is not, it is taken
/// again.
fn leave_boot_services(boot: &BootServices, image: Handle, map: &mut MapBuffer) -> Status {
    let mut status = Status::ABORTED;
    for _ in 0..TRIES {
        let key = match map.fill(boot) {
            Ok(key) => key,
            Err((_, _, why)) => return why,
        };
        // SAFETY: UEFI, ExitBootServices: it takes this image's own handle; after success nothing of the firmware's but
        // the tree is used.
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
