//! Why this image stops instead of going on, as numbers that survive without a console.
//!
//! A refusal leaves its cause in x0 and at the symbol `refusal_cause` of the stopped CPU (symbol `refused`); with a console, or
//! earlycon=semihosting, it also says one line. Numbers never change their meaning.

#![forbid(unsafe_code)]

/// The cause of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Cause {
    /// Entered at EL1: no EL2 to run at.
    EnteredAtEl1 = 1,
    /// SCTLR_EL2.M is set at entry: of a secondary, or of the boot CPU in a map that is not flat.
    MmuOnAtEntry = 2,
    /// HCR_EL2.E2H reads 1 after 0 was written.
    E2hStuck = 3,
    /// No 4 KiB granule at stage 1.
    NoGranule = 4,
    /// A secondary translates to fewer physical bits than the tables use.
    SmallerPaRange = 5,
    /// The image is not loaded at a multiple of 4 KiB.
    ImageMisaligned = 6,
    /// The image ends above [`crate::layout::IDENTITY`].
    ImageTooHigh = 7,
    /// An exception before the MMU was on.
    ExceptionBeforeMmu = 8,
    /// An exception inside the exception path.
    ExceptionInException = 9,
    /// The CPU's ID registers say that the image cannot run on it.
    Cpu = 16,
    /// The device tree is missing, malformed or at odds with itself.
    DeviceTree = 17,
    /// The memory that it describes cannot be used.
    Memory = 18,
    /// A known option of the command line is malformed.
    CommandLine = 19,
    /// The page-table manager refused a mapping that boot needs.
    Mapping = 20,
    /// A secondary lacks what the running CPUs rely on.
    Secondary = 21,
    /// ACPI's tables are malformed or at odds with themselves.
    Acpi = 22,
}
