//! Floods: more of a resource than the sandbox was given. Each stops at its amount, so that it is harmless where it
//! succeeds.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::attempt::{Attempt, Tries};
use crate::probe::{Act, Bait, Change, Probe, Proof};
use crate::verdict::Group::Floods;

const MIB: usize = 1 << 20;

const fn flood(
    name: &'static str,
    attack: &'static str,
    run: fn(&Bait) -> Attempt,
    narrow: Change,
    amount: u64,
    proof: Proof,
) -> Probe {
    Probe { group: Floods, name, attack, act: Act::Run(run), proof, flood: Some((narrow, amount)) }
}

pub(super) const PROBES: &[Probe] = &[
    flood(
        "flood.processes",
        "start more processes than are allowed",
        processes,
        |limits| limits.pids_max = 48,
        96,
        Proof::Wide(|limits| limits.pids_max = 400),
    ),
    flood(
        "flood.memory",
        "use four times the memory",
        memory,
        |limits| limits.memory_bytes = 48 << 20,
        192 << 20,
        Proof::Wide(|limits| limits.memory_bytes = 512 << 20),
    ),
    flood(
        "flood.descriptors",
        "open twice as many files",
        descriptors,
        |limits| limits.open_files_max = 128,
        256,
        Proof::Wide(|limits| limits.open_files_max = 4096),
    ),
    flood(
        "flood.tmp-bytes",
        "fill /tmp beyond its size",
        |bait| bytes_of(bait, "/tmp"),
        |limits| limits.tmp_bytes = 1 << 20,
        4 << 20,
        Proof::Wide(|limits| limits.tmp_bytes = 64 << 20),
    ),
    flood(
        "flood.tmp-files",
        "make more files in /tmp than it has room for",
        |bait| files_of(bait, "/tmp"),
        |limits| limits.tmp_bytes = 1 << 20,
        2000,
        Proof::Wide(|limits| limits.tmp_bytes = 64 << 20),
    ),
    flood(
        "flood.disk-file",
        "write one file larger than the whole disk limit",
        one_file,
        |limits| limits.disk_bytes = Some(4 << 20),
        16 << 20,
        Proof::Wide(|limits| limits.disk_bytes = Some(256 << 20)),
    ),
    flood(
        "flood.disk-bytes",
        "fill the workspace beyond the disk limit, and stay",
        |bait| held(bait, bytes_of(bait, &bait.workspace)),
        |limits| limits.disk_bytes = Some(4 << 20),
        16 << 20,
        Proof::Wide(|limits| limits.disk_bytes = Some(256 << 20)),
    ),
    flood(
        "flood.disk-hidden",
        "the same in directories that cannot be listed",
        |bait| held(bait, hidden(bait)),
        |limits| limits.disk_bytes = Some(4 << 20),
        16 << 20,
        Proof::Wide(|limits| limits.disk_bytes = Some(256 << 20)),
    ),
    flood(
        "flood.disk-deleted",
        "the same in files that were deleted and stay open",
        deleted,
        |limits| limits.disk_bytes = Some(4 << 20),
        16 << 20,
        Proof::Wide(|limits| limits.disk_bytes = Some(256 << 20)),
    ),
    flood(
        "flood.disk-files",
        "make more files in the workspace than are allowed, and stay",
        |bait| held(bait, files_of(bait, &bait.workspace)),
        |limits| limits.disk_files = Some(500),
        2000,
        Proof::Wide(|limits| limits.disk_files = Some(100_000)),
    ),
    flood(
        "flood.output",
        "write more than a pipe holds to an output that nobody reads",
        output,
        |_| {},
        8 << 20,
        Proof::Not(
            "the launcher makes the pipe; outside, where output is a file, nothing is being kept in memory",
        ),
    ),
];

/// What it came to: all of the amount, or less.
fn got(bait: &Bait, count: u64, what: &str, error: Option<io::Error>) -> Attempt {
    let text = format!("{count} {what}");
    match error {
        Some(error) if count < bait.amount => Tries::one::<()>(&text, Err(error)),
        _ => Attempt::succeeded(text),
    }
}

