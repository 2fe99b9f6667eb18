//! QEMU's plugin interface, version 4 (QEMU >= 9.2), and the only unsafe code of this package.
//!
//! QEMU packages no header, so what is used of it is declared here by hand; the symbols are resolved from the QEMU executable when it
//! loads the plugin. Towards the rest of the package everything is safe: handles carry the lifetime of the callback that they are
//! valid in, and user data is a number, never a pointer that is followed.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::marker::PhantomData;
use core::ptr;
use std::collections::HashMap;

use crate::recorder;

/// Tells QEMU which interface version this plugin speaks; QEMU refuses it by name when it is older.
// SAFETY: no other symbol of this name exists in the process: QEMU looks it up in each plugin separately.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub(crate) static qemu_plugin_version: c_int = 4;

#[repr(C)]
struct RawBlock([u8; 0]);
#[repr(C)]
struct RawInstruction([u8; 0]);
#[repr(C)]
struct RawScoreboard([u8; 0]);
#[repr(C)]
struct RawRegister([u8; 0]);
#[repr(C)]
struct RawPhysical([u8; 0]);

/// `qemu_info_t`.
#[repr(C)]
struct RawInfo {
    target_name: *const c_char,
    version_min: c_int,
    version_current: c_int,
    system_emulation: bool,
    smp_vcpus: c_int,
    max_vcpus: c_int,
}

/// `qemu_plugin_u64`: one 64-bit counter per CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawCounter {
    scoreboard: *mut RawScoreboard,
    offset: usize,
}

/// `qemu_plugin_reg_descriptor`.
#[repr(C)]
struct RawDescriptor {
    handle: *mut RawRegister,
    name: *const c_char,
    feature: *const c_char,
}

/// `qemu_plugin_mem_value`: a tag that the access size makes superfluous, and a union of up to 16 bytes.
#[repr(C)]
struct RawValue {
    kind: c_int,
    data: [u64; 2],
}

/// glib's `GArray` and `GByteArray`, which begin alike.
#[repr(C)]
struct RawArray {
    data: *mut u8,
    len: c_uint,
}

type UserCallback = extern "C" fn(c_uint, *mut c_void);
type MemoryCallback = extern "C" fn(c_uint, u32, u64, *mut c_void);

const READS_REGISTERS: c_int = 1;
const LOADS: c_int = 1;
const STORES: c_int = 2;
const OP_ADD: c_int = 0;
const IF_EQUAL: c_int = 2;
const IF_GREATER_OR_EQUAL: c_int = 7;

#[rustfmt::skip]
unsafe extern "C" {
    fn qemu_plugin_outs(text: *const c_char);
    fn qemu_plugin_num_vcpus() -> c_int;
    fn qemu_plugin_register_vcpu_init_cb(id: u64, callback: extern "C" fn(u64, c_uint));
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut RawBlock));
    fn qemu_plugin_register_atexit_cb(id: u64, callback: extern "C" fn(u64, *mut c_void), user: *mut c_void);

    fn qemu_plugin_tb_n_insns(block: *const RawBlock) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const RawBlock, index: usize) -> *mut RawInstruction;
    fn qemu_plugin_insn_data(insn: *const RawInstruction, to: *mut c_void, bytes: usize) -> usize;
    fn qemu_plugin_insn_vaddr(insn: *const RawInstruction) -> u64;

    fn qemu_plugin_register_vcpu_tb_exec_cb(block: *mut RawBlock, callback: UserCallback, flags: c_int, user: *mut c_void);
    fn qemu_plugin_register_vcpu_tb_exec_cond_cb(block: *mut RawBlock, callback: UserCallback, flags: c_int, condition: c_int, counter: RawCounter, bound: u64, user: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_cb(insn: *mut RawInstruction, callback: UserCallback, flags: c_int, user: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn: *mut RawInstruction, operation: c_int, counter: RawCounter, operand: u64);
    fn qemu_plugin_register_vcpu_mem_cb(insn: *mut RawInstruction, callback: MemoryCallback, flags: c_int, kinds: c_int, user: *mut c_void);

    fn qemu_plugin_mem_size_shift(info: u32) -> c_uint;
    fn qemu_plugin_mem_get_value(info: u32) -> RawValue;
    fn qemu_plugin_get_hwaddr(info: u32, va: u64) -> *mut RawPhysical;
    fn qemu_plugin_hwaddr_is_io(physical: *const RawPhysical) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(physical: *const RawPhysical) -> u64;

    fn qemu_plugin_read_memory_vaddr(va: u64, to: *mut RawArray, bytes: usize) -> bool;

    fn qemu_plugin_scoreboard_new(element_bytes: usize) -> *mut RawScoreboard;
    fn qemu_plugin_u64_get(counter: RawCounter, cpu: c_uint) -> u64;

    fn qemu_plugin_get_registers() -> *mut RawArray;
    fn qemu_plugin_read_register(register: *mut RawRegister, to: *mut RawArray) -> c_int;

    // glib and the C library, both already in the process.
    fn g_byte_array_new() -> *mut RawArray;
    fn g_byte_array_free(array: *mut RawArray, free_data: c_int) -> *mut u8;
    fn g_byte_array_set_size(array: *mut RawArray, length: c_uint) -> *mut RawArray;
    fn g_array_free(array: *mut RawArray, free_data: c_int) -> *mut c_char;
    fn getpid() -> c_int;
    fn kill(process: c_int, signal: c_int) -> c_int;
}

