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
    Eret,
    /// An exception was taken to EL2; `pc` is the vector.
    Exception {
        /// ESR_EL2.
        syndrome: u64,
        /// ELR_EL2: where it came from.
        link: u64,
        /// FAR_EL2, meaningful for aborts.
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
