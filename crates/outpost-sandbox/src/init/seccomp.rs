//! The system call filter: a payload may do what programs, compilers and language runtimes do, and nothing that
//! administers a machine or widens its reach.
//!
//! Two answers: EPERM for what is refused, ENOSYS for newer calls whose users fall back to older ones that can be
//! judged by their arguments (`clone3` hides its flags behind a pointer) and for calls newer than this list. Calls with
//! foreign numbers (32-bit, x32) never reach the kernel's tables. Deliberately allowed: `ptrace`, which reaches only the sandbox's own processes
//! (init cannot be traced) and which leak checkers and debuggers need.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// Calls that look absent.
const ABSENT: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Calls that are refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Socket families a payload may use; in particular not VSOCK, which no network namespace confines.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Every flag of `clone` and `unshare` that makes a namespace (CLONE_NEWTIME only exists for `unshare`).
const NEW_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
const CLONE_NEWTIME: u64 = 0x80;

/// The first call that this list has not judged: `open_tree_attr` of kernel 6.15. Since kernel 5.1 new calls have the
/// same number on every architecture. A program that finds one absent does without, as on an older kernel.
const FIRST_UNJUDGED: u32 = 467;

/// What `personality` may ask for: Linux as it is, its 32-bit kind, without randomised addresses (sanitizers and
/// debuggers want that), with an old version number; and what is in force. Bits from `linux/personality.h`.
const PERSONALITIES: u32 = 0x0008 | 0x0002_0000 | 0x0004_0000;
const PERSONALITY_QUERY: u64 = 0xffff_ffff;

/// Bit that marks x32 calls on x86-64; `AUDIT_ARCH_*` and offsets are from `linux/audit.h` and `linux/seccomp.h`.
const X32_BIT: u32 = 0x4000_0000;
const OFFSET_NR: u32 = 0;

/// Compiles the filter. Done once by the launcher; every init inherits the program.
pub(crate) fn compile() -> io::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(other)?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules()?, SeccompAction::Allow, refuse, arch).map_err(other)?;
    let judged: BpfProgram = filter.try_into().map_err(other)?;
    // The compiled part checks the architecture itself. What comes before it only answers ENOSYS: for a foreign
    // architecture that is as good as the refusal that part would give.
    let mut program = absent_calls();
    program.extend(judged);
    Ok(program)
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// A block that answers ENOSYS for [`ABSENT`], for calls not judged yet and for x32 numbers, and otherwise falls
/// through.
fn absent_calls() -> BpfProgram {
    let op = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let answer = op(
        libc::BPF_RET | libc::BPF_K,
        0,
        0,
        libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
    );
    let mut block = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, OFFSET_NR)];
    for call in ABSENT {
        block.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        block.push(answer.clone());
    }
    // The x32 numbers of x86-64 are beyond all others.
    const { assert!(X32_BIT > FIRST_UNJUDGED) };
    block.push(op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, FIRST_UNJUDGED));
    block.push(answer);
    block
}

fn rules() -> io::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let flag = |flag: u64| -> io::Result<SeccompRule> {
        rule(&[(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)])
    };
    let each =
        (0..31).map(|bit| 1 << bit).filter(|bit| NEW_NAMESPACES & bit != 0).map(|bit| bit as u64);
    let clone: Vec<SeccompRule> = each.map(flag).collect::<io::Result<_>>()?;
    let mut unshare = clone.clone();
    unshare.push(flag(CLONE_NEWTIME)?);
    rules.insert(libc::SYS_clone, clone);
    rules.insert(libc::SYS_unshare, unshare);

    let word = SeccompCmpArgLen::Dword;
    let foreign: Vec<_> =
        FAMILIES.iter().map(|family| (0, word.clone(), SeccompCmpOp::Ne, *family as u64)).collect();
    let netlink_but_route = [
        (0, word.clone(), SeccompCmpOp::Eq, libc::AF_NETLINK as u64),
        (2, word.clone(), SeccompCmpOp::Ne, libc::NETLINK_ROUTE as u64),
    ];
    rules.insert(libc::SYS_socket, vec![rule(&foreign)?, rule(&netlink_but_route)?]);
    let personality = (0..32).map(|bit| 1_u32 << bit).filter(|bit| PERSONALITIES & bit == 0);
    let personality = personality.map(|bit| {
        rule(&[
            (0, word.clone(), SeccompCmpOp::MaskedEq(bit.into()), bit.into()),
            (0, word.clone(), SeccompCmpOp::Ne, PERSONALITY_QUERY),
        ])
    });
    rules.insert(libc::SYS_personality, personality.collect::<io::Result<_>>()?);
    // Typing into a terminal on behalf of another process.
    let typing = [libc::TIOCSTI, libc::TIOCLINUX];
    let ioctl = typing.map(|request| rule(&[(1, word.clone(), SeccompCmpOp::Eq, request)]));
    rules.insert(libc::SYS_ioctl, ioctl.into_iter().collect::<io::Result<_>>()?);
    Ok(rules)
}

/// A rule that applies when all conditions hold: (argument, width, comparison, value).
fn rule(conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions
        .iter()
        .map(|(arg, width, op, value)| {
            SeccompCondition::new(*arg, width.clone(), op.clone(), *value).map_err(other)
        })
        .collect::<io::Result<Vec<_>>>()?;
    SeccompRule::new(conditions).map_err(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_within_the_kernels_bound() {
        let program = compile().unwrap();
        assert!(program.len() < 4096, "{} instructions", program.len());
        assert!(program.len() > REFUSED.len());
    }
}
