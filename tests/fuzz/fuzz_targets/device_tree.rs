//! Whether any bytes make what reads device trees, ACPI's tables or UEFI's memory map panic, loop, or break what it
//! promises. One target: its input is what firmware says of the machine, in any of these tongues.

#![no_main]

#[path = "../exercise.rs"]
mod exercise;
#[path = "../exercise_acpi.rs"]
mod exercise_acpi;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = exercise::as_it_is(bytes);
    let _ = exercise::with_a_good_header(bytes);
    let _ = exercise_acpi::as_bundle(bytes);
    let _ = exercise_acpi::with_good_sums(bytes);
    let _ = exercise_acpi::as_memory(bytes);
    exercise_acpi::as_memory_map(bytes);
});
