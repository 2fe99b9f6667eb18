//! What the types forbid does not compile: tests/compile_fail holds programs that do, each with lines that, written otherwise, do not.
//!
//! A line that ends in `//~ CODE: other line` compiles as it stands; with the other line in its place the compiler must give that error
//! and no other (`lint` is a lint that the program denies: those have no code). So every refusal has a twin that differs in one line and is accepted: what is refused is the broken promise, not a
//! misspelt word.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

/// The library that this test was built against: the newest beside the test itself.
fn library() -> PathBuf {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("libbreakwater-") && name.ends_with(".rlib")
    };
    let age = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(is_library).max_by_key(age).expect("cargo builds the library before its tests")
}

/// A compiler at work on `text`.
fn compile(library: &Path, name: &str, text: &str) -> Child {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&directory).unwrap();
    let source = directory.join(format!("{name}.rs"));
    fs::write(&source, text).unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(env!("CARGO_MANIFEST_DIR"));
    rustc.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--error-format", "short"]);
    rustc.arg("--extern").arg(format!("breakwater={}", library.display()));
    rustc.arg("-L").arg(format!("dependency={}", library.parent().unwrap().display()));
    rustc.arg("-o").arg(directory.join(format!("{name}.rmeta"))).arg(&source);
    rustc.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("rustc runs")
}

/// The codes of the errors that a compiler gave, and all it said.
fn errors(compiler: Child) -> (Vec<String>, String) {
    let said = String::from_utf8(compiler.wait_with_output().unwrap().stderr).unwrap();
    // In the short format an error is one line: `where: error[CODE]: what`.
    let errors = said.lines().filter_map(|line| line.split_once(": error"));
    let codes = errors
        .map(|(_, rest)| rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("lint", |(code, _)| code));
    (codes.map(str::to_owned).collect(), said)
}

/// A line of a program and what it must not be.
struct Refusal<'a> {
    number: usize,
    code: &'a str,
    line: &'a str,
}

fn refusals(text: &str) -> Vec<Refusal<'_>> {
    let marked = text.lines().enumerate().filter_map(|(number, line)| Some((number, line.split_once("//~ ")?.1)));
    marked
        .map(|(number, mark)| {
            let (code, line) = mark.split_once(": ").expect("a mark is `//~ CODE: line`");
            Refusal { number, code, line }
        })
        .collect()
}

fn with_line(text: &str, number: usize, line: &str) -> String {
    let lines = text.lines().enumerate().map(|(at, old)| if at == number { line } else { old });
    lines.collect::<Vec<_>>().join("\n")
}

/// Inside the crate no type can see to it: the right to store is made in one place.
#[test]
fn good_a_permit_is_made_by_the_protocol_alone() {
    fn makers(directory: &Path, found: &mut Vec<String>) {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                makers(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                found.extend(text.matches("Permit::for_the_protocol()").map(|_| name.clone()));
            }
        }
    }
    let mut found = Vec::new();
    makers(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, ["bbm.rs"]);
}

#[test]
fn bad_programs_do_not_compile_and_their_twins_do() {
    let library = library();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let (mut refused, mut complaints) = (0, Vec::new());
    for path in fs::read_dir(programs).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let twin = compile(&library, &name, &text);
        let refusals = refusals(&text);
        let compilers: Vec<Child> = refusals
            .iter()
            .map(|refusal| {
                let bad = with_line(&text, refusal.number, refusal.line);
                compile(&library, &format!("{name}_{}", refusal.number + 1), &bad)
            })
            .collect();
        let (codes, said) = errors(twin);
        if !codes.is_empty() || said.contains("error") {
            complaints.push(format!("{name} does not compile: {said}"));
        }
        for (refusal, compiler) in refusals.iter().zip(compilers) {
            let (codes, said) = errors(compiler);
            if codes != [refusal.code] {
                let Refusal { number, code, line } = refusal;
                complaints
                    .push(format!("{name}, line {}: {line}\nis not refused with {code} alone: {said}", number + 1));
            }
            refused += 1;
        }
    }
    println!("{refused} programs refused");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(refused >= 60, "{refused} programs are refused");
}
