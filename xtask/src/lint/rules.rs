//! The house rules: unsafe code in its places, files of a good size, comments that name what is there, nothing left over.

use crate::{paths, ui};
use anyhow::{Context as _, Result, bail};
use regex_lite::Regex;
use std::collections::BTreeSet;
use std::path::Path;

/// Lines that a file may have.
const MOST_LINES: usize = 600;
/// A Rust file with fewer lines is small.
const SMALL: usize = 80;
/// How many may be small.
const MOST_SMALL: usize = 40;
/// Lines of xtask: what grows beyond belongs beside what it is about.
const MOST_XTASK: usize = 9000;
/// Columns of a line of Rust or assembly.
const COLUMNS: usize = 120;
/// How many lines may be longer, all of them comments from before there was a limit. This number only falls.
const MOST_LONG: usize = 1018;

/// Where unsafe code and assembly may stand.
const UNSAFE: &[&str] = &[
    "boot/src/el2/",                     // the image's instructions
    "boot/examples/guest.rs",            // a hypervisor's own instructions
    "tests/xen/src/el2/",                // the same, under Xen: where Xen's image is, and start.S
    "tests/xen/src/c.rs",                // the C interface between Xen and the core
    "tests/boot/door/src/main.rs",       // a hypervisor's own read of a device
    "tests/boot/src/probe.rs",           // accesses that are to fault
    "tests/witness/recorder/src/ffi.rs", // QEMU's plugin interface
    "tests/bench/src/arena.rs",          // tables of the peers
    "tests/bench/src/ours.rs",           // our claim of the arena
    "tests/bench/src/paging.rs",         // the interface of a peer
    "tests/witness/payload/src/main.rs", // the interfaces of crates that are watched
];
/// A crate's root that hands out a macro which expands to unsafe code.
const EXPANDS: &[&str] = &["boot/src/lib.rs"];

/// A workspace that no test builds: cargo-fuzz wants a nightly toolchain and a C++ compiler.
const NEVER_BUILT: &str = "tests/fuzz/Cargo.toml";

/// What is never left in the repository.
const LEFT_OVERS: [&str; 4] = ["to\u{64}o!(", "unimplemen\u{74}ed!(", "FIX\u{4d}E", "#[igno\u{72}e"];
/// Directories of somebody's own machine.
const OF_A_MACHINE: [&str; 3] = ["/ho\u{6d}e/", "/ro\u{6f}t/", "/Us\u{65}rs/"];

/// Checks every rule; says which functions are `unsafe` by contract.
///
/// # Errors
/// A rule is broken: all places where one is.
pub(super) fn check() -> Result<()> {
    let files = paths::files()?;
    let mut seen = Seen::new(&files)?;
    for name in &files {
        let bytes = std::fs::read(paths::root().join(name)).with_context(|| name.clone())?;
        // What is no text (fuzzing's corpora) has no rules.
        if let Ok(text) = std::str::from_utf8(&bytes) {
            seen.file(name, text);
        }
    }
    for contract in &seen.contracts {
        ui::step("Unsafe", contract);
    }
    let mut findings = seen.findings();
    findings.extend(super::words::findings()?);
    if findings.is_empty() { Ok(()) } else { bail!("{}", findings.join("\n")) }
}

/// What was seen so far.
struct Seen<'a> {
    names: BTreeSet<&'a str>,
    named: Regex,
    small: usize,
    xtask: usize,
    long: usize,
    /// The functions that are `unsafe` for what the type system cannot check.
    contracts: Vec<String>,
    findings: Vec<String>,
}

impl<'a> Seen<'a> {
    fn new(files: &'a [String]) -> Result<Self> {
        let last = |file: &'a String| file.rsplit('/').next().unwrap_or_default();
        Ok(Self {
            names: files.iter().map(String::as_str).chain(files.iter().map(last)).collect(),
            named: Regex::new(r"[A-Za-z0-9_./-]*[A-Za-z0-9_]\.(rs|S|ld|md|toml)\b")?,
            small: 0,
            xtask: 0,
            long: 0,
            contracts: Vec::new(),
            findings: Vec::new(),
        })
    }

