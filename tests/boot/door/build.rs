fn main() {
    breakwater_boot::link();
}
