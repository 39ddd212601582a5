//! The times in git's index of a checkout that was just made.
//!
//! Git takes a file for unchanged if size and time are those of its index, unless the file is as young as the index: such a file
//! it reads. All files of a small checkout are that young, and every `git status` of an agent would read them again. So the files
//! get a time a little before, and the index is told. Format: gitformat-index(5), versions 2 and 3. Bounded: by the index itself,
//! which this host's git wrote. Deliberately absent: everything else; git checks and writes the file anew afterwards.

/// Bytes of an entry before its name: times, numbers, mode, owner and size, without object name and flags.
const STAT_BYTES: usize = 40;
/// Bytes of the header.
const HEADER_BYTES: usize = 12;
/// The flag that says that two more bytes of flags follow.
const EXTENDED: u16 = 0x4000;
/// Where the seconds and nanoseconds of the last change stand in an entry.
const MTIME_AT: usize = 8;

/// Sets the time of all entries, in seconds since 1970, and leaves the checksum out (zeros, which git takes). False, with the
/// index as it was, if it is not understood. `id_bytes` is the length of an object name.
pub(crate) fn set_times(index: &mut [u8], seconds: u32, id_bytes: usize) -> bool {
    let Some(entries) = entries(index, id_bytes) else { return false };
    for at in entries {
        index[at + MTIME_AT..at + MTIME_AT + 4].copy_from_slice(&seconds.to_be_bytes());
        index[at + MTIME_AT + 4..at + MTIME_AT + 8].fill(0);
    }
    let checksum = index.len() - id_bytes;
    index[checksum..].fill(0);
    true
}

/// Where each entry begins.
fn entries(index: &[u8], id_bytes: usize) -> Option<Vec<usize>> {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(index.get(at..at + 4)?.try_into().ok()?))
    };
    if index.get(..4)? != b"DIRC" || !matches!(number(4)?, 2 | 3) {
        return None;
    }
    let mut at = HEADER_BYTES;
    let mut found = Vec::new();
    for _ in 0..number(8)? {
        let flags_at = at + STAT_BYTES + id_bytes;
        let flags = u16::from_be_bytes(index.get(flags_at..flags_at + 2)?.try_into().ok()?);
        let name_at = flags_at + if flags & EXTENDED == 0 { 2 } else { 4 };
        let name = index.get(name_at..)?.iter().position(|byte| *byte == 0)?;
        found.push(at);
        // One to eight zeros end a name, so that the next entry begins at a multiple of eight.
        at += (name_at + name - at) / 8 * 8 + 8;
    }
    (at + id_bytes <= index.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::set_times;

    fn entry(name: &str) -> Vec<u8> {
        let mut entry = vec![7_u8; 60];
        entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend(name.bytes());
        entry.resize(entry.len() / 8 * 8 + 8, 0);
        entry
    }

    #[test]
    fn every_entry_gets_the_time_and_nothing_else_changes() {
        for names in [vec![], vec!["a"], vec!["ab", "abc/d", "x12345", &"n".repeat(300)]] {
            let mut index = b"DIRC\0\0\0\x02".to_vec();
            index.extend(u32::try_from(names.len()).unwrap().to_be_bytes());
            for name in &names {
                index.extend(entry(name));
            }
            index.extend([9; 20]);
            let before = index.clone();
            assert!(set_times(&mut index, 0x0102_0304, 20));
            let changed = index.iter().zip(&before).filter(|(new, old)| new != old).count();
            assert_eq!(changed, 8 * names.len() + 20);
            assert!(names.is_empty() || index[20..28] == [1, 2, 3, 4, 0, 0, 0, 0]);
            // A cut one and one of another version are left alone.
            let mut cut = before[..before.len() - 21].to_vec();
            assert!(!set_times(&mut cut, 1, 20) && cut[..] == before[..before.len() - 21]);
            let mut other = before.clone();
            other[7] = 4;
            assert!(!set_times(&mut other, 1, 20));
        }
    }
}
