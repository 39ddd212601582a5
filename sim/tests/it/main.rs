//! The simulation holds at CI size, is deterministic, and finds every bug it is given.

mod crashes;
mod pools;
mod seeds;
