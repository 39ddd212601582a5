//! The laws of the machine, held against random histories.

mod lifecycle;
mod placement;
