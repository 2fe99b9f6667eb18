//! ESR_EL2 in words.
//!
//! Why it exists: an exception is reported on a machine where nobody may have a manual or a debugger at hand. One line must say
//! what happened: `data abort, write, permission fault at level 3 (ESR 0x9600004f)`.
//!
//! What must hold: every value has a line, reserved ones included; the number itself is always part of it.
//!
//! Fields, Arm ARM DDI 0487, ESR_EL2: EC 31:26, ISS 24:0. Of an abort's ISS: fault status code 5:0, WnR 6, S1PTW 7, CM 8, FnV 10.

#![forbid(unsafe_code)]

use core::fmt;

/// A value of ESR_EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syndrome(pub u64);

/// Why a memory access failed: an abort's fault status code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The level of the walk where it was found; negative ones belong to wider address spaces than this image uses.
    pub level: Option<i8>,
}

/// Kinds of memory faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// An output address, or a table's, has more bits than TCR_EL2.PS allows.
    AddressSize,
    /// No valid descriptor.
    Translation,
    /// The access flag is clear.
    AccessFlag,
    /// The rights do not allow it.
    Permission,
    /// The system answered with an error.
    External,
    /// The system answered the walk with an error.
    ExternalOnWalk,
    /// An allocation tag does not match.
    TagCheck,
    /// A memory error.
    Parity,
    /// A memory error on the walk.
    ParityOnWalk,
    /// Granule protection.
    GranuleProtection,
    /// Granule protection, on the walk.
    GranuleProtectionOnWalk,
    /// An address that is not a multiple of what it should be, or Device memory accessed in a way it does not take.
    Alignment,
    /// Two TLB entries for one address: break-before-make was violated.
    TlbConflict,
    /// An atomic update of a descriptor by hardware that the memory does not take.
    UnsupportedAtomicUpdate,
    /// IMPLEMENTATION DEFINED: lockdown.
    Lockdown,
    /// An exclusive or atomic access that the memory does not take.
    UnsupportedExclusive,
    /// A code without a meaning.
    Reserved(u8),
}

impl Fault {
    /// Reads a fault status code, bits 5:0 of an abort's ISS.
    #[must_use]
    pub const fn decode(iss: u64) -> Self {
        let code = (iss & 0x3f) as u8;
        let low = Some((code & 3) as i8);
        let (kind, level) = match code {
            0x00..=0x03 => (FaultKind::AddressSize, low),
            0x04..=0x07 => (FaultKind::Translation, low),
            0x08..=0x0b => (FaultKind::AccessFlag, low),
            0x0c..=0x0f => (FaultKind::Permission, low),
            0x10 => (FaultKind::External, None),
            0x11 => (FaultKind::TagCheck, None),
            0x12 => (FaultKind::ExternalOnWalk, Some(-2)),
            0x13 => (FaultKind::ExternalOnWalk, Some(-1)),
            0x14..=0x17 => (FaultKind::ExternalOnWalk, low),
            0x18 => (FaultKind::Parity, None),
            0x1b => (FaultKind::ParityOnWalk, Some(-1)),
            0x1c..=0x1f => (FaultKind::ParityOnWalk, low),
            0x21 => (FaultKind::Alignment, None),
            0x22 => (FaultKind::GranuleProtectionOnWalk, Some(-2)),
            0x23 => (FaultKind::GranuleProtectionOnWalk, Some(-1)),
            0x24..=0x27 => (FaultKind::GranuleProtectionOnWalk, low),
            0x28 => (FaultKind::GranuleProtection, None),
            0x29 => (FaultKind::AddressSize, Some(-1)),
            0x2a => (FaultKind::Translation, Some(-2)),
            0x2b => (FaultKind::Translation, Some(-1)),
            0x2c => (FaultKind::AddressSize, Some(-2)),
            0x30 => (FaultKind::TlbConflict, None),
            0x31 => (FaultKind::UnsupportedAtomicUpdate, None),
            0x34 => (FaultKind::Lockdown, None),
            0x35 => (FaultKind::UnsupportedExclusive, None),
            _ => (FaultKind::Reserved(code), None),
        };
        Self { kind, level }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            FaultKind::AddressSize => "address size fault",
            FaultKind::Translation => "translation fault",
            FaultKind::AccessFlag => "access flag fault",
            FaultKind::Permission => "permission fault",
            FaultKind::External => "synchronous external abort",
            FaultKind::ExternalOnWalk => "synchronous external abort on the walk",
            FaultKind::TagCheck => "tag check fault",
            FaultKind::Parity => "synchronous parity or ECC error",
            FaultKind::ParityOnWalk => "synchronous parity or ECC error on the walk",
            FaultKind::GranuleProtection => "granule protection fault",
            FaultKind::GranuleProtectionOnWalk => "granule protection fault on the walk",
            FaultKind::Alignment => "alignment fault",
            FaultKind::TlbConflict => "TLB conflict",
            FaultKind::UnsupportedAtomicUpdate => "unsupported atomic hardware update",
            FaultKind::Lockdown => "implementation-defined fault (lockdown)",
            FaultKind::UnsupportedExclusive => "implementation-defined fault (unsupported exclusive or atomic access)",
            FaultKind::Reserved(code) => return write!(f, "reserved fault status {code:#x}"),
        })?;
        match self.level {
            Some(level) => write!(f, " at level {level}"),
            None => Ok(()),
        }
    }
}

const TRAPPED_REGISTER: u8 = 0x18;
const INSTRUCTION_ABORT: [u8; 2] = [0x20, 0x21];
const DATA_ABORT: [u8; 2] = [0x24, 0x25];
const SERROR: u8 = 0x2f;
/// Classes whose ISS holds, in bits 15:0, the number that the instruction carries: SVC, HVC, SMC (AArch64), BRK.
const WITH_NUMBER: [u8; 4] = [0x15, 0x16, 0x17, 0x3c];

