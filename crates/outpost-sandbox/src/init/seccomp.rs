//! The system call filter: a payload may do what programs, compilers and language runtimes do, and nothing that
//! administers a machine or widens its reach.
//!
//! Two answers: EPERM for what is refused, ENOSYS for newer calls whose users fall back to older ones that can be
//! judged by their arguments (`clone3` hides its flags behind a pointer) and for calls newer than this list. Calls of
//! foreign architectures end the program; x32 numbers never reach the kernel's tables. Deliberately allowed: `ptrace`,
//! which reaches only the sandbox's own processes (init cannot be traced) and which leak checkers and debuggers need.
//!
//! The program is a search tree over the numbers, written here: the kernel tries it with every number when it is
//! installed (`seccomp_cache_prepare`), once a sandbox, so its depth is a good part of what a sandbox costs. Bounded:
//! by the kernel's 4,096 instructions.

use std::collections::BTreeMap;
use std::io;

use seccompiler::sock_filter;

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
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Every flag of `clone` and `unshare` that makes a namespace (CLONE_NEWTIME only exists for `unshare`).
const NEW_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
const CLONE_NEWTIME: u32 = 0x80;

/// The first call that this list has not judged: `open_tree_attr` of kernel 6.15. Since kernel 5.1 new calls have the
/// same number on every architecture. A program that finds one absent does without, as on an older kernel.
const FIRST_UNJUDGED: u32 = 467;

/// What `personality` may ask for: Linux as it is, its 32-bit kind, without randomised addresses (sanitizers and
/// debuggers want that), with an old version number; and what is in force. Bits from `linux/personality.h`.
const PERSONALITIES: u32 = 0x0008 | 0x0002_0000 | 0x0004_0000;
const PERSONALITY_QUERY: u32 = 0xffff_ffff;

/// `AUDIT_ARCH_*` of `linux/audit.h`; `None` where this filter is not known to fit.
const AUDIT_ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};
/// Offsets in `struct seccomp_data` of `linux/seccomp.h`; arguments have eight bytes each, the low half first.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;
/// Farthest conditional jump of one instruction.
const JUMP_INSTRUCTIONS_MAX: usize = u8::MAX as usize;

const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
const ABSENCE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Answer(u32),
    /// By its arguments: instructions that end with an answer.
    Judge(Vec<sock_filter>),
}

/// Compiles the filter. Done once by the launcher; every init inherits the program.
pub(crate) fn compile() -> io::Result<Vec<sock_filter>> {
    let arch = AUDIT_ARCH.ok_or_else(|| {
        io::Error::other("this processor's system calls are not known to Outpost")
    })?;
    let mut program = vec![load(OFFSET_ARCH), jump(libc::BPF_JEQ, arch, 1, 0)];
    program.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    program.push(load(OFFSET_NR));
    program.extend(tree(&ranges()));
    Ok(program)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // Every code of the classic machine has 16 bits.
    sock_filter { code: code as u16, jt, jf, k }
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// The low half of an argument: what the kernel looks at of those that are judged here.
fn load_argument(number: u32) -> sock_filter {
    load(OFFSET_ARGS + 8 * number)
}

/// Skips `yes` instructions if the comparison holds, else `no`.
fn jump(comparison: u32, with: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, yes, no, with)
}

fn answer(what: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what)
}

