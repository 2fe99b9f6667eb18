//! The editor on made-up C, assembly and makefiles.

use super::*;

const C: &str = r#"/* setup(1) { */
#include <thing.h>
#define CALL(x) \
    setup(x) {

/* Declared. */
static int setup(int a);

/*
 * Sets things up.
 */
static int __attribute__((unused))
setup(int a)
{
    /* } */
    char c = '}';
    if (a) { puts("}"); } /* setup() { */
    return other(a);
}

int setup_more(void)
{
    return setup(1);
}

#ifdef ONE
void twice(void) { }
#else
void twice(void)
{
    one = 1;
}
#endif
"#;

const S: &str = "/* head */
/* Starts.
 * In: x0 */
ENTRY(begin)
        mov x0, #1   /* begin: */
1:      b 1b
ENDPROC(begin)

next:   ret
ENDPROC(next)
";

fn applied(edit: &Edit, text: &str) -> String {
    edit.apply(text).unwrap_or_else(|error| panic!("{edit}: {error:#}"))
}

fn refused(edit: &Edit, text: &str) -> String {
    edit.apply(text).expect_err("it is refused").to_string()
}

#[test]
fn good_a_function_goes_with_its_comment_and_nothing_else_does() {
    let cut = applied(&cut_function("a.c", "setup"), C);
    let (before, after) = C.split_once("/*\n * Sets").expect("it is there");
    let after = after.split_once("other(a);\n}\n").expect("it is there").1;
    assert_eq!(cut, format!("{before}{after}"));
    assert!(cut.contains("static int setup(int a);") && cut.contains("int setup_more(void)"));
}

#[test]
fn good_of_two_branches_one_is_meant() {
    let second = applied(&cut_function("a.c", "twice").nth(2, 2), C);
    assert!(second.ends_with("void twice(void) { }\n#else\n#endif\n"), "{second}");
    let first = applied(&cut_function("a.c", "twice").nth(1, 2), C);
    assert!(first.contains("#ifdef ONE\n#else\nvoid twice"), "{first}");
}

#[test]
fn bad_what_is_not_there_once_is_refused() {
    assert_eq!(refused(&cut_function("a.c", "twice"), C), "2 matches, not 1");
    assert_eq!(refused(&cut_function("a.c", "set"), C), "0 matches, not 1");
    assert_eq!(refused(&cut_function("a.c", "twice").nth(3, 2), C), "there is no match number 3 of 2");
    assert_eq!(refused(&replace_line("a.c", &["return"], ""), C), "2 matches, not 1");
}

#[test]
fn good_lines_are_known_by_their_tokens_outside_of_comments() {
    let text = applied(&replace_line("a.c", &["return", "setup", "1"], "    return 7;\n"), C);
    assert!(text.contains("{\n    return 7;\n}"), "{text}");
    let text = applied(&replace_line("a.c", &["return"], "").in_function("setup"), C);
    assert!(text.contains("/* setup() { */\n}"), "{text}");
    let text = applied(&replace_token("a.c", &["#include"], "thing.h", "ours.h"), C);
    assert!(text.contains("#include <ours.h>"), "{text}");
}

#[test]
fn bad_a_word_is_not_known_by_its_half() {
    assert_eq!(refused(&replace_line("a.c", &["retur"], ""), C), "0 matches, not 1");
    assert_eq!(refused(&replace_line("a.c", &["setup", "return"], ""), C), "0 matches, not 1");
    assert_eq!(refused(&replace_line("a.c", &["return"], "").in_function("twice"), C), "2 functions twice, not 1");
}

#[test]
fn bad_lines_end_in_the_function_in_which_they_begin() {
    const TWO: &str = "void a(void)\n{\n    first();\n}\n\nvoid b(void)\n{\n    last();\n}\n";
    let beyond = cut_lines("a.c", &["first"], &["last"]);
    assert!(refused(&beyond.clone().in_function("a"), TWO).contains("its last line is not there"));
    assert_eq!(applied(&beyond, TWO), "void a(void)\n{\n}\n");
}

#[test]
fn good_lines_go_in_before_and_after_and_at_the_end() {
    let before = applied(&insert_before("a.c", &["one", "="], "    zero = 0;\n"), C);
    let after = applied(&insert_after("a.c", &["one", "="], "    two = 2;\n"), C);
    assert!(before.contains("{\n    zero = 0;\n    one = 1;\n"));
    assert!(after.contains("    one = 1;\n    two = 2;\n}"));
    assert!(applied(&append("a.c", "end\n"), C).ends_with("#endif\nend\n"));
}

#[test]
fn good_a_routine_goes_from_its_label_to_its_end() {
    assert_eq!(applied(&cut_label("a.S", "begin"), S), "\nnext:   ret\nENDPROC(next)\n");
    assert!(applied(&cut_label("a.S", "next"), S).ends_with("ENDPROC(begin)\n\n"));
    assert_eq!(refused(&cut_label("a.S", "nex"), S), "0 matches, not 1");
    let inside = applied(&replace_line("a.S", &["mov", "x0"], "        mov x0, #2\n").in_function("begin"), S);
    assert!(inside.contains("ENTRY(begin)\n        mov x0, #2\n1:"));
}

#[test]
fn good_a_span_of_lines_goes() {
    let text = applied(&cut_lines("a.S", &["1:", "b"], &["next:"]), S);
    assert!(text.ends_with("/* begin: */\nENDPROC(next)\n"), "{text}");
    assert_eq!(refused(&cut_lines("a.S", &["next:"], &["ENTRY"]), S), "its last line is not there");
}

#[test]
fn good_in_a_makefile_a_hash_begins_a_comment() {
    let text = "# obj-y += mm.o\nobj-y += mm.o\n";
    let changed = applied(&insert_after("Makefile", &["obj-y", "mm.o"], "obj-y += ours.o\n"), text);
    assert_eq!(changed, "# obj-y += mm.o\nobj-y += mm.o\nobj-y += ours.o\n");
}

#[test]
fn good_edits_follow_each_other_and_bad_ones_say_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let more = [add_file("new/a.c", "int a;\n"), append("new/a.c", "int b;\n")];
    apply(dir.path(), &more).expect("they fit");
    assert_eq!(fs::read_to_string(dir.path().join("new/a.c")).expect("it is there"), "int a;\nint b;\n");
    let twice = apply(dir.path(), &more).expect_err("it is there already");
    assert_eq!(format!("{twice:#}"), "new/a.c: add the file: the file is there already");
    let wrong = apply(dir.path(), &[cut_function("new/a.c", "f").in_function("g")]).expect_err("there is none");
    assert_eq!(format!("{wrong:#}"), "new/a.c: cut function f in g: 0 matches, not 1");
}
