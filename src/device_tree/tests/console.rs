//! Claims about the console.

use super::*;
use crate::uart::Uart;

fn uart(name: &str, compatible: &str, reg: &[u32], properties: Properties<'_>) -> DeviceTreeNode {
    let own = [("compatible", text(compatible)), ("reg", cells(reg))];
    node(name, &[&own, properties].concat(), vec![])
}

fn console_of(stdout: &str, children: Vec<DeviceTreeNode>) -> Result<Option<Console>, Error> {
    let chosen = node("chosen", &[("stdout-path", text(stdout))], vec![]);
    let aliases = node("aliases", &[("serial0", text("/soc/serial@3000"))], vec![]);
    read(&machine([vec![chosen, aliases], children].concat())).map(|machine| machine.console)
}

fn bus(ranges: Option<Vec<u8>>, children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let ranges = ranges.map(|ranges| ("ranges", ranges));
    node("soc", &[cell_counts(1, 1), ranges.into_iter().collect()].concat(), children)
}

#[test]
fn good_pl011_by_its_path() {
    for path in ["/pl011@9000000", "/pl011@9000000:115200n8", "/pl011"] {
        let pl011 = uart("pl011@9000000", "arm,pl011\0arm,primecell", &[0, 0x900_0000, 0, 0x1000], &[]);
        let expected =
            Console { kind: ConsoleKind::Pl011, registers: span(0x900_0000, 0x1000), reg_shift: 0, reg_io_width: 4 };
        assert_eq!(console_of(path, vec![pl011]), Ok(Some(expected)));
    }
}

#[test]
fn good_uart_by_alias_behind_two_buses() {
    let mini = uart("serial@3000", "brcm,bcm2835-aux-uart", &[0x7e21_5040, 0x40], &[]);
    let ranges = cells(&[0x7c00_0000, 0, 0xfc00_0000, 0x380_0000]);
    let console = console_of("serial0:115200n8", vec![bus(Some(ranges), vec![mini])]).unwrap().unwrap();
    assert_eq!(console.kind, ConsoleKind::Ns16550);
    assert_eq!(console.registers, span(0xfe21_5040, 0x40));
    assert_eq!((console.reg_shift, console.reg_io_width), (2, 4));
}

#[test]
fn good_registers_at_the_very_end_of_a_range() {
    let serial = uart("serial@3000", "arm,pl011", &[0x3000, 0x100], &[]);
    let ranges = cells(&[0x1000, 0, 0x9000, 0x80, 0x2000, 0, 0x2_0000, 0x1100]);
    let console = console_of("serial0", vec![bus(Some(ranges), vec![serial])]).unwrap().unwrap();
    assert_eq!(console.registers, span(0x2_1000, 0x100));
}

#[test]
fn good_empty_ranges_change_nothing() {
    let uart = uart("serial@3000", "cdns,uart-r1p12\0xlnx,xuartps", &[0x3000, 0x100], &[]);
    let console = console_of("serial0", vec![bus(Some(vec![]), vec![uart])]).unwrap().unwrap();
    assert_eq!((console.kind, console.registers), (ConsoleKind::Cadence, span(0x3000, 0x100)));
}

/// What a node with `compatible` and `properties` is taken for, with 4 KiB of registers at 4 KiB.
fn taken_for(compatible: &str, properties: Properties<'_>) -> Console {
    let uart = uart("u", compatible, &[0, 0x1000, 0, 0x1000], properties);
    console_of("/u", vec![uart]).unwrap().unwrap()
}

#[test]
fn good_kinds_by_the_first_compatible_that_is_known() {
    for (compatible, kind) in [
        ("arm,sbsa-uart", ConsoleKind::Pl011),
        ("brcm,bcm7271-uart\0ns16550a", ConsoleKind::Ns16550),
        ("rockchip,rk3399-uart\0snps,dw-apb-uart", ConsoleKind::Ns16550),
        ("nvidia,tegra210-uart\0nvidia,tegra20-uart", ConsoleKind::Ns16550),
        ("ti,j721e-uart\0ti,am654-uart", ConsoleKind::Ns16550),
        ("fsl,imx8mp-uart\0fsl,imx6q-uart", ConsoleKind::Imx),
        ("amlogic,meson-gx-uart\0amlogic,meson-ao-uart", ConsoleKind::Meson),
        ("qcom,geni-debug-uart", ConsoleKind::Geni),
        ("qcom,msm-uartdm-v1.4\0qcom,msm-uartdm", ConsoleKind::Uartdm),
        ("fsl,imx93-lpuart\0fsl,imx7ulp-lpuart", ConsoleKind::Lpuart),
        ("renesas,scif-r8a774a1\0renesas,rcar-gen3-scif\0renesas,scif", ConsoleKind::Scif),
        ("marvell,armada-3700-uart", ConsoleKind::Armada3700),
    ] {
        let console = taken_for(compatible, &[]);
        assert_eq!(console.kind, kind, "{compatible}");
        let driver = Uart::of(console.kind, console.registers, console.reg_shift, console.reg_io_width);
        assert!(driver.is_some(), "{compatible}");
    }
}

