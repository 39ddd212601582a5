//! Runs one command of a step: output streamed as it comes, time bounded, nothing left behind.
//!
//! The command stays in our process group, so that Ctrl-C on a terminal reaches it. When its time
//! is over, it and everything it started is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Longest line that is passed on whole, bytes; a longer one comes in pieces.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Lines read but not yet printed.
const LINES_WAITING_MAX: usize = 256;
/// How often the deadline is looked at while nothing is printed.
const TICK: Duration = Duration::from_millis(100);
/// How long output of a command that ended is waited for; something it started may hold the pipe.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Success,
    /// In words, such as `exit status: 1`.
    Failure(String),
    /// Killed after this time.
    TimedOut(Duration),
}

type Line = (Stream, String);

/// Runs the command to its end and hands every line to `on_line`, without its line break.
pub(crate) fn run(
    mut command: Command,
    limit: Duration,
    on_line: &mut dyn FnMut(Stream, &str),
) -> anyhow::Result<End> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
    if let Some(out) = child.stdout.take() {
        forward(out, Stream::Out, sender.clone());
    }
    if let Some(err) = child.stderr.take() {
        forward(err, Stream::Err, sender.clone());
    }
    drop(sender);
    let deadline = Instant::now() + limit;
    let ended = pump(&mut child, &receiver, deadline, on_line)?;
    if !ended {
        kill_tree(&child);
        child.wait().context("reaping the command")?;
        return Ok(End::TimedOut(limit));
    }
    let status = child.wait().context("reaping the command")?;
    Ok(if status.success() { End::Success } else { End::Failure(status.to_string()) })
}

/// Passes lines on until the command ended and its output is read; false when time ran out first.
fn pump(
    child: &mut Child,
    lines: &Receiver<Line>,
    deadline: Instant,
    on_line: &mut dyn FnMut(Stream, &str),
) -> anyhow::Result<bool> {
    let mut drain_until = None;
    let mut open = true;
    loop {
        if open {
            match lines.recv_timeout(TICK) {
                Ok((stream, line)) => on_line(stream, &line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        } else {
            thread::sleep(TICK);
        }
        let now = Instant::now();
        if drain_until.is_none() && child.try_wait().context("waiting for the command")?.is_some() {
            drain_until = Some(now + DRAIN_MAX);
        }
        match drain_until {
            Some(until) if !open || now >= until => return Ok(true),
            None if now >= deadline => return Ok(false),
            _ => {}
        }
    }
}

fn forward(stream: impl Read + Send + 'static, name: Stream, lines: SyncSender<Line>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            if lines.send((name, text)).is_err() {
                return;
            }
        }
    });
}

/// Kills the command and all its descendants.
fn kill_tree(child: &Child) {
    let parents = parents();
    let mut family = vec![child.id()];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|(_, own)| **own == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    for pid in family {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended by itself meanwhile, which is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Process to its parent, for all processes we can see.
fn parents() -> BTreeMap<u32, u32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in parentheses may itself hold spaces and parentheses.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if let Some(parent) = rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()) {
            parents.insert(pid, parent);
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn lines(script: &str, limit: Duration) -> (End, Vec<Line>) {
        let mut seen = Vec::new();
        let end =
            run(shell(script), limit, &mut |stream, line| seen.push((stream, line.to_owned())))
                .unwrap();
        (end, seen)
    }

    #[test]
    fn both_streams_are_read_to_their_end() {
        let (end, mut seen) =
            lines("echo one; echo two >&2; printf three", Duration::from_secs(30));
        seen.sort_by_key(|(_, line)| line.clone());
        assert_eq!(end, End::Success);
        let expected = [(Stream::Out, "one"), (Stream::Out, "three"), (Stream::Err, "two")];
        assert_eq!(seen, expected.map(|(stream, line)| (stream, line.to_owned())));
    }

    #[test]
    fn a_failure_says_its_status() {
        let (end, _) = lines("exit 3", Duration::from_secs(30));
        assert_eq!(end, End::Failure("exit status: 3".to_owned()));
    }

    #[test]
    fn when_time_is_over_the_whole_family_dies() {
        let (end, seen) =
            lines("sh -c 'echo $$; exec sleep 600' & wait", Duration::from_millis(500));
        assert_eq!(end, End::TimedOut(Duration::from_millis(500)));
        let pid: u32 = seen[0].1.parse().unwrap();
        assert!(!is_running(pid), "the grandchild {pid} lives on");
    }

    fn is_running(pid: u32) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
            if matches!(state, None | Some("Z" | "X")) {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let mut ignore = |_: Stream, _: &str| {};
        assert!(
            run(Command::new("no-such-program-here"), Duration::from_secs(1), &mut ignore).is_err()
        );
    }
}
