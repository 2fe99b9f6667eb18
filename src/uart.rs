//! How a byte leaves each kind of UART, as data.
//!
//! Why it exists: boards differ in their serial port more than in anything else that boot needs of them. But whoever
//! only sends waits for a bit of one register and then stores into another; so a kind of UART is a row of facts here,
//! each with its source, and one routine, [`Uart::send`], serves them all. The crates that exist drive one kind each,
//! set the line up, and would be a path of their own each, where a row is two lines.
//!
//! What must hold: what ran before us has set the speed of the line, its clocks and its pins, and has enabled the
//! transmitter. Nothing here does: we only send. ([`Uart::start`] makes the one exception and says why.) The
//! registers are little-endian.
//!
//! What it refuses: registers that a row would reach beyond, or that are not aligned; and to wait for ever for a UART
//! that has stopped ([`LOOKS_MAX`]).

#![forbid(unsafe_code)]

use crate::addr::PhysSpan;
use core::sync::atomic::{AtomicBool, Ordering};

/// What programs the console's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleKind {
    /// Arm's PL011 and the SBSA subset of it.
    Pl011,
    /// The 8250 family: the BCM2835 mini UART, Synopsys's, TI's and NVIDIA's included.
    Ns16550,
    /// Cadence's, on Zynq.
    Cadence,
    /// NXP's, on i.MX up to 8M.
    Imx,
    /// Amlogic's.
    Meson,
    /// Qualcomm's GENI serial engine.
    Geni,
    /// Qualcomm's UARTDM, before GENI.
    Uartdm,
    /// NXP's low-power UART, on i.MX 8X, 8ULP and 9.
    Lpuart,
    /// Renesas's SCIF, on R-Car and RZ/G.
    Scif,
    /// Marvell's, on Armada 3700.
    Armada3700,
    /// One that we have no driver for.
    Unknown,
}

/// Bytes of one access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 1.
    Byte,
    /// 2.
    Half,
    /// 4.
    Word,
}

impl Width {
    const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// A register of a UART.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// Bytes from the first register. Within the span and aligned to `width` in what [`Uart::of`] returned for it.
    pub offset: u32,
    /// How it is accessed.
    pub width: Width,
}

const fn word(offset: u32) -> Register {
    Register { offset, width: Width::Word }
}

/// Access to the registers of one UART, each in one load or store. The image implements it for Device memory, tests
/// for models.
pub trait Registers {
    /// Loads `register`.
    fn load(&mut self, register: Register) -> u32;
    /// Stores the low bytes of `value` to `register`.
    fn store(&mut self, register: Register, value: u32);
}

type Store = (Register, u32);

/// How many times the status is looked at before a byte is given up. At 9,600 bits a second a
/// byte takes about 1 ms, and a full FIFO of 256 a quarter of a second. If a load from a device takes 50 ns, which is
/// an estimate, this is most of a second: longer than any UART that works needs.
pub const LOOKS_MAX: u32 = 1 << 24;

/// How one UART sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart {
    status: Register,
    /// These bits of the status ...
    mask: u32,
    /// ... read so when a byte may be stored.
    ready: u32,
    /// Stored before each byte.
    before: &'static [Store],
    data: Register,
    /// Stored after each byte.
    after: &'static [Store],
    transmitter: Option<Transmitter>,
}

/// How a transmitter is enabled: a control register, bits that must be clear, bits that must be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Transmitter {
    control: Register,
    clear: u32,
    set: u32,
}

/// The most steps that a byte takes, and their end.
pub const STEPS: usize = 6;

/// One access to a register, or two, of what sending a byte takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Step {
    /// One of the constants below; above [`Step::WIDTH_SHIFT`], the bytes of an access.
    pub what: u32,
    /// The register, in bytes from the first.
    pub offset: u32,
    /// Which bits matter.
    pub mask: u32,
    /// What they are to read as, or what is stored.
    pub value: u32,
}

impl Step {
    /// The byte is sent.
    pub const END: u32 = 0;
    /// Loads until the bits of the mask read as the value.
    pub const WAIT: u32 = 1;
    /// Stores the value.
    pub const STORE: u32 = 2;
    /// Stores the byte.
    pub const BYTE: u32 = 4;
    /// Loads; where the bits of the mask do not read as the value, stores what was loaded with them so.
    pub const ENABLE: u32 = 8;
    /// Where the bytes of an access stand.
    pub const WIDTH_SHIFT: u32 = 8;

    const fn new(what: u32, register: Register, mask: u32, value: u32) -> Self {
        Self { what: what | register.width.bytes() << Self::WIDTH_SHIFT, offset: register.offset, mask, value }
    }
}

impl Uart {
    /// May send when all bits of `bit` are set.
    const fn ready_when_set(status: Register, bit: u32, data: Register) -> Self {
        Self { status, mask: bit, ready: bit, before: &[], data, after: &[], transmitter: None }
    }

