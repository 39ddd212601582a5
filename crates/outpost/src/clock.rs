//! The clock of the host: what is shown is told relative to it.

use outpost_types::Timestamp;

/// Now, by the host's clock.
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
