//! The system calls that have no safe wrapper elsewhere: the only `unsafe` of the project.
//!
//! Each function does one call (or one inseparable group) and turns the result into `io::Result`.
//! Everything here is meant for single-threaded processes: the launcher and the inits it forks.
#![expect(unsafe_code, reason = "raw system calls that neither std nor rustix wrap")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

/// Slice of processor time asked of the scheduler for launcher and inits: they run for microseconds, and a short
/// slice lets them run at once on a busy machine (kernel 6.12 and later; older kernels ignore it).
const SHORT_SLICE_NANOS: u64 = 100_000;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; it does not fit the type that libc gives its constant.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of [`clone3`] this is.
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The caller, with the child's pid and a descriptor that names it for good.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `clone3(2)` without shared memory, so it behaves like `fork`: the child has a copy of everything.
///
/// `into_cgroup` puts the child into a version 2 cgroup from its first instruction. The caller must have one thread
/// only: the child goes on running Rust code, and a lock held by another thread would stay locked in it for ever.
pub(crate) fn clone3(namespaces: i32, into_cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero clone_args is valid: every field is an integer and zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(namespaces.cast_unsigned()) | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args outlives the call, its size is passed, no CLONE_VM and no stack are set (fork semantics), and the
    // process is single-threaded, so the child may go on using the allocator.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: on success the kernel stored a new descriptor in pidfd, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(Side::Parent { pid, pidfd })
}

/// Makes standard stream `number` (0, 1 or 2) a copy of `source`.
pub(crate) fn replace_standard_stream(number: RawFd, source: BorrowedFd<'_>) -> io::Result<()> {
    assert!((0..=2).contains(&number), "only standard streams are replaced");
    // SAFETY: the source is open, and nobody owns a standard stream's descriptor.
    check(libc::c_long::from(unsafe { libc::dup2(source.as_raw_fd(), number) }))?;
    Ok(())
}

/// Watches a descriptor with the async runtime of the calling task.
///
/// # Errors
/// The kernel cannot watch such a descriptor, or there are too many.
pub fn watch(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, always names the same descriptor, and is owned by the AsyncFd until that is gone.
    unsafe { tokio::io::unix::AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// `fork(2)`, used once by the launcher to leave its parent. True in the child.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: the launcher has one thread at this point, so the child inherits no lock held elsewhere.
    Ok(check(libc::c_long::from(unsafe { libc::fork() }))? == 0)
}

/// Ends the process at once, without destructors or exit handlers: a forked child must not run its parent's.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// `unshare(2)`: moves this single-threaded process into new namespaces.
pub(crate) fn unshare(namespaces: i32) -> io::Result<()> {
    // SAFETY: only namespace flags are passed, so no memory or descriptor table is affected.
    check(libc::c_long::from(unsafe { libc::unshare(namespaces) }))?;
    Ok(())
}

/// What a reaped child left behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    /// Raw wait status.
    pub(crate) status: i32,
    /// User and system time of the child and of all it waited for, in microseconds.
    pub(crate) cpu_micros: u64,
}

/// Reaps `pid` if it has ended; never waits.
pub(crate) fn reap(pid: i32) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right type.
    let got = check(libc::c_long::from(unsafe {
        libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage)
    }))?;
    let micros =
        |t: libc::timeval| t.tv_sec.cast_unsigned() * 1_000_000 + t.tv_usec.cast_unsigned();
    let cpu_micros = micros(usage.ru_utime) + micros(usage.ru_stime);
    Ok((got != 0).then_some(Reaped { status, cpu_micros }))
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `mount_setattr(2)` on the mount that `mount` refers to, with all mounts below it if `recursive`.
/// `set` is a mask of `MOUNT_ATTR_*`.
///
/// The mounts become private, too: a copy of a shared one would pass on to the host what is mounted below it, and
/// the other way round.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    change_mount(mount, set, 0, recursive)
}

/// Makes one mount writable again that this process's user namespace made.
pub(crate) fn mount_writable(mount: BorrowedFd<'_>) -> io::Result<()> {
    change_mount(mount, 0, libc::MOUNT_ATTR_RDONLY, false)
}

