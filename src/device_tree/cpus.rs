//! The CPUs and how to start them.

#![forbid(unsafe_code)]

use super::Error;
use super::names::Name;
use super::node::{Cells, Node};
use super::structure::Walk;
use crate::layout::MAX_CPUS;

/// The affinity fields of MPIDR_EL1 (Aff3 and Aff2..Aff0), which is all that a CPU's `reg` may hold.
pub(crate) const AFFINITY_MASK: u64 = 0xff_00ff_ffff;

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// By PSCI's CPU_ON.
    Psci,
    /// By storing the entry point's address where the CPU spins.
    SpinTable {
        /// Where it looks for the address, as the tree says, which may be wrong ([`crate::starting`]); `None` where it
        /// gives no number.
        release_address: Option<u64>,
    },
    /// By ACPI's parking protocol, which we do not speak.
    ParkingProtocol,
    /// By a method that we do not know.
    Unknown,
    /// The tree does not say.
    None,
}

/// A CPU as the device tree names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuNode {
    /// The affinity fields of its MPIDR_EL1.
    pub mpidr: u64,
    /// How it is started.
    pub enable_method: EnableMethod,
    /// Whether it may be started: its `status` is absent or okay.
    pub enabled: bool,
}

/// The CPUs in the tree's order: at most [`MAX_CPUS`], no two with one identity; further ones that may be started are
/// counted.
#[derive(Clone, Debug)]
pub struct CpuList {
    cpus: [CpuNode; MAX_CPUS],
    len: usize,
    dropped: usize,
}

impl CpuList {
    /// The list of no CPUs.
    #[must_use]
    pub const fn new() -> Self {
        const NOBODY: CpuNode = CpuNode { mpidr: 0, enable_method: EnableMethod::None, enabled: false };
        Self { cpus: [NOBODY; MAX_CPUS], len: 0, dropped: 0 }
    }

    /// The CPUs that were kept.
    #[must_use]
    pub fn as_slice(&self) -> &[CpuNode] {
        self.cpus.get(..self.len).unwrap_or(&[])
    }

    /// How many more the tree has that may be started.
    #[must_use]
    pub const fn dropped(&self) -> usize {
        self.dropped
    }

    /// How many of this machine's CPUs may run, the one that asks included, whose identity is `own`.
    #[must_use]
    pub fn present(&self, own: u64) -> usize {
        let is_listed = self.as_slice().iter().any(|cpu| cpu.mpidr == own);
        // One that is not in the list is among those that had no room there, unless all had.
        self.others(own).count() + self.dropped + usize::from(is_listed || self.dropped == 0)
    }

    /// The CPUs that the one whose identity is `own` may start.
    pub fn others(&self, own: u64) -> impl Iterator<Item = &CpuNode> {
        self.as_slice().iter().filter(move |cpu| cpu.mpidr != own && cpu.enabled)
    }

    pub(crate) fn push(&mut self, cpu: CpuNode) -> Result<(), Error> {
        if self.as_slice().iter().any(|other| other.mpidr == cpu.mpidr) {
            return Err(Error::DuplicateCpu { mpidr: cpu.mpidr });
        }
        match self.cpus.get_mut(self.len) {
            Some(slot) => {
                *slot = cpu;
                self.len += 1;
            }
            None => self.dropped += usize::from(cpu.enabled),
        }
        Ok(())
    }
}

impl Default for CpuList {
    fn default() -> Self {
        Self::new()
    }
}

/// The instruction that reaches the PSCI firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// SMC: firmware at EL3.
    Smc,
    /// HVC: a hypervisor below us. At EL2 it would trap to ourselves.
    Hvc,
}

/// Adds the CPUs that are children of `parent`, which `walk` is in, to `cpus`.
pub(super) fn read<'a>(parent: &Node<'a>, walk: &mut Walk<'a>, cpus: &mut CpuList) -> Result<(), Error> {
    let cells = Cells::of_reg(parent)?;
    let (depth, mut node) = (walk.depth(), Node::new());
    while node.read_next(depth, walk) {
        if node.is_called("cpu") || node.string(Name::DeviceType) == Some(b"cpu") {
            cpus.push(read_cpu(&node, cells)?)?;
        }
    }
    Ok(())
}

fn read_cpu(node: &Node<'_>, cells: Cells) -> Result<CpuNode, Error> {
    // A CPU's reg may hold one identity per thread, but Arm gives every thread a node: the first is the CPU's.
    let first = node.reg(cells)?.next().transpose()?;
    let mpidr = first.map(|(mpidr, _)| mpidr).filter(|mpidr| mpidr & !AFFINITY_MASK == 0);
    let mpidr = mpidr.ok_or(node.malformed(Name::Reg))?;
    Ok(CpuNode { mpidr, enable_method: enable_method(node), enabled: node.is_available() })
}

/// A method that cannot be followed costs this CPU, not the machine.
fn enable_method(node: &Node<'_>) -> EnableMethod {
    match node.string(Name::EnableMethod) {
        Some(b"psci") => EnableMethod::Psci,
        Some(b"spin-table") => {
            EnableMethod::SpinTable { release_address: node.number(Name::CpuReleaseAddr).ok().flatten() }
        }
        Some(_) => EnableMethod::Unknown,
        None => EnableMethod::None,
    }
}

/// Nothing, where a node is not about PSCI 0.2 or later, or may not be used; else how it is called, if that is known.
/// PSCI 0.1 has function numbers of its own: not supported.
pub(super) type Psci = Option<Option<Conduit>>;

/// What `node` says of PSCI.
pub(super) fn psci(node: &Node<'_>) -> Psci {
    if !node.is_compatible(&["arm,psci-0.2", "arm,psci-1.0"]) || !node.is_available() {
        return None;
    }
    Some(match node.string(Name::Method) {
        Some(b"smc") => Some(Conduit::Smc),
        Some(b"hvc") => Some(Conduit::Hvc),
        _ => None,
    })
}

/// What the children of the node that `walk` is in say of PSCI: the first of them that does.
pub(super) fn psci_in<'a>(walk: &mut Walk<'a>) -> Psci {
    let (depth, mut node) = (walk.depth(), Node::new());
    while node.read_next(depth, walk) {
        let said = psci(&node);
        if said.is_some() {
            return said;
        }
    }
    None
}