/// Shows `text` where QEMU shows plugin messages.
pub(crate) fn say(text: &str) {
    let mut bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    bytes.extend_from_slice(b"\n\0");
    // SAFETY: a NUL-terminated string that outlives the call; QEMU copies it.
    unsafe { qemu_plugin_outs(bytes.as_ptr().cast()) }
}

/// Asks QEMU to end in good order: its own handler of SIGTERM shuts the machine down and runs the exit callbacks.
pub(crate) fn stop_machine() {
    const SIGTERM: c_int = 15;
    // SAFETY: takes no argument and always succeeds.
    let this_process = unsafe { getpid() };
    // Not raise(): it signals the calling thread, and CPU threads block signals.
    // SAFETY: touches no memory of ours, and the process is this one.
    unsafe { kill(this_process, SIGTERM) };
}

/// Number of CPUs that have started.
pub(crate) fn cpus() -> u32 {
    // SAFETY: takes no argument and may be called at any time after installation.
    let started = unsafe { qemu_plugin_num_vcpus() };
    u32::try_from(started).unwrap_or(0)
}

/// One exact counter per CPU.
pub(crate) struct Counter(RawCounter);

// SAFETY: the scoreboard is allocated once, never freed, and QEMU synchronises its growth; the handle is only ever passed back to
// QEMU, from whichever CPU thread.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

impl Counter {
    /// A counter at zero for every CPU, those that start later included.
    pub(crate) fn new() -> Self {
        // SAFETY: called during installation, where QEMU allows it; 8 bytes is one counter.
        let scoreboard = unsafe { qemu_plugin_scoreboard_new(8) };
        Self(RawCounter { scoreboard, offset: 0 })
    }

    /// The count of `cpu`.
    pub(crate) fn of(&self, cpu: u32) -> u64 {
        // SAFETY: the scoreboard lives for ever, and `cpu` is an index that QEMU handed out.
        unsafe { qemu_plugin_u64_get(self.0, cpu) }
    }
}

/// A translation block under construction.
pub(crate) struct Block<'callback> {
    raw: *mut RawBlock,
    callback: PhantomData<&'callback ()>,
}

/// An instruction under translation.
pub(crate) struct Instruction<'callback> {
    raw: *mut RawInstruction,
    callback: PhantomData<&'callback ()>,
}