impl Syndrome {
    /// The exception class, EC.
    #[must_use]
    pub const fn class(self) -> u8 {
        (self.0 >> 26 & 0x3f) as u8
    }

    /// What an abort's fault status code says; `None` for what is no abort.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        let abort = self.is_data_abort() || INSTRUCTION_ABORT.contains(&self.class());
        abort.then(|| Fault::decode(self.0))
    }

    /// Whether FAR_EL2 holds the faulting address.
    #[must_use]
    pub fn has_address(self) -> bool {
        // 0x22 is PC alignment, 0x34 and 0x35 watchpoints. FnV, bit 10, counts only for an external abort that is not on a walk.
        match self.fault() {
            Some(Fault { kind: FaultKind::External, .. }) => !self.bit(10),
            Some(_) => true,
            None => matches!(self.class(), 0x22 | 0x34 | 0x35),
        }
    }

    fn is_data_abort(self) -> bool {
        DATA_ABORT.contains(&self.class())
    }

    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    fn fmt_abort(self, fault: Fault, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_data_abort() {
            // CM, bit 8: WnR then says nothing.
            f.write_str(match (self.bit(8), self.bit(6)) {
                (true, _) => ", cache maintenance",
                (false, true) => ", write",
                (false, false) => ", read",
            })?;
        }
        write!(f, ", {fault}")?;
        if self.bit(7) {
            f.write_str(", on the walk of stage 1")?;
        }
        if !self.has_address() {
            f.write_str(", FAR not valid")?;
        }
        Ok(())
    }

    /// ISS of a trapped MSR, MRS or system instruction: op0 21:20, op2 19:17, op1 16:14, CRn 13:10, Rt 9:5, CRm 4:1, read 0.
    fn fmt_register(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let iss = self.0;
        let direction = if self.bit(0) { "read" } else { "write" };
        let (op0, op1, op2) = (iss >> 20 & 3, iss >> 14 & 7, iss >> 17 & 7);
        write!(f, ", {direction} of S{op0}_{op1}_C{}_C{}_{op2}", iss >> 10 & 0xf, iss >> 1 & 0xf)
    }

    /// ISS of an SError: IDS, bit 24, makes the rest implementation defined; AET, 12:10, counts when the status code is 0x11.
    fn fmt_serror(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bit(24) {
            return f.write_str(", implementation-defined syndrome");
        }
        if self.0 & 0x3f != 0x11 {
            return f.write_str(", uncategorised");
        }
        f.write_str(match self.0 >> 10 & 7 {
            0 => ", uncontainable",
            1 => ", unrecoverable",
            2 => ", restartable",
            3 => ", recoverable",
            6 => ", corrected",
            _ => ", reserved severity",
        })
    }
}

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = self.class();
        match class_name(class) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "reserved exception class {class:#x}")?,
        }
        match self.fault() {
            Some(fault) => self.fmt_abort(fault, f)?,
            None if class == TRAPPED_REGISTER => self.fmt_register(f)?,
            None if class == SERROR => self.fmt_serror(f)?,
            None if WITH_NUMBER.contains(&class) => write!(f, " {:#x}", self.0 & 0xffff)?,
            None => {}
        }
        write!(f, " (ESR {:#x})", self.0)
    }
}

/// What an exception class means; `None` for reserved ones.
const fn class_name(class: u8) -> Option<&'static str> {
    Some(match class {
        0x00 => "unknown reason (an undefined instruction?)",
        0x01 => "trapped WFI or WFE",
        0x03 => "trapped MCR or MRC (coprocessor 15)",
        0x04 => "trapped MCRR or MRRC (coprocessor 15)",
        0x05 => "trapped MCR or MRC (coprocessor 14)",
        0x06 => "trapped LDC or STC",
        0x07 => "trapped floating point, SIMD or SVE",
        0x08 => "trapped VMRS",
        0x09 => "trapped pointer authentication",
        0x0a => "trapped instruction",
        0x0c => "trapped MRRC (coprocessor 14)",
        0x0d => "branch target exception (BTI)",
        0x0e => "illegal execution state",
        0x11 => "SVC (AArch32)",
        0x12 => "HVC (AArch32)",
        0x13 => "SMC (AArch32)",
        0x14 => "trapped MSRR, MRRS or SYSP",
        0x15 => "SVC",
        0x16 => "HVC",
        0x17 => "SMC",
        0x18 => "trapped MSR, MRS or system instruction",
        0x19 => "trapped SVE",
        0x1a => "trapped ERET",
        0x1b => "trapped TSTART",
        0x1c => "pointer authentication failure",
        0x1d => "trapped SME",
        0x1e => "granule protection check exception",
        0x20 => "instruction abort from a lower EL",
        0x21 => "instruction abort",
        0x22 => "PC alignment fault",
        0x24 => "data abort from a lower EL",
        0x25 => "data abort",
        0x26 => "SP alignment fault",
        0x27 => "memory copy or set exception",
        0x28 => "floating point exception (AArch32)",
        0x2c => "floating point exception",
        0x2d => "guarded control stack exception",
        0x2f => "SError",
        0x30 => "breakpoint in a lower EL",
        0x31 => "breakpoint",
        0x32 => "software step in a lower EL",
        0x33 => "software step",
        0x34 => "watchpoint in a lower EL",
        0x35 => "watchpoint",
        0x38 => "BKPT (AArch32)",
        0x3a => "vector catch (AArch32)",
        0x3c => "BRK",
        0x3d => "profiling exception",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
