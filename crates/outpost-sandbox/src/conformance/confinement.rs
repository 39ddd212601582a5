//! What a payload must not get: the host's files, processes, network and privileges.

use std::sync::Arc;

use super::{Case, Outcome, Target, Verdict, check, same};
use crate::spec::Payload;

pub(super) const CASES: &[Case] = &[
    Case { name: "the root is read-only", run: |t| Box::pin(root_read_only(t)) },
    Case { name: "/tmp and HOME are writable, private and bounded", run: |t| Box::pin(scratch(t)) },
    Case { name: "the host's files and processes are invisible", run: |t| Box::pin(invisible(t)) },
    Case {
        name: "the network is loopback only, and not the host's",
        run: |t| Box::pin(network(t)),
    },
    Case {
        name: "an ordinary id, no capabilities, no new privileges, a filter",
        run: |t| Box::pin(privileges(t)),
    },
    Case { name: "administrative calls are refused", run: |t| Box::pin(administration(t)) },
    Case { name: "init cannot be seen, traced or killed", run: |t| Box::pin(init(t)) },
];

async fn root_read_only(target: Arc<Target>) -> Verdict {
    let script = "for d in / /usr /usr/bin /etc /dev /home /proc /proc/sys/kernel /run /var /mnt; do
        touch $d/outpost-probe 2>/dev/null && echo \"$d\"; mkdir $d/outpost-dir 2>/dev/null && echo \"$d\"; done
        (echo x > /etc/passwd) 2>/dev/null && echo passwd; (echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo sysctl
        mv /etc /tmp/ 2>/dev/null && echo moved; exit 0";
    let got = target.sh(target.spec(), script).await?;
    same("what could be changed", got.stdout, String::new())?;
    check(got.report.success(), || format!("{:?}", got.report))?;
    Ok(Outcome::Passed)
}

async fn scratch(target: Arc<Target>) -> Verdict {
    let mark = format!("outpost-mark-{}", std::process::id());
    let script = format!(
        "ls -A /tmp ~ /var/tmp; for d in /tmp ~ /dev/shm; do echo x > $d/{mark} || echo \"not writable: $d\"; done
         cp /bin/true ~/run && ~/run || echo cannot execute in HOME"
    );
    for _ in 0..2 {
        let got = target.sh(target.spec(), &script).await?;
        let seen: Vec<&str> =
            got.stdout.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
        same("what was there before", seen, Vec::new())?;
        same("errors", got.stderr, String::new())?;
    }
    check(!std::path::Path::new("/tmp").join(&mark).exists(), || {
        "the host's /tmp was written".into()
    })?;
    let mut spec = target.spec();
    spec.limits.home_bytes = 1 << 20;
    spec.limits.tmp_bytes = 1 << 20;
    let fill = "for d in ~ /tmp; do head -c 2000000 /dev/zero > $d/big 2>/dev/null && echo \"unbounded: $d\"; done; exit 0";
    same("unbounded", target.sh(spec, fill).await?.stdout, String::new())?;
    Ok(Outcome::Passed)
}

async fn invisible(target: Arc<Target>) -> Verdict {
    let secret = target.writable("invisible").await?.join("secret");
    std::fs::write(&secret, "secret")?;
    let script = "for f in /etc/shadow /etc/ssh /etc/sudoers /root/.ssh /root/.bashrc /sys/kernel /var/run/docker.sock \
        /run/docker.sock /run/systemd /var/log /boot /opt /srv /dev/sda /dev/vda /dev/mem /dev/kvm /dev/fuse \"$1\"; do
        [ -e \"$f\" ] && echo \"$f\"; done
        ls /home; ls /proc | grep -c '^[0-9]*$'";
    let payload = Payload::new(["sh", "-c", script, "sh"]);
    let mut payload = payload;
    payload.argv.push(super::utf8(&secret)?.to_owned());
    let got = target.run(target.spec(), payload).await?;
    let lines: Vec<&str> = got.stdout.lines().collect();
    same("homes", lines.first().copied(), Some("agent"))?;
    let processes: u32 = lines.get(1).and_then(|count| count.parse().ok()).unwrap_or(u32::MAX);
    check(processes <= 6, || format!("{processes} processes are visible"))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let got = target.sh(target.spec(), "uname -n; cat /proc/self/cgroup /proc/cmdline").await?;
    check(!got.stdout.contains(host.trim()) || host.trim().len() < 3, || {
        "the host's name is visible".into()
    })?;
    check(!got.stdout.contains("case-"), || {
        format!("the host's cgroups are visible: {}", got.stdout)
    })?;
    Ok(Outcome::Passed)
}

async fn network(target: Arc<Target>) -> Verdict {
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = host.local_addr()?.port();
    let script = format!(
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; tail -n +2 /proc/net/route
         for a in 127.0.0.1/{port} 192.0.2.1/80 169.254.169.254/80; do
             (exec 3<>/dev/tcp/$a) 2>/dev/null && echo connected $a; done; exit 0"
    );
    let got = target.run(target.spec(), Payload::new(["bash", "-c", &script])).await?;
    same("interfaces, routes and connections", got.stdout.as_str(), "lo\n")?;
    Ok(Outcome::Passed)
}

async fn privileges(target: Arc<Target>) -> Verdict {
    let script = "id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'; \
        ulimit -c; umask";
    let got = target.sh(target.spec(), script).await?;
    let none = "0000000000000000";
    let want = format!(
        "1000\n1000\n1000\nCapInh:{none}\nCapPrm:{none}\nCapEff:{none}\nCapBnd:{none}\nCapAmb:{none}\n\
         NoNewPrivs:1\nSeccomp:2\n0\n0022\n"
    );
    // Groups an ordinary user cannot drop show as nobody's; they are reported as missing isolation.
    let stdout = got.stdout.replace("1000 65534\n", "1000\n");
    same("status", stdout, want)?;
    Ok(Outcome::Passed)
}

async fn administration(target: Arc<Target>) -> Verdict {
    let script = "for c in 'unshare -U true' 'unshare -m true' 'unshare -n true' 'unshare -c true' \
        'mount -t tmpfs none /tmp' 'mount --bind /tmp /home/agent' 'umount /proc' 'umount -l /usr' 'chroot / true' \
        'nsenter -t 1 -m true' 'hostname x' 'dmesg' 'mknod /tmp/n b 8 0' 'chown 0 /tmp' \
        'renice -n -5 -p 1' 'prlimit --core=unlimited:unlimited true'; do
        command -v ${c%% *} >/dev/null || continue
        $c >/dev/null 2>&1 && echo \"$c\"; done; exit 0";
    let payload = Payload::new(["sh", "-c", script]).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let got = target.run(target.spec(), payload).await?;
    same("what was allowed", got.stdout, String::new())?;
    Ok(Outcome::Passed)
}

async fn init(target: Arc<Target>) -> Verdict {
    let script = "kill -9 1; kill -TERM 1; kill -STOP 1; cat /proc/1/environ /proc/1/maps 2>/dev/null; \
        ls /proc/1/fd 2>/dev/null; echo alive";
    let got = target.sh(target.spec(), script).await?;
    same("output", got.stdout.as_str(), "alive\n")?;
    same("exit code", got.report.exit_code, Some(0))?;
    Ok(Outcome::Passed)
}
