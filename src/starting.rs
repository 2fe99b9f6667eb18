//! Whether a CPU can be started, and how.
//!
//! Why it exists: the device tree says how each CPU is started, and may be wrong; a CPU that stays behind must be named
//! with the reason. Where it is a spin table, starting means a store to memory that somebody else chose: that is
//! decided here, before anything is stored.
//!
//! What must hold (Linux, Documentation/arch/arm64/booting.rst): a CPU with a spin table polls eight bytes of RAM that
//! are reserved, so that nobody uses them for anything else. A [`ReleaseAddress`] is one that keeps this, and that the
//! directmap maps.
//!
//! What it refuses: see [`LeftOff`]; each is one line.

#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysSpan};
use crate::device_tree::{Conduit, EnableMethod};
use crate::memory_map::MemoryMap;
use core::fmt;

/// Bytes of a release address: where the CPU finds its entry point.
const RELEASE_BYTES: u64 = 8;

/// Where a CPU polls for its entry point: aligned to 8 bytes, in RAM that may be mapped as Normal memory, reserved, and
/// in nothing that the loader put there. The directmap reaches it, and nobody is given its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReleaseAddress(PhysAddr);

impl ReleaseAddress {
    /// The address.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.0
    }

    /// `address` as a release address of the machine whose memory is `memory`, where the image is at `image`.
    fn check(address: u64, memory: &MemoryMap, image: PhysSpan) -> Result<Self, LeftOff> {
        if !address.is_multiple_of(RELEASE_BYTES) {
            return Err(LeftOff::ReleaseMisaligned { address });
        }
        let place = PhysAddr::new(address).and_then(|start| PhysSpan::of(start, RELEASE_BYTES));
        let place = place.ok_or(LeftOff::ReleaseNotMapped { address })?;
        if !memory.mappable().any(|span| span.covers(place)) {
            return Err(LeftOff::ReleaseNotMapped { address });
        }
        let loaded = memory.modules().map(|module| module.span).chain(memory.device_tree).chain([image]);
        if { loaded }.any(|span| span.page_cover().intersection(place).is_some()) {
            return Err(LeftOff::ReleaseInUse { address });
        }
        if !memory.reserved.covers(place) {
            return Err(LeftOff::ReleaseNotReserved { address });
        }
        Ok(Self(place.start()))
    }
}

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By PSCI's CPU_ON.
    Psci,
    /// By storing the entry point at this address, which other CPUs may poll too.
    SpinTable(ReleaseAddress),
}

impl Way {
    /// How a CPU with the enable method `method` is started, where PSCI can be called as `psci` says, memory is
    /// `memory`, and the image is at `image`.
    ///
    /// # Errors
    /// [`LeftOff`]: why it cannot be.
    pub fn of(
        method: EnableMethod,
        psci: Result<(), LeftOff>,
        memory: &MemoryMap,
        image: PhysSpan,
    ) -> Result<Self, LeftOff> {
        match method {
            EnableMethod::Psci => psci.map(|()| Self::Psci),
            EnableMethod::SpinTable { release_address } => {
                let address = release_address.ok_or(LeftOff::NoReleaseAddress)?;
                ReleaseAddress::check(address, memory, image).map(Self::SpinTable)
            }
            EnableMethod::ParkingProtocol => Err(LeftOff::ParkingProtocol),
            EnableMethod::Unknown => Err(LeftOff::UnknownMethod),
            EnableMethod::None => Err(LeftOff::NoMethod),
        }
    }
}

/// Whether firmware answers PSCI, which the device tree says is called by `conduit`, after an entry at exception level
/// `entry_level`.
///
/// # Errors
/// Why it does not.
pub fn psci(conduit: Option<Conduit>, entry_level: u8) -> Result<(), LeftOff> {
    match conduit {
        None => Err(LeftOff::NoPsci),
        Some(Conduit::Hvc) => Err(LeftOff::PsciByHvc),
        Some(Conduit::Smc) if entry_level != 2 => Err(LeftOff::NoFirmware),
        Some(Conduit::Smc) => Ok(()),
    }
}