    fn find(&mut self, name: &str, index: usize, what: &str) {
        self.findings.push(format!("{name}:{}: {what}", index + 1));
    }

    /// Everything that is wrong.
    fn findings(mut self) -> Vec<String> {
        for (what, count, most) in [
            (format!("Rust files under {SMALL} lines"), self.small, MOST_SMALL),
            ("lines of xtask".to_owned(), self.xtask, MOST_XTASK),
            (format!("lines over {COLUMNS} columns"), self.long, MOST_LONG),
        ] {
            if count > most {
                self.findings.push(format!("{count} {what}, more than {most}"));
            }
        }
        self.findings
    }

    fn file(&mut self, name: &str, text: &str) {
        let kind = Path::new(name).extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = LEFT_OVERS.iter().find(|word| line.contains(**word)) {
                self.find(name, index, &format!("{word} left over"));
            }
            if let Some(path) = OF_A_MACHINE.iter().find(|path| line.contains(**path)) {
                self.find(name, index, &format!("{path} is a path of one machine"));
            }
        }
        match kind {
            "rs" => self.rust(name, text),
            "S" | "ld" => self.comments(name, text, "//"),
            "toml" => {
                self.comments(name, text, "#");
                self.manifest(name, text);
            }
            _ => {}
        }
    }

    fn rust(&mut self, name: &str, text: &str) {
        let lines = text.lines().count();
        self.small += usize::from(lines < SMALL);
        self.xtask += if name.starts_with("xtask/") { lines } else { 0 };
        self.long += text.lines().filter(|line| line.chars().count() > COLUMNS).count();
        if lines > MOST_LINES {
            self.findings.push(format!("{name}: {lines} lines, more than {MOST_LINES}"));
        }
        self.comments(name, text, "//");
        if !UNSAFE.iter().any(|place| name.starts_with(place)) && !EXPANDS.contains(&name) {
            self.safe(name, text);
        }
    }

    /// No unsafe code, but for functions of the core that are declared so and say why.
    fn safe(&mut self, name: &str, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = without_strings(line.split("//").next().unwrap_or_default());
            if code.contains("unsafe fn ") && name.starts_with("src/") {
                let above = lines[..index].iter().rev().take_while(|line| is_above_item(line));
                let above: Vec<&str> = above.copied().collect();
                let has = |word: &str| above.iter().any(|line| line.contains(word));
                if !has("#[expect(unsafe_code") || !has("# Safety") {
                    self.find(name, index, "an unsafe fn without #[expect(unsafe_code)] or without `# Safety`");
                }
                self.contracts.push(format!("{name}:{}: {}", index + 1, code.trim()));
            } else if ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern ", "unsafe(", "asm!("]
                .iter()
                .any(|word| code.contains(word))
            {
                self.find(name, index, "unsafe code or assembly outside its places");
            }
        }
    }

    /// What the manifest of the fuzz targets leads to is there: of a workspace that needs another toolchain, nobody else would notice.
    fn manifest(&mut self, name: &str, text: &str) {
        let Some(directory) = Path::new(name).parent().filter(|_| name == NEVER_BUILT) else { return };
        for (index, line) in text.lines().enumerate() {
            let path = line.split_once("path = \"").and_then(|(_, rest)| rest.split('"').next());
            if let Some(path) = path.filter(|path| !paths::root().join(directory).join(path).exists()) {
                self.find(name, index, &format!("{path} is not there"));
            }
        }
    }

    /// Files that comments name are in the repository.
    fn comments(&mut self, name: &str, text: &str, begins: &str) {
        for (index, line) in text.lines().enumerate() {
            let Some((_, comment)) = line.split_once(begins) else { continue };
            let missing = self.named.find_iter(comment).map(|found| found.as_str()).find(|file| !self.is_there(file));
            if let Some(file) = missing {
                self.find(name, index, &format!("{file} is not in the repository"));
            }
        }
    }

    /// A file of that name, or whose path ends so.
    fn is_there(&self, file: &str) -> bool {
        let file = file.trim_start_matches("./").trim_start_matches("../");
        // What begins with a slash is the rest of an address.
        self.names.contains(file)
            || self.names.iter().any(|name| name.ends_with(&format!("/{file}")))
            || file.starts_with('/')
    }
}

