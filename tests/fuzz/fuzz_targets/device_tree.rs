//! Whether any bytes make the device-tree path panic, loop, or break what it promises.

#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = exercise::as_it_is(bytes);
    let _ = exercise::with_a_good_header(bytes);
});