#[test]
fn bad_kinds_that_only_resemble_one_we_know() {
    // Another register layout under a similar name, each; and one whose registers are big-endian.
    for compatible in
        ["arm,pl01", "arm,pl010", "fsl,imx1-uart", "fsl,vf610-lpuart", "fsl,ls1021a-lpuart", "qcom,msm-uart"]
    {
        assert_eq!(taken_for(compatible, &[]).kind, ConsoleKind::Unknown, "{compatible}");
    }
    assert_eq!(taken_for("marvell,armada-3700-uart-ext", &[]).kind, ConsoleKind::Unknown);
    assert_eq!(taken_for("ns16550a", &[("big-endian", vec![])]).kind, ConsoleKind::Unknown);
}

#[test]
fn good_8250_says_how_its_registers_are_spaced() {
    let access = |compatible, properties: Properties<'_>| {
        let console = taken_for(compatible, properties);
        (console.registers, console.reg_shift, console.reg_io_width)
    };
    let (number, whole) = (|value| cells(&[value]), span(0x1000, 0x1000));
    assert_eq!(access("ns16550a", &[("reg-shift", number(2)), ("reg-io-width", number(4))]), (whole, 2, 4));
    assert_eq!(access("ns16550a", &[]), (whole, 0, 1));
    assert_eq!(access("ns16550a", &[("reg-offset", number(0x100))]), (span(0x1100, 0xf00), 0, 1));
    assert_eq!(access("nvidia,tegra20-uart", &[("reg-shift", number(2))]), (whole, 2, 4));
    assert_eq!(access("ti,am654-uart", &[]), (whole, 2, 1));
    assert_eq!(access("ti,am654-uart", &[("reg-io-width", number(4))]), (whole, 2, 4));
}

#[test]
fn bad_8250_that_begins_behind_its_registers() {
    for offset in [vec![0x1000], vec![0x2000], vec![u32::MAX, u32::MAX]] {
        let properties = [("reg-offset", cells(&offset))];
        let uart = uart("u", "ns16550a", &[0, 0x1000, 0, 0x1000], &properties);
        assert_eq!(console_of("/u", vec![uart]), Err(malformed("u", "reg-offset")), "{offset:x?}");
    }
}

#[test]
fn bad_8250_spacing_is_refused() {
    let reg = [0, 0x1000, 0, 0x1000];
    let shift = uart("u", "ns16550a", &reg, &[("reg-shift", cells(&[64]))]);
    assert_eq!(console_of("/u", vec![shift]), Err(malformed("u", "reg-shift")));
    let width = uart("u", "ns16550a", &reg, &[("reg-io-width", cells(&[3]))]);
    assert_eq!(console_of("/u", vec![width]), Err(malformed("u", "reg-io-width")));
}

#[test]
fn bad_paths_are_no_console() {
    let uart = || uart("u@1000", "arm,pl011", &[0, 0x1000, 0, 0x1000], &[]);
    for path in ["", "/", "u", "/v", "/u@2000", "/u@1000/x", ":", "serial1"] {
        assert_eq!(console_of(path, vec![uart()]), Ok(None), "{path}");
    }
    assert_eq!(read(&machine(vec![uart()])).unwrap().console, None);
}

#[test]
fn bad_the_root_is_no_console() {
    let mut tree = chosen(&[("stdout-path", text("/"))], vec![]);
    tree.root.add_property(DeviceTreeProperty::new_unchecked("reg", cells(&[0, 0x1000, 0x1000]).as_slice()));
    assert_eq!(read(&tree).unwrap().console, None);
}