/// Why a CPU is not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftOff {
    /// More CPUs than the command line allows.
    OverTheLimit,
    /// More CPUs than the image can bring up: [`crate::layout::MAX_CPUS`].
    BeyondTheImage,
    /// Its node has no `enable-method`.
    NoMethod,
    /// It waits by ACPI's parking protocol.
    ParkingProtocol,
    /// Its `enable-method` is neither PSCI nor a spin table.
    UnknownMethod,
    /// It is started by PSCI, and the device tree has no PSCI of version 0.2 or later.
    NoPsci,
    /// PSCI is called by HVC, which at EL2 comes back to ourselves.
    PsciByHvc,
    /// The image was entered above EL2: there is nobody who could answer an SMC.
    NoFirmware,
    /// It has a spin table, and no `cpu-release-addr` of eight bytes.
    NoReleaseAddress,
    /// Its release address is not a multiple of 8.
    ReleaseMisaligned {
        /// The address.
        address: u64,
    },
    /// Its release address is not RAM, or is `no-map`: any mapping of it would be a guess.
    ReleaseNotMapped {
        /// The address.
        address: u64,
    },
    /// Its release address lies in a page of the image, the device tree or a boot module.
    ReleaseInUse {
        /// The address.
        address: u64,
    },
    /// Its release address is free memory: it may be a table by now, and the code that polls it overwritten.
    ReleaseNotReserved {
        /// The address.
        address: u64,
    },
}

impl LeftOff {
    /// The reason without its address, for the report.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OverTheLimit => "left off: over the limit",
            Self::BeyondTheImage => "left off: more than this image can start",
            Self::NoMethod => "left off: its node has no enable-method",
            Self::ParkingProtocol => "left off: it waits by ACPI's parking protocol, which is not spoken",
            Self::UnknownMethod => "left off: its enable-method is neither psci nor spin-table",
            Self::NoPsci => "left off: no PSCI to start it",
            Self::PsciByHvc => "left off: PSCI is called by HVC, which leads nowhere from EL2",
            Self::NoFirmware => "left off: entered at EL3, so no firmware answers PSCI",
            Self::NoReleaseAddress => "left off: it has a spin table and no valid cpu-release-addr",
            Self::ReleaseMisaligned { .. } => "left off: its release address is not a multiple of 8",
            Self::ReleaseNotMapped { .. } => "left off: its release address is not RAM that may be mapped",
            Self::ReleaseInUse { .. } => {
                "left off: its release address lies in the image, the device tree or a boot module"
            }
            Self::ReleaseNotReserved { .. } => "left off: its release address is not in reserved memory",
        }
    }
}

impl fmt::Display for LeftOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Self::ReleaseMisaligned { address }
            | Self::ReleaseNotMapped { address }
            | Self::ReleaseInUse { address }
            | Self::ReleaseNotReserved { address } => write!(f, " ({address:#x})"),
            _ => Ok(()),
        }
    }
}

