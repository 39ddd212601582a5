//! The laws of the machine, held against random histories.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod budget;
mod decisions;
mod figures;
mod lifecycle;
mod placement;
mod pool;
mod pool_host;
mod pool_laws;