/// Refuses a first argument that has one of these bits.
fn without_bits(bits: u32) -> Vec<sock_filter> {
    vec![
        load_argument(0),
        jump(libc::BPF_JSET, bits, 0, 1),
        answer(REFUSE),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Calls that are judged by their arguments.
fn judged() -> Vec<(libc::c_long, Vec<sock_filter>)> {
    let namespaces = NEW_NAMESPACES.cast_unsigned();
    let allow = || answer(libc::SECCOMP_RET_ALLOW);
    let mut socket = vec![load_argument(0)];
    let [unix, inet, inet6, netlink] = FAMILIES.map(i32::cast_unsigned);
    for (family, to_allow) in [(unix, 5), (inet, 4), (inet6, 3)] {
        socket.push(jump(libc::BPF_JEQ, family, to_allow, 0));
    }
    socket.push(jump(libc::BPF_JEQ, netlink, 0, 3));
    socket.push(load_argument(2));
    socket.push(jump(libc::BPF_JEQ, libc::NETLINK_ROUTE.cast_unsigned(), 0, 1));
    socket.extend([allow(), answer(REFUSE)]);
    let mut personality = vec![load_argument(0), jump(libc::BPF_JEQ, PERSONALITY_QUERY, 0, 1)];
    personality.push(allow());
    personality.extend(without_bits(!PERSONALITIES));
    // Typing into a terminal on behalf of another process.
    let ioctl = vec![
        load_argument(1),
        jump(libc::BPF_JEQ, libc::TIOCSTI as u32, 1, 0),
        jump(libc::BPF_JEQ, libc::TIOCLINUX as u32, 0, 1),
        answer(REFUSE),
        allow(),
    ];
    vec![
        (libc::SYS_clone, without_bits(namespaces)),
        (libc::SYS_unshare, without_bits(namespaces | CLONE_NEWTIME)),
        (libc::SYS_socket, socket),
        (libc::SYS_personality, personality),
        (libc::SYS_ioctl, ioctl),
    ]
}

/// All numbers from each start to the next, in order, with what becomes of them.
fn ranges() -> Vec<(u32, Verdict)> {
    let known = |calls: &[libc::c_long], what: u32| -> Vec<(u32, Verdict)> {
        // Numbers are small; the last one judged is checked when this is compiled.
        calls.iter().map(|call| (*call as u32, Verdict::Answer(what))).collect()
    };
    let mut special: BTreeMap<u32, Verdict> = BTreeMap::new();
    special.extend(known(REFUSED, REFUSE));
    special.extend(known(ABSENT, ABSENCE));
    special.extend(judged().into_iter().map(|(call, judge)| (call as u32, Verdict::Judge(judge))));
    let mut ranges = vec![(0, Verdict::Answer(libc::SECCOMP_RET_ALLOW))];
    let mut add = |start: u32, verdict: Verdict| {
        match ranges.last_mut() {
            // A range that would be empty.
            Some(last) if last.0 == start => last.1 = verdict,
            Some(last) if last.1 == verdict => {}
            _ => ranges.push((start, verdict)),
        }
    };
    for (number, verdict) in special {
        add(number, verdict);
        add(number + 1, Verdict::Answer(libc::SECCOMP_RET_ALLOW));
    }
    add(FIRST_UNJUDGED, Verdict::Answer(ABSENCE));
    ranges
}

/// Instructions that find the range of the loaded number by halving.
fn tree(ranges: &[(u32, Verdict)]) -> Vec<sock_filter> {
    match ranges {
        [] => Vec::new(),
        [(_, Verdict::Answer(what))] => vec![answer(*what)],
        [(_, Verdict::Judge(judge))] => judge.clone(),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high.first().map_or(0, |(start, _)| *start);
            let low = tree(low);
            let mut all = if low.len() > JUMP_INSTRUCTIONS_MAX {
                let far = instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, low.len() as u32);
                vec![jump(libc::BPF_JGE, start, 0, 1), far]
            } else {
                vec![jump(libc::BPF_JGE, start, low.len() as u8, 0)]
            };
            all.extend(low);
            all.extend(tree(high));
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 3]) -> u32 {
        let word = |offset: u32| match offset {
            OFFSET_NR => number,
            OFFSET_ARCH => arch,
            _ => {
                let at = offset - OFFSET_ARGS;
                (arguments[at as usize / 8] >> (8 * (at % 8))) as u32
            }
        };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let code = u32::from(code);
            at += 1;
            let skip = |holds: bool| usize::from(if holds { jt } else { jf });
            match code & 0x07 {
                libc::BPF_LD => loaded = word(k),
                libc::BPF_RET => return k,
                libc::BPF_JMP => {
                    at += match code & 0xf0 {
                        libc::BPF_JA => k as usize,
                        libc::BPF_JEQ => skip(loaded == k),
                        libc::BPF_JGE => skip(loaded >= k),
                        libc::BPF_JSET => skip(loaded & k != 0),
                        other => panic!("{other:x}"),
                    }
                }
                other => panic!("{other:x}"),
            }
        }
    }

    #[test]
    fn every_number_gets_its_answer() {
        let program = compile().unwrap();
        assert!(program.len() < 4096, "{} instructions", program.len());
        let arch = AUDIT_ARCH.unwrap();
        let ask = |number: u32, arguments| run(&program, arch, number, arguments);
        let judged: Vec<u32> = judged().iter().map(|(call, _)| *call as u32).collect();
        for number in (0..1000).chain([0x4000_0000, 0x4000_0027, u32::MAX]) {
            let listed = |calls: &[libc::c_long]| calls.contains(&i64::from(number));
            let want = if listed(REFUSED) {
                REFUSE
            } else if listed(ABSENT) || number >= FIRST_UNJUDGED {
                ABSENCE
            } else {
                libc::SECCOMP_RET_ALLOW
            };
            if !judged.contains(&number) {
                assert_eq!(ask(number, [0; 3]), want, "{number}");
            }
            let foreign = run(&program, arch ^ 1, number, [0; 3]);
            assert_eq!(foreign, libc::SECCOMP_RET_KILL_PROCESS);
        }
    }

    #[test]
    fn arguments_are_judged() {
        let program = compile().unwrap();
        let allowed = |call: libc::c_long, arguments| {
            let got = run(&program, AUDIT_ARCH.unwrap(), call as u32, arguments);
            assert!(got == REFUSE || got == libc::SECCOMP_RET_ALLOW, "{got:x}");
            got == libc::SECCOMP_RET_ALLOW
        };
        for bit in 0..32 {
            let flag = 1_u64 << bit;
            let namespace = NEW_NAMESPACES.cast_unsigned() as u64 & flag != 0;
            // What is above the low half is not looked at by the kernel, and decides nothing here.
            for high in [0, 1 << 40] {
                assert_eq!(allowed(libc::SYS_clone, [flag | high, 0, 0]), !namespace, "{bit}");
                let unshares = !namespace && flag != u64::from(CLONE_NEWTIME);
                assert_eq!(allowed(libc::SYS_unshare, [flag | high, 0, 0]), unshares, "{bit}");
                let persona = u64::from(PERSONALITIES) & flag != 0;
                assert_eq!(allowed(libc::SYS_personality, [flag | high, 0, 0]), persona, "{bit}");
            }
        }
        assert!(allowed(libc::SYS_personality, [PERSONALITY_QUERY.into(), 0, 0]));
        for family in 0..100 {
            let known = FAMILIES.contains(&family);
            let (route, uevent) = (libc::NETLINK_ROUTE as u64, libc::NETLINK_KOBJECT_UEVENT as u64);
            assert_eq!(allowed(libc::SYS_socket, [family as u64, 1, route]), known, "{family}");
            let other = known && family != libc::AF_NETLINK;
            assert_eq!(allowed(libc::SYS_socket, [family as u64, 1, uevent]), other, "{family}");
        }
        for (request, fine) in [(libc::TIOCSTI, false), (libc::TIOCLINUX, false), (0x5401, true)] {
            assert_eq!(allowed(libc::SYS_ioctl, [0, request, 0]), fine, "{request:x}");
            assert_eq!(allowed(libc::SYS_ioctl, [0, request | 1 << 33, 0]), fine, "{request:x}");
        }
    }
}
