//! The verdicts of the on-target stress on what a reader saw (tests/boot/src/stress/shadow.rs): what they let pass, and what they must not.

#[path = "boot/src/stress/shadow.rs"]
pub mod shadow;

use shadow::{Phase, Seen, Verdict, View};

const FIRST: View =
    View { was: Some(7), becomes: Some(7), was_writable: true, becomes_writable: true, ..View::UNMAPPED };

/// The verdict while nobody has seen anything new.
fn judge(before: View, seen: Seen, after: View) -> Verdict {
    shadow::judge(before, seen, after, false)
}

/// A page of frame 7 that is remapped to frame 9: before, meanwhile, after.
fn remapped() -> [View; 3] {
    let meanwhile = FIRST.begin(Some(9), true, Phase::Breaking);
    [FIRST, meanwhile, meanwhile.end()]
}

#[test]
fn good_words_keep_what_they_say() {
    let views = remapped().into_iter().chain([
        View::UNMAPPED,
        FIRST.begin(None, false, Phase::Changing),
        FIRST.begin(Some(0), false, Phase::Changing).end(),
    ]);
    for view in views {
        assert_eq!(View::of(view.word()), view);
    }
    let last = View { generation: (1 << 28) - 1, ..FIRST };
    assert_eq!(last.begin(None, false, Phase::Breaking).generation, 0);
}

#[test]
fn good_settled_page_shows_its_frame_and_nothing_else() {
    assert_eq!(judge(FIRST, Seen::Frame(7), FIRST), Verdict::Right);
    assert_eq!(judge(View::UNMAPPED, Seen::Fault, View::UNMAPPED), Verdict::NothingThere);
}

#[test]
fn bad_settled_page() {
    assert_eq!(judge(FIRST, Seen::Frame(9), FIRST), Verdict::Wrong);
    assert_eq!(judge(FIRST, Seen::Fault, FIRST), Verdict::Wrong);
    assert_eq!(judge(FIRST, Seen::Stranger(0), FIRST), Verdict::Wrong);
    assert_eq!(judge(View::UNMAPPED, Seen::Frame(7), View::UNMAPPED), Verdict::Wrong);
}

#[test]
fn good_broken_page_shows_old_then_nothing_then_new() {
    let [before, meanwhile, after] = remapped();
    for (one, other) in [(before, meanwhile), (meanwhile, meanwhile), (meanwhile, after)] {
        assert_eq!(judge(one, Seen::Frame(7), other), Verdict::Right);
        assert_eq!(judge(one, Seen::Frame(9), other), Verdict::Right);
        assert_eq!(judge(one, Seen::Fault, other), Verdict::Broken);
    }
}

#[test]
fn bad_broken_page_shows_a_third_frame_or_garbage() {
    let [before, meanwhile, after] = remapped();
    for (one, other) in [(before, meanwhile), (meanwhile, meanwhile), (meanwhile, after)] {
        assert_eq!(judge(one, Seen::Frame(8), other), Verdict::Wrong);
        assert_eq!(judge(one, Seen::Stranger(7), other), Verdict::Wrong);
    }
    assert_eq!(judge(after, Seen::Frame(7), after), Verdict::Wrong, "the old frame after the request has returned");
}

#[test]
fn good_new_frame_and_bad_old_one_once_someone_has_seen_the_new() {
    let [_, meanwhile, after] = remapped();
    for other in [meanwhile, after] {
        assert_eq!(shadow::judge(meanwhile, Seen::Frame(9), other, true), Verdict::Right);
        assert_eq!(shadow::judge(meanwhile, Seen::Frame(7), other, true), Verdict::Wrong);
    }
    let same = FIRST.begin(Some(7), false, Phase::Breaking);
    assert_eq!(shadow::judge(same, Seen::Frame(7), same, true), Verdict::Right, "the old frame is the new one");
}

#[test]
fn bad_fault_while_rights_change_in_place() {
    let meanwhile = FIRST.begin(Some(7), false, Phase::Changing);
    let after = meanwhile.end();
    for (one, other) in [(FIRST, meanwhile), (meanwhile, meanwhile), (meanwhile, after)] {
        assert_eq!(judge(one, Seen::Fault, other), Verdict::Wrong);
        assert_eq!(judge(one, Seen::Frame(7), other), Verdict::Right);
    }
}

#[test]
fn good_page_that_comes_or_goes_may_fault_and_is_no_retry() {
    let coming = View::UNMAPPED.begin(Some(3), true, Phase::Changing);
    assert_eq!(judge(View::UNMAPPED, Seen::Fault, coming), Verdict::NothingThere);
    assert_eq!(judge(coming, Seen::Fault, coming.end()), Verdict::NothingThere);
    assert_eq!(judge(coming, Seen::Frame(3), coming), Verdict::Right);
    let going = FIRST.begin(None, false, Phase::Breaking);
    assert_eq!(judge(FIRST, Seen::Fault, going), Verdict::NothingThere);
    assert_eq!(judge(going, Seen::Frame(7), going.end()), Verdict::Right);
}

#[test]
fn bad_page_that_is_gone_or_came() {
    let going = FIRST.begin(None, false, Phase::Breaking);
    let gone = going.end();
    assert_eq!(judge(gone, Seen::Frame(7), gone), Verdict::Wrong);
    let came = View::UNMAPPED.begin(Some(3), true, Phase::Changing).end();
    assert_eq!(judge(came, Seen::Fault, came), Verdict::Wrong);
}

#[test]
fn good_no_verdict_over_more_than_one_edge() {
    let [before, _, after] = remapped();
    assert_eq!(judge(before, Seen::Frame(9), after), Verdict::Unknown);
    assert_eq!(judge(before, Seen::Fault, after), Verdict::Unknown);
    assert_eq!(judge(before, Seen::Stranger(1), after), Verdict::Wrong, "garbage is wrong at any time");
}

#[test]
fn good_rights_are_the_old_then_the_new() {
    let meanwhile = FIRST.begin(Some(7), false, Phase::Changing);
    let after = meanwhile.end();
    for (one, other) in [(FIRST, meanwhile), (meanwhile, meanwhile), (meanwhile, after)] {
        assert_eq!(judge(one, Seen::Written, other), Verdict::Right);
        assert_eq!(judge(one, Seen::Denied, other), Verdict::Right);
    }
    assert_eq!(judge(FIRST, Seen::Written, FIRST), Verdict::Right);
    assert_eq!(judge(after, Seen::Denied, after), Verdict::Right);
}

#[test]
fn bad_rights_that_the_page_no_longer_has_or_never_had() {
    let read_only = FIRST.begin(Some(7), false, Phase::Changing).end();
    assert_eq!(judge(read_only, Seen::Written, read_only), Verdict::Wrong);
    assert_eq!(judge(FIRST, Seen::Denied, FIRST), Verdict::Wrong);
    let remapped = FIRST.begin(Some(9), true, Phase::Breaking);
    assert_eq!(judge(FIRST, Seen::Denied, remapped), Verdict::Wrong);
    assert_eq!(judge(View::UNMAPPED, Seen::Written, View::UNMAPPED), Verdict::Wrong);
    assert_eq!(
        judge(View::UNMAPPED, Seen::Denied, View::UNMAPPED),
        Verdict::Wrong,
        "nothing mapped is a translation fault"
    );
}
