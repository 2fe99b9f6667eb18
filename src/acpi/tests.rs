use super::*;
use proptest::prelude::*;

const RSDP_AT: u64 = 0x1000;
const XSDT_AT: u64 = 0x2004; // aligned to nothing, as some are
const START: PhysAddr = PhysAddr::at(0x4800_0000);

/// Tables at addresses: what firmware leaves.
type Memory = Vec<(u64, Vec<u8>)>;

fn seal(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] = 0;
    bytes[at] = sum(&bytes).wrapping_neg();
    bytes
}

fn table(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    bytes[..4].copy_from_slice(name);
    bytes.extend(body);
    let length = bytes.len() as u32;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    seal(bytes, 9)
}

fn rsdp(xsdt: u64) -> Vec<u8> {
    let mut bytes = vec![0; RSDP_BYTES];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[15] = 2;
    bytes[20..24].copy_from_slice(&36_u32.to_le_bytes());
    bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
    bytes[8] = sum(&bytes[..20]).wrapping_neg();
    seal(bytes, 32)
}

fn gicc(flags: u32, parking: u32, mpidr: u64) -> Vec<u8> {
    let mut bytes = vec![0; 80];
    (bytes[0], bytes[1]) = (0xb, 80);
    bytes[12..16].copy_from_slice(&flags.to_le_bytes());
    bytes[16..20].copy_from_slice(&parking.to_le_bytes());
    bytes[68..76].copy_from_slice(&mpidr.to_le_bytes());
    bytes
}

fn madt(entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"APIC", &[vec![0; 8], entries.concat()].concat())
}

fn fadt(arm_boot_flags: u16) -> Vec<u8> {
    let mut body = vec![0; 240];
    body[129 - HEAD_BYTES..][..2].copy_from_slice(&arm_boot_flags.to_le_bytes());
    table(b"FACP", &body)
}

fn spcr(kind: u8, space: u8, access: u8, address: u64) -> Vec<u8> {
    let mut body = vec![0; 44];
    (body[0], body[4], body[7]) = (kind, space, access);
    body[8..16].copy_from_slice(&address.to_le_bytes());
    table(b"SPCR", &body)
}

/// Two CPUs, a distributor between them, PSCI by SMC, and a PL011.
fn usual() -> Vec<Vec<u8>> {
    let distributor = [vec![0xc, 24], vec![0; 22]].concat();
    vec![
        fadt(1),
        table(b"DSDT", &[1; 9]),
        madt(&[gicc(1, 0, 0), distributor, gicc(1, 0, 1)]),
        spcr(3, 0, 3, 0x900_0000),
    ]
}

fn memory(tables: &[Vec<u8>]) -> Memory {
    let addresses = (0..tables.len() as u64).map(|index| 0x1_0000 * (index + 1));
    let list: Vec<u8> = addresses.clone().flat_map(u64::to_le_bytes).collect();
    let roots = [(RSDP_AT, rsdp(XSDT_AT)), (XSDT_AT, table(b"XSDT", &list))];
    roots.into_iter().chain(addresses.zip(tables.iter().cloned())).collect()
}

fn gathered(memory: &Memory, room: usize) -> Option<Vec<u8>> {
    let mut room = vec![0; room];
    let copy = |address: u64, to: &mut [u8]| {
        let found = memory.iter().find_map(|(at, bytes)| {
            let offset = usize::try_from(address.checked_sub(*at)?).ok()?;
            bytes.get(offset..)?.get(..to.len())
        });
        found.map(|bytes| to.copy_from_slice(bytes)).is_some()
    };
    let bytes = gather(RSDP_AT, &mut room, copy)?;
    room.truncate(bytes);
    Some(room)
}

fn bundle(tables: &[Vec<u8>]) -> Vec<u8> {
    gathered(&memory(tables), ROOM).unwrap()
}

/// One piece of RAM, from 1 GiB on.
fn firmware() -> Vec<u8> {
    [7_u64, 0x4000_0000, 0, 0x4_0000, 8].into_iter().flat_map(u64::to_le_bytes).collect()
}

