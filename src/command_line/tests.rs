//! Claims about options.

use super::*;

/// The options of `line`, and the words that are none.
fn read(line: &[u8]) -> (Options, Vec<&[u8]>) {
    let mut unknown = Vec::new();
    let options = parse(line, |word| unknown.push(word)).unwrap();
    (options, unknown)
}

fn refusal(line: &str) -> String {
    parse(line.as_bytes(), |_| {}).unwrap_err().to_string()
}

#[test]
fn good_defaults() {
    let defaults = Options { exit: Exit::Park, max_cpus: None, cpu_timeout_seconds: NonZeroU32::MIN, livepatch: true };
    for line in ["", "   ", "\t\r\n"] {
        assert_eq!(read(line.as_bytes()), (defaults, vec![]));
    }
}

#[test]
fn good_every_value() {
    for (line, exit) in [
        ("exit=semihosting", Exit::Semihosting),
        ("exit=psci", Exit::Psci),
        ("exit=park", Exit::Park),
        ("exit=\"psci\"", Exit::Psci),
        ("\"exit=psci\"", Exit::Psci),
    ] {
        assert_eq!(read(line.as_bytes()), (Options { exit, ..Options::default() }, vec![]), "{line}");
    }
    assert_eq!(read(b"maxcpus=4").0.max_cpus, NonZeroU32::new(4));
    assert_eq!(read(b"maxcpus=0").0.max_cpus, NonZeroU32::new(1), "the boot CPU alone, as Linux has it");
    assert_eq!(read(b"maxcpus=4294967295").0.max_cpus, NonZeroU32::new(u32::MAX));
    assert_eq!(read(b"cpu-timeout=600").0.cpu_timeout_seconds.get(), 600);
    assert!(read(b"livepatch=on").0.livepatch);
    assert!(!read(b"livepatch=off").0.livepatch);
}

#[test]
fn good_several_options_and_the_last_counts() {
    let (options, unknown) = read(b"  exit=psci\tmaxcpus=2 livepatch=off exit=park  exit=semihosting ");
    let expected =
        Options { exit: Exit::Semihosting, max_cpus: NonZeroU32::new(2), livepatch: false, ..Options::default() };
    assert_eq!((options, unknown), (expected, vec![]));
}

#[test]
fn bad_words_are_unknown_unless_they_match_whole() {
    let words =
        "exi=park exit2=park exi exits EXIT=psci xexit=psci =park exit:psci --exit=psci -- maxcpu=1 console=dtuart";
    let (options, unknown) = read(words.as_bytes());
    assert_eq!(options, Options::default());
    assert_eq!(unknown, words.split(' ').map(str::as_bytes).collect::<Vec<_>>());
}

#[test]
fn good_two_dashes_do_not_end_the_options() {
    assert_eq!(read(b"-- exit=psci"), (Options { exit: Exit::Psci, ..Options::default() }, vec![b"--".as_slice()]));
}

#[test]
fn bad_malformed_values_are_refused_with_option_and_value() {
    let takes = "exit takes semihosting, psci or park";
    for value in ["", "parkk", "par", "Park", "park,psci", "\"park", "\"park\"x", "\"park psci\"", "=park"] {
        let shown = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        assert_eq!(refusal(&format!("exit={value}")), format!("command line: exit={shown} is malformed: {takes}"));
    }
    for value in ["", "0", "x", "+1", "-1", " 1", "1x", "4294967296", "0x4", "1.5"] {
        let is_refused = parse(format!("maxcpus={value}").as_bytes(), |_| {}).is_err();
        assert_eq!(is_refused, value != "0", "{value}");
        assert!(parse(format!("cpu-timeout={value}").as_bytes(), |_| {}).is_err(), "{value}");
    }
    assert_eq!(refusal("maxcpus=x"), "command line: maxcpus=x is malformed: maxcpus takes a decimal number");
    let takes = "cpu-timeout takes a decimal number from 1";
    assert_eq!(refusal("cpu-timeout=0"), format!("command line: cpu-timeout=0 is malformed: {takes}"));
    assert_eq!(refusal("livepatch=yes"), "command line: livepatch=yes is malformed: livepatch takes on or off");
}

#[test]
fn bad_known_options_without_a_value() {
    let number = "a decimal number from 1";
    for (option, takes) in [
        ("exit", "semihosting, psci or park"),
        ("maxcpus", "a decimal number"),
        ("cpu-timeout", number),
        ("livepatch", "on or off"),
    ] {
        let expected = format!("command line: {option} without a value: {option} takes {takes}");
        assert_eq!(refusal(&format!("a {option} b")), expected);
        // Spaces round the equals sign make three words.
        assert_eq!(refusal(&format!("{option} = x")), expected);
    }
}

#[test]
fn bad_a_malformed_option_is_refused_even_when_a_later_one_is_fine() {
    assert!(parse(b"exit=x exit=park", |_| {}).is_err());
}

#[test]
fn good_quotes_keep_spaces_together() {
    let (_, unknown) = read(b"note=\"a b\" \"c d\" e\"f g\"h \"k\"l\"m\" \"i j");
    let expected: [&[u8]; 5] = [b"note=\"a b\"", b"c d", b"e\"f g\"h", b"\"k\"l\"m\"", b"\"i j"];
    assert_eq!(unknown, expected);
}

#[test]
fn good_bytes_that_are_no_utf8_are_unknown_words() {
    let (options, unknown) = read(b"exit=psci ex\xffit=park \xc3");
    assert_eq!(options.exit, Exit::Psci);
    let expected: [&[u8]; 2] = [b"ex\xffit=park", b"\xc3"];
    assert_eq!(unknown, expected);
}

#[test]
fn good_words_are_shown_on_one_line() {
    assert_eq!(Lossy(b"a\nb\x1b[2J\xff\0 c").to_string(), "a?b?[2J?? c");
    assert_eq!(Lossy(&[b'x'; 64]).to_string(), "x".repeat(64));
    assert_eq!(Lossy(&[b'x'; 65]).to_string(), "x".repeat(64) + "...");
}
