//! What this machine can do at best, measured between the rounds of a bench: a sync of the disk and
//! the start of a process.
//!
//! The process is a static program of a few instructions that this module writes itself, so that
//! neither a dynamic linker nor a shell is in the figure.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Serialize;

use crate::histogram::Histogram;

/// Size of one write, bytes.
const BLOCK_BYTES: usize = 4_096;
/// Blocks of the file that is overwritten, as a warm write-ahead log is.
const OVERWRITE_BLOCKS_COUNT: u64 = 1_024;
/// Syncs of each kind, and starts of a process, in one round.
const ROUND_COUNT: u64 = 100;

/// Floor of the disk that `dir` is on, and of this kernel.
pub(crate) struct Floor {
    overwritten: File,
    appended: File,
    program: PathBuf,
    overwrite: Histogram,
    append: Histogram,
    exec: Histogram,
    next_block: u64,
}

/// Medians and 99th percentiles of everything measured, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FloorFigures {
    /// Write of 4 KiB over old data, then fdatasync.
    pub overwrite_p50: f64,
    /// See [`FloorFigures::overwrite_p50`].
    pub overwrite_p99: f64,
    /// Write of 4 KiB at the end of a file, then fdatasync.
    pub append_p50: f64,
    /// See [`FloorFigures::append_p50`].
    pub append_p99: f64,
    /// Start of a static program until its end is known.
    pub exec_p50: f64,
    /// See [`FloorFigures::exec_p50`].
    pub exec_p99: f64,
}

impl Floor {
    /// Makes its files in `dir`.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("floor");
        std::fs::create_dir_all(&dir)?;
        let overwritten = File::create(dir.join("overwrite"))?;
        let zeros = vec![0; BLOCK_BYTES];
        for block in 0..OVERWRITE_BLOCKS_COUNT {
            overwritten.write_all_at(&zeros, block * BLOCK_BYTES as u64)?;
        }
        overwritten.sync_all()?;
        let appended = OpenOptions::new().append(true).create(true).open(dir.join("append"))?;
        Ok(Self {
            overwritten,
            appended,
            program: program(&dir)?,
            overwrite: Histogram::new(),
            append: Histogram::new(),
            exec: Histogram::new(),
            next_block: 0,
        })
    }

    /// Measures one round of each, interleaved.
    pub(crate) fn round(&mut self) -> io::Result<()> {
        let block = vec![0x5A; BLOCK_BYTES];
        for _ in 0..ROUND_COUNT {
            let offset = self.next_block % OVERWRITE_BLOCKS_COUNT * BLOCK_BYTES as u64;
            let start = Instant::now();
            self.overwritten.write_all_at(&block, offset)?;
            self.overwritten.sync_data()?;
            self.overwrite.add(start.elapsed());

            let start = Instant::now();
            io::Write::write_all(&mut self.appended, &block)?;
            self.appended.sync_data()?;
            self.append.add(start.elapsed());

            let start = Instant::now();
            let ended = Command::new(&self.program).stdin(Stdio::null()).status()?;
            self.exec.add(start.elapsed());
            if !ended.success() {
                return Err(io::Error::other("the probe program failed"));
            }
            self.next_block += 1;
        }
        Ok(())
    }

    /// What was measured so far.
    pub(crate) fn figures(&self) -> FloorFigures {
        FloorFigures {
            overwrite_p50: self.overwrite.millis(0.5),
            overwrite_p99: self.overwrite.millis(0.99),
            append_p50: self.append.millis(0.5),
            append_p99: self.append.millis(0.99),
            exec_p50: self.exec.millis(0.5),
            exec_p99: self.exec.millis(0.99),
        }
    }
}

/// A program that only ends: our own where this processor and directory allow it, else `true`.
fn program(dir: &Path) -> io::Result<PathBuf> {
    let fallback = PathBuf::from("/bin/true");
    let Some(code) = exit_code() else {
        return Ok(fallback);
    };
    let path = dir.join("exit");
    let mut file = OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o755).open(&path)?;
    file.write_all_at(&elf(code), 0)?;
    drop(file);
    let works = Command::new(&path).status().is_ok_and(|status| status.success());
    Ok(if works { path } else { fallback })
}

/// Instructions of `exit(0)`.
const fn exit_code() -> Option<&'static [u8]> {
    if cfg!(target_arch = "x86_64") {
        // xor edi, edi; mov eax, 60; syscall
        Some(&[0x31, 0xFF, 0xB8, 60, 0, 0, 0, 0x0F, 0x05])
    } else if cfg!(target_arch = "aarch64") {
        // mov x0, #0; mov x8, #93; svc #0
        Some(&[0x00, 0x00, 0x80, 0xD2, 0xA8, 0x0B, 0x80, 0xD2, 0x01, 0x00, 0x00, 0xD4])
    } else {
        None
    }
}

/// The smallest 64-bit ELF file that runs `code`: its header, one loaded segment, the code. Layout by
/// the System V ABI, `elf(5)`.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADER_BYTES: u16 = 64;
    const SEGMENT_BYTES: u16 = 56;
    const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let head = u64::from(HEADER_BYTES + SEGMENT_BYTES);
    let total = head + code.len() as u64;
    let mut file = vec![0x7F, b'E', b'L', b'F', 2, 1, 1];
    file.resize(16, 0);
    for short in [2_u16, MACHINE] {
        file.extend(short.to_le_bytes()); // An executable, for this machine.
    }
    file.extend(1_u32.to_le_bytes());
    for long in [BASE + head, u64::from(HEADER_BYTES), 0] {
        file.extend(long.to_le_bytes()); // Entry, segments, no sections.
    }
    file.extend(0_u32.to_le_bytes());
    for short in [HEADER_BYTES, SEGMENT_BYTES, 1, 64, 0, 0] {
        file.extend(short.to_le_bytes());
    }
    for word in [1_u32, 5] {
        file.extend(word.to_le_bytes()); // Loaded; readable and executable.
    }
    for long in [0, BASE, BASE, total, total, 0x1000] {
        file.extend(long.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_measures_all_three() {
        let dir = tempfile::tempdir().unwrap();
        let mut floor = Floor::new(dir.path()).unwrap();
        floor.round().unwrap();
        let figures = floor.figures();
        assert!(figures.overwrite_p50 > 0.0 && figures.append_p50 > 0.0);
        assert!(figures.exec_p50 > 0.0 && figures.exec_p99 >= figures.exec_p50);
        if exit_code().is_some() {
            assert!(floor.program.starts_with(dir.path()), "our own program does not run");
        }
    }
}
