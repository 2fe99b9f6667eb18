//! The README's tables say what the code has: every rule, every policy, every feature.

use breakwater_oracle::obligations::Rule;
use breakwater_oracle::policy::Policy;
use breakwater_trace::Feature;

const README: &str = include_str!("../README.md");

/// The rows under a heading, without the head of the table.
fn rows(heading: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(heading).expect("the heading is there");
    let section = section.split("\n#").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| `")).collect()
}

#[test]
fn good_the_table_of_rules_is_the_rules() {
    let expected: Vec<String> =
        Rule::ALL.iter().map(|rule| format!("| `{rule:?}` | {} | {} |", rule.name(), rule.says())).collect();
    assert!(rows("## The rules\n") == expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn good_the_table_of_policies_is_the_policies() {
    let expected: Vec<String> =
        Policy::ALL.iter().map(|policy| format!("| `{}` | {} |", policy.name(), policy.says())).collect();
    assert!(rows("## The policies\n") == expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn good_every_feature_in_the_table_is_read() {
    let table = rows("## The trace format, version 1\n");
    let names = table.iter().filter_map(|row| row.strip_prefix("| ")?.split(" | ").next());
    let words: Vec<String> = names
        .flat_map(|names| names.split('`'))
        .map(|name| name.replace("=N", "=64").replace("pa-bits=64", "pa-bits=48"))
        .collect();
    let known = words.iter().filter(|word| word.parse::<Feature>().is_ok()).count();
    assert_eq!(known, 18, "{words:?}");
}