fn change_mount(mount: BorrowedFd<'_>, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    let attr =
        MountAttr { attr_set: set, attr_clr: clear, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is a valid struct mount_attr whose size is passed; the path is an empty C string.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// `NS_GET_USERNS` of `linux/nsfs.h`: `_IO(0xb7, 1)`.
const NS_GET_USERNS: u32 = 0xb701;

/// The user namespace that owns `namespace`, a descriptor of another one.
pub(crate) fn owning_user_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: this request takes no argument and returns a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS.into());
        check(libc::c_long::from(fd))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Closes every descriptor of this process but standard ones and `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut from = 3_u32;
    for fd in keep.iter().copied().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: closing descriptors is the purpose; the caller forgets every owner of the closed ones, since
            // it is a fresh fork that ends by `exit_now`.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

/// Leaves a descriptor of the root directory open in every program this process starts, for a proof.
pub(crate) fn leave_root_open() -> io::Result<()> {
    // SAFETY: the path is a C string; nobody closes the descriptor, which is the purpose.
    check(libc::c_long::from(unsafe { libc::open(c"/".as_ptr(), libc::O_RDONLY) }))?;
    Ok(())
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable when a child ends.
pub(crate) fn child_signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data; it is initialised by sigemptyset before use. signalfd returns a descriptor
    // that nobody else owns.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::c_long::from(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            std::ptr::null_mut(),
        )))?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(libc::c_long::from(fd))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets the loopback interface of the current network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data; the name is NUL-terminated because the rest of the struct is zero, and only the
    // flags member of the union is used.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let result = libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request);
        check(libc::c_long::from(result))?;
    }
    Ok(())
}

/// Slices of processor time, as the scheduler is asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slice {
    /// Short, for this process and the children it will have.
    Short,
    /// Short, and the usual one for its children.
    ShortAlone,
    /// The usual one.
    Usual,
}

/// Asks the scheduler for a slice. Best effort: an older kernel or a container's filter may refuse, and then only
/// latency on a busy machine suffers.
pub(crate) fn set_slice(slice: Slice) {
    // SAFETY: sched_attr is plain integers; its size is in the struct; getpriority has no preconditions.
    unsafe {
        let mut attr: libc::sched_attr = std::mem::zeroed();
        attr.size = std::mem::size_of::<libc::sched_attr>() as u32;
        attr.sched_policy = libc::SCHED_OTHER.cast_unsigned();
        if slice == Slice::ShortAlone {
            attr.sched_flags = libc::SCHED_FLAG_RESET_ON_FORK as u64;
        }
        attr.sched_nice = libc::getpriority(libc::PRIO_PROCESS, 0);
        attr.sched_runtime = if slice == Slice::Usual { 0 } else { SHORT_SLICE_NANOS };
        libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0);
    }
}

/// Installs a seccomp filter for this process and all its descendants. `no_new_privs` is set by the same step.
pub(crate) fn install_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(|error| io::Error::other(error.to_string()))
}

/// The Landlock calls (kernel 5.13 and later), numbers and layouts from `linux/landlock.h`.
pub(crate) mod landlock {
    use super::*;

    #[repr(C)]
    pub(crate) struct RulesetAttr {
        pub(crate) handled_access_fs: u64,
        pub(crate) handled_access_net: u64,
        pub(crate) scoped: u64,
    }

    #[repr(C, packed)]
    struct PathBeneathAttr {
        allowed_access: u64,
        parent_fd: i32,
    }

    const CREATE_RULESET_VERSION: u32 = 1;
    const RULE_PATH_BENEATH: u32 = 1;

    /// The ABI version of this kernel, or `None` without Landlock.
    pub(crate) fn abi() -> Option<u32> {
        // SAFETY: with the VERSION flag the kernel takes no struct and returns a number.
        let got = check(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<RulesetAttr>(),
                0_usize,
                CREATE_RULESET_VERSION,
            )
        });
        got.ok().and_then(|version| u32::try_from(version).ok()).filter(|version| *version > 0)
    }

    /// `size` is how many bytes of the struct this kernel's ABI knows.
    pub(crate) fn create(attr: &RulesetAttr, size: usize) -> io::Result<OwnedFd> {
        // SAFETY: attr is valid for at least `size` bytes (asserted); on success a new descriptor is returned.
        unsafe {
            assert!(
                size <= std::mem::size_of::<RulesetAttr>(),
                "a ruleset is at most as long as its struct"
            );
            let fd = check(libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const *attr,
                size,
                0_u32,
            ))?;
            Ok(OwnedFd::from_raw_fd(RawFd::try_from(fd).map_err(io::Error::other)?))
        }
    }

    /// Allows `access` on and below what `at` refers to.
    pub(crate) fn allow(
        ruleset: BorrowedFd<'_>,
        at: BorrowedFd<'_>,
        access: u64,
    ) -> io::Result<()> {
        let attr = PathBeneathAttr { allowed_access: access, parent_fd: at.as_raw_fd() };
        // SAFETY: attr is a valid struct landlock_path_beneath_attr and both descriptors are open.
        check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const attr,
                0_u32,
            )
        })?;
        Ok(())
    }

    /// Puts this process and all its future children under the ruleset.
    pub(crate) fn restrict_self(ruleset: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the descriptor is an open ruleset; no pointers are passed.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32)
        })?;
        Ok(())
    }
}

/// What [`spawn`] starts.
pub(crate) struct Spawn<'a> {
    /// Absolute path of the program.
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a [CString],
    pub(crate) env: &'a [CString],
    pub(crate) cwd: &'a CStr,
    /// Descriptors that become 0, 1 and 2. None of them may itself be 0, 1 or 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
}

/// Starts the payload by `posix_spawn`: own session, no blocked or ignored signals, only the three descriptors.
///
/// Returns its pid. The call returns only after a successful exec, so an error means nothing was started.
pub(crate) fn spawn(what: &Spawn<'_>) -> io::Result<i32> {
    let pointers = |strings: &[CString]| -> Vec<*mut libc::c_char> {
        strings.iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
    };
    let (argv, env) = (pointers(what.argv), pointers(what.env));
    let ok = |code: libc::c_int| {
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
    };
    // SAFETY: the attribute and action objects are initialised before use and destroyed after; the pointer arrays
    // end with NULL and point into CStrings that live until the call returns.
    unsafe {
        let mut attr: libc::posix_spawnattr_t = std::mem::zeroed();
        let mut actions: libc::posix_spawn_file_actions_t = std::mem::zeroed();
        ok(libc::posix_spawnattr_init(&raw mut attr))?;
        ok(libc::posix_spawn_file_actions_init(&raw mut actions))?;
        let result = (|| {
            let mut none: libc::sigset_t = std::mem::zeroed();
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigfillset(&raw mut all);
            ok(libc::posix_spawnattr_setsigmask(&raw mut attr, &raw const none))?;
            ok(libc::posix_spawnattr_setsigdefault(&raw mut attr, &raw const all))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK as i16
                | libc::POSIX_SPAWN_SETSIGDEF as i16
                | libc::POSIX_SPAWN_SETSID;
            ok(libc::posix_spawnattr_setflags(&raw mut attr, flags))?;
            for (target, fd) in (0..).zip(what.stdio) {
                ok(libc::posix_spawn_file_actions_adddup2(
                    &raw mut actions,
                    fd.as_raw_fd(),
                    target,
                ))?;
            }
            ok(libc::posix_spawn_file_actions_addchdir_np(&raw mut actions, what.cwd.as_ptr()))?;
            let mut pid = 0;
            ok(libc::posix_spawn(
                &raw mut pid,
                what.program.as_ptr(),
                &raw const actions,
                &raw const attr,
                argv.as_ptr(),
                env.as_ptr(),
            ))?;
            Ok(pid)
        })();
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attr);
        result
    }
}

/// The effective user and group of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Numeric user id on the host.
    pub uid: u32,
    /// Numeric group id on the host.
    pub gid: u32,
}

impl Owner {
    /// Who this process runs as.
    pub(crate) fn current() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// Waits until `fd` can be read or `timeout_millis` passed; false on time-out.
pub(crate) fn readable_within(fd: BorrowedFd<'_>, timeout_millis: u32) -> io::Result<bool> {
    ready_within(fd, rustix::event::PollFlags::IN, timeout_millis)
}

/// Waits until `fd` can be written to or `timeout_millis` passed; false on time-out.
pub(crate) fn writable_within(fd: BorrowedFd<'_>, timeout_millis: u32) -> io::Result<bool> {
    ready_within(fd, rustix::event::PollFlags::OUT, timeout_millis)
}

fn ready_within(
    fd: BorrowedFd<'_>,
    what: rustix::event::PollFlags,
    timeout_millis: u32,
) -> io::Result<bool> {
    use rustix::event::{PollFd, Timespec, poll};
    let timeout = Timespec {
        tv_sec: i64::from(timeout_millis / 1000),
        tv_nsec: i64::from(timeout_millis % 1000) * 1_000_000,
    };
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), what)];
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}
