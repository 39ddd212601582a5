//! What a start costs: `cargo run --release -p outpost-sandbox --example start_cost -- [ROUNDS]`.
//!
//! Prints median and 99th percentile in microseconds of: fork+exec of a static binary (the floor, F), posix_spawn of
//! it, a warm start (go to first output, and to the final report), a cold start (create to first output) and a claim, all
//! interleaved; then the time for 200 cold starts at once. Needs `cc` for the static binary, else uses `/bin/echo`.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use outpost_sandbox::{
    Bind, Claim, HOME_INSIDE, LAUNCHER_ARGUMENT, LauncherOptions, LinuxSandbox, Payload, Sandbox,
    SandboxPolicy, SandboxSpec,
};
use tokio::io::AsyncReadExt as _;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const AT_ONCE: usize = 200;
const PAYLOAD: &str = "int main(void){return write(1,\"x\\n\",2)!=2;}";

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == LAUNCHER_ARGUMENT) {
        outpost_sandbox::launcher_main(arguments.skip(1));
    }
    let rounds = match arguments.next() {
        Some(text) => text.to_str().ok_or("ROUNDS must be a number")?.parse()?,
        None => 100,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(rounds))
}

async fn bench(rounds: usize) -> Result<(), Failure> {
    let dir = tempdir()?;
    let program = static_program(&dir)?;
    let mut options = LauncherOptions::new(dir.join("s"));
    options.idle_seconds = 1;
    let sandbox = Arc::new(LinuxSandbox::new(options, SandboxPolicy::allow_missing_limits()));
    println!("{:#?}", sandbox.host().await?.isolation.enforced);
    let mut rows: Vec<(&str, Vec<u128>)> = [
        "fork+exec (F)",
        "posix_spawn",
        "warm first byte",
        "warm report",
        "cold first byte",
        "cold report",
        "claim",
    ]
    .map(|name| (name, Vec::new()))
    .into();
    for round in 0..rounds {
        rows[0].1.push(plain(&program, true)?);
        rows[1].1.push(plain(&program, false)?);
        for (base, warm) in [(2, true), (4, false)] {
            let (first, report) =
                start(&sandbox, &program, &format!("b{round}-{base}"), warm).await?;
            rows[base].1.push(first);
            rows[base + 1].1.push(report);
        }
        rows[6].1.push(claim(&sandbox, &dir, round).await?);
    }
    let floor = median(&mut rows[0].1).max(1);
    for (name, times) in &mut rows {
        let middle = median(times);
        let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
        println!("{name:16} median {middle:6} p99 {p99:6}  {:.2} F", middle as f64 / floor as f64);
    }
    let begun = Instant::now();
    let all: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let (sandbox, program) = (Arc::clone(&sandbox), program.clone());
            tokio::spawn(
                async move { start(&sandbox, &program, &format!("m{number}"), false).await },
            )
        })
        .collect();
    for one in all {
        one.await??;
    }
    println!("{AT_ONCE} at once: {:?}", begun.elapsed());
    sandbox.shut_down().await?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn median(times: &mut [u128]) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn tempdir() -> Result<PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("outpost-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

fn static_program(dir: &Path) -> Result<PathBuf, Failure> {
    let (source, program) = (dir.join("p.c"), dir.join("p"));
    std::fs::write(&source, format!("#include <unistd.h>\n{PAYLOAD}\n"))?;
    let built =
        Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).status();
    if built.is_ok_and(|status| status.success()) {
        return Ok(program);
    }
    println!("cc -static does not work here: measuring /bin/echo instead");
    Ok(PathBuf::from("/bin/echo"))
}

/// Microseconds from start to the first byte, outside of any sandbox.
fn plain(program: &Path, fork: bool) -> Result<u128, Failure> {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).env_clear();
    if fork {
        // Setting the id we have makes std use fork and exec instead of posix_spawn.
        command.uid(rustix::process::getuid().as_raw());
    }
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let mut byte = [0; 1];
    child.stdout.take().ok_or("no output")?.read_exact(&mut byte)?;
    let first = begun.elapsed().as_micros();
    child.wait()?;
    Ok(first)
}

/// Microseconds that a claim takes, of a home and a workspace of layers.
async fn claim(sandbox: &LinuxSandbox, dir: &Path, round: usize) -> Result<u128, Failure> {
    let owner = sandbox.payload_owner().await?;
    let attempt = dir.join(format!("a{round}"));
    std::fs::create_dir(&attempt)?;
    let make = |name: &str| {
        let path = attempt.join(name);
        std::fs::create_dir(&path)?;
        std::os::unix::fs::chown(&path, Some(owner.uid), Some(owner.gid)).map(|()| path)
    };
    let (upper, work, lower) = (make("upper")?, make("work")?, make("lower")?);
    let binds = vec![
        Bind::overlay(upper, Some(work), vec![lower], "/workspace/attempt"),
        Bind::read_write(make("home")?, HOME_INSIDE),
    ];
    let mut spec = SandboxSpec::new(format!("w{round}"));
    spec.listener_port = Some(0);
    let mut parked = sandbox.create(spec).await?;
    let claim = Claim { id: format!("c{round}"), binds, wall_seconds: Some(60) };
    let begun = Instant::now();
    parked.claim(claim).await?;
    let took = begun.elapsed().as_micros();
    parked.discard().await?;
    std::fs::remove_dir_all(attempt)?;
    Ok(took)
}

/// Microseconds to the first byte and to the final report; from `go` if `warm`, else from `create`.
async fn start(
    sandbox: &LinuxSandbox,
    program: &Path,
    id: &str,
    warm: bool,
) -> Result<(u128, u128), Failure> {
    let mut spec = SandboxSpec::new(id).read_only(program, "/p");
    spec.listener_port = Some(0);
    let cold = Instant::now();
    let parked = sandbox.create(spec).await?;
    let begun = if warm { Instant::now() } else { cold };
    let mut running = parked.start(Payload::new(["/p"])).await?;
    let mut stdout = running.take_stdout().ok_or("no output")?;
    stdout.read_u8().await?;
    let first = begun.elapsed().as_micros();
    running.wait().await?;
    let report = begun.elapsed().as_micros();
    running.release().await?;
    Ok((first, report))
}
