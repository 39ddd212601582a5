//! What a payload gets: arguments, environment, directory, streams, files, the gateway's door.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Case, Finished, Outcome, Problem, Target, Verdict, check, finish, same, utf8};
use crate::error::SandboxError;
use crate::spec::{Payload, SandboxSpec};

/// How many sandboxes run at once in the parallel case.
const PARALLEL: usize = 20;
/// Bytes on each stream in the output case: many times the capacity of a pipe.
const OUTPUT_BYTES: usize = 1 << 20;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "arguments, environment and directory arrive exactly",
        run: |t| Box::pin(exact(t)),
    },
    Case { name: "200 KiB of arguments and environment arrive", run: |t| Box::pin(large(t)) },
    Case {
        name: "standard output and error are separate and complete",
        run: |t| Box::pin(output(t)),
    },
    Case {
        name: "standard input arrives whole, and is empty by default",
        run: |t| Box::pin(input(t)),
    },
    Case { name: "only three descriptors are open", run: |t| Box::pin(descriptors(t)) },
    Case { name: "read-write binds work, read-only binds refuse", run: |t| Box::pin(binds(t)) },
    Case {
        name: "a bind below closed directories works and shows nothing else",
        run: |t| Box::pin(closed_parents(t)),
    },
    Case { name: "HOME can be a bind", run: |t| Box::pin(home_bind(t)) },
    Case {
        name: "the gateway's listener is reached from inside and accepted outside",
        run: |t| Box::pin(listener(t)),
    },
    Case { name: "twenty sandboxes at once", run: |t| Box::pin(parallel(t)) },
    Case { name: "an id is taken until it is released", run: |t| Box::pin(ids(t)) },
    Case { name: "a wrong description is refused with the reason", run: |t| Box::pin(refusals(t)) },
];

async fn exact(target: Arc<Target>) -> Verdict {
    let odd = "a b\n'\"$HOME`\\ ü 漢字 \u{1F980}\t";
    let dir = target.writable("ünï code\nnew line").await?;
    let spec = target.spec().read_write(&dir, format!("/w/{odd}"));
    let payload = Payload {
        argv: ["sh", "-c", "printf '%s\\0' \"$@\" \"$PWD\" && env -0", "sh", odd, "", "-n"]
            .map(str::to_owned)
            .into(),
        env: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("ODD".into(), odd.into()),
            ("EMPTY".into(), String::new()),
        ],
        cwd: format!("/w/{odd}"),
        stdin: Vec::new(),
    };
    let Finished { stdout, stderr, .. } = target.run(spec, payload).await?;
    let got: Vec<&str> = stdout.trim_end_matches('\0').split('\0').collect();
    let cwd = format!("/w/{odd}");
    same("arguments and directory", got.get(..4), Some(&[odd, "", "-n", &cwd][..]))?;
    let mut env: Vec<&str> =
        got[4..].iter().copied().filter(|line| !line.starts_with("_=")).collect();
    env.sort_unstable();
    // The shell itself adds PWD, and bash as sh adds SHLVL.
    env.retain(|line| {
        !line.starts_with("PWD=") && !line.starts_with("SHLVL=") && !line.starts_with("OLDPWD=")
    });
    let odd_line = format!("ODD={odd}");
    same("environment", env, vec!["EMPTY=", &odd_line, "PATH=/usr/bin:/bin"])?;
    same("standard error", stderr, String::new())?;
    Ok(Outcome::Passed)
}

async fn large(target: Arc<Target>) -> Verdict {
    let long = "ü".repeat(50_000);
    let payload =
        Payload::new(["sh", "-c", "printf %s \"$1$BIG\" | wc -c", "sh", &long]).env("BIG", &long);
    let got = target.run(target.spec(), payload).await?;
    same("bytes", got.stdout.trim().to_owned(), (4 * 50_000).to_string())?;
    Ok(Outcome::Passed)
}

