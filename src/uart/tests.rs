//! Claims about sending: what each kind's model puts on its line.

mod models;

use super::*;
use crate::addr::PhysAddr;
use models::{Armada3700, Board, Cadence, Geni, Imx, Lpuart, Meson, Ns16550, Pl011, Scif, Uartdm};

const TEXT: &[u8] = b"breakwater\r\n\x00\xff";

fn span(start: u64, bytes: u64) -> PhysSpan {
    PhysSpan::of(PhysAddr::at(start), bytes).unwrap()
}

fn uart(kind: ConsoleKind) -> Uart {
    Uart::of(kind, span(0x900_0000, 0x1000), 0, 1).unwrap()
}

/// The models of all kinds but the 8250, which comes in nine spacings. Cadence's is as reset leaves it.
fn boards(busy: u32) -> Vec<(ConsoleKind, Board)> {
    vec![
        (ConsoleKind::Pl011, Board::new(Pl011, busy)),
        (ConsoleKind::Ns16550, Board::new(Ns16550 { spacing: 1, bytes: 1 }, busy)),
        (ConsoleKind::Cadence, Board::new(Cadence { control: 0x128, stores_to_control: 0 }, busy)),
        (ConsoleKind::Imx, Board::new(Imx, busy)),
        (ConsoleKind::Meson, Board::new(Meson, busy)),
        (ConsoleKind::Geni, Board::new(Geni::default(), busy)),
        (ConsoleKind::Uartdm, Board::new(Uartdm::default(), busy)),
        (ConsoleKind::Lpuart, Board::new(Lpuart, busy)),
        (ConsoleKind::Scif, Board::new(Scif::new(), busy)),
        (ConsoleKind::Armada3700, Board::new(Armada3700, busy)),
    ]
}

/// Sends `TEXT`, and tells how many bytes the driver believes sent.
fn send(uart: Uart, board: &mut Board) -> usize {
    let is_stuck = AtomicBool::new(false);
    uart.start(board);
    TEXT.iter().filter(|&&byte| uart.send(board, byte, &is_stuck)).count()
}

fn is_whole(board: &Board) -> bool {
    board.line.lost == 0 && board.line.sent == TEXT
}

#[test]
fn good_every_kind_sends_all_bytes_in_order() {
    for (kind, mut board) in boards(0) {
        assert_eq!(send(uart(kind), &mut board), TEXT.len(), "{kind:?}");
        assert!(is_whole(&board), "{kind:?}: {:?}", board.line);
        assert_eq!(board.line.looks as usize, TEXT.len(), "{kind:?}: one look for each byte");
    }
}

#[test]
fn good_a_busy_uart_is_waited_for() {
    for (kind, mut board) in boards(7) {
        assert_eq!(send(uart(kind), &mut board), TEXT.len(), "{kind:?}");
        assert!(is_whole(&board), "{kind:?}: {:?}", board.line);
        assert_eq!(board.line.looks as usize, 8 * TEXT.len(), "{kind:?}: seven looks that say busy, and one more");
    }
}

/// What refuse.S does with the steps of a UART, for one byte.
fn follow(steps: &[Step], board: &mut Board, byte: u8) {
    for &Step { what, offset, mask, value } in steps {
        let width = match what >> Step::WIDTH_SHIFT {
            1 => Width::Byte,
            2 => Width::Half,
            _ => Width::Word,
        };
        let register = Register { offset, width };
        match what & 0xff {
            Step::END => return,
            Step::WAIT => while board.load(register) & mask != value {},
            Step::STORE => board.store(register, value),
            Step::BYTE => board.store(register, byte.into()),
            Step::ENABLE => match board.load(register) {
                loaded if loaded & mask == value => {}
                loaded => board.store(register, loaded & !mask | value),
            },
            other => unreachable!("no step is {other}"),
        }
    }
    panic!("the steps do not end");
}

#[test]
fn good_the_steps_of_every_kind_send_all_bytes() {
    for (kind, mut board) in boards(7) {
        let steps = uart(kind).steps();
        TEXT.iter().for_each(|&byte| follow(&steps, &mut board, byte));
        assert!(is_whole(&board), "{kind:?}: {:?}", board.line);
    }
}

