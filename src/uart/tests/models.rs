//! UARTs as their sources describe them, written apart from the table that they judge.
//!
//! Each panics at an access that its source does not describe (another register, another width), counts bytes that
//! are lost, and needs `busy` looks at its status before it takes the next byte.

use super::super::{Register, Registers};

/// What leaves on the line, and when there is room for more.
#[derive(Default, Debug)]
pub(super) struct Line {
    pub sent: Vec<u8>,
    pub lost: usize,
    /// Looks at the status, in all.
    pub looks: u32,
    /// Looks that say "busy" after each byte.
    pub busy: u32,
    waits: u32,
}

impl Line {
    fn has_room(&mut self) -> bool {
        self.looks += 1;
        let has_room = self.waits == 0;
        self.waits = self.waits.saturating_sub(1);
        has_room
    }

    fn take(&mut self, byte: u32) {
        if self.waits == 0 {
            self.sent.push(byte as u8);
            self.waits = self.busy;
        } else {
            self.lost += 1;
        }
    }
}

pub(super) trait Model {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32;
    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32);
}

/// A model, and its line.
pub(super) struct Board {
    pub line: Line,
    model: Box<dyn Model>,
}

impl Board {
    pub(super) fn new(model: impl Model + 'static, busy: u32) -> Self {
        Self { line: Line { busy, waits: busy, ..Line::default() }, model: Box::new(model) }
    }
}

impl Registers for Board {
    fn load(&mut self, register: Register) -> u32 {
        self.model.load(&mut self.line, register.offset, register.width.bytes())
    }

    fn store(&mut self, register: Register, value: u32) {
        self.model.store(&mut self.line, register.offset, register.width.bytes(), value);
    }
}

fn undefined(offset: u32, bytes: u32) -> ! {
    panic!("no register of {bytes} bytes at {offset:#x}")
}

/// ARM DDI 0183G, 3.3: UARTDR at 0x000; UARTFR at 0x018, bit 7 TXFE, bit 5 TXFF, bit 4 RXFE.
pub(super) struct Pl011;

impl Model for Pl011 {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x18, 4) => 1 << 4 | if line.has_room() { 1 << 7 } else { 1 << 5 },
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0, 4) => line.take(value),
            _ => undefined(offset, bytes),
        }
    }
}

/// PC16550D, 8.0: THR is register 0 while LCR.DLAB is 0; LSR is register 5, bit 5 THRE, bit 6 TEMT, bit 0 data ready.
pub(super) struct Ns16550 {
    pub spacing: u32,
    pub bytes: u32,
}

impl Model for Ns16550 {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (offset, bytes) if offset == 5 * self.spacing && bytes == self.bytes => {
                1 | if line.has_room() { 0x60 } else { 0 }
            }
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0, bytes) if bytes == self.bytes => line.take(value),
            _ => undefined(offset, bytes),
        }
    }
}

/// UG1087, UART: Channel_sts at 0x2c, bit 4 TFUL, bit 3 TEMPTY; TX_RX_FIFO at 0x30. xilinx_uartps.c: Control at 0x00,
/// bit 4 TXEN, bit 5 TXDIS. QEMU, cadence_uart.c: Control is 0x128 after reset, TXDIS wins, and a disabled transmitter
/// sends nothing.
pub(super) struct Cadence {
    pub control: u32,
    pub stores_to_control: u32,
}

impl Model for Cadence {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x00, 4) => self.control,
            (0x2c, 4) => {
                if line.has_room() {
                    1 << 3
                } else {
                    1 << 4
                }
            }
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x00, 4) => {
                self.control = value;
                self.stores_to_control += 1;
                assert_eq!(self.stores_to_control, 1, "a transmitter that is on is left alone");
            }
            (0x30, 4) if self.control & 0x30 == 0x10 => line.take(value),
            (0x30, 4) => line.lost += 1,
            _ => undefined(offset, bytes),
        }
    }
}

/// imx.c: UTXD at 0x40; UTS at 0xb4, bit 4 TXFULL, bit 6 TXEMPTY, bit 5 RXEMPTY.
pub(super) struct Imx;

impl Model for Imx {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0xb4, 4) => 1 << 5 | if line.has_room() { 1 << 6 } else { 1 << 4 },
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x40, 4) => line.take(value),
            _ => undefined(offset, bytes),
        }
    }
}

/// meson_uart.c: WFIFO at 0x00; STATUS at 0x0c, bit 20 receive FIFO empty, bit 21 transmit FIFO full, bit 22 transmit
/// FIFO empty.
pub(super) struct Meson;

