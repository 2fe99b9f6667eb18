//! What can be said of Debian's packages without a network.

use super::*;

fn source(uri: &str, suites: &[&str], component: &str) -> Source {
    Source {
        uri: uri.to_owned(),
        suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
        components: vec![component.to_owned()],
        signed_by: None,
    }
}

fn offer(version: &str, suite: &str) -> Offer {
    Offer { version: version.to_owned(), suite: suite.to_owned() }
}

#[test]
fn good_a_series_or_one_version_of_it() -> Result<()> {
    assert_eq!(Wanted::parse("4.17")?, Wanted { series: "4.17", exactly: None });
    let exact = Wanted::parse("4.17=4.17.5+72-g01140da4e8-1")?;
    assert_eq!(exact.exactly, Some("4.17.5+72-g01140da4e8-1"));
    assert_eq!(exact.symbols(), "xen-hypervisor-4.17-arm64-dbg");
    Ok(())
}

#[test]
fn bad_what_is_no_version_reaches_no_shell_and_no_path() {
    for text in ["", "4", "4.", "4.17.5", "../4.17", "4.17=", "4.17=-o", "4.17=1/2", "4.17=1 2", "latest"] {
        assert!(Wanted::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn good_every_suite_is_asked_of_the_mirrors_that_the_system_names() -> Result<()> {
    let vendor = source("http://vendor/apt", &["stable"], "tool");
    let main = source("http://mirror/debian", &["bookworm", "bookworm-updates"], "main");
    let security = source("http://mirror/debian-security", &["bookworm-security"], "main");
    let all = sources(&[vendor, main, security])?;
    assert_eq!(all.len(), 2);
    assert_eq!(
        (all[0].uri.as_str(), all[0].suites.as_slice()),
        ("http://mirror/debian", &SUITES.map(str::to_owned)[..])
    );
    assert_eq!(all[1].uri, "http://mirror/debian-security");
    assert!(all[1].suites.iter().all(|suite| suite.ends_with("-security")));
    Ok(())
}

#[test]
fn good_without_security_updates_the_rest_is_asked() -> Result<()> {
    assert_eq!(sources(&[source("http://mirror/debian", &["sid"], "main")])?.len(), 1);
    Ok(())
}

#[test]
fn bad_another_distribution_names_no_mirror_of_debian() {
    let other = source("http://mirror/other", &["noble", "noble-security"], "main");
    assert!(sources(&[other]).is_err_and(|error| !error.to_string().contains('\n')));
}

#[test]
fn good_a_version_without_symbols_is_passed_over() {
    let packages = vec![offer("2", "x-security"), offer("1", "x"), offer("1", "y")];
    assert_eq!(complete(packages, &[offer("1", "x"), offer("1", "y")]), [offer("1", "x")]);
}

#[test]
fn good_series_are_listed_in_their_order() {
    let names = [
        "xen-hypervisor-4.20-arm64",
        "xen-hypervisor-4.9-arm64",
        "xen-hypervisor-4.20-arm64-dbg",
        "xen-hypervisor-common",
    ];
    assert_eq!(series(names.into_iter()), ["4.9", "4.20"]);
}

#[test]
fn good_the_first_complaint_is_the_reason() {
    assert_eq!(
        apt::reason("\nW: Failed to fetch http://mirror\nE: Some index files failed\n"),
        "Failed to fetch http://mirror"
    );
}

#[test]
fn bad_half_a_tree_is_no_xen() -> Result<()> {
    let tree = std::env::temp_dir().join(format!("breakwater-half-a-xen-{}", std::process::id()));
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("boot"))?;
    fs::write(tree.join(PROVENANCE), "4.17.5 bookworm\n")?;
    fs::write(tree.join("boot/xen-4.17-arm64"), "")?;
    let wanted = Wanted::parse("4.17")?;
    assert_eq!(unpacked(&tree, &wanted), None);
    fs::create_dir_all(tree.join("usr/lib/debug/boot"))?;
    fs::write(tree.join("usr/lib/debug/boot/xen-syms-4.17-arm64"), "")?;
    assert_eq!(unpacked(&tree, &wanted).map(|xen| xen.package_version).as_deref(), Some("4.17.5"));
    Ok(fs::remove_dir_all(&tree)?)
}
