//! README.md and RULES.md say what the code has: every policy, every feature, every rule with its tests and its images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use breakwater_oracle::adversary::Permission;
use breakwater_oracle::obligations::{Origin, Rule};
use breakwater_oracle::policy::Policy;
use breakwater_trace::Feature;

const README: &str = include_str!("../README.md");
const RULES: &str = include_str!("../RULES.md");
const SEEDED: &str = include_str!("../../seeded.toml");

/// Names, each in its file.
type Names = BTreeSet<(String, String)>;

/// The rows under a heading, without the head of the table.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, section) = text.split_once(heading).expect("the heading is there");
    let section = section.split("\n#").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| `") || line.starts_with("| [`")).collect()
}

#[test]
fn good_the_table_of_policies_is_the_policies() {
    let expected: Vec<String> =
        Policy::ALL.iter().map(|policy| format!("| `{}` | {} |", policy.name(), policy.says())).collect();
    assert!(rows(README, "## The policies\n") == expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn good_the_table_of_permissions_is_the_permissions() {
    let expected: Vec<String> =
        Permission::ALL.iter().map(|permission| format!("| `{permission:?}` | {} |", permission.says())).collect();
    assert!(rows(RULES, "## What hardware may do\n") == expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn good_every_feature_in_the_table_is_read() {
    let table = rows(README, "## The trace format, version 1\n");
    let names = table.iter().filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    let words: Vec<String> = names
        .flat_map(|names| names.split('`'))
        .map(|name| name.replace("=N", "=64").replace("pa-bits=64", "pa-bits=48"))
        .collect();
    let known = words.iter().filter(|word| word.parse::<Feature>().is_ok()).count();
    assert_eq!(known, 19, "{words:?}");
}

/// The sections of rules: name, first line, and the points that follow, each in one line.
fn sections(rules: &str) -> Vec<(&str, &str, BTreeMap<String, String>)> {
    let section = |text| {
        let text: &str = text;
        let text = text.split("\n## ").next().unwrap_or_default();
        let mut lines = text.lines();
        let name = lines.next().unwrap_or_default();
        let head = lines.find(|line| !line.is_empty()).unwrap_or_default();
        let points = text.split("\n- **").skip(1).filter_map(|point| {
            let (name, says) = point.split_once(":** ")?;
            Some((name.to_owned(), says.split_whitespace().collect::<Vec<_>>().join(" ")))
        });
        (name, head, points.collect())
    };
    rules.split("\n### ").skip(1).map(section).collect()
}

/// The tests of the rules: name, file, and what stands between its braces.
fn tests() -> Vec<(String, String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut tests = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("its entries can be read").path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("it is text");
        for test in text.split("#[test]\nfn ").skip(1) {
            let (name, body) = test.split_once("() {\n").expect("a test takes nothing");
            let body = body.split("\n}\n").next().unwrap_or_default();
            tests.push((name.to_owned(), file.clone(), body.to_owned()));
        }
    }
    tests
}

/// Each word between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `FILE: NAME, NAME; FILE: NAME`.
fn named(tests: &str) -> Names {
    let files = tests.split("; ").filter_map(|part| part.split_once(": "));
    files.flat_map(|(file, names)| quoted(names).map(|name| (name.to_owned(), file.to_owned()))).collect()
}

/// The images in which `rule` is to be found.
fn images(rule: Rule) -> BTreeSet<&'static str> {
    let breaks = |find: &str| find.split([',', ' ']).any(|word| word == rule.name());
    let lines = SEEDED.lines().filter_map(|line| line.split_once(" = ["));
    lines.filter(|(_, finds)| finds.split('"').skip(1).step_by(2).any(breaks)).map(|(name, _)| name).collect()
}

/// What a page of rules gets wrong.
fn complaints(page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &dyn Fn() -> String| {
        if !holds {
            wrong.push(what());
        }
    };
    let table = Rule::ALL.iter().map(|rule| {
        let (name, whose) = (rule.name(), rule.origin().says());
        format!("| [`{name}`](#{}) | {} | {whose} | {} |", name.to_lowercase(), rule.arm(), rule.says())
    });
    let table: Vec<String> = table.collect();
    must(rows(page, "# The rules\n") == table, &|| format!("the table should be:\n{}", table.join("\n")));

    let (sections, tests) = (sections(page), tests());
    let names: Vec<&str> = sections.iter().map(|(name, ..)| *name).collect();
    let rules: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    must(names == rules, &|| format!("the sections are\n{names:?}, the rules\n{rules:?}"));

    for (&rule, (_, head, points)) in Rule::ALL.iter().zip(&sections) {
        let whose = match (rule.origin(), rule.arm()) {
            (Origin::Architecture, "") => "The architecture's: no identifier of Arm's.".to_owned(),
            (Origin::Architecture, arm) => format!("The architecture's: Arm ARM DDI 0487, {arm}."),
            (Origin::Erratum, arm) => format!("An erratum's: {arm}."),
            (Origin::Own, _) => "This image's own.".to_owned(),
        };
        must(*head == whose, &|| format!("{rule:?} begins with\n{head}, not with\n{whose}"));
        let point = |name: &str| points.get(name).map_or("", String::as_str);
        let complete = ["On a board", "To mend", "Tests", "Images"].iter().all(|name| !point(name).is_empty());
        must(complete && points.len() == 4, &|| format!("{rule:?} has the points {:?}", points.keys()));

        // Every bad_ test that expects the rule, and of the good_ ones those that the page chooses. Where violations
        // come from is of no rule in particular.
        let listed = named(point("Tests"));
        let says = format!("Rule::{rule:?}");
        let mentions = |body: &str| body.split(&says).skip(1).any(|rest| !rest.starts_with(char::is_alphanumeric));
        let bad = tests.iter().filter(|(name, file, _)| name.starts_with("bad_") && file != "causes.rs");
        let bad = bad.filter(|(_, _, body)| mentions(body));
        let bad: Names = bad.map(|(name, file, _)| (name.clone(), file.clone())).collect();
        let (listed_bad, listed_good): (Names, Names) =
            listed.into_iter().partition(|(name, _)| name.starts_with("bad_"));
        must(!bad.is_empty() && listed_bad == bad, &|| format!("{rule:?} has these bad_ tests: {bad:?}"));
        let exists = |(name, file): &(String, String)| {
            name.starts_with("good_") && tests.iter().any(|(other, place, _)| (other, place) == (name, file))
        };
        must(!listed_good.is_empty() && listed_good.iter().all(exists), &|| format!("{rule:?}: {listed_good:?}"));

        let (listed, images) = (point("Images"), images(rule));
        let agree = if images.is_empty() {
            listed.starts_with("none: ")
        } else {
            quoted(listed).collect::<BTreeSet<_>>() == images
        };
        must(agree, &|| format!("{rule:?} has these images: {images:?}"));
    }
    wrong
}

#[test]
fn good_the_page_of_rules_is_the_rules() {
    let wrong = complaints(RULES);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_a_page_of_rules_that_says_something_else() {
    for (from, to) in [
        ("| [`TableChange`]", "| [`TableChanges`]"),
        ("\n### TableChange\n", "\n### AnotherChange\n"),
        ("\n### WriteExecute\n", "\n### WriteExecute\n\nThe architecture's: Arm ARM DDI 0487, RDDMVT.\n"),
        ("DDI 0487, RBLDZX.", "DDI 0487, RBLDZY."),
        ("**To mend:**", "**To do:**"),
        ("`bad_wrong_ttl`", "`bad_right_ttl`"),
        ("`good_first_enable`", "`good_last_enable`"),
        ("`bad_mair_late`", "`bad_mair_early`"),
        ("**Images:** none:", "**Images:** some:"),
    ] {
        assert!(RULES.contains(from), "{from}");
        assert!(!complaints(&RULES.replacen(from, to, 1)).is_empty(), "{from} became {to}");
    }
}