fn read(bundle: &[u8]) -> Result<Platform, Error> {
    let (map, mut machine) = (firmware(), Platform::new());
    let map = uefi::Map::read(&map, 40).unwrap();
    let read = parse(bundle, START, Some(map), &mut machine);
    if let Err(error) = read {
        let line = error.to_string();
        assert!(line.len() < 120 && line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    }
    read.map(|()| machine)
}

fn refusal(tables: &[Vec<u8>]) -> Error {
    read(&bundle(tables)).map(drop).unwrap_err()
}

#[test]
fn good_a_machine_with_two_cpus() {
    let bundle = bundle(&usual());
    assert_eq!(bundle_size(&bundle), Some(bundle.len() as u32));
    let machine = read(&bundle).unwrap();
    let cpu = |mpidr| CpuNode { mpidr, enable_method: EnableMethod::Psci, enabled: true };
    assert_eq!(machine.cpus.as_slice(), [cpu(0), cpu(1)]);
    assert_eq!(machine.psci, Some(Conduit::Smc));
    let registers = PhysSpan::of(PhysAddr::at(0x900_0000), 0x1000).unwrap();
    let console = Console { kind: ConsoleKind::Pl011, registers, reg_shift: 0, reg_io_width: 4 };
    assert_eq!(machine.console, Some(console));
    assert_eq!(machine.memory.banks.bytes(), 1 << 30);
    assert_eq!(machine.memory.device_tree.map(PhysSpan::start), Some(START));
    assert_eq!(machine.command_line(&bundle), b"");
}

#[test]
fn good_how_cpus_are_started() {
    let started = |flags, parking| {
        let machine = read(&bundle(&[fadt(flags), madt(&[gicc(1, parking, 0)])])).unwrap();
        (machine.psci, machine.cpus.as_slice()[0].enable_method)
    };
    assert_eq!(started(1, 1), (Some(Conduit::Smc), EnableMethod::Psci));
    assert_eq!(started(3, 0), (Some(Conduit::Hvc), EnableMethod::Psci));
    assert_eq!(started(2, 1), (None, EnableMethod::ParkingProtocol));
    assert_eq!(started(0, 0), (None, EnableMethod::None));
    // Capable of being online is not there.
    let machine = read(&bundle(&[fadt(1), madt(&[gicc(1 << 3, 0, 5)])])).unwrap();
    assert!(!machine.cpus.as_slice()[0].enabled);
}

#[test]
fn good_consoles() {
    let found = |kind, space, access, address| {
        let tables = [fadt(1), madt(&[gicc(1, 0, 0)]), spcr(kind, space, access, address)];
        let console = read(&bundle(&tables)).unwrap().console;
        console.map(|console| (console.kind, console.reg_shift, console.reg_io_width))
    };
    assert_eq!(found(0, 0, 0, 0x900_0000), Some((ConsoleKind::Ns16550, 0, 1)));
    assert_eq!(found(0x12, 0, 3, 0x900_0000), Some((ConsoleKind::Ns16550, 2, 4)));
    assert_eq!(found(1, 0, 2, 0x900_0000), Some((ConsoleKind::Ns16550, 1, 2)));
    assert_eq!(found(0xe, 0, 3, 0x900_0000), Some((ConsoleKind::Pl011, 0, 4)));
    assert_eq!(found(0x77, 0, 3, 0x900_0000), Some((ConsoleKind::Unknown, 0, 4)));
    assert_eq!(found(0, 1, 1, 0x3f8), None); // an I/O port
    assert_eq!(found(3, 0, 3, 0), None);
}

#[test]
fn bad_a_console_where_there_is_none() {
    for address in [0x4000_0000, u64::MAX, 0xffff_ffff_f001] {
        let tables = [fadt(1), madt(&[gicc(1, 0, 0)]), spcr(3, 0, 3, address)];
        assert_eq!(refusal(&tables), Error::Console { address });
    }
    assert_eq!(refusal(&[fadt(1), madt(&[]), table(b"SPCR", &[3; 15])]), Error::Length { table: SPCR });
}

#[test]
fn bad_a_table_that_is_not_there() {
    assert_eq!(refusal(&[fadt(1)]), Error::Missing { table: MADT });
    assert_eq!(refusal(&[madt(&[])]), Error::Missing { table: FADT });
    assert_eq!(refusal(&[]), Error::Missing { table: FADT });
    assert!(read(&bundle(&[fadt(1), madt(&[])])).unwrap().console.is_none());
}

#[test]
fn bad_each_checksum() {
    let whole = bundle(&usual());
    let (xsdt, fadt) = (BUNDLE_HEAD + SIZE_BYTES + 40 + SIZE_BYTES, whole.windows(4).position(|w| w == FADT).unwrap());
    let rsdp = BUNDLE_HEAD + SIZE_BYTES;
    for (at, table) in [(rsdp + 9, RSDP), (rsdp + 33, RSDP), (xsdt + 10, XSDT), (fadt + 50, FADT)] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert_eq!(read(&damaged).map(drop), Err(Error::Checksum { table }), "{at:#x}");
    }
}

