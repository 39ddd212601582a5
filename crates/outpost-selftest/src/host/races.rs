//! Links and renames in a workspace while the host binds what is in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use outpost_sandbox::{Bind, Payload, Sandbox as _, Weakness};

use super::Mode;
use crate::attempt::{Attempt, Tries};
use crate::run::SelftestError;
use crate::stage::Stage;

/// Sandboxes made while the names are swapped.
const SANDBOXES_IN_RACE: usize = 24;
/// Where the contested directory is shown.
const SHOWN_AT: &str = "/srv/swapped";

/// The directory `swap` of a workspace is a link to a neighbour's workspace, half of the time.
pub(super) async fn bind(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let attacker = stage.place()?;
    let swap = attacker.workspace.join("swap");
    let link = attacker.workspace.join("link");
    let neighbour = stage.neighbour_file();
    let target = neighbour.parent().unwrap_or_else(|| Path::new("/"));
    // First without a race: the link is there from the start.
    symlink(target, &swap)?;
    let mut tries = Tries::default();
    tries.add_found("a planted link", shows_secret(stage, &swap, mode).await?);
    fs::create_dir(&link)?;
    stage.give(&link, 0o755)?;
    let words =
        ["swap", &format!("{}/swap", attacker.inside), &format!("{}/link", attacker.inside)];
    let parked = stage.sandbox.create(stage.agent_spec(&attacker)).await?;
    let running = parked.start(Stage::helper(&words)).await?;
    for _ in 0..SANDBOXES_IN_RACE {
        tries.add_found("a race", shows_secret(stage, &swap, mode).await?);
    }
    running.kill().await?;
    running.release().await?;
    Ok(tries.end())
}

/// Binds `swap` into a new sandbox and looks there for the neighbour's secret. A refusal shows nothing.
async fn shows_secret(stage: &Stage, swap: &Path, mode: Mode) -> Result<bool, SelftestError> {
    let place = stage.place()?;
    let mut spec = stage.agent_spec(&place).read_only(swap, SHOWN_AT);
    if mode == Mode::Proof {
        spec.weakened.insert(Weakness::Links);
    }
    let Ok(parked) = stage.sandbox.create(spec).await else { return Ok(false) };
    let mut running = parked.start(Payload::new(["cat", &format!("{SHOWN_AT}/secret")])).await?;
    let stdout = running.take_stdout();
    running.wait().await?;
    let text = crate::run::read(stdout).await?;
    running.release().await?;
    Ok(text == stage.secret().as_bytes())
}

/// A cover for `repo/covered` of a workspace, where `repo` is a link out of it, as an agent's covers are placed.
pub(super) async fn place(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let place = stage.place()?;
    let elsewhere = "/home/agent";
    symlink(elsewhere, place.workspace.join("repo"))?;
    fs::write(place.dir.join("home/covered"), "own")?;
    let cover = place.dir.join("cover");
    fs::write(&cover, "cover")?;
    let inside = format!("{}/repo/covered", place.inside);
    let mut spec = stage.agent_spec(&place);
    // A host that resolves the path first is what a link is for.
    let at = if mode == Mode::Proof { format!("{elsewhere}/covered") } else { inside };
    spec.binds.push(Bind::read_only(cover, at));
    let payload = Payload::new(["cat", &format!("{elsewhere}/covered")]);
    let landed = match stage.payload_to_end(spec, payload).await {
        Ok(ended) => ended.stdout == "cover",
        Err(SelftestError::Sandbox(_)) => false,
        Err(error) => return Err(error),
    };
    Ok(Attempt::found(landed.then(|| format!("it landed in {elsewhere}")), "refused"))
}