impl Block<'_> {
    /// Its instructions, in order.
    pub(crate) fn instructions(&self) -> impl Iterator<Item = Instruction<'_>> {
        // SAFETY: the block is valid during the translation callback, which `self` cannot outlive.
        let count = unsafe { qemu_plugin_tb_n_insns(self.raw) };
        (0..count).map(|index| {
            // SAFETY: as above, and the index is below the count.
            let raw = unsafe { qemu_plugin_tb_get_insn(self.raw, index) };
            Instruction { raw, callback: PhantomData }
        })
    }

    /// Calls [`recorder::fetched`] each time the block begins.
    pub(crate) fn report_fetch(&self, site: u32) {
        // SAFETY: the block is valid; the callback takes user data as a number.
        unsafe { qemu_plugin_register_vcpu_tb_exec_cb(self.raw, on_fetch, 0, user(site)) }
    }

    /// Calls [`recorder::started`] when the block begins on a CPU that has executed nothing yet.
    pub(crate) fn report_start(&self, counter: &Counter, site: u32) {
        self.report_if(on_start, IF_EQUAL, counter, 0, site);
    }

    /// Calls [`recorder::reached_limit`] when the block begins on a CPU that has executed at least `limit` instructions.
    pub(crate) fn report_limit(&self, counter: &Counter, limit: u64) {
        self.report_if(on_limit, IF_GREATER_OR_EQUAL, counter, limit, 0);
    }

    fn report_if(&self, callback: UserCallback, condition: c_int, counter: &Counter, bound: u64, site: u32) {
        // SAFETY: block and counter are valid; the callback takes user data as a number.
        unsafe {
            qemu_plugin_register_vcpu_tb_exec_cond_cb(
                self.raw,
                callback,
                READS_REGISTERS,
                condition,
                counter.0,
                bound,
                user(site),
            );
        }
    }
}

impl Instruction<'_> {
    /// Its virtual address.
    pub(crate) fn va(&self) -> u64 {
        // SAFETY: the instruction is valid during the translation callback, which `self` cannot outlive.
        unsafe { qemu_plugin_insn_vaddr(self.raw) }
    }

    /// Its encoding.
    pub(crate) fn word(&self) -> u32 {
        let mut bytes = [0; 4];
        // SAFETY: as above; the buffer takes the four bytes asked for.
        unsafe { qemu_plugin_insn_data(self.raw, bytes.as_mut_ptr().cast(), bytes.len()) };
        u32::from_le_bytes(bytes)
    }

    /// Adds one to the executing CPU's counter before the instruction, and before any callback registered after this call.
    pub(crate) fn count(&self, counter: &Counter) {
        // SAFETY: instruction and counter are valid.
        unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.raw, OP_ADD, counter.0, 1) }
    }

    /// Calls [`recorder::executes`] before each execution.
    pub(crate) fn report_execution(&self, site: u32) {
        // SAFETY: the instruction is valid; the callback takes user data as a number.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(self.raw, on_execution, READS_REGISTERS, user(site)) }
    }

    /// Calls [`recorder::entered`] before each execution.
    pub(crate) fn report_entry(&self, site: u32) {
        // SAFETY: the instruction is valid; the callback takes user data as a number.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(self.raw, on_entry, READS_REGISTERS, user(site)) }
    }

    /// Calls [`recorder::may_enter`] before each execution.
    pub(crate) fn report_entry_of_image(&self, site: u32) {
        // SAFETY: the instruction is valid; the callback takes user data as a number.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(self.raw, on_image, READS_REGISTERS, user(site)) }
    }

    /// Calls [`recorder::reached_limit`] before each execution.
    pub(crate) fn report_limit(&self) {
        // SAFETY: the instruction is valid; the callback takes no user data.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(self.raw, on_limit, READS_REGISTERS, user(0)) }
    }

    /// Calls [`recorder::loaded`] after each load that it performs.
    pub(crate) fn report_loads(&self, site: u32) {
        // SAFETY: the instruction is valid; the callback takes user data as a number.
        unsafe { qemu_plugin_register_vcpu_mem_cb(self.raw, on_load, 0, LOADS, user(site)) }
    }

    /// Calls [`recorder::stored`] after each store that it performs.
    pub(crate) fn report_stores(&self, site: u32) {
        // SAFETY: the instruction is valid; the callback takes user data as a number.
        unsafe { qemu_plugin_register_vcpu_mem_cb(self.raw, on_store, 0, STORES, user(site)) }
    }
}

/// What memory holds from `va` on, as the executing CPU sees it; nothing where it sees none. Only inside a callback on
/// the CPU's thread.
fn read_memory(va: u64, bytes: usize) -> Option<Vec<u8>> {
    // SAFETY: takes no argument.
    let array = unsafe { g_byte_array_new() };
    // SAFETY: the array is a fresh GByteArray, which QEMU makes as large as it was asked for.
    let is_read = unsafe { qemu_plugin_read_memory_vaddr(va, array, bytes) };
    // SAFETY: the header is valid.
    let RawArray { data, len } = unsafe { ptr::read(array) };
    let mut read = Vec::new();
    if is_read && len as usize == bytes && bytes > 0 {
        // SAFETY: the array holds `len` bytes, and nobody else has it.
        read.extend_from_slice(unsafe { core::slice::from_raw_parts(data, bytes) });
    }
    // SAFETY: the array is ours, and its data is not used after this.
    unsafe { g_byte_array_free(array, 1) };
    (read.len() == bytes).then_some(read)
}

