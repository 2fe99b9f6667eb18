#!/bin/sh
# Builds the published hypervisor axvisor, as its own configuration for QEMU does, and has the witness watch it
# until it starts virtualization. The build takes minutes the first time; all of it stays under target/.
set -eu
cd "$(dirname "$0")"
mkdir -p target
target=$(pwd)/target
version=0.3.0-preview.2

if [ ! -f "target/axvisor/bin/axvisor" ]; then
    # It is written for a nightly compiler.
    export RUSTC_BOOTSTRAP=1
    export CARGO_TARGET_DIR="$target/axvisor/build"
    flags="-Crelocation-model=pic -Clink-args=-pie -Clink-args=-znostart-stop-gc -Clink-args=-Taxplat.x"
    export CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_RUSTFLAGS="$flags"
    cargo install --locked --root target/axvisor --target aarch64-unknown-none-softfloat --no-default-features \
        --features ept-level-4,axstd/bus-mmio,dyn-plat --bin axvisor "axvisor@=$version"
fi

# What is loaded is one segment behind the ELF file's first 64 KiB; QEMU takes it as a Linux Image.
elf=target/axvisor/bin/axvisor
tail -c +65537 "$elf" > target/axvisor/axvisor.img
exec breakwater-witness run --image target/axvisor/axvisor.img --elf "$elf" --smp 1 \
    --until "Starting virtualization" --timeout 200
