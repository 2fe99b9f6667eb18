//! Writing a trace: one CPU, its program counter, what memory holds, and Xen's own idioms for changing tables.

use std::collections::HashMap;

use breakwater_trace::{Access, Barrier, End, Event, Operation, Record, Register, Step};

/// DSB SY.
const SY: Barrier = Barrier { crm: 15, without_xs: false };

/// A trace in the making.
pub(super) struct Script {
    records: Vec<Record>,
    memory: HashMap<u64, u64>,
    instruction: u64,
    pc: u64,
}

/// The register of that name.
fn register(name: &str) -> Register {
    Register::from_text(name).expect("a register's name")
}

impl Script {
    pub(super) fn new() -> Self {
        Self { records: Vec::with_capacity(8192), memory: HashMap::new(), instruction: 1, pc: 0 }
    }

    pub(super) fn record(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Memory before the first instruction.
    pub(super) fn word(&mut self, pa: u64, value: u64) {
        self.memory.insert(pa, value);
        self.record(Record::Word { pa, value });
    }

    /// What memory holds at `pa`: 0 if nothing was said.
    pub(super) fn at(&self, pa: u64) -> u64 {
        self.memory.get(&pa).copied().unwrap_or_default()
    }

    fn event(&mut self, event: Event) {
        self.record(Record::Step(Step { cpu: 0, instruction: self.instruction, pc: self.pc, event }));
    }

    /// The CPU as it is found, about to run at `pc`.
    pub(super) fn found(&mut self, pc: u64, registers: &[(&str, u64)]) {
        self.pc = pc;
        self.event(Event::Start { exception_level: 2 });
        for (name, value) in registers {
            self.event(Event::Found { register: register(name), value: *value });
        }
    }

    /// An instruction that does `event`.
    fn step(&mut self, event: Event) {
        self.event(event);
        self.instruction += 1;
        self.pc += 4;
    }

    /// Execution continues at `pc`, straight on for this many instructions.
    pub(super) fn fetch(&mut self, pc: u64, instructions: u32) {
        self.pc = pc;
        self.event(Event::Fetch { instructions });
    }

    /// Back to `pc`, in a line that was fetched already: the next round of a loop.
    pub(super) const fn again(&mut self, pc: u64) {
        self.pc = pc;
    }

    /// The pipeline is refilled where it stands, for this many instructions: what an ISB brings about.
    pub(super) fn refetch(&mut self, instructions: u32) {
        self.event(Event::Fetch { instructions });
    }

    pub(super) const fn pc(&self) -> u64 {
        self.pc
    }

    pub(super) fn store(&mut self, va: u64, pa: u64, value: u64) {
        self.memory.insert(pa, value);
        self.step(Event::Store(Access { bytes: 8, va, pa, value: [value, 0], device: false, release: false }));
    }

    pub(super) fn load(&mut self, va: u64, pa: u64) {
        let value = [self.at(pa), 0];
        self.step(Event::Load(Access { bytes: 8, va, pa, value, device: false, release: false }));
    }

    /// A character to the console.
    pub(super) fn print(&mut self, va: u64, pa: u64) {
        self.step(Event::Store(Access { bytes: 1, va, pa, value: [0x2e, 0], device: true, release: false }));
    }

    /// 16 bytes from one place to another: LDP, STP.
    pub(super) fn move_pair(&mut self, from: (u64, u64), to: (u64, u64)) {
        let value = [self.at(from.1), self.at(from.1 + 8)];
        self.memory.insert(to.1, value[0]);
        self.memory.insert(to.1 + 8, value[1]);
        let access = |(va, pa)| Access { bytes: 16, va, pa, value, device: false, release: false };
        self.step(Event::Load(access(from)));
        self.step(Event::Store(access(to)));
    }

    pub(super) fn dsb_sy(&mut self) {
        self.step(Event::Dsb(SY));
    }

    /// ISB; the pipeline is refilled for this many instructions.
    pub(super) fn isb(&mut self, instructions: u32) {
        self.step(Event::Isb);
        self.refetch(instructions);
    }

    pub(super) fn maintain(&mut self, name: &str, operand: u64) {
        let operation = Operation::from_text(name).expect("an operation's name");
        self.step(Event::Maintain { operation, operand });
    }

    pub(super) fn msr(&mut self, name: &str, value: u64) {
        self.step(Event::Msr { register: register(name), value });
    }

    pub(super) fn mrs(&mut self, name: &str) {
        self.step(Event::Mrs { register: register(name) });
    }

    /// Xen claims that nothing is owed.
    pub(super) fn settled(&mut self) {
        self.event(Event::Settled);
    }

    /// `write_pte`: DSB SY on both sides.
    pub(super) fn write_pte(&mut self, va: u64, pa: u64, value: u64) {
        self.dsb_sy();
        self.store(va, pa, value);
        self.dsb_sy();
    }

    /// `flush_xen_text_tlb_local`, then this many instructions.
    pub(super) fn flush_text_tlb_local(&mut self, instructions: u32) {
        self.isb(4);
        self.maintain("alle2", 0);
        self.maintain("iallu", 0);
        self.dsb_sy();
        self.isb(instructions);
    }

    /// `flush_xen_data_tlb_range_va` and its local form, as `operation` says, then this many instructions.
    pub(super) fn flush_data_tlb(&mut self, operation: &str, va: u64, pages: u64, instructions: u32) {
        self.dsb_sy();
        let top = self.pc;
        for page in 0..pages {
            self.again(top);
            self.maintain(operation, (va >> 12) + page);
        }
        self.dsb_sy();
        self.isb(instructions);
    }

    /// The trace: the boot goes on from here.
    pub(super) fn end(mut self) -> Vec<Record> {
        self.record(Record::Count { cpu: 0, instructions: self.instruction });
        self.record(Record::End(End::Limit));
        self.records
    }
}
