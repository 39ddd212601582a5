//! System calls that a hostile payload would try, for the probes of the self-test.
//!
//! Each is made in the form that does something where it is allowed, but nothing lasting: it reads, asks for a
//! descriptor, names a thing that does not exist, or carries an argument that is refused only after the permission
//! was granted. Bounded: one call, one buffer of [`BUFFER_BYTES`]. Deliberately absent: calls that would harm a host
//! that allows them.
#![expect(unsafe_code, reason = "raw system calls that neither std nor rustix wrap")]

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;

use crate::sys::exit_now;

/// Size of the buffer that calls with a structure point at, bytes. The kernel writes at most that much into it.
const BUFFER_BYTES: usize = 1024;

/// `OPEN_TREE_CLONE` and `MOUNT_ATTR_RDONLY` of `linux/mount.h`.
const OPEN_TREE_CLONE: usize = 1;
const MOUNT_ATTR_RDONLY: u64 = 1;
/// `open_tree_attr`, the same number everywhere (kernel 6.15); libc has no name for it yet.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
/// The last argument bit of `personality` that makes readable memory executable (`linux/personality.h`).
const READ_IMPLIES_EXEC: usize = 0x040_0000;

/// A call without a structure of its own to be prepared by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the system calls")]
pub enum Call {
    Acct,
    AddKey,
    Bpf,
    Chroot,
    ClockSettime,
    DeleteModule,
    FanotifyInit,
    FinitModule,
    Fsopen,
    InitModule,
    IoUringSetup,
    #[cfg(target_arch = "x86_64")]
    Iopl,
    Kcmp,
    KexecLoad,
    Keyctl,
    #[cfg(target_arch = "x86_64")]
    ModifyLdt,
    OpenTree,
    OpenTreeAttr,
    PerfEventOpen,
    Personality,
    PivotRoot,
    Quotactl,
    Reboot,
    RequestKey,
    Sethostname,
    Setns,
    Swapon,
    Syslog,
    Userfaultfd,
}

/// A buffer for the kernel, aligned for any structure.
#[repr(C, align(16))]
struct Buffer([u32; BUFFER_BYTES / 4]);

/// Makes the call. What it returned, or the error the kernel or the filter answered.
///
/// # Errors
/// Whatever the kernel says; EPERM and ENOSYS are how the filter refuses.
pub fn make(call: Call) -> io::Result<i64> {
    let mut buffer = Buffer([0; BUFFER_BYTES / 4]);
    match call {
        // union bpf_attr of BPF_MAP_CREATE: an array of one entry.
        Call::Bpf => buffer.0[..4].copy_from_slice(&[2, 4, 4, 1]),
        // struct perf_event_attr: the software clock of this process, in user mode only (exclude_kernel, exclude_hv).
        Call::PerfEventOpen => {
            buffer.0[..2].copy_from_slice(&[1, 112]);
            buffer.0[10] = 1 << 5 | 1 << 6;
        }
        _ => {}
    }
    let (number, arguments) = numbers(call, (&raw mut buffer) as usize);
    issue(number, arguments)
}

