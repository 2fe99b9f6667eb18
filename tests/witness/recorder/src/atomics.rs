//! What an atomic instruction stored. QEMU reports each as a load and a store, but the store is no more than an attempt.
//!
//! * A store-exclusive and a compare-and-swap stored if the loaded value is the expected one: what the CPU's last load-exclusive loaded,
//!   or what CAS finds in its register before it executes.
//! * Of LDADD and its like QEMU reports, where CPUs run in parallel, the operand in place of the result.

use std::sync::{Mutex, MutexGuard, PoisonError};

use breakwater_trace::{Access, Atomic};

/// Of one CPU.
#[derive(Clone, Copy, Default)]
struct AtomicState {
    /// By its last load-exclusive.
    exclusive: [u64; 2],
    /// What the instruction under way found in its register: expected value, or operand.
    operand: [u64; 2],
    /// What it loaded.
    loaded: [u64; 2],
}

/// Of all CPUs. Each is used by that CPU's thread alone: the locks are there for the compiler.
pub(crate) struct Atomics(Vec<Mutex<AtomicState>>);

impl Atomics {
    /// Nothing under way.
    pub(crate) fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| Mutex::default()).collect())
    }

    /// A compare-and-swap or an update is about to execute, with this expected value or operand.
    pub(crate) fn begins(&self, cpu: u32, operand: [u64; 2]) {
        self.of(cpu).operand = operand;
    }

    /// `instruction` loaded; nothing if that is QEMU's own doing and none of the architecture's.
    pub(crate) fn load(&self, cpu: u32, instruction: Atomic, access: Access) -> Option<Access> {
        let mut state = self.of(cpu);
        state.loaded = access.value;
        if instruction == Atomic::LoadExclusive {
            state.exclusive = access.value;
        }
        (instruction != Atomic::StoreExclusive).then_some(access)
    }

    /// `instruction` tried to store: what it did store.
    pub(crate) fn store(&self, cpu: u32, instruction: Atomic, access: Access) -> Option<Access> {
        let AtomicState { exclusive, operand, loaded } = *self.of(cpu);
        match instruction {
            Atomic::LoadExclusive => None,
            Atomic::StoreExclusive => (loaded == exclusive).then_some(access),
            Atomic::CompareAndSwap { .. } => (loaded == operand).then_some(access),
            Atomic::Update { update, .. } => {
                let value = [update.of(loaded[0], operand[0], access.bytes), 0];
                Some(Access { value, ..access })
            }
        }
    }

    fn of(&self, cpu: u32) -> MutexGuard<'_, AtomicState> {
        self.0[cpu as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
