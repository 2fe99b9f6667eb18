//! The tables of a trace as they stand, walked without any cache: where each access must go.

use std::collections::HashMap;

use breakwater_oracle::descriptor::Descriptor;
use breakwater_oracle::maintenance::stored_words;
use breakwater_oracle::params::Features;
use breakwater_oracle::regime::{Control, Controls};
use breakwater_trace::{Access, Event, Record, Step};

/// Memory and the registers of one PE.
#[derive(Default)]
pub(crate) struct Tables {
    memory: HashMap<u64, u64>,
    controls: Controls,
    /// How many accesses were looked at.
    pub(crate) accesses: u64,
}

/// Where a walk ended.
struct Leaf {
    pa: u64,
    writable: bool,
    executable: bool,
}

impl Tables {
    /// Takes a record in.
    ///
    /// # Errors
    /// It is an access that the tables do not permit, or send elsewhere.
    pub(crate) fn step(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Word { pa, value } => {
                self.memory.insert(*pa, *value);
            }
            Record::Step(Step { pc, event, .. }) => self.event(*pc, event)?,
            _ => {}
        }
        Ok(())
    }

    fn event(&mut self, pc: u64, event: &Event) -> Result<(), String> {
        match event {
            Event::Found { register, value } | Event::Msr { register, value } => {
                if let Some(control) = Control::of(*register) {
                    self.controls.set(control, *value);
                }
            }
            Event::Fetch { .. } => {
                let leaf = self.walk(pc)?;
                let is_known = self.memory.contains_key(&(leaf.pa & !7));
                is_known.then_some(()).ok_or("no instruction is known there")?;
                leaf.executable.then_some(()).ok_or("execute-never")?;
                self.accesses += 1;
            }
            Event::Load(access) => self.data(access, false)?,
            Event::Store(access) => {
                self.data(access, true)?;
                if !access.device {
                    for (pa, mask, value) in stored_words(access) {
                        let word = self.memory.entry(pa).or_default();
                        *word = (*word & !mask) | value;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, access: &Access, is_store: bool) -> Result<(), String> {
        let leaf = self.walk(access.va)?;
        (!is_store || leaf.writable).then_some(()).ok_or("read-only")?;
        self.accesses += 1;
        let is_there = leaf.pa == access.pa;
        is_there.then_some(()).ok_or_else(|| format!("the tables say {:#x}", leaf.pa))
    }

    fn walk(&self, va: u64) -> Result<Leaf, String> {
        let format = self.controls.format(&Features::default()).map_err(|why| format!("{why:?}"))?;
        let mut table = self.controls.root(&format);
        for level in format.start_level..=3 {
            let pa = table + 8 * format.index(va, level);
            let word = self.memory.get(&pa).ok_or_else(|| format!("{pa:#x} is unknown"))?;
            match format.decode(*word, level) {
                Descriptor::Table(next) => table = next.next,
                Descriptor::Leaf(leaf) => {
                    let executable = leaf.executable && !(leaf.writable && self.controls.wxn());
                    let pa = leaf.output + (va & (format.span(level) - 1));
                    return Ok(Leaf { pa, writable: leaf.writable, executable });
                }
                Descriptor::Invalid => return Err(format!("{word:#x} of level {level} is invalid")),
            }
        }
        Err("no leaf".to_owned())
    }
}