fn text(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

/// Number and arguments. Pointers are null, to constant text, or to the buffer.
fn numbers(call: Call, buffer: usize) -> (libc::c_long, [usize; 5]) {
    let none = usize::MAX;
    let here = libc::AT_FDCWD as usize;
    let (number, arguments): (libc::c_long, &[usize]) = match call {
        Call::Acct => (libc::SYS_acct, &[text(c"/nonexistent/outpost")]),
        Call::AddKey => (
            libc::SYS_add_key,
            &[
                text(c"user"),
                text(c"outpost"),
                text(c"x"),
                1,
                libc::KEY_SPEC_PROCESS_KEYRING as usize,
            ],
        ),
        Call::Bpf => (libc::SYS_bpf, &[0, buffer, 72]),
        Call::Chroot => (libc::SYS_chroot, &[text(c".")]),
        // The monotonic clock cannot be set by anybody; only who gets through is told so.
        Call::ClockSettime => (libc::SYS_clock_settime, &[libc::CLOCK_MONOTONIC as usize, buffer]),
        Call::DeleteModule => {
            (libc::SYS_delete_module, &[text(c"outpost-none"), libc::O_NONBLOCK as usize])
        }
        Call::FanotifyInit => (libc::SYS_fanotify_init, &[libc::FAN_REPORT_FID as usize, 0]),
        Call::FinitModule => (libc::SYS_finit_module, &[none, text(c""), 0]),
        Call::Fsopen => (libc::SYS_fsopen, &[text(c"tmpfs"), 0]),
        Call::InitModule => (libc::SYS_init_module, &[0, 0, text(c"")]),
        Call::IoUringSetup => (libc::SYS_io_uring_setup, &[1, buffer]),
        #[cfg(target_arch = "x86_64")]
        Call::Iopl => (libc::SYS_iopl, &[0]),
        Call::Kcmp => {
            let me = std::process::id() as usize;
            return (libc::SYS_kcmp, [me, me, 1, 0, 0]);
        }
        // More segments than there may be: refused after the permission was checked, and nothing is loaded.
        Call::KexecLoad => (libc::SYS_kexec_load, &[0, 17, 0, 0]),
        Call::Keyctl => (
            libc::SYS_keyctl,
            &[libc::KEYCTL_GET_KEYRING_ID as usize, libc::KEY_SPEC_SESSION_KEYRING as usize, 1],
        ),
        #[cfg(target_arch = "x86_64")]
        Call::ModifyLdt => (libc::SYS_modify_ldt, &[0, buffer, BUFFER_BYTES]),
        Call::OpenTree => (libc::SYS_open_tree, &[here, text(c"/"), OPEN_TREE_CLONE]),
        Call::OpenTreeAttr => (SYS_OPEN_TREE_ATTR, &[here, text(c"/nonexistent/outpost"), 0, 0, 0]),
        Call::PerfEventOpen => (libc::SYS_perf_event_open, &[buffer, 0, none, none, 0]),
        Call::Personality => (libc::SYS_personality, &[READ_IMPLIES_EXEC]),
        Call::PivotRoot => (libc::SYS_pivot_root, &[text(c"."), text(c"/nonexistent/outpost")]),
        // Q_SYNC of all file systems: everybody may where it is not refused.
        Call::Quotactl => (libc::SYS_quotactl, &[0x8000_0100, 0, 0, 0]),
        // Without the magic numbers it is refused after the permission was checked.
        Call::Reboot => (libc::SYS_reboot, &[0, 0, 0, 0]),
        Call::RequestKey => (
            libc::SYS_request_key,
            &[text(c"user"), text(c"outpost-none"), 0, libc::KEY_SPEC_PROCESS_KEYRING as usize],
        ),
        Call::Sethostname => (libc::SYS_sethostname, &[text(c""), none]),
        Call::Setns => (libc::SYS_setns, &[none, 0]),
        Call::Swapon => (libc::SYS_swapon, &[text(c"/nonexistent/outpost"), 0]),
        // SYSLOG_ACTION_SIZE_BUFFER.
        Call::Syslog => (libc::SYS_syslog, &[10, 0, 0]),
        Call::Userfaultfd => (libc::SYS_userfaultfd, &[1]),
    };
    let mut all = [0; 5];
    all[..arguments.len()].copy_from_slice(arguments);
    (number, all)
}

fn issue(number: libc::c_long, a: [usize; 5]) -> io::Result<i64> {
    // SAFETY: every pointer that a caller in this module passes is null, to constant text, or to a buffer that lives
    // through the call and is at least as long as what the kernel writes; no call changes this process's memory map,
    // stack or descriptors in a way that Rust relies on.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `unshare(2)` with namespace flags.
///
/// # Errors
/// What the kernel says; EINVAL for flags that make no namespace.
pub fn unshare(namespaces: i32) -> io::Result<()> {
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    if namespaces & !all != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    crate::sys::unshare(namespaces)
}

/// Makes a process in a user namespace of its own, by `clone3` or the older `clone`; it ends at once.
///
/// # Errors
/// What the kernel says.
pub fn clone_user_namespace(newer_call: bool) -> io::Result<()> {
    let flags = libc::CLONE_NEWUSER as usize | libc::SIGCHLD as usize;
    let result = if newer_call {
        // SAFETY: an all-zero clone_args is valid: every field is an integer and zero means "not used".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = libc::CLONE_NEWUSER as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        let size = std::mem::size_of::<libc::clone_args>();
        // SAFETY: the structure outlives the call and its size is passed; neither memory nor stack is shared, so the
        // child is a copy, and it ends at once.
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) }
    } else {
        // SAFETY: without CLONE_VM and with no stack this is a fork; the child ends at once.
        unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }
    };
    match result {
        0 => exit_now(0),
        pid if pid > 0 => {
            let _not_ours = rustix::process::waitpid(
                rustix::process::Pid::from_raw(pid as i32),
                rustix::process::WaitOptions::empty(),
            );
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Mounts an empty file system in memory over `target`. Only for inside a sandbox.
///
/// # Errors
/// What the kernel says.
pub fn mount_over(target: &CStr) -> io::Result<()> {
    let kind = text(c"tmpfs");
    issue(libc::SYS_mount, [kind, target.as_ptr() as usize, kind, 0, 0]).map(drop)
}

/// Binds `source` over `target`, with all below it. Only for inside a sandbox.
///
/// # Errors
/// What the kernel says.
pub fn bind_over(source: &CStr, target: &CStr) -> io::Result<()> {
    let flags = (libc::MS_BIND | libc::MS_REC) as usize;
    let (source, target) = (source.as_ptr() as usize, target.as_ptr() as usize);
    issue(libc::SYS_mount, [source, target, 0, flags, 0]).map(drop)
}

/// Makes a mount writable by the older call. Only for inside a sandbox.
///
/// # Errors
/// What the kernel says.
pub fn remount_writable(target: &CStr) -> io::Result<()> {
    let flags = (libc::MS_BIND | libc::MS_REMOUNT) as usize;
    issue(libc::SYS_mount, [0, target.as_ptr() as usize, 0, flags, 0]).map(drop)
}

/// Makes a mount writable by the newer call. Only for inside a sandbox.
///
/// # Errors
/// What the kernel says.
pub fn clear_read_only(target: &CStr) -> io::Result<()> {
    // struct mount_attr: what to set, what to clear, propagation, user namespace.
    let attributes: [u64; 4] = [0, MOUNT_ATTR_RDONLY, 0, 0];
    let arguments = [
        libc::AT_FDCWD as usize,
        target.as_ptr() as usize,
        0,
        (&raw const attributes) as usize,
        32,
    ];
    issue(libc::SYS_mount_setattr, arguments).map(drop)
}

/// Detaches what is mounted at `target`. Only for inside a sandbox.
///
/// # Errors
/// What the kernel says.
pub fn unmount(target: &CStr) -> io::Result<()> {
    issue(libc::SYS_umount2, [target.as_ptr() as usize, libc::MNT_DETACH as usize, 0, 0, 0])
        .map(drop)
}

/// Opens the root directory by its handle, which passes by every mount that covers a path.
///
/// # Errors
/// What the kernel says of either call.
pub fn open_by_handle() -> io::Result<()> {
    let mut handle = Buffer([0; BUFFER_BYTES / 4]);
    handle.0[0] = 128;
    let mut mount = 0_i32;
    let (here, at) = (libc::AT_FDCWD as usize, (&raw mut handle) as usize);
    issue(libc::SYS_name_to_handle_at, [here, text(c"/"), at, (&raw mut mount) as usize, 0])?;
    let root = std::fs::File::open("/")?;
    issue(libc::SYS_open_by_handle_at, [root.as_raw_fd() as usize, at, 0, 0, 0]).map(drop)
}

/// Reads eight bytes of another process's memory, at the lowest address of its program.
///
/// # Errors
/// What the kernel says. EFAULT means that reading was allowed and nothing was there.
pub fn read_memory_of(pid: i32) -> io::Result<()> {
    let mut word = 0_u64;
    let mine = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let theirs = libc::iovec { iov_base: 0x1000 as *mut libc::c_void, iov_len: 8 };
    // SAFETY: the local vector names eight bytes that live through the call; the remote one is only the kernel's to
    // judge.
    let result =
        unsafe { libc::process_vm_readv(pid, &raw const mine, 1, &raw const theirs, 1, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches to another process as its debugger, without stopping it. Ends with this process.
///
/// # Errors
/// What the kernel says.
pub fn trace(pid: i32) -> io::Result<()> {
    issue(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid as usize, 0, 0, 0]).map(drop)
}

/// Types a letter into a new terminal of this process's, as if its user had.
///
/// # Errors
/// What the kernel says of any step.
pub fn type_into_terminal() -> io::Result<()> {
    let open = std::fs::OpenOptions::new().read(true).write(true).open("/dev/ptmx")?;
    let (unlock, mut number) = (0_i32, 0_i32);
    let master = open.as_raw_fd() as usize;
    issue(
        libc::SYS_ioctl,
        [master, libc::TIOCSPTLCK as usize, (&raw const unlock) as usize, 0, 0],
    )?;
    issue(libc::SYS_ioctl, [master, libc::TIOCGPTN as usize, (&raw mut number) as usize, 0, 0])?;
    // The leader of a session without a terminal gets the one it opens.
    let _leads_one_already = rustix::process::setsid();
    let terminal = std::fs::File::open(format!("/dev/pts/{number}"))?;
    let terminal = terminal.as_raw_fd() as usize;
    let typed = issue(libc::SYS_ioctl, [terminal, libc::TIOCSTI as usize, text(c"x"), 0, 0]);
    // Closing it would hang up, which ends this process before it can answer.
    std::mem::forget(open);
    typed.map(drop)
}

/// Opens a socket of any family.
///
/// # Errors
/// What the kernel says.
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<()> {
    issue(libc::SYS_socket, [family as usize, kind as usize, protocol as usize, 0, 0]).map(drop)
}

/// Makes a device node of the host's memory or disk in the current directory.
///
/// # Errors
/// What the kernel says.
pub fn make_device(name: &CStr, block: bool) -> io::Result<()> {
    let (kind, device) = if block {
        (libc::S_IFBLK, libc::makedev(7, 0))
    } else {
        (libc::S_IFCHR, libc::makedev(1, 1))
    };
    let arguments = [
        libc::AT_FDCWD as usize,
        name.as_ptr() as usize,
        (kind | 0o600) as usize,
        usize::try_from(device).map_err(io::Error::other)?,
        0,
    ];
    issue(libc::SYS_mknodat, arguments).map(drop)
}

/// Takes user id `uid` for all ids of this process.
///
/// # Errors
/// What the kernel says.
pub fn become_user(uid: u32) -> io::Result<()> {
    let uid = uid as usize;
    issue(libc::SYS_setresuid, [uid, uid, uid, 0, 0]).map(drop)
}
