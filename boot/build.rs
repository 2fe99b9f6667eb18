//! Links this package's own images as any dependent's: by the one line of `breakwater_boot::link`.

#[path = "src/link.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the library beside")]
mod link;

fn main() {
    link::link();
}
