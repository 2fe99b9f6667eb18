//! Claims about CPUs and PSCI.

use super::*;
use crate::layout::MAX_CPUS;

fn cpus(address_cells: u32, children: Vec<DeviceTreeNode>) -> DeviceTree {
    machine(vec![node("cpus", &cell_counts(address_cells, 0), children)])
}

fn cpu(name: &str, reg: &[u32], properties: Properties<'_>) -> DeviceTreeNode {
    let reg = [("device_type", text("cpu")), ("reg", cells(reg))];
    node(name, &[&reg, properties].concat(), vec![])
}

fn psci(method: &str, compatible: &str) -> DeviceTreeNode {
    node("psci", &[("compatible", text(compatible)), ("method", text(method))], vec![])
}

#[test]
fn good_cpus_with_their_enable_methods() {
    let by_psci = ("enable-method", text("psci"));
    let by_table = ("enable-method", text("spin-table"));
    let address = ("cpu-release-addr", cells(&[0, 0xd8]));
    let tree = cpus(
        2,
        vec![
            node("cpu-map", &[], vec![]),
            cpu("cpu@0", &[0, 0], &[]),
            cpu("cpu@100000001", &[1, 1], std::slice::from_ref(&by_psci)),
            cpu("cpu@2", &[0, 2], &[by_table, address]),
            cpu("cpu@3", &[0, 3], &[by_psci, ("status", text("disabled"))]),
        ],
    );
    let table = EnableMethod::SpinTable { release_address: Some(0xd8) };
    let expected = [
        (0, EnableMethod::None, true),
        (0x1_0000_0001, EnableMethod::Psci, true),
        (2, table, true),
        (3, EnableMethod::Psci, false),
    ];
    let expected = expected.map(|(mpidr, enable_method, enabled)| CpuNode { mpidr, enable_method, enabled });
    let machine = read(&tree).unwrap();
    assert_eq!(machine.cpus.as_slice(), expected);
    assert_eq!(machine.cpus.dropped(), 0);
}

#[test]
fn good_cpu_of_one_cell_known_by_its_name() {
    let nameless = node("cpu@7", &[("reg", cells(&[7]))], vec![]);
    assert_eq!(read(&cpus(1, vec![nameless])).unwrap().cpus.as_slice()[0].mpidr, 7);
}

#[test]
fn good_cpus_beyond_the_list_are_counted() {
    let all = (0..MAX_CPUS as u32 + 3).map(|i| cpu(&format!("cpu@{i}"), &[i], &[])).collect();
    let machine = read(&cpus(1, all)).unwrap();
    assert_eq!(machine.cpus.as_slice().len(), MAX_CPUS);
    assert_eq!(machine.cpus.dropped(), 3);
    assert_eq!(machine.cpus.present(0), MAX_CPUS + 3);
    assert_eq!(machine.cpus.present(MAX_CPUS as u64 + 1), MAX_CPUS + 3, "the boot CPU is one of those beyond the list");
}

#[test]
fn good_cpus_that_may_not_be_started_are_not_present() {
    let disabled = [("status", text("disabled"))];
    let all = vec![cpu("cpu@0", &[0], &[]), cpu("cpu@1", &[1], &disabled), cpu("cpu@2", &[2], &[])];
    let machine = read(&cpus(1, all)).unwrap();
    assert_eq!(machine.cpus.others(0).map(|cpu| cpu.mpidr).collect::<Vec<_>>(), [2]);
    assert_eq!(machine.cpus.present(0), 2);
    assert_eq!(machine.cpus.present(7), 3, "a boot CPU that the tree forgot is there all the same");
    let beyond = |i| cpu(&format!("cpu@{i}"), &[i], if i >= MAX_CPUS as u32 { &disabled } else { &[] });
    let machine = read(&cpus(1, (0..MAX_CPUS as u32 + 3).map(beyond).collect())).unwrap();
    assert_eq!((machine.cpus.dropped(), machine.cpus.present(0)), (0, MAX_CPUS));
}

#[test]
fn bad_cpu_without_reg() {
    let tree = cpus(1, vec![node("cpu@1", &[("device_type", text("cpu"))], vec![])]);
    assert_eq!(refusal(&tree), malformed_reg("cpu@1"));
}

#[test]
fn bad_cpu_with_bits_beyond_the_affinity_fields() {
    assert_eq!(refusal(&cpus(1, vec![cpu("cpu@1", &[0x8000_0001], &[])])), malformed_reg("cpu@1"));
    assert_eq!(refusal(&cpus(3, vec![cpu("cpu@1", &[0, 0, 1], &[])])), malformed_reg("cpu@1"));
}

#[test]
fn bad_two_cpus_of_one_identity() {
    let tree = cpus(1, vec![cpu("cpu@0", &[1], &[]), cpu("cpu@1", &[1], &[])]);
    assert_eq!(refusal(&tree), Error::DuplicateCpu { mpidr: 1 });
}

#[test]
fn bad_enable_methods_cost_the_cpu_not_the_machine() {
    let method = |properties: Properties<'_>| {
        read(&cpus(1, vec![cpu("cpu@0", &[0], properties)])).unwrap().cpus.as_slice()[0].enable_method
    };
    let by_table = ("enable-method", text("spin-table"));
    let nowhere = EnableMethod::SpinTable { release_address: None };
    assert_eq!(method(std::slice::from_ref(&by_table)), nowhere);
    let long = ("cpu-release-addr", cells(&[0, 0, 0xd8]));
    assert_eq!(method(&[by_table.clone(), long]), nowhere);
    // Whether it can be used is for `starting` to say.
    let odd = ("cpu-release-addr", cells(&[u32::MAX, 0xdc]));
    let odd_address = EnableMethod::SpinTable { release_address: Some(0xffff_ffff_0000_00dc) };
    assert_eq!(method(&[by_table, odd]), odd_address);
    assert_eq!(method(&[("enable-method", text("acme,smp"))]), EnableMethod::Unknown);
}

#[test]
fn good_psci_at_the_root_or_under_firmware() {
    let at_root = machine(vec![psci("smc", "arm,psci-1.0\0arm,psci-0.2\0arm,psci")]);
    assert_eq!(read(&at_root).unwrap().psci, Some(Conduit::Smc));
    let below = machine(vec![node("firmware", &[], vec![psci("hvc", "arm,psci-0.2")])]);
    assert_eq!(read(&below).unwrap().psci, Some(Conduit::Hvc));
}

#[test]
fn bad_psci_that_cannot_be_called_is_none() {
    let mut disabled = psci("smc", "arm,psci-1.0");
    disabled.add_property(DeviceTreeProperty::new_unchecked("status", "disabled"));
    for node in [psci("smc", "arm,psci"), psci("svc", "arm,psci-1.0"), psci("smc", "arm,psci-1.00"), disabled] {
        assert_eq!(read(&machine(vec![node])).unwrap().psci, None);
    }
    assert_eq!(read(&machine(vec![])).unwrap().psci, None);
}
