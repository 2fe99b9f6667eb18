//! The other CPUs, one after the other: stacks from free RAM, then PSCI or a spin table, then straight into the runtime
//! tables. Whoever is not started is named with the reason.

use super::{Boot, mapping};
use crate::el2::cpu::Outcome;
use crate::el2::{self, Known, power};
use crate::line;
use breakwater::command_line::Options;
use breakwater::device_tree::CpuNode;
use breakwater::errata::Errata;
use breakwater::layout::MAX_CPUS;
use breakwater::regions::stacks;
use breakwater::report::CpuLine;
use breakwater::starting::LeftOff;

/// What became of the CPUs that the device tree names.
pub(super) struct Secondaries {
    lines: [CpuLine; MAX_CPUS],
    count: usize,
    /// Whether a CPU may still arrive through the identity page.
    pub(super) identity_stays: bool,
}

impl Secondaries {
    /// A line for each CPU, the boot CPU first.
    pub(super) fn lines(&self) -> &[CpuLine] {
        &self.lines[..self.count]
    }

    /// CPUs that run.
    pub(super) fn online(&self) -> usize {
        self.lines().iter().filter(|line| line.online).count()
    }

    fn note(&mut self, affinity: u64, outcome: &'static str, online: bool) {
        if let Some(line) = self.lines.get_mut(self.count) {
            *line = CpuLine { affinity, outcome, online };
            self.count += 1;
        }
    }
}

/// Starts the CPUs that `machine` names, as far as `options` and the firmware allow.
pub(super) fn start(boot: &mut Boot, machine: &Known<'_>, options: Options) -> Secondaries {
    let nobody = CpuLine { affinity: 0, outcome: "", online: false };
    let mut all = Secondaries { lines: [nobody; MAX_CPUS], count: 0, identity_stays: false };
    let own = el2::own_affinity();
    all.note(own, "boot CPU", true);
    let phys_to_virt = boot.bringup.protocol().machine().phys_to_virt();
    if power::is_available() || machine.cpus.as_slice().iter().any(|cpu| boot.start.way(machine, cpu).is_ok()) {
        // From the first start on, another PE may use the tables: invalidations are broadcast.
        boot.bringup.share(Errata::empty());
        el2::cpu::prepare_mailbox(phys_to_virt);
    }
    let limit = options.max_cpus.map_or(MAX_CPUS, |limit| limit.get() as usize).min(MAX_CPUS);
    for cpu in machine.cpus.as_slice().iter().filter(|cpu| cpu.mpidr != own && cpu.enabled) {
        let index = all.count;
        let seconds = options.cpu_timeout_seconds.get();
        let outcome =
            if index < limit { start_one(boot, machine, cpu, index, seconds) } else { Err(LeftOff::OverTheLimit) };
        match outcome {
            Ok(outcome) => {
                all.identity_stays |= outcome == Outcome::MayStillArrive;
                all.note(cpu.mpidr, outcome.text(), outcome == Outcome::Online);
                if outcome != Outcome::Online {
                    line!("breakwater: warning: CPU {index} (affinity {:#x}) {outcome}", cpu.mpidr);
                }
            }
            Err(reason) => {
                all.note(cpu.mpidr, reason.text(), false);
                if reason != LeftOff::OverTheLimit {
                    line!("breakwater: warning: CPU {index} (affinity {:#x}) {reason}", cpu.mpidr);
                }
            }
        }
    }
    let common = el2::cpu::common().unwrap_or(boot.cpu);
    boot.bringup.all_cpus_known(common.features, all.identity_stays);
    boot.close("secondaries");
    all
}

fn start_one(
    boot: &mut Boot,
    machine: &Known<'_>,
    cpu: &CpuNode,
    index: usize,
    seconds: u32,
) -> Result<Outcome, LeftOff> {
    let way = boot.start.way(machine, cpu)?;
    let stacks = stacks::map(&mut boot.space(), index, el2::settings().cpu_stack_bytes).unwrap_or_else(mapping);
    let phys_to_virt = boot.bringup.protocol().machine().phys_to_virt();
    let outcome = el2::cpu::start(cpu.mpidr, way, stacks, phys_to_virt, 1000 * u64::from(seconds));
    if let Some(common) = el2::cpu::common() {
        // Errata united over the CPUs that share the tables: one affected core obliges every PE.
        boot.bringup.share(common.errata);
    }
    Ok(outcome)
}
