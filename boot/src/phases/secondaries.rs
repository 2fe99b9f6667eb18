//! The other CPUs, one after the other: what each needs from free RAM, then PSCI or a spin table, then straight into the
//! runtime tables. Whoever is not started is named with the reason.

use super::{Boot, mapping};
use crate::el2::cpu::Outcome;
use crate::el2::{self, Known, Room, power};
use crate::line;
use breakwater::command_line::Options;
use breakwater::device_tree::CpuNode;
use breakwater::errata::Errata;
use breakwater::layout::MAX_CPUS;
use breakwater::regions::window::CpuSlots;
use breakwater::regions::{self, Failure, MAX_REGIONS, NO_REGION, stacks};
use breakwater::report::CpuLine;
use breakwater::starting::LeftOff;

/// How many CPUs there are, the boot CPU included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    /// As the device tree has it.
    pub(super) present: usize,
    /// Of them, as many as the command line lets run.
    pub(super) wanted: usize,
    /// Of them, as many as this image brings up, if all goes well.
    pub(super) started: usize,
}

impl Count {
    /// The CPUs that `machine` names, and how many `options` allow.
    pub(super) fn of(machine: &Known<'_>, options: Options) -> Self {
        let present = machine.cpus.present(el2::own_affinity());
        let wanted = options.max_cpus.map_or(present, |limit| present.min(limit.get() as usize));
        Self { present, wanted, started: wanted.min(MAX_CPUS) }
    }
}

/// What became of the CPUs that the device tree names.
pub(super) struct Secondaries {
    lines: &'static mut [CpuLine],
    noted: usize,
    pub(super) count: Count,
    /// Whether a CPU may still arrive through the identity page.
    pub(super) identity_stays: bool,
}

impl Secondaries {
    /// A line for each CPU, the boot CPU first.
    pub(super) fn lines(&self) -> &[CpuLine] {
        &self.lines[..self.noted]
    }

    /// CPUs that run.
    pub(super) fn online(&self) -> usize {
        self.lines().iter().filter(|line| line.online).count()
    }

    fn note(&mut self, affinity: u64, outcome: &'static str, online: bool) {
        if let Some(line) = self.lines.get_mut(self.noted) {
            *line = CpuLine { affinity, outcome, online };
            self.noted += 1;
        }
    }

    /// Notes what became of CPU `index`; one that may still arrive gets its warning when nobody waits any more.
    fn became(&mut self, index: usize, outcome: Outcome) {
        let Some(line) = self.lines.get_mut(index) else { return };
        (line.outcome, line.online) = (outcome.text(), outcome == Outcome::Online);
        if !matches!(outcome, Outcome::Online | Outcome::MayStillArrive) {
            line!("breakwater: warning: CPU {index} (affinity {:#x}) {outcome}", line.affinity);
        }
    }
}