/// A site's number as user data.
const fn user(site: u32) -> *mut c_void {
    ptr::without_provenance_mut(site as usize)
}

/// The number back.
fn site(user: *mut c_void) -> u32 {
    user.addr() as u32
}

/// A load or store that has just been performed.
pub(crate) struct Access<'callback> {
    info: u32,
    va: u64,
    callback: PhantomData<&'callback ()>,
}

impl Access<'_> {
    /// What was accessed; nothing where QEMU cannot name the physical address.
    pub(crate) fn read(&self) -> Option<breakwater_trace::Access> {
        // SAFETY: `info` and `va` are what QEMU handed to the callback that is still running.
        let physical = unsafe { qemu_plugin_get_hwaddr(self.info, self.va) };
        if physical.is_null() {
            return None;
        }
        // SAFETY: not null, and valid until the callback returns.
        let pa = unsafe { qemu_plugin_hwaddr_phys_addr(physical) };
        // SAFETY: as above.
        let device = unsafe { qemu_plugin_hwaddr_is_io(physical) };
        // SAFETY: `info` as above.
        let shift = unsafe { qemu_plugin_mem_size_shift(self.info) };
        // SAFETY: `info` as above.
        let RawValue { data: [low, high], .. } = unsafe { qemu_plugin_mem_get_value(self.info) };
        let bytes = 1_u8 << shift.min(4);
        // Beyond the access's size the union's bytes are not written.
        let low = if bytes < 8 { low & ((1 << (8 * u32::from(bytes))) - 1) } else { low };
        let value = [low, if bytes == 16 { high } else { 0 }];
        Some(breakwater_trace::Access { bytes, va: self.va, pa, value, device, release: false })
    }
}

/// The registers that QEMU shows to debuggers.
pub(crate) struct Registers {
    /// By lower-case name.
    named: HashMap<String, *mut RawRegister>,
    /// x0 to x30, which every TLBI and DC is asked for.
    general: [Option<*mut RawRegister>; 31],
}

thread_local! {
    /// What QEMU puts a register's bytes into: one for each CPU's thread, for as long as that lives.
    static BYTES: *mut RawArray = {
        // SAFETY: takes no argument.
        unsafe { g_byte_array_new() }
    };
}

// SAFETY: the handles are opaque numbers of QEMU's, the same for every CPU, and only ever passed back to it.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

impl Registers {
    /// Asks QEMU for the list. Only inside the callback that starts a CPU.
    fn list() -> Self {
        let mut registers = HashMap::new();
        // SAFETY: called on the CPU's own thread, as QEMU requires.
        let array = unsafe { qemu_plugin_get_registers() };
        // SAFETY: QEMU returns a GArray of its own that nobody else refers to.
        let RawArray { data, len } = unsafe { ptr::read(array) };
        for index in 0..len as usize {
            // SAFETY: the array holds `len` descriptors.
            let at = unsafe { data.cast::<RawDescriptor>().add(index) };
            // SAFETY: as above; descriptors are plain data.
            let descriptor = unsafe { ptr::read(at) };
            // SAFETY: names are NUL-terminated strings that QEMU never frees.
            let name = unsafe { CStr::from_ptr(descriptor.name) };
            // "_RESERVED": an ID register that QEMU's CPUs have nothing to say in.
            registers.insert(name.to_string_lossy().to_lowercase().replace("_reserved", ""), descriptor.handle);
        }
        // SAFETY: the array is ours to free, with its data, which is not used after this.
        unsafe { g_array_free(array, 1) };
        let general = core::array::from_fn(|number| registers.get(&format!("x{number}")).copied());
        Self { named: registers, general }
    }

