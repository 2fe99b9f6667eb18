//! The C interface, and all unsafe code of this crate but `el2`'s: what Xen calls, and what it is called for.
//!
//! What must hold: Xen calls on one CPU at a time, with its page-table lock held (c/breakwater.c).

use crate::el2::{self, EARLY_UART, El2, FIXMAP_CONSOLE, PhysToVirt, bounds};
use crate::flags::{INVALID_MFN, Wish};
use crate::host::{Allocator, Frames, Host, NoAudit, NoPatching, Notes, Piece};
use breakwater::addr::{PAGE_BYTES, PhysAddr, PhysSpan, VirtAddr, VirtSpan};
use breakwater::audit::{Audit, Scratch};
use breakwater::bbm::Protocol;
use breakwater::features::CpuFeatures;
use breakwater::frames::OwnedRam;
use breakwater::mapper::Error;
use core::fmt::{self, Write};
use spin::{Mutex, MutexGuard};

unsafe extern "C" {
    /// Prints `bytes` bytes of `text`.
    fn bw_xen_puts(text: *const u8, bytes: usize);
    /// The address of a frame that the directmap shows and Xen has no other use for; 0 where there is none.
    fn bw_xen_frame() -> u64;
    /// Such a frame comes back.
    fn bw_xen_frame_back(frame: u64);
    /// Xen's panic.
    fn bw_xen_panic() -> !;
}

/// What Xen's errno.h calls its errors, negated.
const NO_MEMORY: i32 = -12;
const INVALID: i32 = -22;

static HOST: Mutex<Option<Host<El2>>> = Mutex::new(None);
/// What the audit is told: lent to the host when it starts, for good.
static NOTES: Mutex<Notes> = Mutex::new(Notes::none());
/// For the audit: one for each run of leaves and for each table.
static SCRATCH: Mutex<[Scratch; 1024]> = Mutex::new([Scratch::EMPTY; 1024]);

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the bytes are a live reference's, and Xen only reads them.
        unsafe { bw_xen_puts(text.as_ptr(), text.len()) };
        Ok(())
    }
}

/// Says a line on Xen's console.
fn say(line: fmt::Arguments<'_>) {
    // Xen's console takes everything.
    let _ = writeln!(Console, "breakwater: {line}");
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say(format_args!("{info}"));
    // SAFETY: it does not return, and needs nothing.
    unsafe { bw_xen_panic() }
}

/// What Xen's callers get: 0, or an error of errno.h, after a line that says why.
fn answer(done: Result<(), Error>) -> i32 {
    let Err(error) = done else { return 0 };
    say(format_args!("{error}"));
    if matches!(error, Error::OutOfFrames { .. }) { NO_MEMORY } else { INVALID }
}

fn with<T>(act: impl FnOnce(&mut Host<El2>) -> T) -> T {
    act(HOST.lock().as_mut().expect("bw_setup comes first"))
}

/// Builds the runtime tables and puts them in force. `offset` is the image's physical address - its link address,
/// wrapping. Called once, by the boot CPU, in the first tables.
#[unsafe(no_mangle)]
extern "C" fn bw_setup(offset: u64) {
    let bounds = bounds();
    let physical = |virt: VirtSpan| bounds.physical(virt, offset);
    let pool = physical(bounds.pool);
    let machine = el2::machine(PhysToVirt::pool_only(pool, 0_u64.wrapping_sub(offset)));
    let cpu = CpuFeatures::decode(&el2::id_registers()).unwrap_or_else(|unsupported| panic!("{unsupported}"));
    // SAFETY: the only protocol of Xen's image; `HOST` keeps it, and gives it to nobody.
    let mut protocol = unsafe { Protocol::new(machine, cpu.errata) };
    protocol.use_features(cpu.features);
    protocol.limit_output(cpu.output_bits);
    // SAFETY: the linker script sets the pool aside, outside of .bss, and this function runs once.
    let frames = Frames::new(unsafe { OwnedRam::claim(pool) });
    let pieces = bounds.sections.iter().map(|section| Piece {
        virt: section.virt,
        phys: physical(section.virt).start(),
        attributes: section.attributes,
    });
    let console = EARLY_UART.map(|registers| (FIXMAP_CONSOLE, registers.align_down(PAGE_BYTES)));
    match Host::start(protocol, frames, physical(bounds.image), pieces, console, MutexGuard::leak(NOTES.lock())) {
        Ok(host) => *HOST.lock() = Some(host),
        Err(error) => panic!("the runtime tables: {error}"),
    }
}

/// What TTBR0_EL2 takes.
#[unsafe(no_mangle)]
extern "C" fn bw_root() -> u64 {
    with(|host| host.root().raw())
}

/// Shows `bytes` bytes of RAM from `phys` on in Xen's directmap, at `virt`, but for Xen's image.
#[unsafe(no_mangle)]
extern "C" fn bw_directmap(virt: u64, phys: u64, bytes: u64) -> i32 {
    let (Some(virt), Some(ram)) = (VirtAddr::new(virt), PhysAddr::new(phys).and_then(|at| PhysSpan::of(at, bytes)))
    else {
        return INVALID;
    };
    with(|host| {
        let Some(reached) = host.machine().phys_to_virt().with_directmap(virt, ram) else {
            say(format_args!("RAM lies at too many distances from the directmap"));
            return INVALID;
        };
        host.machine_mut().reach_by(reached);
        answer(host.map_ram(virt, ram))
    })
}

