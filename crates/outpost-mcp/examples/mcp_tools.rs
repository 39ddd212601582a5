//! Prints the tools for `cargo xtask openapi`.
#![expect(clippy::print_stdout, reason = "a generator whose purpose is to print")]

fn main() {
    print!("{}", outpost_mcp::tools_json());
}
