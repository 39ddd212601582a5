//! Overlays, and parked sandboxes that get a name and binds late.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Case, Finished, Outcome, Problem, Target, Verdict, check, finish, same};
use crate::error::SandboxError;
use crate::spec::{Bind, Claim, HOME_INSIDE, Payload, SandboxSpec};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "an overlay is changed above, never below, and its layers can be stacked",
        run: |t| Box::pin(overlay(t)),
    },
    Case { name: "a claim gives a name and binds, once", run: |t| Box::pin(claim(t)) },
    Case { name: "a claimed sandbox is confined as a cold one", run: |t| Box::pin(confined(t)) },
    Case { name: "a claim can bring overlays", run: |t| Box::pin(late_overlay(t)) },
    Case { name: "a claim's limits are in force", run: |t| Box::pin(limits(t)) },
    Case {
        name: "a refused claim changes nothing, a failed one ends the sandbox",
        run: |t| Box::pin(refusals(t)),
    },
];

/// Upper, work and lower directory; the lower one holds a file, a directory and what is nobody's to change.
struct Layers {
    upper: PathBuf,
    work: PathBuf,
    lower: PathBuf,
}

impl Layers {
    async fn make(target: &Target) -> Result<Self, Problem> {
        let dir = target.writable("layers").await?;
        let owner = target.sandbox.payload_owner().await?;
        let make = |name: &str| -> Result<PathBuf, Problem> {
            let path = dir.join(name);
            std::fs::create_dir(&path)?;
            std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid))?;
            Ok(path)
        };
        let (upper, work, lower) = (make("upper")?, make("work")?, make("lower")?);
        make("lower/dir")?;
        for name in ["lower/file", "lower/dir/inner"] {
            std::fs::write(dir.join(name), "lower\n")?;
            std::os::unix::fs::chown(dir.join(name), Some(owner.uid), Some(owner.gid))?;
        }
        Ok(Self { upper, work, lower })
    }

    fn bind(&self, inside: &str) -> Bind {
        Bind::overlay(&self.upper, Some(self.work.clone()), vec![self.lower.clone()], inside)
    }

    fn is_as_made(&self) -> Result<(), Problem> {
        for name in ["file", "dir/inner"] {
            let text = std::fs::read_to_string(self.lower.join(name))?;
            same(name, text.as_str(), "lower\n")?;
        }
        same("entries of the lower layer", std::fs::read_dir(&self.lower)?.count(), 2)
    }
}

/// Changes everything there is in an overlay.
const CHANGE: &str = "cat file && echo upper > file && echo new > new && rm dir/inner && rmdir dir && \
    mkdir dir && echo made > dir/made && chmod 600 file && ls . dir";
const CHANGED: &str = "lower\n.:\ndir\nfile\nnew\n\ndir:\nmade\n";

async fn skipped(target: &Target) -> Result<Option<Outcome>, Problem> {
    let works = target.sandbox.host().await?.overlay;
    Ok((!works).then(|| Outcome::Skipped("this host has no overlays for sandboxes".into())))
}

async fn overlay(target: Arc<Target>) -> Verdict {
    if let Some(skipped) = skipped(&target).await? {
        return Ok(skipped);
    }
    let layers = Layers::make(&target).await?;
    let sh = |script: &str| Payload::new(["sh", "-c", script]).cwd("/w");
    let first = target.run(target.spec().bind(layers.bind("/w")), sh(CHANGE)).await?;
    same("first", first.stdout.as_str(), CHANGED)?;
    // Read-only, the same is there and nothing can be changed.
    let lower = vec![layers.lower.clone()];
    let read_only = target.spec().overlay(&layers.upper, None, lower, "/w");
    let script = "cat file new dir/*; for f in file other; do echo x 2>/dev/null > $f; done; \
        rm new 2>/dev/null; rmdir dir 2>/dev/null; ls . dir";
    let second = target.run(read_only, sh(script)).await?;
    let want = "upper\nnew\nmade\n.:\ndir\nfile\nnew\n\ndir:\nmade\n";
    same("read-only", second.stdout.as_str(), want)?;
    // A further layer above both changes neither.
    let further = Layers::make(&target).await?;
    let below = vec![layers.upper.clone(), layers.lower.clone()];
    let spec = target.spec().overlay(&further.upper, Some(further.work.clone()), below, "/w");
    let third = target.run(spec, sh("rm new dir/made; echo third > file; ls . dir")).await?;
    same("further", third.stdout.as_str(), ".:\ndir\nfile\n\ndir:\n")?;
    same("upper", std::fs::read_to_string(layers.upper.join("new"))?.as_str(), "new\n")?;
    layers.is_as_made()?;
    Ok(Outcome::Passed)
}

