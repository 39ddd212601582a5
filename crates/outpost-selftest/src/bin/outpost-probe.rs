//! The probe and a launcher that makes weakened sandboxes, for the proofs in the tests. The product has the probe in
//! its own binary, and no such launcher.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(word) if word == outpost_selftest::PROBE_ARGUMENT => {
            outpost_selftest::probe_main(arguments)
        }
        _ => outpost_sandbox::launcher_main_for_proofs(std::env::args_os().skip(1)),
    }
}