async fn output(target: Arc<Target>) -> Verdict {
    let fill = |letter: char| format!("head -c {OUTPUT_BYTES} /dev/zero | tr '\\0' {letter}");
    let script = format!("{} & {} >&2; wait", fill('o'), fill('e'));
    let got = target.sh(target.spec(), &script).await?;
    let whole =
        |text: &str, byte: u8| text.len() == OUTPUT_BYTES && text.bytes().all(|b| b == byte);
    check(whole(&got.stdout, b'o'), || format!("standard output had {} bytes", got.stdout.len()))?;
    check(whole(&got.stderr, b'e'), || format!("standard error had {} bytes", got.stderr.len()))?;
    Ok(Outcome::Passed)
}

async fn input(target: Arc<Target>) -> Verdict {
    let text = "line\n".repeat(100_000);
    let got = target.run(target.spec(), Payload::new(["cat"]).stdin(text.as_bytes())).await?;
    check(got.stdout == text, || format!("{} bytes came back", got.stdout.len()))?;
    let got = target.run(target.spec(), Payload::new(["cat"])).await?;
    same("without input", got.stdout, String::new())?;
    Ok(Outcome::Passed)
}

async fn descriptors(target: Arc<Target>) -> Verdict {
    let got = target.run(target.spec(), Payload::new(["ls", "-1", "/proc/self/fd"])).await?;
    // The fourth is the directory that ls itself reads.
    same("descriptors", got.stdout, "0\n1\n2\n3\n".to_owned())?;
    Ok(Outcome::Passed)
}

async fn binds(target: Arc<Target>) -> Verdict {
    let (rw, ro) = (target.writable("rw").await?, target.writable("ro").await?);
    std::fs::write(ro.join("given"), "given\n")?;
    std::fs::write(rw.join("single"), "single\n")?;
    let spec = target
        .spec()
        .read_write(&rw, "/workspace")
        .read_only(&ro, "/srv/deep/ro")
        .read_only(rw.join("single"), "/etc/single.conf");
    let script = "echo made > /workspace/made && mkdir -p /workspace/d/e && mv /workspace/made /workspace/d/e/ || exit 1
        cat /srv/deep/ro/given /etc/single.conf
        for f in /srv/deep/ro/new /srv/deep/ro/given /etc/single.conf; do
            if (echo x > $f) 2>/dev/null; then echo \"wrote $f\"; fi
        done; rm -f /srv/deep/ro/given 2>/dev/null && echo removed; exit 0";
    let got = target.sh(spec, script).await?;
    same("output", got.stdout.as_str(), "given\nsingle\n")?;
    check(got.report.success(), || format!("{:?} {}", got.report, got.stderr))?;
    same("file made inside", std::fs::read_to_string(rw.join("d/e/made"))?, "made\n".to_owned())?;
    Ok(Outcome::Passed)
}

async fn closed_parents(target: Arc<Target>) -> Verdict {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = target.writable("parents").await?;
    let deep = dir.join("closed/inner");
    std::fs::create_dir_all(&deep)?;
    std::fs::write(dir.join("closed/secret"), "secret")?;
    std::fs::write(deep.join("tool"), "tool\n")?;
    // As root nobody else may pass; as an ordinary user the payload has the same rights as we have.
    std::fs::set_permissions(dir.join("closed"), std::fs::Permissions::from_mode(0o700))?;
    let inside = utf8(&deep)?.to_owned();
    let spec = target.spec().read_only(&deep, &inside);
    let got = target
        .sh(spec, &format!("cat '{inside}/tool'; ls -A '{inside}/..'; ls -A '{inside}/../..'"))
        .await?;
    same("what is seen", got.stdout.as_str(), "tool\ninner\nclosed\n")?;
    Ok(Outcome::Passed)
}

async fn home_bind(target: Arc<Target>) -> Verdict {
    let home = target.writable("home").await?;
    let keep = |target: &Target| target.spec().read_write(&home, crate::spec::HOME_INSIDE);
    target.sh(keep(&target), "echo kept > ~/session").await?;
    let got = target.sh(keep(&target), "cat ~/session").await?;
    same("a later sandbox sees it", got.stdout.as_str(), "kept\n")?;
    Ok(Outcome::Passed)
}