    /// May send when all bits of `bit` are clear.
    const fn ready_when_clear(status: Register, bit: u32, data: Register) -> Self {
        Self { status, mask: bit, ready: 0, before: &[], data, after: &[], transmitter: None }
    }

    /// Arm DDI 0183 (PL011) and Arm DEN 0029 (SBSA generic UART): UARTDR at 0x000, UARTFR at 0x018, bit 5 TXFF:
    /// "transmit FIFO full", or holding register full without FIFO. Both may be accessed as words: Linux, amba-pl011.c,
    /// pl011_putc.
    const PL011: Self = Self::ready_when_clear(word(0x18), 1 << 5, word(0x00));

    /// Texas Instruments PC16550D; Linux, include/uapi/linux/serial_reg.h: LSR.THRE (register 5), THR (register 0).
    /// Spacing and width where a device tree does not say them: Linux, 8250_bcm2835aux.c (early_bcm2835aux_setup),
    /// 8250_tegra.c (tegra_uart_probe) and 8250_mtk.c (early_mtk8250_setup), all words 4 bytes apart. The mini UART's
    /// THRE says that its FIFO is not full, not that it is empty (Linux, "serial: 8250: Fix THRE flag usage for
    /// CAP_MINI"): one byte a look is right by either.
    const fn ns16550(reg_shift: u32, width: Width) -> Self {
        let (status, data) = (Register { offset: 5 << reg_shift, width }, Register { offset: 0, width });
        Self::ready_when_set(status, 1 << 5, data)
    }

    /// AMD UG1087 (Zynq UltraScale+ registers), UART: Channel_sts at 0x2c, TX_RX_FIFO at 0x30, words. Linux,
    /// xilinx_uartps.c: CDNS_UART_SR_TXFULL is bit 4 of the former; CDNS_UART_CR at 0x00, CDNS_UART_CR_TX_EN bit 4,
    /// CDNS_UART_CR_TX_DIS bit 5.
    const CADENCE: Self = Self {
        transmitter: Some(Transmitter { control: word(0x00), clear: 1 << 5, set: 1 << 4 }),
        ..Self::ready_when_clear(word(0x2c), 1 << 4, word(0x30))
    };

    /// Linux, imx_earlycon.c: IMX21_UTS at 0xb4 ("all other i.MX" than the first), bit 4 UTS_TXFULL; URTX0 at 0x40;
    /// words.
    const IMX: Self = Self::ready_when_clear(word(0xb4), 1 << 4, word(0x40));

    /// Linux, meson_uart.c: AML_UART_STATUS, AML_UART_TX_FULL, AML_UART_WFIFO.
    const MESON: Self = Self::ready_when_clear(word(0x0c), 1 << 21, word(0x00));

    /// Linux, qcom_geni_serial.c and include/linux/soc/qcom/geni-se.h: a byte is a transfer of one word
    /// (SE_UART_TX_TRANS_LEN), begun by the command UART_START_TX (SE_GENI_M_CMD0), fed through SE_GENI_TX_FIFOn. No
    /// command may be given while one is active (SE_GENI_STATUS, M_GENI_CMD_ACTIVE); when none is, the FIFO is empty.
    const GENI: Self = Self {
        before: &[(word(0x270), 1), (word(0x600), 1 << 27)],
        ..Self::ready_when_clear(word(0x40), 1 << 0, word(0x700))
    };

    /// Linux, msm_serial.c: how many characters follow (UARTDM_NCF_TX) may be said only when the transmitter is empty
    /// (UART_SR, TX_EMPTY), after its "ready" was reset (UART_CR, RESET_TX_READY); then comes UARTDM_TF.
    const UARTDM: Self = Self {
        before: &[(word(0x10), 3 << 8), (word(0x40), 1)],
        ..Self::ready_when_set(word(0x08), 1 << 3, word(0x70))
    };

    /// NXP IMX8ULPRM and IMX93RM, LPUART; Linux, fsl_lpuart.c (with IMX_REG_OFF): STAT.TDRE, DATA.
    const LPUART: Self = Self::ready_when_set(word(0x14), 1 << 23, word(0x1c));

    /// SCFTDR at 0x0c, SCFSR at 0x10, bit 5 TDFE, bit 6 TEND: OP-TEE, drivers/scif.c, for R-Car Gen3; a byte and 16
    /// bits wide: Linux, sh-sci.c, and QNX's startup for R-Car Gen3. TDFE stays set until 0 is written to it, and so
    /// does TEND; 1 leaves a flag as it is: Linux, sh-sci.h, SCIF_TDxE_CLEAR.
    const SCIF: Self = Self {
        after: &[(Register { offset: 0x10, width: Width::Half }, 0xff9f)],
        ..Self::ready_when_set(
            Register { offset: 0x10, width: Width::Half },
            1 << 5,
            Register { offset: 0x0c, width: Width::Byte },
        )
    };

    /// Linux, mvebu-uart.c, the standard port: UART_STAT, STAT_TX_FIFO_FUL, UART_STD_TSH.
    const ARMADA_3700: Self = Self::ready_when_clear(word(0x0c), 1 << 11, word(0x04));

