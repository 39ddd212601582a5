//! The launcher by itself, for tests and benches. The product runs the same function from its own binary.

fn main() {
    outpost_sandbox::launcher_main(std::env::args_os().skip(1));
}
