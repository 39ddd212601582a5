//! The system call filter, asked by raw calls from inside. Perl can make any call by number.

use outpost_sandbox::{Payload, Sandbox, SandboxSpec};
use tokio::io::AsyncReadExt as _;

use crate::Bed;

/// Number, first three arguments, what must come back.
fn calls() -> Vec<(libc::c_long, [i64; 3], i32)> {
    let refused = [
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_chroot,
        libc::SYS_fanotify_init,
        libc::SYS_finit_module,
        libc::SYS_fsopen,
        libc::SYS_init_module,
        libc::SYS_kcmp,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_open_by_handle_at,
        libc::SYS_open_tree,
        libc::SYS_perf_event_open,
        libc::SYS_pivot_root,
        libc::SYS_reboot,
        libc::SYS_request_key,
        libc::SYS_setns,
        libc::SYS_swapon,
        libc::SYS_umount2,
        libc::SYS_userfaultfd,
    ];
    let absent = [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter];
    let mut calls: Vec<_> = refused.map(|call| (call, [0; 3], libc::EPERM)).into();
    calls.extend(absent.map(|call| (call, [0; 3], libc::ENOSYS)));
    for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
        calls.push((libc::SYS_unshare, [flag.into(), 0, 0], libc::EPERM));
        calls.push((libc::SYS_clone, [flag.into(), 0, 0], libc::EPERM));
    }
    let stream = i64::from(libc::SOCK_STREAM);
    let raw = i64::from(libc::SOCK_RAW);
    calls.push((libc::SYS_socket, [libc::AF_VSOCK.into(), stream, 0], libc::EPERM));
    calls.push((libc::SYS_socket, [libc::AF_PACKET.into(), raw, 0], libc::EPERM));
    calls.push((libc::SYS_socket, [libc::AF_ALG.into(), 5, 0], libc::EPERM));
    let uevent = i64::from(libc::NETLINK_KOBJECT_UEVENT);
    calls.push((libc::SYS_socket, [libc::AF_NETLINK.into(), raw, uevent], libc::EPERM));
    calls.push((libc::SYS_ioctl, [0, libc::TIOCSTI.cast_signed(), 0], libc::EPERM));
    calls.push((libc::SYS_personality, [0x040_0000, 0, 0], libc::EPERM));
    calls.push((467, [0; 3], libc::ENOSYS));
    // What must work, so that the list above proves something.
    calls.push((libc::SYS_getpid, [0; 3], 0));
    calls.push((libc::SYS_personality, [0xffff_ffff, 0, 0], 0));
    calls.push((libc::SYS_personality, [0x004_0000, 0, 0], 0));
    calls.push((libc::SYS_unshare, [libc::CLONE_FILES.into(), 0, 0], 0));
    calls.push((libc::SYS_socket, [libc::AF_NETLINK.into(), raw, 0], 0));
    calls.push((libc::SYS_socket, [libc::AF_INET.into(), stream, 0], 0));
    if cfg!(target_arch = "x86_64") {
        // The x32 number of getpid.
        calls.push((libc::SYS_getpid | 0x4000_0000, [0; 3], libc::ENOSYS));
    }
    calls
}

#[tokio::test]
async fn answers_every_call_as_it_must() {
    if !std::path::Path::new("/usr/bin/perl").exists() {
        println!("SKIPPED: perl is not installed");
        return;
    }
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let script = "while (<STDIN>) { my @c = split; $! = 0; my $r = syscall($c[0], $c[1]+0, $c[2]+0, $c[3]+0, 0, 0);
        exit 0 if $c[0] == 56 && $r == 0; print $r < 0 ? $!+0 : 0, \"\\n\"; }";
    let calls = calls();
    let ask: String =
        calls.iter().map(|(call, [a, b, c], _)| format!("{call} {a} {b} {c}\n")).collect();
    let parked = sandbox.create(SandboxSpec::new("filter")).await.unwrap();
    let payload = Payload::new(["perl", "-e", script]).stdin(ask);
    let mut running = parked.start(payload).await.unwrap();
    let mut answers = String::new();
    running.take_stdout().unwrap().read_to_string(&mut answers).await.unwrap();
    let got: Vec<i32> = answers.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(got.len(), calls.len(), "{answers} {:?}", running.wait().await);
    for ((call, arguments, want), got) in calls.iter().zip(got) {
        assert_eq!(got, *want, "call {call} {arguments:?}");
    }
    running.release().await.unwrap();
    // A call by the 32-bit table ends the program at once; there is no other way to make one from perl than to
    // run a program of that kind, so only the architecture check of the compiled filter covers it.
    sandbox.shut_down().await.unwrap();
}