/// Init is over: its sections go, and their frames are RAM, shown by the directmap from `virt` on.
#[unsafe(no_mangle)]
extern "C" fn bw_free_init(virt: u64) -> i32 {
    let Some(virt) = VirtAddr::new(virt) else { return INVALID };
    with(|host| answer(host.free_init(bounds().init, virt)))
}

/// Says how the walk for `virt` goes, for whoever explains a fault: nothing while the tables are being edited.
#[unsafe(no_mangle)]
extern "C" fn bw_walk(virt: u64) {
    let Some(mut host) = HOST.try_lock() else { return };
    if let (Some(host), Some(virt)) = (host.as_mut(), VirtAddr::new(virt)) {
        host.walk(virt, |step| say(format_args!("{}: {:#x}", step.slot, step.descriptor)));
    }
}

fn ask() -> Option<OwnedRam<El2>> {
    // SAFETY: Xen's allocator takes its own locks, and the page-table lock, which is held, is not among them.
    let frame = unsafe { bw_xen_frame() };
    let span = PhysAddr::new(frame).filter(|_| frame != 0).and_then(|frame| PhysSpan::of(frame, PAGE_BYTES))?;
    // SAFETY: the allocator has given it out, to us, and takes it for free again only from `take_back`.
    Some(unsafe { OwnedRam::claim(span) })
}

fn take_back(frame: OwnedRam<El2>) {
    // SAFETY: it came from `ask`, nothing uses it any more, and it is dropped here.
    unsafe { bw_xen_frame_back(frame.span().start().raw()) };
}

/// Xen's directmap shows all RAM.
#[unsafe(no_mangle)]
extern "C" fn bw_directmap_is_whole() {
    with(|host| host.use_allocator(Allocator { ask, take_back }));
}

/// A CPU is about to start: the identity page is mapped for it, and invalidations are broadcast from here on.
#[unsafe(no_mangle)]
extern "C" fn bw_admit() -> i32 {
    with(|host| answer(host.admit()))
}

/// The CPU is there: the identity page goes, unless another CPU may still come.
#[unsafe(no_mangle)]
extern "C" fn bw_admitted() -> i32 {
    with(|host| answer(host.admitted()))
}

/// Called by the CPU that has come: 0, or what it lacks, after a line that says so, and it must stop.
#[unsafe(no_mangle)]
extern "C" fn bw_join() -> i32 {
    let cpu = match CpuFeatures::decode(&el2::id_registers()) {
        Ok(cpu) => cpu,
        Err(unsupported) => {
            say(format_args!("{unsupported}"));
            return INVALID;
        }
    };
    let joined = with(|host| host.join(&cpu));
    joined.map_or_else(
        |unsuited| {
            say(format_args!("{unsuited}"));
            INVALID
        },
        |()| 0,
    )
}

/// Xen is about to map `count` frames from `mfn` on in vmap, to write what it executes elsewhere.
#[unsafe(no_mangle)]
extern "C" fn bw_begin_patching(mfn: u64, count: u64) -> i32 {
    let frames = PhysAddr::new(mfn << 12).and_then(|start| PhysSpan::of(start, count.checked_mul(PAGE_BYTES)?));
    let Some(frames) = frames else { return INVALID };
    match with(|host| host.begin_patching(frames)) {
        Ok(()) => 0,
        Err(NoPatching::Refused(error)) => answer(Err(error)),
        Err(NoPatching::OtherFrames(frames)) => {
            say(format_args!("{frames} are not Xen's image alone"));
            INVALID
        }
    }
}

/// Xen has unmapped them.
#[unsafe(no_mangle)]
extern "C" fn bw_end_patching() -> i32 {
    with(|host| answer(host.end_patching()))
}

/// Holds the tables in force against all that Xen asked for, and says what came of it: how much is not as it was asked
/// for, or a negative number where there is no telling.
#[unsafe(no_mangle)]
extern "C" fn bw_audit() -> i32 {
    match with(|host| host.audit(&mut *SCRATCH.lock())) {
        Ok((audit, parts)) => {
            let Audit { pages, tables, mismatches, writable_executable, first, .. } = audit;
            say(format_args!(
                "audit: {pages} pages in {parts} parts, {tables} tables, {mismatches} mismatches, \
                 {writable_executable} writable and executable"
            ));
            if let Some(first) = first {
                say(format_args!("audit, the first: {first}"));
            }
            i32::try_from(mismatches).unwrap_or(i32::MAX)
        }
        Err(NoAudit::Full(full)) => {
            say(format_args!("audit: {full}"));
            INVALID
        }
        Err(NoAudit::Banks) => {
            say(format_args!("audit: RAM has too many banks"));
            INVALID
        }
    }
}

/// One call of Xen's editor: 0, or -ENOMEM or -EINVAL after a line that says why, and nothing has changed.
#[unsafe(no_mangle)]
extern "C" fn bw_update(virt: u64, mfn: u64, count: u64, flags: u32) -> i32 {
    if count == 0 {
        return 0;
    }
    let Some(wish) = Wish::of(mfn, flags) else {
        say(format_args!("nobody maps by the flags {flags:#x}"));
        return INVALID;
    };
    let span =
        VirtAddr::new(virt).zip(count.checked_mul(PAGE_BYTES)).and_then(|(virt, bytes)| VirtSpan::of(virt, bytes));
    let output = if mfn == INVALID_MFN { Some(PhysAddr::at(0)) } else { PhysAddr::new(mfn << 12) };
    let (Some(span), Some(output)) = (span, output) else {
        say(format_args!("no input address: {virt:#x}, {count} pages"));
        return INVALID;
    };
    with(|host| answer(host.request(span, output, wish)))
}