#[test]
fn good_an_8250_in_every_spacing_and_width() {
    for (shift, bytes) in [(0, 1), (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (2, 4), (3, 4)] {
        let uart = Uart::of(ConsoleKind::Ns16550, span(0x3f21_5040, 0x40), shift, bytes).unwrap();
        let mut board = Board::new(Ns16550 { spacing: 1 << shift, bytes }, 3);
        assert_eq!(send(uart, &mut board), TEXT.len());
        assert!(is_whole(&board), "shift {shift}, {bytes} bytes: {:?}", board.line);
    }
}

#[test]
#[should_panic(expected = "no register of 1 bytes at 0x5")]
fn bad_an_8250_in_another_spacing() {
    send(uart(ConsoleKind::Ns16550), &mut Board::new(Ns16550 { spacing: 4, bytes: 1 }, 0));
}

#[test]
fn bad_a_driver_that_does_not_wait_loses_bytes() {
    for (kind, mut board) in boards(7) {
        let hasty = Uart { mask: 0, ready: 0, ..uart(kind) };
        send(hasty, &mut board);
        assert!(!is_whole(&board), "{kind:?}: the model takes what it has no room for");
    }
}

#[test]
fn bad_a_driver_that_waits_for_the_opposite_loses_bytes() {
    for (kind, mut board) in boards(7) {
        let uart = uart(kind);
        let is_stuck = AtomicBool::new(true);
        let opposite = Uart { ready: uart.ready ^ uart.mask, ..uart };
        TEXT.iter().for_each(|&byte| _ = opposite.send(&mut board, byte, &is_stuck));
        assert!(!is_whole(&board), "{kind:?}");
    }
}

#[test]
fn bad_without_what_goes_before_and_after_a_byte() {
    let mut needed = 0;
    for left_out in 0..3 {
        for (kind, mut board) in boards(7) {
            let uart = uart(kind);
            let less = match left_out {
                0 => Uart { before: uart.before.get(1..).unwrap_or(&[]), ..uart },
                1 => Uart { before: uart.before.get(..1).unwrap_or(&[]), ..uart },
                _ => Uart { after: &[], ..uart },
            };
            if less == uart {
                continue;
            }
            needed += 1;
            let is_stuck = AtomicBool::new(true);
            TEXT.iter().for_each(|&byte| _ = (0..9).any(|_| less.send(&mut board, byte, &is_stuck)));
            assert!(!is_whole(&board), "{kind:?}: a store that nothing needs");
        }
    }
    assert_eq!(needed, 5, "GENI's two and UARTDM's two before, SCIF's one after");
}

#[test]
fn good_a_transmitter_is_enabled_once() {
    // Enabled already, disabled, and both at once, which is disabled.
    for (control, stores) in [(0x117, 0), (0x128, 1), (0x134, 1), (0x100, 1)] {
        let mut model = Cadence { control, stores_to_control: 0 };
        let mut board = Board::new(Cadence { ..model }, 0);
        send(uart(ConsoleKind::Cadence), &mut board);
        assert!(is_whole(&board), "{control:#x}: {:?}", board.line);
        uart(ConsoleKind::Cadence).start(&mut Bare(&mut model));
        assert_eq!((model.control, model.stores_to_control), (control & !0x20 | 0x10, stores), "{control:#x}");
    }
}

#[test]
fn bad_a_transmitter_that_nobody_enabled() {
    let mut board = Board::new(Cadence { control: 0x128, stores_to_control: 0 }, 0);
    send(Uart { transmitter: None, ..uart(ConsoleKind::Cadence) }, &mut board);
    assert_eq!(board.line.lost, TEXT.len());
}

/// Cadence's control register alone.
struct Bare<'a>(&'a mut Cadence);

impl Registers for Bare<'_> {
    fn load(&mut self, register: Register) -> u32 {
        assert_eq!(register, word(0));
        self.0.control
    }

    fn store(&mut self, register: Register, value: u32) {
        assert_eq!(register, word(0));
        self.0.control = value;
        self.0.stores_to_control += 1;
    }
}

#[test]
fn bad_a_uart_that_has_stopped_costs_one_wait() {
    let uart = uart(ConsoleKind::Pl011);
    let mut board = Board::new(Pl011, u32::MAX);
    let is_stuck = AtomicBool::new(false);
    assert!(!uart.send(&mut board, b'a', &is_stuck));
    assert_eq!(board.line.looks, LOOKS_MAX);
    (0..100).for_each(|_| assert!(!uart.send(&mut board, b'b', &is_stuck)));
    assert_eq!(board.line.looks, LOOKS_MAX + 100);
    assert_eq!((board.line.sent.as_slice(), board.line.lost), (&[][..], 0), "nothing is stored to it");
}

#[test]
fn good_a_uart_that_goes_on_is_waited_for_again() {
    let uart = uart(ConsoleKind::Meson);
    let mut board = Board::new(Meson, 5);
    let is_stuck = AtomicBool::new(true);
    (0..5).for_each(|_| assert!(!uart.send(&mut board, b'a', &is_stuck)));
    assert!(uart.send(&mut board, b'b', &is_stuck));
    assert!(uart.send(&mut board, b'c', &is_stuck), "five looks that say busy are waited out again");
    assert_eq!(board.line.sent, b"bc");
}

#[test]
fn bad_registers_that_a_driver_would_reach_beyond() {
    for (kind, bytes) in [
        (ConsoleKind::Pl011, 0x1c),
        (ConsoleKind::Ns16550, 6),
        (ConsoleKind::Cadence, 0x34),
        (ConsoleKind::Imx, 0xb8),
        (ConsoleKind::Meson, 0x10),
        (ConsoleKind::Geni, 0x704),
        (ConsoleKind::Uartdm, 0x74),
        (ConsoleKind::Lpuart, 0x20),
        (ConsoleKind::Scif, 0x12),
        (ConsoleKind::Armada3700, 0x10),
    ] {
        assert!(Uart::of(kind, span(0x900_0000, bytes), 0, 1).is_some(), "{kind:?}");
        assert_eq!(Uart::of(kind, span(0x900_0000, bytes - 1), 0, 1), None, "{kind:?}");
    }
}

#[test]
fn bad_registers_that_are_not_aligned() {
    for kind in [ConsoleKind::Pl011, ConsoleKind::Scif] {
        assert_eq!(Uart::of(kind, span(0x900_0001, 0x100), 0, 1), None);
    }
    assert!(Uart::of(ConsoleKind::Ns16550, span(0x900_0001, 0x100), 2, 1).is_some(), "bytes stand anywhere");
    assert_eq!(Uart::of(ConsoleKind::Ns16550, span(0x900_0002, 0x100), 2, 4), None);
}

#[test]
fn bad_kinds_and_spacings_without_a_driver() {
    assert_eq!(Uart::of(ConsoleKind::Unknown, span(0x900_0000, 0x1000), 0, 1), None);
    for (shift, bytes) in [(0, 2), (0, 4), (1, 4), (2, 3), (2, 8), (4, 1), (64, 1)] {
        assert_eq!(Uart::of(ConsoleKind::Ns16550, span(0x900_0000, 0x1000), shift, bytes), None, "{shift} {bytes}");
    }
}
