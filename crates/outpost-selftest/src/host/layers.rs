//! Layers of overlays, and what a parked sandbox gets late.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use outpost_sandbox::{Bind, Claim, Payload, Sandbox as _, SandboxSpec, Weakness};

use super::Mode;
use crate::attempt::{Attempt, Tries};
use crate::probe::{Probe, probes};
use crate::run::{SelftestError, probe_in};
use crate::stage::{Place, Stage};
use crate::verdict::Group;

/// Where layers are shown.
const SHOWN_AT: &str = "/srv/layers";
/// Files of a lower layer, and what is in each.
const FILES: [&str; 2] = ["file", "dir/inner"];
const CONTENT: &str = "lower";
/// What a payload does to reach what is below.
const REACH: &str = "cd /srv/layers; echo x > file; chmod 777 file dir; rm -r dir; mkdir dir; echo x > dir/inner; \
    ln -f file linked; umount /srv/layers; umount -l /srv/layers; mount -o remount,lowerdir=/ /srv/layers; \
    for d in /mnt /mnt/0 /mnt/top /mnt/top/upper; do echo x > $d/file; done; exit 0";

/// The directories of one overlay, given to the payload's user.
struct Layers {
    upper: PathBuf,
    work: PathBuf,
    lower: PathBuf,
}

impl Layers {
    fn lay_out(stage: &Stage, place: &Place) -> Result<Self, SelftestError> {
        let dir = place.dir.join("layers");
        for name in ["", "upper", "work", "lower", "lower/dir"] {
            fs::create_dir(dir.join(name))?;
            stage.give(&dir.join(name), 0o755)?;
        }
        for name in FILES {
            let file = dir.join("lower").join(name);
            fs::write(&file, CONTENT)?;
            stage.give(&file, 0o644)?;
        }
        let path = |name: &str| dir.join(name);
        Ok(Self { upper: path("upper"), work: path("work"), lower: path("lower") })
    }

    fn bind(&self) -> Bind {
        Bind::overlay(&self.upper, Some(self.work.clone()), vec![self.lower.clone()], SHOWN_AT)
    }

    /// Opens what the kernel made in work for itself, so that whoever owns it can remove it.
    fn open_work(&self) {
        let mut dir = self.work.clone();
        for name in ["work", "incompat", "volatile"] {
            dir.push(name);
            let _not_there = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        }
    }

    /// What of the lower layer is not as it was.
    fn changed(&self, tries: &mut Tries) -> Result<(), SelftestError> {
        for name in FILES {
            let path = self.lower.join(name);
            let same = fs::read_to_string(&path).is_ok_and(|text| text == CONTENT)
                && fs::metadata(&path)?.permissions().mode() & 0o777 == 0o644;
            tries.add_found(name, !same);
        }
        tries.add_found("a new name", fs::read_dir(&self.lower)?.count() != 2);
        Ok(())
    }
}

/// Changes what is below an overlay.
pub(super) async fn lower(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let mut tries = Tries::default();
    for late in [false, true] {
        let place = stage.place()?;
        let layers = Layers::lay_out(stage, &place)?;
        let bind = match mode {
            Mode::Proof => Bind::read_write(&layers.lower, SHOWN_AT),
            Mode::Real if stage.sandbox.host().await?.overlay => layers.bind(),
            Mode::Real => return Ok(Attempt::blocked("this host has no overlays")),
        };
        let spec = SandboxSpec::new(&place.id);
        let parked = if late {
            let claim =
                Claim { id: format!("{}-late", place.id), binds: vec![bind], wall_seconds: None };
            let mut parked = stage.sandbox.create(spec).await?;
            parked.claim(claim).await?;
            parked
        } else {
            stage.sandbox.create(spec.bind(bind)).await?
        };
        let running = parked.start(Payload::new(["sh", "-c", REACH])).await?;
        running.wait().await?;
        running.release().await?;
        layers.open_work();
        layers.changed(&mut tries)?;
    }
    Ok(tries.end())
}

/// Has a link taken for a layer: an upper directory's parent, and a lower layer, in turn.
pub(super) async fn linked(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let mut tries = Tries::default();
    let neighbour = stage.neighbour_file();
    let target = neighbour.parent().unwrap_or_else(|| Path::new("/"));
    for through in ["upper", "lower", "read-only"] {
        let place = stage.place()?;
        let layers = Layers::lay_out(stage, &place)?;
        let link = place.workspace.join("link");
        let parent = layers.upper.parent().unwrap_or_else(|| Path::new("/"));
        symlink(if through == "upper" { parent } else { target }, &link)?;
        let bind = match through {
            "upper" => Bind::overlay(
                link.join("upper"),
                Some(link.join("work")),
                vec![target.to_owned()],
                SHOWN_AT,
            ),
            "lower" => {
                Bind::overlay(&layers.upper, Some(layers.work.clone()), vec![link], SHOWN_AT)
            }
            _ => Bind::overlay(link, None, vec![layers.lower.clone()], SHOWN_AT),
        };
        let mut spec = SandboxSpec::new(&place.id).bind(bind);
        if mode == Mode::Proof {
            spec.weakened.insert(Weakness::Links);
        }
        let Ok(parked) = stage.sandbox.create(spec).await else { continue };
        let mut running = parked.start(Payload::new(["cat", "/srv/layers/secret"])).await?;
        let stdout = running.take_stdout();
        running.wait().await?;
        let text = crate::run::read(stdout).await?;
        running.release().await?;
        layers.open_work();
        tries.add_found(through, text == stage.secret().as_bytes());
    }
    tries.add_found("no link", false);
    Ok(tries.end())
}

/// Does what must fail everywhere in a sandbox that got its workspace, home and mirror by a claim.
pub(super) async fn late(stage: &Stage, mode: Mode) -> Result<Attempt, SelftestError> {
    let chosen = |probe: &&Probe| match mode {
        Mode::Real => {
            matches!(probe.group, Group::Mounts | Group::Privileges | Group::Files)
                && probe.name != "privilege.setuid-program"
        }
        Mode::Proof => probe.name == "mount.read-only",
    };
    let mut tries = Tries::default();
    for probe in probes().filter(chosen) {
        let place = stage.place()?;
        let mut spec = stage.agent_spec(&place);
        let (early, late) = spec.binds.drain(..).partition(|bind| stage.is_program(&bind.host));
        spec.binds = early;
        if mode == Mode::Proof {
            spec.weakened.extend([Weakness::WritableBinds, Weakness::Landlock]);
        }
        let id = std::mem::replace(&mut spec.id, format!("{}-parked", place.id));
        let mut parked = stage.sandbox.create(spec).await?;
        parked.claim(Claim { id, binds: late, wall_seconds: None }).await?;
        let attempt = probe_in(stage, probe, &place, parked, true).await?;
        tries.add_found(probe.name, attempt.succeeded);
    }
    Ok(tries.end())
}
