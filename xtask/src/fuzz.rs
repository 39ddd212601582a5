//! `cargo xtask fuzz`: builds the fuzzers of `fuzz/` and runs each for a while, two at a time.
//!
//! The compiler is the pinned one, allowed its unstable flags for this build alone: the address sanitizer
//! makes libFuzzer see what a text is compared with, without which it does not guess words. Only a C++
//! compiler is needed beside it, neither a nightly toolchain nor cargo-fuzz. Dependencies are those of the
//! product: its Cargo.lock is copied. Bounded: the time of the build and of each target, memory of a
//! fuzzer. Deliberately absent: minimising the corpus, coverage reports and long campaigns.

mod report;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::test::process::{self, End};
use crate::workspace::{cargo, forget_cargo_run};
use report::Row;

/// How long each target runs when nothing is said, seconds.
const SECONDS_DEFAULT: u64 = 60;
/// Longest run of a target, seconds (a day).
const SECONDS_MAX: u64 = 86_400;
/// A cold build of everything, instrumented and optimised, on two busy cores, seconds.
const BUILD_SECONDS_MAX: u64 = 2_700;
/// What a fuzzer may take longer than it was told, to read its corpus and to end, seconds.
const GRACE_SECONDS: u64 = 120;
/// Longest a single input may take, seconds; the parsers take microseconds.
const INPUT_SECONDS_MAX: u64 = 10;
/// Longest input, bytes. Longer outputs are stood for by short inputs.
const INPUT_BYTES_MAX: u64 = 8 * 1024;
/// Most memory of a fuzzer, MiB; the sanitizer needs some.
const MEMORY_MIB_MAX: u64 = 2_048;
/// Fuzzers at a time.
const JOBS: usize = 2;

/// What libFuzzer needs of the compiler: the same flags as cargo-fuzz sets.
const RUST_FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long each target runs, seconds.
    seconds: u64,
    /// Only this target.
    target: Option<String>,
}

impl Options {
    /// Reads the arguments.
    pub(crate) fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self { seconds: SECONDS_DEFAULT, target: None };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("`{word}` has no value"))?;
            match word.as_str() {
                "--seconds" => {
                    options.seconds = value
                        .parse()
                        .ok()
                        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
                        .with_context(|| format!("--seconds must be 1 to {SECONDS_MAX}"))?;
                }
                "--target" => options.target = Some(value.clone()),
                _ => bail!("fuzz does not know `{word}`; see `cargo xtask help`"),
            }
        }
        Ok(options)
    }
}

/// Builds, runs, and prints the table; fails when an input was found.
pub(crate) fn command(root: &Path, options: &Options) -> anyhow::Result<ExitCode> {
    let folder = root.join("fuzz");
    let mut targets = targets(&folder)?;
    if let Some(wanted) = &options.target {
        let known = targets.join(", ");
        targets.retain(|target| target == wanted);
        ensure!(!targets.is_empty(), "there is no target `{wanted}`; there are {known}");
    }
    let binaries = build(root, &folder, options)?;
    println!("{} targets, {} s each, {JOBS} at a time", targets.len(), options.seconds);
    let rows = run_all(&folder, &binaries, targets, options.seconds)?;
    report::print(&rows);
    let failed = rows.iter().any(|row| row.problem.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Names of the targets: those of the files.
fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets")).context("reading fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds the fuzzers and returns the folder they are in.
fn build(root: &Path, folder: &Path, options: &Options) -> anyhow::Result<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let works = Command::new(&compiler).arg("--version").output();
    ensure!(
        works.is_ok_and(|output| output.status.success()),
        "libFuzzer is C++, and `{compiler}` does not run: install g++ or clang, or set CXX"
    );
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).context("copying Cargo.lock")?;
    let host = host(root)?;
    let target_dir = root.join("target/fuzz");
    let mut command = Command::new(cargo());
    command.current_dir(root).args(["build", "--release", "--features", "libfuzzer"]);
    command.arg("--manifest-path").arg(folder.join("Cargo.toml"));
    // With a target named, build scripts and macros are built without the flags.
    command.args(["--target", &host]).arg("--target-dir").arg(&target_dir);
    match &options.target {
        Some(target) => command.args(["--bin", target]),
        None => command.arg("--bins"),
    };
    forget_cargo_run(&mut command);
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", RUST_FLAGS.join(" "));
    println!("building the fuzzers, which takes minutes the first time");
    let limit = Duration::from_secs(BUILD_SECONDS_MAX);
    match process::run(command, limit, &mut |_, line| println!("{line}"))? {
        End::Success => Ok(target_dir.join(host).join("release")),
        End::Failure(status) => bail!("the fuzzers could not be built: {status}"),
        End::TimedOut(limit) => bail!("the build took longer than {} s", limit.as_secs()),
    }
}

/// What the compiler builds for by itself.
fn host(root: &Path) -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").current_dir(root).output();
    let output = output.context("running rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc does not say its host")
}

fn run_all(
    folder: &Path,
    binaries: &Path,
    targets: Vec<String>,
    seconds: u64,
) -> anyhow::Result<Vec<Row>> {
    let waiting = Mutex::new(VecDeque::from(targets));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut rows = Vec::new();
        while let Some(target) = next() {
            let row = run(folder, &binaries.join(&target), &target, seconds)?;
            println!("{row}");
            rows.push(row);
        }
        Ok::<_, anyhow::Error>(rows)
    };
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    all.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(all)
}

/// Runs one fuzzer. What it finds of interest goes to `found`, what breaks it to `artifacts`.
fn run(folder: &Path, binary: &Path, target: &str, seconds: u64) -> anyhow::Result<Row> {
    let [found, artifacts] = ["found", "artifacts"].map(|name| folder.join(name).join(target));
    for dir in [&found, &artifacts] {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let mut command = Command::new(binary);
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
        // Nothing leaks in safe code but on purpose, and looking for it takes half of the time.
        "-detect_leaks=0".to_owned(),
    ]);
    let dictionary = folder.join("dictionaries").join(format!("{target}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.arg(&found).arg(folder.join("corpus").join(target));
    let mut row = Row::new(target);
    let limit = Duration::from_secs(seconds + GRACE_SECONDS);
    match process::run(command, limit, &mut |_, line| row.read(line))? {
        End::Success => {}
        End::Failure(status) => row.failed(&status),
        End::TimedOut(limit) => row.failed(&format!("not done after {} s", limit.as_secs())),
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> anyhow::Result<Options> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::read(&words)
    }

    #[test]
    fn options_have_bounds_and_names() {
        assert_eq!(read(&[]).unwrap(), Options { seconds: 60, target: None });
        let both = read(&["--target", "ids", "--seconds", "5"]).unwrap();
        assert_eq!(both, Options { seconds: 5, target: Some("ids".to_owned()) });
        for bad in [&["--seconds", "0"][..], &["--seconds", "x"], &["--seconds"], &["--what", "1"]]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unknown_target_is_named_with_those_there_are() {
        let root = crate::workspace::root().unwrap();
        let options = Options { seconds: 1, target: Some("nothing".to_owned()) };
        let error = command(&root, &options).unwrap_err().to_string();
        assert!(error.contains("`nothing`") && error.contains("line_cutter"), "{error}");
    }
}
