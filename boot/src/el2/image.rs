//! Where the parts of the image are: linker.ld's symbols as addresses.

use breakwater::acpi;
use breakwater::addr::{PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::device_tree;
use breakwater::layout;
use breakwater::log::Log;
use breakwater::memory_map::MemoryMap;
use breakwater::regions::{OnDemand, RegionMap};
use breakwater::uefi;
use core::ops::Deref;
use spin::Mutex;

macro_rules! symbols {
    ($($name:ident),* $(,)?) => {
        unsafe extern "C" {
            $(static $name: u8;)*
        }
    };
}

symbols! {
    _text_start, _text_end_exclusive, _init_start, _init_end_exclusive, _idmap_start, _idmap_end_exclusive,
    _rodata_start, _rodata_end_exclusive, _sealed_start, _sealed_end_exclusive, _data_end_exclusive,
    _tables_start, _tables_end_exclusive, _pool_start, _pool_end_exclusive, _boot_stack_start, _boot_stack_end_exclusive,
    _boot_exception_stack_start, _boot_exception_stack_end_exclusive, _image_end_exclusive, secondary_entry,
    spin_table_entry,
}

/// What the build script chose for run time (boot/src/link.rs, `Link`): memory.S, breakwater_settings.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// Bytes of the stack of each CPU but the boot CPU.
    pub cpu_stack_bytes: u64,
    /// 1 if the map has the livepatch slot, else 0.
    pub livepatch: u64,
}

unsafe extern "C" {
    /// memory.S: constants, which the linker filled in.
    #[link_name = "breakwater_settings"]
    safe static SETTINGS: Settings;
}

/// What the build script chose for run time.
#[must_use]
pub fn settings() -> &'static Settings {
    &SETTINGS
}

unsafe extern "C" {
    /// memory.S: the header is in the file; the text is not, and holds anything at first.
    #[link_name = "breakwater_log"]
    safe static LOG: Log;
}

/// What this image has said.
pub(crate) fn log() -> &'static Log {
    &LOG
}

/// The parts of the image, at the addresses they are linked at.
#[derive(Clone, Copy, Debug)]
pub struct ImageMap {
    /// Everything, guard pages included.
    pub whole: VirtSpan,
    /// Code and header that boot frees at its end.
    pub init: VirtSpan,
    /// The identity page.
    pub identity: VirtSpan,
    /// Code that stays.
    pub text: VirtSpan,
    /// Constants.
    pub rodata: VirtSpan,
    /// Data that is read-only after boot.
    pub sealed: VirtSpan,
    /// Data, .bss, the first tables and the pool.
    pub data: VirtSpan,
    /// The first tables, part of `data`.
    pub first_tables: VirtSpan,
    /// The link-time pool of table frames, part of `data`.
    pub pool: VirtSpan,
    /// The boot CPU's stack.
    pub stack: VirtSpan,
    /// The boot CPU's exception stack.
    pub exception_stack: VirtSpan,
}

impl ImageMap {
    /// Where `part` of the image is, when the image's first byte is at `image_start`.
    #[must_use]
    pub fn physical(&self, image_start: PhysAddr, part: VirtSpan) -> PhysSpan {
        let offset = part.start().raw() - self.whole.start().raw();
        // The image lies in IDENTITY (head.S refuses it otherwise), so the sum is in range.
        let start = PhysAddr::at(image_start.raw() + offset);
        PhysSpan::of(start, part.bytes()).unwrap_or_else(|| unreachable!("the image lies in IDENTITY"))
    }
}

/// linker.ld's map of this image.
#[must_use]
pub fn image_map() -> ImageMap {
    let span = |start: *const u8, end_exclusive: *const u8| {
        VirtSpan::new(VirtAddr::at(start as u64), VirtAddr::at(end_exclusive as u64))
            .unwrap_or_else(|| unreachable!("linker.ld orders its symbols"))
    };
    ImageMap {
        whole: span(&raw const _text_start, &raw const _image_end_exclusive),
        init: span(&raw const _init_start, &raw const _init_end_exclusive),
        identity: span(&raw const _idmap_start, &raw const _idmap_end_exclusive),
        text: span(&raw const _idmap_end_exclusive, &raw const _text_end_exclusive),
        rodata: span(&raw const _rodata_start, &raw const _rodata_end_exclusive),
        sealed: span(&raw const _sealed_start, &raw const _sealed_end_exclusive),
        data: span(&raw const _sealed_end_exclusive, &raw const _data_end_exclusive),
        first_tables: span(&raw const _tables_start, &raw const _tables_end_exclusive),
        pool: span(&raw const _pool_start, &raw const _pool_end_exclusive),
        stack: span(&raw const _boot_stack_start, &raw const _boot_stack_end_exclusive),
        exception_stack: span(&raw const _boot_exception_stack_start, &raw const _boot_exception_stack_end_exclusive),
    }
}

