//! What a trace can say. Pure data; [`crate::text`] gives it its text form.

use crate::names::{Operation, Register};

/// One line of a trace after the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The eight bytes at physical address `pa` hold `value` before the first instruction. Memory not declared is unknown to a
    /// judge; QEMU's RAM reads as zero.
    Word {
        /// Physical address, a multiple of 8.
        pa: u64,
        /// The little-endian value.
        value: u64,
    },
    /// What physical memory is from `start` on. A trace that says nothing of the kind leaves it unjudged.
    Memory {
        /// First byte.
        start: u64,
        /// First byte beyond.
        end_exclusive: u64,
        /// What it is.
        kind: MemoryKind,
    },
    /// What a CPU can do, or gets wrong.
    Feature {
        /// The CPU; nothing for all of them.
        cpu: Option<u32>,
        /// Which.
        feature: Feature,
    },
    /// Something that one instruction of one CPU did.
    Step(Step),
    /// How many instructions a CPU had executed when the recording ended.
    Count {
        /// The CPU.
        cpu: u32,
        /// Its instructions, the first one included.
        instructions: u64,
    },
    /// The recording ended here. A trace without this line was cut off.
    End(End),
}

/// What a stretch of physical memory is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryKind {
    /// Memory that may be mapped as Normal.
    Ram,
    /// Flash: it may be mapped as Normal, and a store to it is a command of the part, not its new contents.
    Flash,
    /// Memory that may not be mapped at all, or not as Normal: `no-map` of a device tree.
    NoMap,
}

/// An architectural feature that changes what is owed, or an erratum that does. What a trace does not mention, the CPU has in its weakest form:
/// BBM level 0, no optional feature, no erratum, 48-bit addresses, 64-byte lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Feature {
    /// FEAT_BBM, level 0 to 2, or 3 for a part on the architecture's or an implementer's list of those that never abort.
    Bbm(u8),
    /// FEAT_ETS2.
    Ets2,
    /// FEAT_nTLBPA.
    NTlbPa,
    /// FEAT_TLBIRANGE.
    TlbiRange,
    /// FEAT_TTL.
    Ttl,
    /// FEAT_HAFDBS: TCR_EL2.HA and HD mean something.
    Hafdbs,
    /// FEAT_LPA2: TCR_EL2.DS means something.
    Lpa2,
    /// Bits of a physical address, 32 to 52.
    PhysicalBits(u8),
    /// Bytes in the smallest data-cache line.
    LineBytes(u16),
    /// The TLB makes no use of the contiguous hint.
    NoContiguous,
    /// FEAT_TTCNP is absent: TTBR0_EL2.CnP is RES0.
    NoCnp,
    /// 1286807 and its like: a broadcast TLBI and its DSB are done twice.
    RepeatTlbi,
    /// 3683289: every change of a valid descriptor is by break-before-make.
    BbmAlways,
    /// 2645198: execute to execute-never is by break-before-make.
    BbmForXn,
    /// E1041: an ISB stands before M goes from 1 to 0.
    IsbBeforeMmuOff,
    /// AC04_CPU_23: a DSB stands before a write of HCR_EL2, and an ISB after.
    HcrBarriers,
    /// 819472 and its like: DC CVAC may not clean; DC CIVAC does.
    CleanInvalidates,
    /// No feature of a part: root switches are held to rules that the architecture does not have, and that whoever declares this keeps to.
    StrictSwitch,
}

/// Why a recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The machine stopped by itself, or was stopped.
    Exit,
    /// The instruction limit asked for was reached.
    Limit,
    /// The file reached its largest size.
    Cap,
}

/// One event, and the instruction it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Index of the CPU.
    pub cpu: u32,
    /// Ordinal of the instruction among those of this CPU; its first has number 1. An instruction that faults has a number, and
    /// another when it is executed again.
    pub instruction: u64,
    /// Virtual address of the instruction.
    pub pc: u64,
    /// What it did.
    pub event: Event,
}

