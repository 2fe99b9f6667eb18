//! The host tests' expansions of assembly routines against the routines of the built image, instruction for instruction.
//!
//! The host machine of tests/manager runs `tests/manager/expansion.rs` where the target runs boot/. Here the ELF's words are decoded along
//! the path that is taken, with what its general registers are known to hold, and the system instructions must be those of the
//! expansion: the same, in the same order, with the same values. An instruction that this file does not know fails the case, so nothing is
//! passed over.

#[path = "../../../tests/manager/expansion.rs"]
mod expected;

use super::runner::Case;
use anyhow::{Context, Result, bail, ensure};
use breakwater_image::Elf;
use breakwater_trace::{Barrier, Call, Decoded, Event, decode};

/// What the registers and the mailbox hold in the comparison: numbers that cannot be met by chance.
const ROOT: u64 = 0x1234_5678_9000;
const TCR: u64 = 0x0fed_cba9;
/// SCTLR_EL2 as boot leaves it: boot/src/el2/assembly.rs, `SCTLR_ON`.
const SCTLR_ON: u64 = 0x30cd_183d;
/// MAIR_EL2: src/descriptor.rs, `MAIR`.
const MAIR: u64 = 0xfff0_0c04_0000_4400;
/// HCR_EL2: RW.
const HCR: u64 = 1 << 31;

/// One case a routine that the host machine expands.
pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("expansion/switch_root", |context, _| switch_root(&Elf::read(&context.image.elf)?)),
        Case::new("expansion/secondary_entry", |context, _| secondary(&Elf::read(&context.image.elf)?)),
    ]
}

fn switch_root(elf: &Elf) -> Result<()> {
    let mut cpu = EnteringCpu::default();
    cpu.set(0, Some(ROOT));
    let rest = cpu.run(&routine(elf, "switch_root")?)?;
    ensure!(cpu.run(&routine(elf, "switch_root_window")?)?.is_empty(), "the window ends in its branch");
    let expansion = expected::switch_root(ROOT, SCTLR_ON);
    compare(&cpu.events, &expansion)?;
    // What the routine says that it did is what it did.
    cpu.run(&rest)?;
    ensure!(cpu.registers[0] == Some(counted(&expansion)), "x0 is {:x?} at the end", cpu.registers[0]);
    Ok(())
}

fn secondary(elf: &Elf) -> Result<()> {
    let mut cpu = EnteringCpu { mailbox: [Some(ROOT), Some(TCR), None], ..EnteringCpu::default() };
    let rest = cpu.run(&routine(elf, "secondary_entry")?)?;
    let refusal: Vec<Decoded> = rest.iter().filter_map(|&word| decode(word)).collect();
    let stop = Decoded::Call { call: Call::Smc, immediate: 0 };
    ensure!(refusal == [Decoded::Dsb(Barrier { crm: 15, without_xs: false }), stop], "a refusal does {refusal:x?}");
    cpu.run(&routine(elf, "secondary_on_link_address")?)?;
    let to = expected::Translation { sctlr_on: SCTLR_ON, tcr: TCR, mair: MAIR, hcr: HCR };
    let entry = [&expected::secondary_vectors()[..], &expected::secondary(ROOT, &to)].concat();
    compare(&cpu.events, &[&entry[..], &expected::secondary_on_link_address()].concat())
}

/// Maintenance as macros.S counts it in x28: ISBs in bits 7:0, DSBs in 15:8, TLBIs in 23:16.
fn counted(events: &[Event]) -> u64 {
    let weight = |event: &Event| match event {
        Event::Isb => 1,
        Event::Dsb(_) => 1 << 8,
        Event::Maintain { .. } => 1 << 16,
        _ => 0,
    };
    events.iter().map(weight).sum()
}

/// The words of a routine.
fn routine(elf: &Elf, name: &str) -> Result<Vec<u32>> {
    elf.routine(name).with_context(|| format!("the image has no routine {name}"))
}

/// The two lists agree; a value that the routine gets from elsewhere (an address of the image) is not compared.
fn compare(actual: &[Actual], expansion: &[Event]) -> Result<()> {
    for (index, (actual, expected)) in actual.iter().zip(expansion).enumerate() {
        let same = match (*actual, *expected) {
            (Actual::Known(event), expected) => event == expected,
            (Actual::WithUnknown(Event::Msr { register, .. }), Event::Msr { register: wanted, .. }) => {
                register == wanted && register.name() == Some("vbar_el2")
            }
            (Actual::WithUnknown(_), _) => false,
        };
        ensure!(same, "instruction {index}: the image has {actual:x?}, the expansion {expected:x?}");
    }
    let (image, expansion) = (actual.len(), expansion.len());
    ensure!(image == expansion, "the image has {image} system instructions on this path, the expansion {expansion}");
    Ok(())
}