async fn listener(target: Arc<Target>) -> Verdict {
    let mut spec = target.spec();
    spec.listener_port = Some(0);
    let mut parked = target.sandbox.create(spec).await?;
    let listener = parked.take_listener().ok_or_else(|| Problem("no listener".into()))?;
    let port = listener.local_addr()?.port();
    check(listener.local_addr()?.ip().is_loopback(), || "the listener is not on loopback".into())?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello from inside >&3; cat <&3");
    let running = parked.start(Payload::new(["bash", "-c", &script])).await?;
    let serve = async {
        let (mut stream, _) = listener.accept().await?;
        let mut asked = vec![0; "hello from inside\n".len()];
        stream.read_exact(&mut asked).await?;
        stream.write_all(b"hello from outside\n").await?;
        stream.shutdown().await?;
        Ok::<_, Problem>(asked)
    };
    let (asked, finished) = tokio::join!(serve, finish(running));
    same("request", asked?, b"hello from inside\n".to_vec())?;
    same("reply", finished?.stdout.as_str(), "hello from outside\n")?;
    let fixed = SandboxSpec { listener_port: Some(8080), ..target.spec() };
    let mut fixed = target.sandbox.create(fixed).await?;
    let port = fixed
        .take_listener()
        .map(|listener| listener.local_addr())
        .transpose()?
        .map(|addr| addr.port());
    same("port asked for", port, Some(8080))?;
    fixed.discard().await?;
    Ok(Outcome::Passed)
}

async fn parallel(target: Arc<Target>) -> Verdict {
    let mut all = Vec::new();
    for number in 0..PARALLEL {
        let target = Arc::clone(&target);
        all.push(tokio::spawn(async move {
            let got =
                target.sh(target.spec(), &format!("echo {number} > /tmp/n; cat /tmp/*")).await?;
            same("output", got.stdout, format!("{number}\n"))
        }));
    }
    for one in all {
        one.await??;
    }
    Ok(Outcome::Passed)
}

async fn ids(target: Arc<Target>) -> Verdict {
    let spec = target.spec();
    let parked = target.sandbox.create(spec.clone()).await?;
    let again = target.sandbox.create(spec.clone()).await;
    check(matches!(again, Err(SandboxError::AlreadyExists { .. })), || {
        format!("a second one: {again:?}")
    })?;
    parked.discard().await?;
    let running = target.sandbox.create(spec.clone()).await?.start(Payload::new(["true"])).await?;
    running.wait().await?;
    let again = target.sandbox.create(spec.clone()).await;
    check(matches!(again, Err(SandboxError::AlreadyExists { .. })), || {
        format!("after its end: {again:?}")
    })?;
    running.release().await?;
    target.sandbox.create(spec).await?.discard().await?;
    Ok(Outcome::Passed)
}

async fn refusals(target: Arc<Target>) -> Verdict {
    let missing = target.spec().read_only("/no/such/path", "/x");
    let got = target.sandbox.create(missing).await;
    check(got.is_err_and(|error| error.to_string().contains("/no/such/path")), || {
        "a missing path".into()
    })?;
    let dir = target.writable("links").await?;
    std::os::unix::fs::symlink("/etc", dir.join("link"))?;
    let link = target.spec().read_only(dir.join("link"), "/x");
    let got = target.sandbox.create(link).await;
    check(matches!(got, Err(SandboxError::InvalidSpec { .. })), || {
        format!("a link as bind: {got:?}")
    })?;
    let through = target.spec().read_only(dir.join("link/ssl/certs"), "/x");
    let got = target.sandbox.create(through).await;
    check(matches!(got, Err(SandboxError::InvalidSpec { .. })), || {
        format!("a bind through a link: {got:?}")
    })?;
    // A link planted in a bound directory must not lead a later bind astray either.
    let led_astray =
        target.spec().read_write(&dir, "/w").read_only("/usr/share/zoneinfo", "/w/link/x");
    let got = target.sandbox.create(led_astray).await;
    check(matches!(got, Err(SandboxError::Build { .. })), || {
        format!("a bind onto a link: {got:?}")
    })?;
    let device = target.sandbox.create(target.spec().read_only("/dev/null", "/x")).await;
    check(matches!(device, Err(SandboxError::InvalidSpec { .. })), || {
        format!("a device as bind: {device:?}")
    })?;
    Ok(Outcome::Passed)
}