fn named(target: &Target, binds: Vec<Bind>) -> Claim {
    Claim { id: target.spec().id, binds, wall_seconds: None }
}

/// Parks a sandbox, has it claimed, and runs a script.
async fn claimed(
    target: &Target,
    spec: SandboxSpec,
    claim: Claim,
    script: &str,
) -> Result<Finished, Problem> {
    let mut parked = target.sandbox.create(spec).await?;
    parked.claim(claim).await?;
    finish(parked.start(Payload::new(["sh", "-c", script])).await?).await
}

async fn claim(target: Arc<Target>) -> Verdict {
    let (work, given) = (target.writable("work").await?, target.writable("given").await?);
    let home = target.writable("home").await?;
    std::fs::write(given.join("file"), "given\n")?;
    std::fs::write(given.join("cover"), "cover\n")?;
    let binds = vec![
        Bind::read_write(&work, "/workspace/attempt"),
        Bind::read_only(&given, "/srv/deep/given"),
        Bind::read_only(given.join("cover"), "/workspace/attempt/covered"),
        Bind::read_write(&home, HOME_INSIDE),
    ];
    let was = target.spec();
    let mut parked = target.sandbox.create(was.clone()).await?;
    let claim = named(&target, binds);
    parked.claim(claim.clone()).await?;
    same("its name", parked.id(), claim.id.as_str())?;
    let again = parked.claim(named(&target, Vec::new())).await;
    check(matches!(again, Err(SandboxError::InvalidSpec { .. })), || format!("again: {again:?}"))?;
    // The new name is taken, the old one is free.
    let second = target.sandbox.create(SandboxSpec::new(&claim.id)).await;
    check(matches!(second, Err(SandboxError::AlreadyExists { .. })), || format!("{second:?}"))?;
    let namesake = target.sandbox.create(was).await?;
    let script = "cat /srv/deep/given/file covered && echo made > made && echo kept > ~/kept && \
        for f in covered /srv/deep/given/new /srv/new /workspace/new; do
            echo x 2>/dev/null > $f && echo \"wrote $f\"; done; pwd";
    let payload = Payload::new(["sh", "-c", script]).cwd("/workspace/attempt");
    let got = finish(parked.start(payload).await?).await?;
    same("output", got.stdout.as_str(), "given\ncover\n/workspace/attempt\n")?;
    same("made", std::fs::read_to_string(work.join("made"))?.as_str(), "made\n")?;
    same("kept", std::fs::read_to_string(home.join("kept"))?.as_str(), "kept\n")?;
    namesake.discard().await?;
    Ok(Outcome::Passed)
}

/// What a payload can find out about how it is confined.
const CONFINEMENT: &str = "id; grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; ulimit -a; \
    cut -d' ' -f5,6 /proc/self/mountinfo | sort -u; ls /proc | grep -v '^[0-9]'; ls /proc/self/fd; \
    for d in / /usr /etc /home /workspace /workspace/a /srv /srv/ro /mnt /tmp ~ /dev /dev/shm /run /var /proc; do
        (echo x > $d/probe) 2>/dev/null && echo \"wrote in $d\"; mkdir $d/made 2>/dev/null && echo \"made in $d\"; \
    done; for c in 'mount -t tmpfs none /workspace/a' 'umount /workspace/a' 'umount -l /srv/ro' \
        'mount -o remount,rw /srv/ro' 'unshare -Um true' 'unshare -m true'; do
        $c >/dev/null 2>&1 && echo \"$c\"; done; exit 0";

async fn confined(target: Arc<Target>) -> Verdict {
    let read_only = target.writable("ro").await?;
    let mut all = Vec::new();
    for late in [false, true] {
        let work = target.writable("work").await?;
        let binds =
            vec![Bind::read_write(&work, "/workspace/a"), Bind::read_only(&read_only, "/srv/ro")];
        let got = if late {
            claimed(&target, target.spec(), named(&target, binds), CONFINEMENT).await?
        } else {
            let spec = binds.into_iter().fold(target.spec(), SandboxSpec::bind);
            target.sh(spec, CONFINEMENT).await?
        };
        check(got.report.success(), || format!("{:?} {}", got.report, got.stderr))?;
        all.push(got.stdout);
    }
    let written: Vec<&str> = all[0].lines().filter(|line| line.starts_with("wrote")).collect();
    let want = ["/workspace/a", "/tmp", "/home/agent", "/dev/shm"].map(|d| format!("wrote in {d}"));
    same("what can be written", written, want.iter().map(String::as_str).collect())?;
    same("a claimed one", all[1].as_str(), all[0].as_str())?;
    Ok(Outcome::Passed)
}