/// What an instruction did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The CPU is about to execute its first instruction, at this exception level.
    Start {
        /// 0 to 3.
        exception_level: u8,
    },
    /// A register as it was found before the first instruction.
    Found {
        /// Which.
        register: Register,
        /// Its value.
        value: u64,
    },
    /// A store was performed.
    Store(Access),
    /// A load was performed.
    Load(Access),
    /// The register is written with this value, in force from the next instruction at the earliest.
    Msr {
        /// Which.
        register: Register,
        /// The value.
        value: u64,
    },
    /// The register is read.
    Mrs {
        /// Which.
        register: Register,
    },
    /// TLBI, DC, IC or AT.
    Maintain {
        /// What it does.
        operation: Operation,
        /// The general register's value, undecoded; 0 for operations without one.
        operand: u64,
    },
    /// Data synchronisation barrier.
    Dsb(Barrier),
    /// Data memory barrier.
    Dmb(Barrier),
    /// Instruction synchronisation barrier.
    Isb,
    /// Exception return.
    Eret {
        /// The exception level that it returns to, where the recording says so.
        to: Option<u8>,
    },
    /// An exception was taken; `pc` is the vector.
    Exception {
        /// The exception level that it was taken to: 2 or 3. Those to EL1 are in no trace.
        to: u8,
        /// ESR of that level.
        syndrome: u64,
        /// ELR: where it came from.
        link: u64,
        /// FAR, meaningful for aborts.
        fault_address: u64,
    },
    /// SVC, HVC, SMC, BRK or HLT.
    Call {
        /// Which.
        call: Call,
        /// The immediate.
        immediate: u16,
        /// x0 to x3 before the call.
        arguments: [u64; 4],
    },
    /// The supply of frames hands these bytes out: whoever asked may use them for anything.
    Take {
        /// Physical address of the first byte.
        pa: u64,
        /// How many.
        bytes: u64,
    },
    /// These bytes return to the supply of frames: nothing may translate through them, or by what no longer stands in a table to them.
    Give {
        /// Physical address of the first byte.
        pa: u64,
        /// How many.
        bytes: u64,
    },
    /// At this point the software claims that nothing is owed: a request has returned, a phase is over.
    Settled,
    /// What is to be judged is entered: its loader's doings end here. What the loader promises clean to the point of
    /// coherency if the MMU is off lies at `pa`; [`Record::Word`]s that follow say what it holds.
    Enter {
        /// Physical address of the first byte.
        pa: u64,
        /// How many; 0 where nothing is promised.
        bytes: u64,
    },
    /// Execution continues at `pc`, straight on for at most this many instructions.
    Fetch {
        /// Upper bound, in instructions; the CPU's next `Fetch` says how many they were.
        instructions: u32,
    },
}

/// A load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Size: 1, 2, 4, 8 or 16.
    pub bytes: u8,
    /// Virtual address.
    pub va: u64,
    /// Physical address of the first byte.
    pub pa: u64,
    /// The value, low half first; the high half is 0 below 16 bytes.
    pub value: [u64; 2],
    /// True for a device, false for memory.
    pub device: bool,
    /// True for a store-release: whoever sees it sees what its CPU has stored before. No load is one.
    pub release: bool,
}

/// A barrier's domain and kind, as encoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Barrier {
    /// CRm: domain in bits 3 to 2, kind in bits 1 to 0.
    pub crm: u8,
    /// True for the nXS form of DSB.
    pub without_xs: bool,
}

impl Barrier {
    /// True where loads and stores both complete before it, as a TLBI needs. Reserved encodings act as SY.
    pub const fn orders_everything(self) -> bool {
        self.without_xs || matches!(self.crm & 3, 0 | 3)
    }
}

/// The instructions that call somebody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// To EL1.
    Svc,
    /// To EL2.
    Hvc,
    /// To EL3, or QEMU's own PSCI.
    Smc,
    /// Breakpoint.
    Brk,
    /// To the debugger: semihosting when the immediate is 0xf000.
    Hlt,
}
