//! Messages of an init, which an agent may have taken over, to the launcher and to the server.

use outpost_sandbox::fuzzing::{from_init, go_answer};

/// How much longer a message may become that is written again: fields that were left out.
const ADDED_BYTES_MAX: usize = 128;

/// The input is one message, its first byte included.
pub fn init_messages(data: &[u8]) {
    for read in [from_init, go_answer] {
        let Some(written) = read(data) else { continue };
        assert_eq!(data.first(), Some(&b'i'), "an init may not send files");
        assert!(written.len() <= data.len() + ADDED_BYTES_MAX, "{} bytes", written.len());
        assert_eq!(read(&written).as_ref(), Some(&written), "what was read reads the same");
    }
}