    /// How a UART of `kind` sends whose registers are `registers`. `reg_shift`, log2 of the distance between
    /// registers in bytes, and `reg_io_width`, the bytes of an access, matter for [`ConsoleKind::Ns16550`] alone.
    ///
    /// `None` when there is no driver for it, or when it would access what is beyond `registers` or not aligned.
    #[must_use]
    pub const fn of(kind: ConsoleKind, registers: PhysSpan, reg_shift: u32, reg_io_width: u32) -> Option<Self> {
        match Self::row(kind, reg_shift, reg_io_width) {
            Some(uart) if uart.fits(registers) => Some(uart),
            _ => None,
        }
    }

    const fn row(kind: ConsoleKind, reg_shift: u32, reg_io_width: u32) -> Option<Self> {
        Some(match kind {
            ConsoleKind::Pl011 => Self::PL011,
            ConsoleKind::Ns16550 => match (reg_shift, reg_io_width) {
                (0..=3, 1) => Self::ns16550(reg_shift, Width::Byte),
                (1..=3, 2) => Self::ns16550(reg_shift, Width::Half),
                (2..=3, 4) => Self::ns16550(reg_shift, Width::Word),
                _ => return None,
            },
            ConsoleKind::Cadence => Self::CADENCE,
            ConsoleKind::Imx => Self::IMX,
            ConsoleKind::Meson => Self::MESON,
            ConsoleKind::Geni => Self::GENI,
            ConsoleKind::Uartdm => Self::UARTDM,
            ConsoleKind::Lpuart => Self::LPUART,
            ConsoleKind::Scif => Self::SCIF,
            ConsoleKind::Armada3700 => Self::ARMADA_3700,
            ConsoleKind::Unknown => return None,
        })
    }

    const fn fits(&self, registers: PhysSpan) -> bool {
        let (steps, mut index) = (self.steps(), 0);
        while index < steps.len() {
            let Step { what, offset, .. } = steps[index];
            let (offset, bytes) = (offset as u64, (what >> Step::WIDTH_SHIFT) as u64);
            let is_inside = offset + bytes <= registers.bytes();
            if bytes > 0 && !(is_inside && (registers.start().raw() + offset).is_multiple_of(bytes)) {
                return false;
            }
            index += 1;
        }
        true
    }

    /// What sending one byte takes, [`Uart::start`] included, as numbers alone: for code that runs before there are
    /// pointers.
    #[must_use]
    pub const fn steps(&self) -> [Step; STEPS] {
        let mut steps = [Step { what: Step::END, offset: 0, mask: 0, value: 0 }; STEPS];
        let mut count = 0;
        if let Some(Transmitter { control, clear, set }) = self.transmitter {
            steps[count] = Step::new(Step::ENABLE, control, clear | set, set);
            count += 1;
        }
        steps[count] = Step::new(Step::WAIT, self.status, self.mask, self.ready);
        count += 1;
        let mut index = 0;
        while index < self.before.len() {
            let (register, value) = self.before[index];
            steps[count + index] = Step::new(Step::STORE, register, 0, value);
            index += 1;
        }
        count += index;
        steps[count] = Step::new(Step::BYTE, self.data, 0, 0);
        count += 1;
        index = 0;
        while index < self.after.len() {
            let (register, value) = self.after[index];
            steps[count + index] = Step::new(Step::STORE, register, 0, value);
            index += 1;
        }
        steps
    }

    /// Enables the transmitter where it is known to be off and nothing else is missing: Cadence's is off after reset,
    /// and a loader that never printed, as QEMU's own is, leaves it so. One that is on is not touched.
    pub fn start(&self, registers: &mut impl Registers) {
        let Some(Transmitter { control, clear, set }) = self.transmitter else { return };
        let value = registers.load(control);
        if value & (clear | set) != set {
            registers.store(control, value & !clear | set);
        }
    }

    /// Sends one byte as soon as the UART is ready for it, and tells whether it did. `is_stuck` remembers for the
    /// next byte, from whichever CPU: after one that was given up, the status is looked at once for each further
    /// byte, until the UART is ready again. So a UART that has stopped costs boot one wait.
    ///
    /// CPUs that send at the same time, as only exceptions do, may lose bytes of each other or see them interleaved;
    /// nothing worse.
    pub fn send(&self, registers: &mut impl Registers, byte: u8, is_stuck: &AtomicBool) -> bool {
        let looks = if is_stuck.load(Ordering::Relaxed) { 1 } else { LOOKS_MAX };
        let is_ready = (0..looks).any(|_| registers.load(self.status) & self.mask == self.ready);
        is_stuck.store(!is_ready, Ordering::Relaxed);
        if is_ready {
            self.before.iter().for_each(|&(register, value)| registers.store(register, value));
            registers.store(self.data, byte.into());
            self.after.iter().for_each(|&(register, value)| registers.store(register, value));
        }
        is_ready
    }
}

#[cfg(test)]
mod tests;