/// A system instruction of the image.
#[derive(Clone, Copy, Debug)]
enum Actual {
    /// With the value of its general register.
    Known(Event),
    /// The register's value is not known; 0 stands in its place.
    WithUnknown(Event),
}

/// As much of a CPU as the routines need: what is known of each general register, and what the mailbox holds.
#[derive(Default)]
struct EnteringCpu {
    registers: [Option<u64>; 31],
    mailbox: [Option<u64>; 3],
    events: Vec<Actual>,
}

impl EnteringCpu {
    fn get(&self, register: u32) -> Option<u64> {
        self.registers.get(register as usize).copied().unwrap_or(Some(0))
    }

    fn set(&mut self, register: u32, value: Option<u64>) {
        if let Some(place) = self.registers.get_mut(register as usize) {
            *place = value;
        }
    }

    /// Follows `words` to the first unconditional branch; no conditional one is taken. What is left comes back.
    fn run(&mut self, words: &[u32]) -> Result<Vec<u32>> {
        for (index, &word) in words.iter().enumerate() {
            let is_branch = matches!(word >> 26, 0b00_0101 | 0b10_0101) || word & 0xff9f_fc1f == 0xd61f_0000;
            if is_branch {
                return Ok(words[index + 1..].to_vec());
            }
            match decode(word) {
                Some(decoded) => self.system(word, decoded)?,
                None => self.other(word).with_context(|| format!("{word:08x}, word {index}"))?,
            }
        }
        bail!("the routine has no end")
    }

    fn system(&mut self, word: u32, decoded: Decoded) -> Result<()> {
        let valued = |value: Option<u64>, event: &dyn Fn(u64) -> Event| match value {
            Some(value) => Actual::Known(event(value)),
            None => Actual::WithUnknown(event(0)),
        };
        let actual = match decoded {
            Decoded::Msr { register, rt } => valued(self.get(rt.into()), &|value| Event::Msr { register, value }),
            Decoded::Maintain { operation, rt } => {
                valued(self.get(rt.into()), &|operand| Event::Maintain { operation, operand })
            }
            Decoded::Mrs { register, .. } => {
                self.set(word & 31, (register.name() == Some("sctlr_el2")).then_some(SCTLR_ON));
                Actual::Known(Event::Mrs { register })
            }
            Decoded::Dsb(barrier) => Actual::Known(Event::Dsb(barrier)),
            Decoded::Dmb(barrier) => Actual::Known(Event::Dmb(barrier)),
            Decoded::Isb => Actual::Known(Event::Isb),
            other => bail!("{other:?} on the path that is taken"),
        };
        self.events.push(actual);
        Ok(())
    }

    /// Instructions that are no system instructions of interest.
    fn other(&mut self, word: u32) -> Result<()> {
        let (rd, rn) = (word & 31, word >> 5 & 31);
        let half = u64::from(word >> 5 & 0xffff);
        let shift = 16 * (word >> 21 & 3);
        match word {
            _ if word & 0xff80_0000 == 0xd280_0000 => self.set(rd, Some(half << shift)), // MOVZ
            _ if word & 0xff80_0000 == 0xf280_0000 => {
                self.set(rd, self.get(rd).map(|value| value & !(0xffff << shift) | half << shift)); // MOVK
            }
            _ if word & 0xffc0_0000 == 0x9240_0000 => {
                self.set(rd, self.get(rn).map(|value| value & bit_mask(word))); // AND, immediate of 64 bits
            }
            _ if word & 0xffe0_ffe0 == 0xaa00_03e0 => self.set(rd, self.get(word >> 16 & 31)), // MOV
            _ if word & 0xffc0_0000 == 0xa940_0000 => {
                let first = self.loaded(8 * (word >> 15 & 0x7f)); // LDP
                let second = self.loaded(8 * (word >> 15 & 0x7f) + 8);
                self.set(rd, first);
                self.set(word >> 10 & 31, second);
            }
            _ if word & 0xffc0_0000 == 0xf940_0000 => self.set(rd, self.loaded(8 * (word >> 10 & 0xfff))), // LDR
            _ if is_address_arithmetic(word) => self.set(rd, None),
            // NOP, of which the linker makes ADRP where ADR reaches; MSR of a register without a name in the trace; B.cond, TBZ and TBNZ, which are not taken.
            // MSR SPSel, #1, which is no event of a trace either.
            0xd503_201f | 0xd500_41bf => {}
            _ if word & 0xfff0_0000 == 0xd510_0000 || word >> 24 == 0x54 || word & 0x7e00_0000 == 0x3600_0000 => {}
            _ => bail!("this is no instruction that the comparison follows"),
        }
        Ok(())
    }

