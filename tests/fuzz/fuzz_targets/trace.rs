//! Whether any bytes make the reader of traces or an engine of the oracle panic or loop.

#![no_main]

#[path = "../exercise_trace.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = exercise::as_it_is(bytes);
    let _ = exercise::with_a_header(bytes);
    exercise::as_choices(bytes);
});
