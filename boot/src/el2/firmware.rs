//! What UEFI said on the way out, kept for the ordinary path: its memory map and the image's load options.
//!
//! Both lie in `.firmware` (memory.S), which nothing zeroes; how many bytes of them are true stands in `.sealed`, which
//! is in the file: a loader that is no UEFI leaves zeros there.

use breakwater::uefi;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Room for the memory map: 682 descriptors of 48 bytes.
pub(super) const MAP_ROOM: usize = 32 << 10;
/// Room for the load options: 2,048 characters.
pub(super) const OPTIONS_ROOM: usize = 4 << 10;
/// The most characters that load options have.
pub(crate) const OPTIONS_CHARACTERS: usize = OPTIONS_ROOM / 2;

unsafe extern "C" {
    /// memory.S: `MAP_ROOM` bytes, at a multiple of 8.
    static firmware_map: u8;
    /// memory.S: `OPTIONS_ROOM` bytes.
    static firmware_options: u8;
}

#[unsafe(link_section = ".sealed.firmware")]
static MAP_BYTES: AtomicUsize = AtomicUsize::new(0);
#[unsafe(link_section = ".sealed.firmware")]
static DESCRIPTOR_BYTES: AtomicUsize = AtomicUsize::new(0);
#[unsafe(link_section = ".sealed.firmware")]
static OPTIONS_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Where UEFI is to write its memory map, up to [`MAP_ROOM`] bytes.
#[inline(always)]
pub(super) fn map_room() -> *mut u8 {
    (&raw const firmware_map).cast_mut()
}

/// Where it is to write the load options, up to [`OPTIONS_ROOM`] bytes.
#[inline(always)]
pub(super) fn options_room() -> *mut u8 {
    (&raw const firmware_options).cast_mut()
}

/// Notes how much of the memory map's room is written.
#[inline(always)]
pub(super) fn keep_map(bytes: usize, descriptor_bytes: usize) {
    MAP_BYTES.store(bytes.min(MAP_ROOM), Ordering::Relaxed);
    DESCRIPTOR_BYTES.store(descriptor_bytes, Ordering::Relaxed);
}

/// Notes how much of the load options' room is written.
#[inline(always)]
pub(super) fn keep_options(bytes: usize) {
    OPTIONS_BYTES.store(bytes.min(OPTIONS_ROOM), Ordering::Relaxed);
}

/// UEFI's memory map as it was when boot services ended, where the image was started by UEFI.
///
/// # Errors
/// It is malformed.
pub(crate) fn memory_map() -> Result<Option<uefi::Map<'static>>, uefi::Error> {
    let bytes = MAP_BYTES.load(Ordering::Relaxed);
    if bytes == 0 {
        return Ok(None);
    }
    // SAFETY: `keep_map` bounds `bytes` by the room that memory.S makes. efi.rs has written it before it noted them,
    // on this CPU and before there was another; it writes the room again only when its own look at the map is over.
    let map = unsafe { core::slice::from_raw_parts(&raw const firmware_map, bytes) };
    uefi::Map::read(map, DESCRIPTOR_BYTES.load(Ordering::Relaxed)).map(Some)
}

/// The load options as text, in `room`; `None` where there are none, or they say nothing.
pub(crate) fn command_line(room: &mut [u8; OPTIONS_CHARACTERS]) -> Option<&[u8]> {
    let bytes = OPTIONS_BYTES.load(Ordering::Relaxed);
    // SAFETY: as for `memory_map`, with `keep_options`.
    let options = unsafe { core::slice::from_raw_parts(&raw const firmware_options, bytes) };
    let characters = room.iter_mut().zip(uefi::load_options(options)).map(|(to, from)| *to = from).count();
    let text = room.get(..characters)?;
    (!text.trim_ascii().is_empty()).then_some(text)
}