    /// The value of the executing CPU's register; nothing if QEMU does not show it. Only inside a callback that was registered
    /// as reading registers.
    pub(crate) fn read(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|handle| Self::value(*handle))
    }

    /// The same of general register `number`.
    pub(crate) fn read_general(&self, number: u8) -> Option<u64> {
        self.general.get(usize::from(number)).copied().flatten().map(Self::value)
    }

    fn value(handle: *mut RawRegister) -> u64 {
        BYTES.with(|array| {
            // SAFETY: the array is this thread's own, and nobody refers to what it held before.
            let array = unsafe { g_byte_array_set_size(*array, 0) };
            // SAFETY: the handle came from QEMU's list, the array is an empty GByteArray.
            unsafe { qemu_plugin_read_register(handle, array) };
            // SAFETY: QEMU appended the register's bytes; the header is valid.
            let RawArray { data, len } = unsafe { ptr::read(array) };
            let mut bytes = [0; 8];
            let taken = bytes.len().min(len as usize);
            if taken > 0 {
                // SAFETY: `taken` is at most the array's length and the buffer's; they do not overlap.
                unsafe { ptr::copy_nonoverlapping(data, bytes.as_mut_ptr(), taken) };
            }
            u64::from_le_bytes(bytes)
        })
    }
}

extern "C" fn on_cpu(_id: u64, cpu: c_uint) {
    recorder::appeared(cpu, Registers::list);
}

extern "C" fn on_translation(_id: u64, raw: *mut RawBlock) {
    recorder::translated(&Block { raw, callback: PhantomData });
}

extern "C" fn on_start(cpu: c_uint, user: *mut c_void) {
    recorder::started(cpu, site(user));
}

extern "C" fn on_fetch(cpu: c_uint, user: *mut c_void) {
    recorder::fetched(cpu, site(user));
}

extern "C" fn on_limit(_cpu: c_uint, _user: *mut c_void) {
    recorder::reached_limit();
}

extern "C" fn on_execution(cpu: c_uint, user: *mut c_void) {
    recorder::executes(cpu, site(user));
}

extern "C" fn on_entry(cpu: c_uint, user: *mut c_void) {
    recorder::entered(cpu, site(user));
}

extern "C" fn on_image(cpu: c_uint, user: *mut c_void) {
    recorder::may_enter(cpu, site(user), read_memory);
}

extern "C" fn on_load(cpu: c_uint, info: u32, va: u64, user: *mut c_void) {
    recorder::loaded(cpu, site(user), &Access { info, va, callback: PhantomData });
}

extern "C" fn on_store(cpu: c_uint, info: u32, va: u64, user: *mut c_void) {
    recorder::stored(cpu, site(user), &Access { info, va, callback: PhantomData });
}

extern "C" fn on_exit(_id: u64, _user: *mut c_void) {
    recorder::exited();
}

/// QEMU's way in.
///
/// # Safety
/// QEMU calls it once, with a valid `info` and `count` NUL-terminated strings at `arguments`.
// SAFETY: no other symbol of this name exists in the process: QEMU looks it up in each plugin separately.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const RawInfo,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: `info` is valid during the call, says QEMU.
    let info = unsafe { &*info };
    // SAFETY: the target's name is a NUL-terminated string.
    let target = unsafe { CStr::from_ptr(info.target_name) };
    let arguments: Vec<String> = (0..usize::try_from(count).unwrap_or(0))
        .map(|index| {
            // SAFETY: the index is below the count.
            let at = unsafe { arguments.add(index) };
            // SAFETY: as above.
            let argument = unsafe { ptr::read(at) };
            // SAFETY: each argument is a NUL-terminated string.
            let argument = unsafe { CStr::from_ptr(argument) };
            argument.to_string_lossy().into_owned()
        })
        .collect();
    let usable = info.system_emulation && target.to_bytes() == b"aarch64";
    let cpus = usize::try_from(info.max_vcpus).unwrap_or(1);
    if let Err(reason) = recorder::install(usable, cpus, &arguments) {
        eprintln!("breakwater-recorder: {reason}");
        return 1;
    }
    // SAFETY: `id` is the one QEMU gave us; the callbacks live as long as the process.
    unsafe { qemu_plugin_register_vcpu_init_cb(id, on_cpu) };
    // SAFETY: as above.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation) };
    // SAFETY: as above.
    unsafe { qemu_plugin_register_atexit_cb(id, on_exit, ptr::null_mut()) };
    0
}