#[test]
fn bad_an_rsdp_of_another_time() {
    let mut whole = bundle(&usual());
    whole[BUNDLE_HEAD + SIZE_BYTES + 15] = 0;
    assert_eq!(read(&whole).map(drop), Err(Error::Revision));
    whole[BUNDLE_HEAD + SIZE_BYTES] = b'X';
    assert_eq!(read(&whole).map(drop), Err(Error::Revision));
}

#[test]
fn bad_madt_with_entries_that_end_nowhere() {
    for (bytes, at) in [(vec![0xb, 0], 44), (vec![0xb, 1], 44), (vec![0xb, 40, 0], 44), (vec![0xc, 4, 0, 0, 1], 48)] {
        assert_eq!(refusal(&[fadt(1), madt(&[bytes])]), Error::Entry { offset: at });
    }
    let short = [vec![0xb, 75], vec![0; 73]].concat();
    assert_eq!(refusal(&[fadt(1), madt(&[short])]), Error::Entry { offset: 44 });
}

#[test]
fn bad_cpus_by_name() {
    assert_eq!(refusal(&[fadt(1), madt(&[gicc(1, 0, 7), gicc(1, 0, 7)])]), Error::DuplicateCpu { mpidr: 7 });
    let mpidr = 1 << 31;
    assert_eq!(refusal(&[fadt(1), madt(&[gicc(1, 0, mpidr)])]), Error::Affinity { mpidr });
}

#[test]
fn bad_without_uefis_map() {
    let read = parse(&bundle(&usual()), START, None, &mut Platform::new());
    assert_eq!(read, Err(Error::NoMap));
}

#[test]
fn bad_a_bundle_that_is_none() {
    let whole = bundle(&usual());
    assert_eq!(read(&whole[..whole.len() - 1]).map(drop), Err(Error::Bundle));
    assert_eq!(
        (bundle_size(b"ACPI"), bundle_size(b"ACPI\0\0\0\x07"), bundle_size(b"ACPI\0\x02\0\x01")),
        (None, None, None)
    );
    assert_eq!(bundle_size(&[0xd0, 0x0d, 0xfe, 0xed, 0, 0, 1, 0]), None);
    let mut cut = whole.clone();
    cut[BUNDLE_HEAD] = 0xff; // RSDP has more bytes than the bundle
    cut[BUNDLE_HEAD + 3] = 0xff;
    assert_eq!(read(&cut).map(drop), Err(Error::Bundle));
}

#[test]
fn bad_tables_that_lead_nowhere_are_not_gathered() {
    let mut nowhere = memory(&usual());
    nowhere.retain(|(at, _)| *at != 0x2_0000);
    assert_eq!(gathered(&nowhere, ROOM), None);
    assert_eq!(gathered(&vec![(RSDP_AT, rsdp(0x9000))], ROOM), None);
    assert_eq!(gathered(&Memory::new(), ROOM), None);
    // A length that no memory has, and more than there is room for.
    let mut long = memory(&usual());
    long[1].1[4..8].fill(0xff);
    assert_eq!(gathered(&long, ROOM), None);
    let bytes = bundle(&usual()).len();
    assert!(gathered(&memory(&usual()), bytes).is_some());
    assert_eq!(gathered(&memory(&usual()), bytes - 8), None);
    assert_eq!((gathered(&memory(&usual()), 0), gathered(&memory(&usual()), 7)), (None, None));
}

#[test]
fn good_of_two_tables_with_one_name_the_first_counts() {
    let tables = [fadt(1), fadt(3), madt(&[])];
    assert_eq!(read(&bundle(&tables)).unwrap().psci, Some(Conduit::Smc));
}

proptest! {
    /// Damage anywhere, checksums made good or not: refused or read, never a panic.
    #[test]
    fn good_damaged_tables(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), mended in any::<bool>()
    ) {
        let mut memory = memory(&usual());
        for (index, byte) in damage {
            let (table, at) = (index.index(memory.len()), index.index(60));
            if let Some(place) = memory[table].1.get_mut(at) {
                *place = byte;
            }
        }
        if mended {
            let sealed = |(at, bytes): (u64, Vec<u8>)| (at, if at == RSDP_AT { bytes } else { seal(bytes, 9) });
            memory = memory.into_iter().map(sealed).collect();
        }
        if let Some(bundle) = gathered(&memory, ROOM) {
            let _ = read(&bundle);
        }
    }

    #[test]
    fn good_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bundle = bytes;
        let size = bundle.len() as u32;
        if bundle.len() >= BUNDLE_HEAD {
            bundle[..4].copy_from_slice(&MAGIC);
            bundle[4..8].copy_from_slice(&size.to_be_bytes());
        }
        prop_assert!(read(&bundle).is_err());
    }
}