async fn late_overlay(target: Arc<Target>) -> Verdict {
    if let Some(skipped) = skipped(&target).await? {
        return Ok(skipped);
    }
    let layers = Layers::make(&target).await?;
    let other = Layers::make(&target).await?;
    let cover = target.writable("cover").await?.join("cover");
    std::fs::write(&cover, "cover\n")?;
    let binds = vec![
        layers.bind("/workspace/a/repo"),
        Bind::read_only(&cover, "/workspace/a/repo/covered"),
        Bind::overlay(&other.upper, None, vec![other.lower.clone()], "/srv/lower"),
    ];
    let script = format!(
        "cd /workspace/a/repo && cat covered && (echo x > covered) 2>/dev/null; rm -f covered 2>/dev/null; \
         (echo x > /srv/lower/file) 2>/dev/null; cat /srv/lower/file && {CHANGE}"
    );
    let got = claimed(&target, target.spec(), named(&target, binds), &script).await?;
    let changed = CHANGED.replacen(".:\n", ".:\ncovered\n", 1);
    same("output", got.stdout, format!("cover\nlower\n{changed}"))?;
    layers.is_as_made()?;
    other.is_as_made()?;
    Ok(Outcome::Passed)
}

async fn limits(target: Arc<Target>) -> Verdict {
    let claim = Claim { wall_seconds: Some(1), ..named(&target, Vec::new()) };
    let got = claimed(&target, target.spec(), claim, "sleep 1000").await?;
    check(got.report.wall_limit_hit, || format!("{:?}", got.report))?;
    let work = target.writable("flooded").await?;
    let mut spec = target.spec();
    spec.limits.disk_files = Some(64);
    let claim = named(&target, vec![Bind::read_write(&work, "/w")]);
    let script = "for i in $(seq 100); do : > /w/$i; done; sleep 1000";
    let got = claimed(&target, spec, claim, script).await?;
    check(got.report.disk_limit_hit, || format!("{:?}", got.report))?;
    Ok(Outcome::Passed)
}

async fn refusals(target: Arc<Target>) -> Verdict {
    let dir = target.writable("dir").await?;
    std::os::unix::fs::symlink("/etc", dir.join("link"))?;
    let other = target.sandbox.create(target.spec()).await?;
    let spec = target.spec().read_write(&dir, "/w");
    let mut parked = target.sandbox.create(spec).await?;
    for bind in [
        Bind::read_only("/no/such/path", "/x"),
        Bind::read_only(dir.join("link/ssl"), "/x"),
        Bind::read_only(&dir, "/w"),
        Bind::read_only(&dir, "/etc"),
    ] {
        let got = parked.claim(named(&target, vec![bind.clone()])).await;
        check(matches!(got, Err(SandboxError::InvalidSpec { .. })), || {
            format!("{bind:?}: {got:?}")
        })?;
    }
    let taken = Claim { id: other.id().to_owned(), ..named(&target, Vec::new()) };
    let got = parked.claim(taken).await;
    check(matches!(got, Err(SandboxError::AlreadyExists { .. })), || format!("{got:?}"))?;
    other.discard().await?;
    // A link that a payload planted leads no bind astray: half-way is the end.
    let name = parked.id().to_owned();
    let astray = Bind::read_only("/usr/share", "/w/link/x");
    let got = parked.claim(named(&target, vec![astray])).await;
    check(matches!(got, Err(SandboxError::Build { .. })), || format!("{got:?}"))?;
    let started = parked.start(Payload::new(["true"])).await;
    check(started.is_err(), || format!("it lives on: {started:?}"))?;
    let found = target.sandbox.reattach().await?;
    let lives = found.iter().any(|found| match found {
        crate::Reattached::Parked(parked) => parked.id() == name,
        crate::Reattached::Running(running) => running.id() == name,
    });
    check(!lives, || format!("{name} is still there"))?;
    Ok(Outcome::Passed)
}
