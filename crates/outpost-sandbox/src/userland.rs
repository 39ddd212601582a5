//! Which parts of the host make the root of a sandbox, looked up once when the launcher starts.
//!
//! Only what is listed here is shown. Deliberately absent: home directories, /opt, /srv, /var, /run, /sys, sockets,
//! and all of /etc but public certificates, the dynamic linker's tables and the alternatives links. Callers add what
//! they need by binds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::spec::{HOME_INSIDE, PAYLOAD_ID_INSIDE};

/// Top-level directories of programs and libraries. On most systems all but /usr are links into it.
const PROGRAMS: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Public parts of /etc, shown read-only where the host has them. `/etc/pki` as a whole would hold private keys.
const PUBLIC_ETC: &[&str] = &[
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
    "etc/ca-certificates",
    "etc/pki/tls/certs",
    "etc/pki/ca-trust/extracted",
    "etc/alternatives",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/ld.so.conf.d",
    "etc/localtime",
    "etc/os-release",
];

/// Files of /proc that tell about the host; those that everybody may read are covered with an empty device.
const TELLING_PROC: &[&str] = &[
    "cmdline",
    "config.gz",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
];

/// Directories of /proc that tell about the host's hardware; covered with an empty directory.
const TELLING_PROC_DIRS: &[&str] = &["acpi", "asound", "scsi"];

/// Device nodes every program may expect.
pub(crate) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// One piece of the host's userland; paths are relative to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Directory(String),
    File(String),
    Link { at: String, target: String },
}

/// What inits build their root from.
#[derive(Debug, Clone)]
pub(crate) struct Userland {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) masked_files: Vec<&'static str>,
    pub(crate) masked_dirs: Vec<&'static str>,
}

impl Userland {
    /// Looks at the host.
    pub(crate) fn discover() -> Self {
        let pieces = PROGRAMS.iter().chain(PUBLIC_ETC).filter_map(|path| piece(path)).collect();
        let open_to_all = |name: &&&str| {
            fs::symlink_metadata(PathBuf::from("/proc").join(name))
                .is_ok_and(|meta| meta.mode() & 0o006 != 0)
        };
        Self {
            pieces,
            masked_files: TELLING_PROC.iter().filter(open_to_all).copied().collect(),
            masked_dirs: TELLING_PROC_DIRS.iter().filter(open_to_all).copied().collect(),
        }
    }
}

fn piece(path: &str) -> Option<Piece> {
    let full = PathBuf::from("/").join(path);
    let kind = fs::symlink_metadata(&full).ok()?.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(&full).ok()?.into_os_string().into_string().ok()?;
        Some(Piece::Link { at: path.to_owned(), target })
    } else if kind.is_dir() {
        Some(Piece::Directory(path.to_owned()))
    } else {
        kind.is_file().then(|| Piece::File(path.to_owned()))
    }
}

/// The files of /etc that are written instead of shown: path relative to the root, and content.
pub(crate) fn synthesised_etc() -> Vec<(&'static str, String)> {
    let id = PAYLOAD_ID_INSIDE;
    vec![
        (
            "etc/passwd",
            format!(
                "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\nagent:x:{id}:{id}:agent:{HOME_INSIDE}:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        ("etc/group", format!("root:x:0:\nagent:x:{id}:\nnogroup:x:65534:\n")),
        ("etc/hosts", "127.0.0.1 localhost outpost\n::1 localhost outpost\n".to_owned()),
        ("etc/hostname", "outpost\n".to_owned()),
        ("etc/resolv.conf", String::new()),
        (
            "etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\nservices: files\n".to_owned(),
        ),
        ("etc/services", "ssh 22/tcp\nhttp 80/tcp\nhttps 443/tcp\n".to_owned()),
        ("etc/shells", "/bin/sh\n/bin/bash\n".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_and_shows_nothing_private() {
        let land = Userland::discover();
        assert!(land.pieces.contains(&Piece::Directory("usr".into())), "{land:?}");
        for piece in &land.pieces {
            let (Piece::Directory(path) | Piece::File(path) | Piece::Link { at: path, .. }) = piece;
            for private in
                ["etc/shadow", "etc/ssh", "etc/ssl", "etc/pki", "etc", "root", "home", "var", "run"]
            {
                assert_ne!(path, private);
            }
        }
    }

    #[test]
    fn the_agent_has_an_account() {
        let etc = synthesised_etc();
        let passwd = &etc.iter().find(|(path, _)| *path == "etc/passwd").unwrap().1;
        assert!(passwd.contains("\nagent:x:1000:1000:"));
    }
}