/// Starts the CPUs that `machine` names, as far as `count`, `options` and the firmware allow.
pub(super) fn start(boot: &mut Boot, machine: &Known<'_>, options: Options, count: Count) -> Secondaries {
    let own = el2::own_affinity();
    let nobody = CpuLine { affinity: 0, outcome: "", online: false };
    let noted = 1 + machine.cpus.others(own).count();
    let lines = Room::take(boot.bringup.frames_mut(), "CPU lines", noted, |_| nobody).unwrap_or_else(mapping).keep();
    let mut all = Secondaries { lines, noted: 0, count, identity_stays: false };
    all.note(own, "boot CPU", true);
    take_room(boot, count.started - 1).unwrap_or_else(mapping);
    map_stacks(boot, machine, count);
    let phys_to_virt = boot.bringup.protocol().machine().phys_to_virt();
    if power::is_available() || machine.cpus.as_slice().iter().any(|cpu| boot.start.way(machine, cpu).is_ok()) {
        // From the first start on, other PEs may use the tables: invalidations are broadcast.
        boot.bringup.share(Errata::empty());
        el2::cpu::prepare_mailbox(phys_to_virt);
    }
    let seconds = options.cpu_timeout_seconds.get();
    for cpu in machine.cpus.others(own) {
        let index = all.noted;
        let left_off = if index < count.wanted { LeftOff::BeyondTheImage } else { LeftOff::OverTheLimit };
        let outcome = if index < count.started { start_one(boot, machine, cpu, index, seconds) } else { Err(left_off) };
        match outcome {
            Ok(outcome) => {
                all.note(cpu.mpidr, "", false);
                all.became(index, outcome);
            }
            Err(reason) => {
                all.note(cpu.mpidr, reason.text(), false);
                if reason != LeftOff::OverTheLimit {
                    line!("breakwater: warning: CPU {index} (affinity {:#x}) {reason}", cpu.mpidr);
                }
            }
        }
    }
    wait_for_the_late(boot, &mut all, seconds);
    let common = el2::cpu::common().unwrap_or(boot.cpu);
    boot.bringup.all_cpus_known(common.features, all.identity_stays);
    boot.close("secondaries");
    all
}

/// Takes from free RAM what `others` CPUs need beside their stacks: records, slots of the window, and places for what is
/// declared of them.
fn take_room(boot: &mut Boot, others: usize) -> Result<(), Failure> {
    let frames = boot.bringup.frames_mut();
    el2::cpu::take_records(frames, others)?;
    let slots = Room::take(frames, "window slots", others, |_| CpuSlots::EMPTY)?;
    el2::on_demand().lock().window.give(slots.keep());
    if others > 0 {
        let places = MAX_REGIONS + regions::REGIONS_EACH_CPU * others;
        let list = Room::take(frames, "region list", places, |_| NO_REGION)?;
        boot.regions.give_room(list.keep());
    }
    Ok(())
}

/// Maps the stacks of all CPUs that are to be started: none waits for its own once the first are let go.
fn map_stacks(boot: &mut Boot, machine: &Known<'_>, count: Count) {
    for (index, cpu) in (1..count.started).zip(machine.cpus.others(el2::own_affinity())) {
        if boot.start.way(machine, cpu).is_ok() {
            let stacks = stacks::map(&mut boot.space(), index, el2::settings().cpu_stack_bytes);
            el2::cpu::give_stacks(cpu.mpidr, stacks.unwrap_or_else(mapping));
        }
    }
}

fn start_one(
    boot: &mut Boot,
    machine: &Known<'_>,
    cpu: &CpuNode,
    index: usize,
    seconds: u32,
) -> Result<Outcome, LeftOff> {
    let way = boot.start.way(machine, cpu)?;
    let phys_to_virt = boot.bringup.protocol().machine().phys_to_virt();
    let outcome = el2::cpu::start(index, way, phys_to_virt, 1000 * u64::from(seconds));
    share_errata(boot);
    Ok(outcome)
}

/// Waits once more for CPUs that may still arrive, as long as one of them does within `seconds`: one that is late costs
/// time, and is not given up while others make it.
fn wait_for_the_late(boot: &mut Boot, all: &mut Secondaries, seconds: u32) {
    while el2::cpu::is_one_awaited() {
        let Some((index, outcome)) = el2::cpu::next_late(1000 * u64::from(seconds)) else { break };
        all.became(index, outcome);
        share_errata(boot);
    }
    all.identity_stays = el2::cpu::is_one_awaited();
    let late = Outcome::MayStillArrive.text();
    for (index, line) in all.lines().iter().enumerate().filter(|(_, line)| line.outcome == late) {
        line!("breakwater: warning: CPU {index} (affinity {:#x}) {late}", line.affinity);
    }
}

fn share_errata(boot: &mut Boot) {
    if let Some(common) = el2::cpu::common() {
        // Errata united over the CPUs that share the tables: one affected core obliges every PE.
        boot.bringup.share(common.errata);
    }
}