#[test]
fn bad_uart_that_cannot_be_used_is_no_console() {
    let reg = [0, 0x1000, 0, 0x1000];
    let disabled = uart("u", "arm,pl011", &reg, &[("status", text("disabled"))]);
    assert_eq!(console_of("/u", vec![disabled]), Ok(None));
    assert_eq!(console_of("/u", vec![node("u", &[("compatible", text("arm,pl011"))], vec![])]), Ok(None));
}

#[test]
fn bad_uart_that_no_bus_translates_is_no_console() {
    let serial = || uart("serial@3000", "arm,pl011", &[0x3000, 0x100], &[]);
    assert_eq!(console_of("serial0", vec![bus(None, vec![serial()])]), Ok(None));
    // Ranges that end one byte before the registers do, before them, or start after them.
    for (start, length) in [(0x3000, 0xff), (0x2f80, 0x17f), (0x2000, 0x1000), (0x2000, 0x80), (0x3001, 0x1000)] {
        let short = cells(&[start, 0, start, length]);
        assert_eq!(console_of("serial0", vec![bus(Some(short), vec![serial()])]), Ok(None), "{start:#x} {length:#x}");
    }
}

#[test]
fn bad_ranges_are_refused() {
    let serial = || uart("serial@3000", "arm,pl011", &[0x3000, 0x100], &[]);
    let error = malformed("soc", "ranges");
    assert_eq!(console_of("serial0", vec![bus(Some(vec![0; 12]), vec![serial()])]), Err(error));
    let wraps = cells(&[0x2000, u32::MAX, u32::MAX - 0xff, 0x4000]);
    assert_eq!(console_of("serial0", vec![bus(Some(wraps), vec![serial()])]), Err(error));
}

#[test]
fn bad_console_in_ram_would_have_two_memory_types() {
    let uart = uart("u", "arm,pl011", &[0, 0x3fff_f800, 0, 0x801], &[]);
    let (registers, bank) = (span(0x3fff_f800, 0x801), span(0x4000_0000, 0x4000_0000));
    let error = Error::ConsoleInRam { node: NodeName::new("u"), registers, bank };
    assert_eq!(console_of("/u", vec![uart]), Err(error));
    assert!(error.to_string().starts_with("device tree node u, the console, has a reg that lies in the RAM bank "));
}

#[test]
fn bad_uart_registers_with_half_an_entry() {
    assert_eq!(console_of("/u", vec![uart("u", "arm,pl011", &[0, 0x1000], &[])]), Err(malformed_reg("u")));
}

#[test]
fn good_first_serial_port_where_stdout_path_leads_nowhere() {
    let serial = |properties| uart("serial@3000", "arm,pl011", &[0x3000, 0x1000], properties);
    let soc = |properties| bus(Some(vec![]), vec![serial(properties)]);
    let aliases = node("aliases", &[("serial0", text("/soc/serial@3000"))], vec![]);
    let none = read(&machine(vec![aliases, soc(&[])])).unwrap().console;
    assert_eq!(none.unwrap().registers, span(0x3000, 0x1000));
    for lost in ["/soc/serial@4000", "serial7", "hvc0:115200"] {
        assert_eq!(console_of(lost, vec![soc(&[])]).unwrap(), none);
    }
    let off = [("status", text("disabled"))];
    assert_eq!(console_of("serial7", vec![soc(&off)]), Ok(None));
    let disabled = uart("uart@5000", "arm,pl011", &[0, 0x5000, 0, 0x1000], &off);
    assert_eq!(console_of("/uart@5000", vec![disabled, soc(&[])]).unwrap(), none);
}

#[test]
fn good_of_a_large_window_only_what_a_driver_may_use() {
    let pl011 = uart("pl011@9000000", "arm,pl011", &[0, 0x900_0000, 0, 0x100_0000], &[]);
    let console = console_of("/pl011@9000000", vec![pl011]).unwrap().unwrap();
    assert_eq!(console.registers, span(0x900_0000, 0x1000));
}

#[test]
fn good_uart_behind_more_nodes_than_are_noted() {
    let others = |count| (0..count).map(|i| node(&format!("device@{i}"), &[], vec![node("part", &[], vec![])]));
    for count in [10, 126, 127, 128, 129, 400] {
        let pl011 = uart("pl011@9000000", "arm,pl011", &[0, 0x900_0000, 0, 0x1000], &[]);
        let console = console_of("/pl011", others(count).chain([pl011]).collect()).unwrap().unwrap();
        assert_eq!(console.registers, span(0x900_0000, 0x1000));
        assert_eq!(console_of("/pl011", others(count).collect()), Ok(None));
    }
}