impl Model for Meson {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x0c, 4) => 1 << 20 | if line.has_room() { 1 << 22 } else { 1 << 21 },
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x00, 4) => line.take(value),
            _ => undefined(offset, bytes),
        }
    }
}

/// qcom_geni_serial.c, geni-se.h: SE_GENI_STATUS at 0x40, bit 0 a main command is active, bit 12 a secondary one
/// (receiving); SE_UART_TX_TRANS_LEN at 0x270 counts words; SE_GENI_M_CMD0 at 0x600, the opcode from bit 27 on, 1 is
/// to send; SE_GENI_TX_FIFOn at 0x700. A word without a command waits for one that never comes; a command on top of
/// another cuts it off.
#[derive(Default)]
pub(super) struct Geni {
    words: u32,
    expected: u32,
}

impl Model for Geni {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x40, 4) => 1 << 12 | u32::from(!line.has_room() || self.expected != 0),
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x270, 4) => self.words = value,
            (0x600, 4) => {
                assert_eq!(value >> 27, 1, "to send is opcode 1");
                if self.expected != 0 || line.waits != 0 {
                    line.lost += 1;
                }
                self.expected = self.words;
            }
            (0x700, 4) if self.expected != 0 => {
                self.expected -= 1;
                line.take(value);
            }
            (0x700, 4) => line.lost += 1,
            _ => undefined(offset, bytes),
        }
    }
}

/// msm_serial.c: UART_SR at 0x08, bit 3 TX_EMPTY, bit 2 TX_READY; UART_CR at 0x10, command 0x300 resets "ready";
/// UARTDM_NCF_TX at 0x40, how many characters follow, stored when the transmitter is empty and "ready" was reset;
/// UARTDM_TF at 0x70.
#[derive(Default)]
pub(super) struct Uartdm {
    is_reset: bool,
    follow: u32,
}

impl Model for Uartdm {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x08, 4) => 1 << 2 | if line.has_room() { 1 << 3 } else { 0 },
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x10, 4) => self.is_reset = value == 0x300,
            (0x40, 4) => {
                self.follow = if self.is_reset && line.waits == 0 { value } else { 0 };
                self.is_reset = false;
            }
            (0x70, 4) if self.follow != 0 => {
                self.follow -= 1;
                line.take(value);
            }
            (0x70, 4) => line.lost += 1,
            _ => undefined(offset, bytes),
        }
    }
}

/// IMX93RM, LPUART, behind its 16 bytes of VERID to PINCFG: STAT at 0x14, bit 23 TDRE, bit 22 TC; DATA at 0x1c.
pub(super) struct Lpuart;

impl Model for Lpuart {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x14, 4) => {
                if line.has_room() {
                    3 << 22
                } else {
                    0
                }
            }
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x1c, 4) => line.take(value),
            _ => undefined(offset, bytes),
        }
    }
}

/// U-Boot's and Zephyr's drivers for R-Car, apart from Linux's: SCFTDR at 0x0c, a byte; SCFSR at 0x10, 16 bits, bit 5
/// TDFE, bit 6 TEND, bit 7 ER, bit 4 BRK. Flags are set by the UART and stay until 0 is stored to them after they were
/// read as 1; 1 leaves them.
pub(super) struct Scif {
    pub flags: u32,
    seen: u32,
}

impl Scif {
    /// With a receive error that someone else will want to see.
    pub(super) const fn new() -> Self {
        Self { flags: 1 << 7 | 1 << 4, seen: 0 }
    }
}

impl Model for Scif {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x10, 2) => {
                if line.has_room() {
                    self.flags |= 1 << 5 | 1 << 6;
                }
                self.seen = self.flags;
                self.flags
            }
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x0c, 1) => line.take(value),
            (0x10, 2) => {
                self.flags &= value | !self.seen;
                assert_eq!(self.flags & 0x90, 0x90, "the receiver's flags are not ours");
            }
            _ => undefined(offset, bytes),
        }
    }
}

/// mvebu-uart.c, the standard port: TSH at 0x04; STAT at 0x0c, bit 11 transmit FIFO full, bit 13 empty, bit 12
/// receive FIFO empty.
pub(super) struct Armada3700;

impl Model for Armada3700 {
    fn load(&mut self, line: &mut Line, offset: u32, bytes: u32) -> u32 {
        match (offset, bytes) {
            (0x0c, 4) => 1 << 12 | if line.has_room() { 1 << 13 } else { 1 << 11 },
            _ => undefined(offset, bytes),
        }
    }

    fn store(&mut self, line: &mut Line, offset: u32, bytes: u32, value: u32) {
        match (offset, bytes) {
            (0x04, 4) => line.take(value),
            _ => undefined(offset, bytes),
        }
    }
}