/// Attributes and documentation directly above an item.
fn is_above_item(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("///") || line.starts_with("#[")
}

/// What stands between quotation marks is no code.
fn without_strings(code: &str) -> String {
    code.split('"').step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<String> {
        let files = ["src/lib.rs", "boot/head.S"].map(str::to_owned);
        let mut seen = Seen::new(&files).expect("the expression is valid");
        seen.file(name, text);
        seen.findings()
    }

    #[test]
    fn bad_unsafe_outside_its_place() {
        let text = "fn f() { unsafe { g() } }\n";
        assert_eq!(found("src/x.rs", text).len(), 1);
        assert_eq!(found("xtask/src/x.rs", text).len(), 1);
        assert!(found("boot/src/el2/x.rs", text).is_empty());
        assert!(found("src/x.rs", "// unsafe { }\nlet s = \"unsafe {\";\n").is_empty());
    }

    #[test]
    fn good_an_unsafe_function_that_says_why() {
        let stated = "/// # Safety\n/// Once.\n#[expect(unsafe_code)]\npub unsafe fn claim() {}\n";
        assert!(found("src/x.rs", stated).is_empty());
        assert_eq!(found("tests/x.rs", stated).len(), 1, "the core alone declares");
        for missing in ["/// # Safety\n", "#[expect(unsafe_code)]\n"] {
            assert_eq!(found("src/x.rs", &stated.replace(missing, "")).len(), 1);
        }
    }

    #[test]
    fn bad_long_files_and_left_overs() {
        assert_eq!(found("tests/x.rs", &"\n".repeat(MOST_LINES + 1)).len(), 1);
        assert_eq!(found("tests/x.md", LEFT_OVERS[0]).len(), 1);
        assert_eq!(found(".cargo/config.toml", &format!("linker = '{}me/ld'", OF_A_MACHINE[0])).len(), 1);
    }

    #[test]
    fn bad_xtask_grows_by_files_of_good_size() {
        let mut seen = Seen::new(&[]).expect("the expression is valid");
        (0..MOST_XTASK / 500).for_each(|n| seen.file(&format!("xtask/src/{n}.rs"), &"\n".repeat(500)));
        seen.file("tests/x.rs", &"\n".repeat(500));
        assert_eq!(seen.xtask, MOST_XTASK);
        seen.file("xtask/src/more.rs", &"\n".repeat(100));
        assert_eq!(seen.findings(), [format!("{} lines of xtask, more than {MOST_XTASK}", MOST_XTASK + 100)]);
    }

    #[test]
    fn bad_a_manifest_that_leads_nowhere() {
        assert!(found(NEVER_BUILT, "breakwater-x = { path = \"../boot\" }\n").is_empty());
        assert_eq!(found(NEVER_BUILT, "breakwater-x = { path = \"../nowhere\" }\n").len(), 1);
    }

    #[test]
    fn bad_a_comment_that_names_a_file_of_nowhere() {
        let gone = ["gone", "rs"].join(".");
        assert!(found("src/x.rs", "// head.S, boot/head.S and lib.rs\nlet x = 1; // src/lib.rs\n").is_empty());
        assert_eq!(
            found("src/x.rs", &format!("//! See {gone}.\n")),
            [format!("src/x.rs:1: {gone} is not in the repository")]
        );
        assert_eq!(found("boot/head.S", &format!("    nop // src/{gone}\n")).len(), 1);
        assert!(found("src/x.rs", &format!("let x = \"{gone}\";\n")).is_empty());
    }
}
