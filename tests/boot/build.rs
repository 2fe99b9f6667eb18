//! The programs are images: linked as any hypervisor's on Breakwater.

fn main() {
    breakwater_boot::link();
}