    fn loaded(&self, offset: u32) -> Option<u64> {
        self.mailbox.get(offset as usize / 8).copied().flatten()
    }
}

/// Instructions whose result is an address or a field that decides nothing here: ADR and ADRP, ADD and SUB (CMP), ANDS (TST), UBFX, MRS of
/// a register without a name in the trace.
fn is_address_arithmetic(word: u32) -> bool {
    let class = word & 0x1f00_0000;
    matches!(class, 0x1000_0000 | 0x1100_0000 | 0x0b00_0000)
        || word & 0xff80_0000 == 0xf200_0000
        || word & 0x7f80_0000 == 0x5300_0000
        || word & 0xfff0_0000 == 0xd530_0000
}

/// The immediate of a logical instruction whose element is all 64 bits: imms + 1 ones, rotated right by immr.
fn bit_mask(word: u32) -> u64 {
    let (ones, rotation) = ((word >> 10 & 63) + 1, word >> 16 & 63);
    let run = if ones == 64 { u64::MAX } else { (1 << ones) - 1 };
    run.rotate_right(rotation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// switch_root and its window as an assembler gives them; the two address computations are `adr`s.
    const SWITCH: [u32; 8] = [
        0x1000_0002, // adr x2, .
        0xd53c_1004, // mrs x4, sctlr_el2
        0x927f_f885, // bic x5, x4, #1
        0xd503_3f9f, // dsb sy
        0xd61f_0060, // br x3
        0xd280_40a0, // mov x0, #0x205
        0xf2a0_0020, // movk x0, #1, lsl #16
        0xd65f_03c0, // ret
    ];
    const WINDOW: [u32; 11] = [
        0xd503_3fdf, // isb
        0xd51c_1005, // msr sctlr_el2, x5
        0xd503_3fdf,
        0xd50c_871f, // tlbi alle2
        0xd503_379f, // dsb nsh
        0xd503_3fdf,
        0xd51c_2000, // msr ttbr0_el2, x0
        0xd503_3fdf,
        0xd51c_1004, // msr sctlr_el2, x4
        0xd503_3fdf,
        0xd61f_0040, // br x2
    ];

    fn elf(switch: &[u32], window: &[u32]) -> Elf {
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let symbol = |name: &str, address, words: &[u32]| breakwater_image::Symbol {
            name: name.to_owned(),
            address,
            size: 4 * words.len() as u64,
            absolute: false,
            typed: true,
            label: false,
        };
        Elf {
            symbols: vec![symbol("switch_root", 0x1000, switch), symbol("switch_root_window", 0x2000, window)],
            segments: vec![
                breakwater_image::Segment { address: 0x1000, bytes: bytes(switch) },
                breakwater_image::Segment { address: 0x2000, bytes: bytes(window) },
            ],
            ..Elf::default()
        }
    }

    #[test]
    fn good_the_routine_as_it_is() {
        switch_root(&elf(&SWITCH, &WINDOW)).expect("image and expansion agree");
    }

    #[test]
    fn bad_each_instruction_left_out_or_swapped_is_noticed() {
        for at in 0..WINDOW.len() {
            let mut shorter = WINDOW.to_vec();
            shorter.remove(at);
            assert!(switch_root(&elf(&SWITCH, &shorter)).is_err(), "without word {at} of the window");
        }
        for at in 0..WINDOW.len() - 1 {
            let mut swapped = WINDOW;
            swapped.swap(at, at + 1);
            assert!(switch_root(&elf(&SWITCH, &swapped)).is_err(), "words {at} and {} swapped", at + 1);
        }
    }

    #[test]
    fn bad_another_value_barrier_or_count_is_noticed() {
        let with = |at: usize, word| {
            let mut changed = SWITCH;
            changed[at] = word;
            switch_root(&elf(&changed, &WINDOW))
        };
        assert!(with(2, 0x927e_f885).is_err(), "another bit cleared");
        assert!(with(3, 0xd503_3b9f).is_err(), "dsb ish");
        assert!(with(5, 0xd280_4080).is_err(), "four ISBs counted");
        assert!(with(0, 0x1e60_2800).is_err(), "an instruction that is not followed");
    }
}
