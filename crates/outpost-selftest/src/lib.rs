//! Escape probes that run inside a real sandbox of this host.
//!
//! Each probe is a real attack, made by this program inside a sandbox that is built like an agent's ([`run`]). The
//! host lays out what there is to be found: a neighbour's file, sockets, a listener, a setuid program. A probe says
//! whether it succeeded; the host judges. That a probe would notice is shown too, by the tests of this crate: in a
//! sandbox weakened on purpose, or in none, each attack must succeed ([`prove`]).
//!
//! Bounded: time, output and amount of each probe. Deliberately absent: attacks on the kernel itself, and timing and
//! cache side channels; see SECURITY.md at the root of the repository.

mod attempt;
mod host;
mod inside;
mod probe;
mod run;
mod stage;
pub mod text;
mod verdict;

pub use attempt::{Attempt, errno_name};
pub use probe::{PROBE_ARGUMENT, probe_main};
pub use run::{Options, Proved, SelftestError, prove, run};
pub use verdict::{Group, Report, Standing, Verdict};
