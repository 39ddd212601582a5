//! After everything: what the floods and all other attacks left behind.

use std::fs;
use std::path::{Path, PathBuf};

use outpost_sandbox::cgroup_name;

use crate::attempt::{Attempt, Tries};
use crate::run::SelftestError;
use crate::stage::Stage;
use crate::verdict::{Group, Verdict};

/// How deep below a cgroup hierarchy a launcher's directory is looked for.
const CGROUP_DEPTH_MAX: usize = 8;
/// Most directories that are looked at in all hierarchies.
const CGROUPS_MAX: usize = 50_000;

/// What there is of a launcher and its sandboxes on the host.
pub(crate) fn remains(stage_dir: &Path, socket: &Path) -> Attempt {
    let name = cgroup_name(socket);
    let mut tries = Tries::default();
    for group in groups_named(&name) {
        tries.add_found(&format!("cgroup {}", group.display()), true);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = stage_dir.to_string_lossy();
    tries.add_found("a mount", mounts.lines().any(|line| line.contains(place.as_ref())));
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let grouped = fs::read_to_string(process.path().join("cgroup"));
        let in_group = grouped.is_ok_and(|text| text.contains(&name));
        // In a sandbox the working directory is named after the attempt.
        let ours = format!("{}-", stage_dir.file_name().unwrap_or_default().to_string_lossy());
        let inside = fs::read_link(process.path().join("cwd"));
        let in_attempt = inside.is_ok_and(|cwd| cwd.to_string_lossy().contains(&ours));
        let pid = process.file_name();
        tries.add_found(&format!("process {}", pid.to_string_lossy()), in_group || in_attempt);
    }
    tries.end()
}

fn groups_named(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let is_cgroup = right.starts_with("cgroup ") || right.starts_with("cgroup2 ");
        is_cgroup.then(|| left.split(' ').nth(4).map(PathBuf::from)).flatten()
    });
    let mut dirs: Vec<(PathBuf, usize)> = roots.map(|root| (root, 0)).collect();
    let (mut found, mut seen) = (Vec::new(), 0);
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || seen > CGROUPS_MAX {
                continue;
            }
            seen += 1;
            if entry.file_name() == name {
                found.push(entry.path());
            } else if depth < CGROUP_DEPTH_MAX {
                dirs.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Ends the launcher and looks for what stayed. The verdicts come last, since nothing may run any more.
pub(crate) async fn leftovers(stage: Stage) -> Result<Vec<Verdict>, SelftestError> {
    stage.sandbox.shut_down().await?;
    let (dir, socket) = (stage.dir.path().to_owned(), stage.launcher_socket.clone());
    let judge = crate::run::judge;
    let what = "find a cgroup, mount or process left by all of the above";
    let stayed = judge(Group::Leftovers, "leftover.system", what, &remains(&dir, &socket), false);
    drop(stage);
    let what = "find a file left by all of the above";
    let kept = Attempt::found(dir.exists().then(|| dir.display().to_string()), "all removed");
    Ok(vec![stayed, judge(Group::Leftovers, "leftover.files", what, &kept, false)])
}
