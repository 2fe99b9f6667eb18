//! A measurement as text and as JSON.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::result::{CpuFigures, Exposed, Measurement, RootSwitch};

/// How many symbols of the profile are shown.
const SHOWN: usize = 25;

impl Display for Measurement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.to_runtime_root {
            Some(instructions) => writeln!(f, "{instructions} instructions to the runtime root")?,
            None => writeln!(f, "the boot CPU never had a second root in force")?,
        }
        for milestone in &self.milestones {
            writeln!(f, "  {:>10}  {}", milestone.instruction, milestone.name)?;
        }
        writeln!(
            f,
            "table stores: first {}, runtime {}, slots stored twice {}, live changes without break {}",
            self.first_tables.stores,
            self.runtime_tables.stores,
            self.stored_twice.len(),
            self.live_changes.len()
        )?;
        for cpu in &self.cpus {
            write!(f, "{cpu}")?;
        }
        if !self.profile.is_empty() {
            writeln!(f, "instructions to the runtime root by symbol")?;
        }
        for share in self.profile.iter().take(SHOWN) {
            writeln!(f, "  {:>10}  {}", share.instructions, share.place)?;
        }
        Ok(())
    }
}

impl Display for CpuFigures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { cpu, instructions, mmu_on, .. } = self;
        let Some((pc, level)) = self.start else { return writeln!(f, "CPU {cpu}: never started") };
        writeln!(
            f,
            "CPU {cpu}: started at {pc:#x} in EL{level}; {instructions} instructions, {mmu_on} with the MMU on"
        )?;
        writeln!(
            f,
            "  writable and executable: {} instructions (up to number {}), {} but for WXN; exceptions: {}",
            self.writable_executable, self.writable_executable_until, self.writable_executable_leaves, self.exceptions
        )?;
        if let Some(Exposed { va, slot, descriptor }) = self.writable_executable_leaf {
            writeln!(f, "    for example {va:#x}: descriptor {descriptor:#x} at {slot:#x}")?;
        }
        for enable in &self.enables {
            writeln!(
                f,
                "  MMU on at {}: SCTLR_EL2 {:#x}, TTBR0_EL2 {:#x}, TCR_EL2 {:#x}, MAIR_EL2 {:#x}, WXN before M: {}",
                enable.instruction, enable.sctlr, enable.ttbr0, enable.tcr, enable.mair, enable.wxn_before
            )?;
        }
        for switch in &self.switches {
            let how = if switch.mmu_on { "with the MMU on" } else { "with the MMU off" };
            writeln!(
                f,
                "  root {:#x} -> {:#x} {how}: {} instructions, {} loads, {} stores with M = 0; in force at {}",
                switch.from, switch.to, switch.mmu_off, switch.loads, switch.stores, switch.in_force
            )?;
        }
        Ok(())
    }
}

impl Measurement {
    /// The figures as a JSON object, without the profile.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let milestones: Vec<Value> = self
            .milestones
            .iter()
            .map(|milestone| json!({ "name": milestone.name, "instruction": milestone.instruction }))
            .collect();
        json!({
            "to_runtime_root": self.to_runtime_root,
            "first_table_stores": self.first_tables.stores,
            "runtime_table_stores": self.runtime_tables.stores,
            "stored_twice": self.stored_twice.len(),
            "live_changes": self.live_changes.len(),
            "milestones": milestones,
            "cpus": self.cpus.iter().map(CpuFigures::to_json).collect::<Vec<_>>(),
        })
    }
}

impl CpuFigures {
    fn to_json(&self) -> Value {
        let most = |figure: fn(&RootSwitch) -> u64| self.switches.iter().map(figure).max().unwrap_or(0);
        json!({
            "cpu": self.cpu,
            "instructions": self.instructions,
            "mmu_on": self.mmu_on,
            "writable_executable": self.writable_executable,
            "writable_executable_leaves": self.writable_executable_leaves,
            "enables": self.enables.len(),
            "wxn_before_m": self.enables.iter().all(|enable| enable.wxn_before),
            "switches": self.switches.len(),
            "mmu_off": most(|switch| switch.mmu_off),
            "mmu_off_accesses": most(|switch| switch.loads + switch.stores),
            "exceptions": self.exceptions,
        })
    }
}