/// What PSCI answered instead of starting a CPU, by the code's name (Arm DEN 0022, return codes).
#[must_use]
pub const fn psci_answer(code: i64) -> &'static str {
    match code {
        -1 => "was not started: PSCI says NOT_SUPPORTED",
        -2 => "was not started: PSCI says INVALID_PARAMETERS",
        -3 => "was not started: PSCI says DENIED",
        -4 => "was not started: PSCI says ALREADY_ON",
        -5 => "was not started: PSCI says ON_PENDING",
        -6 => "was not started: PSCI says INTERNAL_FAILURE",
        -7 => "was not started: PSCI says NOT_PRESENT",
        -8 => "was not started: PSCI says DISABLED",
        -9 => "was not started: PSCI says INVALID_ADDRESS",
        _ => "was not started: PSCI gave an answer that it does not define",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::{Module, ModuleKind};

    const IMAGE: u64 = 0x20_0000;

    fn span(start: u64, bytes: u64) -> PhysSpan {
        PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
    }

    /// 1 GiB from 0, its first page reserved, as on a Raspberry Pi; a module and the tree below 256 MiB, both reserved
    /// too.
    fn memory() -> MemoryMap {
        let mut memory = MemoryMap::new();
        memory.add_bank(span(0, 1 << 30)).unwrap();
        memory.add_reserved(span(0, 0x1000)).unwrap();
        memory.add_no_map(span(0x3000, 0x1000)).unwrap();
        memory.add_reserved(span(0x3000, 0x1000)).unwrap();
        memory.add_reserved(span(0xf00_0000, 0x100_0000)).unwrap();
        memory.add_module(Module { span: span(0xf00_0000, 0x10), kind: ModuleKind::Kernel }).unwrap();
        memory.device_tree = Some(span(0xf10_0000, 0x2000));
        memory
    }

    fn way(method: EnableMethod) -> Result<Way, LeftOff> {
        Way::of(method, Ok(()), &memory(), span(IMAGE, 0x10_0000))
    }

    fn at(address: u64) -> Result<Way, LeftOff> {
        way(EnableMethod::SpinTable { release_address: Some(address) })
    }

    #[test]
    fn good_release_addresses_in_reserved_memory() {
        for address in [0xd8, 0xe0, 0xff8, 0xfff_fff8] {
            assert_eq!(at(address), Ok(Way::SpinTable(ReleaseAddress(PhysAddr::at(address)))));
        }
    }

    #[test]
    fn bad_release_addresses_say_why() {
        assert_eq!(at(0xdc), Err(LeftOff::ReleaseMisaligned { address: 0xdc }));
        let beyond = [1 << 30, 0xffff_ffff_ffff_fff8, (1 << 52) - 8];
        for address in beyond.into_iter().chain([0x3000]) {
            assert_eq!(at(address), Err(LeftOff::ReleaseNotMapped { address }));
        }
        for address in [IMAGE, IMAGE + 0xf_fff8, 0xf00_0ff8, 0xf10_1000] {
            assert_eq!(at(address), Err(LeftOff::ReleaseInUse { address }));
        }
        for address in [0x1000, IMAGE - 8] {
            assert_eq!(at(address), Err(LeftOff::ReleaseNotReserved { address }));
        }
        assert_eq!(way(EnableMethod::SpinTable { release_address: None }), Err(LeftOff::NoReleaseAddress));
        assert_eq!(
            at(0x3000).unwrap_err().to_string(),
            "left off: its release address is not RAM that may be mapped (0x3000)"
        );
    }

    #[test]
    fn good_psci_by_smc_below_firmware() {
        assert_eq!(psci(Some(Conduit::Smc), 2), Ok(()));
        assert_eq!(way(EnableMethod::Psci), Ok(Way::Psci));
    }

    #[test]
    fn bad_methods_that_lead_nowhere() {
        assert_eq!(psci(None, 2), Err(LeftOff::NoPsci));
        assert_eq!(psci(Some(Conduit::Hvc), 2), Err(LeftOff::PsciByHvc));
        assert_eq!(psci(Some(Conduit::Smc), 3), Err(LeftOff::NoFirmware));
        let no_psci = Way::of(EnableMethod::Psci, Err(LeftOff::NoPsci), &memory(), span(IMAGE, 0x1000));
        assert_eq!(no_psci, Err(LeftOff::NoPsci));
        assert_eq!(way(EnableMethod::Unknown), Err(LeftOff::UnknownMethod));
        assert_eq!(way(EnableMethod::ParkingProtocol), Err(LeftOff::ParkingProtocol));
        assert_eq!(way(EnableMethod::None), Err(LeftOff::NoMethod));
    }

    #[test]
    fn good_a_spin_table_needs_no_psci() {
        let method = EnableMethod::SpinTable { release_address: Some(0xd8) };
        assert!(Way::of(method, Err(LeftOff::NoPsci), &memory(), span(IMAGE, 0x1000)).is_ok());
    }

    #[test]
    fn good_answers_of_psci_by_name() {
        assert!(psci_answer(-2).ends_with("INVALID_PARAMETERS"));
        assert!(psci_answer(-9).ends_with("INVALID_ADDRESS"));
        assert_eq!(psci_answer(-10), psci_answer(1));
    }
}