/// Where the secondaries enter by PSCI, physically, when link addresses are `link_offset` above physical ones.
pub(super) fn secondary_entry_address(link_offset: u64) -> PhysAddr {
    physical((&raw const secondary_entry) as u64, link_offset)
}

/// Where they enter from a spin table.
pub(super) fn spin_table_entry_address(link_offset: u64) -> PhysAddr {
    physical((&raw const spin_table_entry) as u64, link_offset)
}

fn physical(link_address: u64, link_offset: u64) -> PhysAddr {
    debug_assert!(layout::IMAGE.contains(VirtAddr::at(link_address)));
    PhysAddr::at(link_address.wrapping_sub(link_offset))
}

/// The device tree that firmware passed, or the bundle of ACPI's tables in its place, as far as its slot shows it: the
/// machine's own word on itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirmwareTree(&'static [u8]);

impl FirmwareTree {
    /// Its first `bytes` bytes, mapped at `virt`.
    #[must_use]
    pub(crate) fn at(virt: VirtAddr, bytes: usize) -> Self {
        let last = virt.checked_add(bytes as u64).unwrap_or_else(|| unreachable!("the slot lies below 2^48"));
        assert!(layout::DEVICE_TREE.contains(virt) && last <= layout::DEVICE_TREE.end_exclusive());
        // SAFETY: phases.rs maps the pages of the tree read-only in its slot before it asks; the slot is footing, so
        // they stay; its frames come into no supply, so no request hands out an alias to be written.
        Self(unsafe { core::slice::from_raw_parts(virt.raw() as *const u8, bytes) })
    }

    /// The bytes.
    #[must_use]
    pub(crate) fn bytes(self) -> &'static [u8] {
        self.0
    }

    /// Reads ACPI's tables, a bundle of which lies at `start` in the tree's place, into `machine`, whose RAM `firmware`
    /// knows.
    ///
    /// # Errors
    /// What is wrong with them.
    #[inline(always)] // as read
    pub(crate) fn read_acpi<'m>(
        self,
        start: PhysAddr,
        firmware: Option<uefi::Map<'_>>,
        machine: &'m mut device_tree::Platform,
    ) -> Result<Known<'m>, acpi::Error> {
        acpi::parse(self.0, start, firmware, machine)?;
        Ok(Known(machine))
    }

    /// Reads it, which lies at `start`, into `machine`, of whose RAM `firmware` may know more.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline(always)] // into `boot`, which alone may refer to what is freed
    pub(crate) fn read<'m>(
        self,
        start: PhysAddr,
        firmware: Option<uefi::Map<'_>>,
        machine: &'m mut device_tree::Platform,
    ) -> Result<Known<'m>, device_tree::Error> {
        device_tree::parse(self.0, start, firmware, machine)?;
        Ok(Known(machine))
    }
}

/// The machine as its firmware describes it.
#[derive(Debug)]
pub(crate) struct Known<'m>(&'m device_tree::Platform);

impl<'m> Known<'m> {
    /// What it says of memory.
    pub(super) fn memory(&self) -> &'m MemoryMap {
        &self.0.memory
    }
}

impl Deref for Known<'_> {
    type Target = device_tree::Platform;

    fn deref(&self) -> &Self::Target {
        self.0
    }
}

/// The declarations of what is mapped. In .data, not .bss: zeroing them at entry would cost more than the file grows.
#[unsafe(link_section = ".data.regions")]
static REGIONS: Mutex<RegionMap> = Mutex::new(RegionMap::new());

/// The declarations of what is mapped.
#[must_use]
pub(crate) fn regions() -> &'static Mutex<RegionMap> {
    &REGIONS
}

/// What is mapped on demand. In .data for the same reason.
#[unsafe(link_section = ".data.on_demand")]
static ON_DEMAND: Mutex<OnDemand> = Mutex::new(OnDemand::new());

/// What is mapped on demand.
#[must_use]
pub(crate) fn on_demand() -> &'static Mutex<OnDemand> {
    &ON_DEMAND
}

/// What the firmware says of the machine. In .data, as REGIONS is: zeroing it would cost more than the file grows.
#[unsafe(link_section = ".data.platform")]
static PLATFORM: Mutex<device_tree::Platform> = Mutex::new(device_tree::Platform::new());

/// What the firmware says of the machine.
#[must_use]
pub(crate) fn platform() -> &'static Mutex<device_tree::Platform> {
    &PLATFORM
}