fn processes(bait: &Bait) -> Attempt {
    let mut children: Vec<Child> = Vec::new();
    let mut error = None;
    while (children.len() as u64) < bait.amount && error.is_none() {
        match Command::new("sleep").arg("600").stdout(Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(problem) => error = Some(problem),
        }
    }
    let count = children.len() as u64;
    for child in &mut children {
        let _ended = child.kill().and_then(|()| child.wait());
    }
    got(bait, count, "processes", error)
}

fn memory(bait: &Bait) -> Attempt {
    let mut kept = Vec::new();
    while (kept.len() * MIB) < bait.amount as usize {
        // Touched, or it would only be a promise.
        kept.push(vec![0xa5_u8; MIB]);
    }
    let bytes: usize = std::hint::black_box(&kept).iter().map(Vec::len).sum();
    Attempt::succeeded(format!("{} MiB", bytes / MIB))
}

fn descriptors(bait: &Bait) -> Attempt {
    let mut kept = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) if (kept.len() as u64) < bait.amount => kept.push(file),
            Ok(_) => return got(bait, kept.len() as u64, "descriptors", None),
            Err(error) => return got(bait, kept.len() as u64, "descriptors", Some(error)),
        }
    }
}

/// Files of one MiB each until the amount is there.
fn bytes_of(bait: &Bait, dir: &str) -> Attempt {
    let block = vec![0xa5_u8; MIB];
    let mut done = 0;
    while done < bait.amount {
        let path = Path::new(dir).join(format!("flood-{done}"));
        if let Err(error) = File::create(path).and_then(|mut file| file.write_all(&block)) {
            return got(bait, done, "bytes", Some(error));
        }
        done += MIB as u64;
    }
    got(bait, done, "bytes", None)
}

fn files_of(bait: &Bait, dir: &str) -> Attempt {
    for count in 0..bait.amount {
        if let Err(error) = File::create(Path::new(dir).join(format!("flood-{count}"))) {
            return got(bait, count, "files", Some(error));
        }
    }
    got(bait, bait.amount, "files", None)
}

fn one_file(bait: &Bait) -> Attempt {
    let block = vec![0xa5_u8; MIB];
    let path = Path::new(&bait.workspace).join("flood");
    let mut done = 0;
    let mut write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        while done < bait.amount {
            file.write_all(&block)?;
            done += MIB as u64;
        }
        Ok(())
    };
    let error = write().err();
    got(bait, done, "bytes in one file", error)
}

fn hidden(bait: &Bait) -> Attempt {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = Path::new(&bait.workspace).join("hidden");
    let deep = dir.join("deep");
    let made = std::fs::create_dir_all(&deep);
    let attempt = bytes_of(bait, &deep.to_string_lossy());
    for dir in [&deep, &dir] {
        let _still_open = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o300));
    }
    if made.is_err() { Tries::one("make the directories", made) } else { attempt }
}

fn deleted(bait: &Bait) -> Attempt {
    let block = vec![0xa5_u8; MIB];
    let path = Path::new(&bait.workspace).join("deleted");
    let mut kept = Vec::new();
    let mut write = || -> io::Result<()> {
        while ((kept.len() * MIB) as u64) < bait.amount {
            let mut file = File::create_new(&path)?;
            std::fs::remove_file(&path)?;
            file.write_all(&block)?;
            kept.push(file);
        }
        Ok(())
    };
    let error = write().err();
    let attempt = held(bait, got(bait, (kept.len() * MIB) as u64, "bytes without a name", error));
    drop(kept);
    attempt
}

/// Waits whether it may stay: a watched limit ends the sandbox a moment later.
fn held(bait: &Bait, attempt: Attempt) -> Attempt {
    if attempt.succeeded {
        std::thread::sleep(Duration::from_millis(bait.hold_millis));
    }
    attempt
}

fn output(bait: &Bait) -> Attempt {
    let stdout = io::stdout();
    for bytes in [bait.amount as usize, MIB] {
        let _as_it_is = rustix::pipe::fcntl_setpipe_size(&stdout, bytes);
    }
    let _blocking = rustix::fs::fcntl_setfl(&stdout, rustix::fs::OFlags::NONBLOCK);
    let block = [b'\n'; 4096];
    let mut done = 0;
    let error = loop {
        match rustix::io::write(&stdout, &block) {
            Ok(count) if done < bait.amount => done += count as u64,
            Ok(_) => break None,
            Err(error) => break Some(io::Error::from(error)),
        }
    };
    got(bait, done, "bytes unread", error)
}
