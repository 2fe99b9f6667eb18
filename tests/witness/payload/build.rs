//! Links the program where QEMU's virt machine has RAM, as aarch64-rt asks for.

fn main() {
    println!("cargo::rustc-link-search={}", std::env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    println!("cargo::rustc-link-arg=-Timage.ld");
    println!("cargo::rustc-link-arg=-Tmemory.ld");
    println!("cargo::rerun-if-changed=memory.ld");
}
