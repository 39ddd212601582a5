//! Many cuts: runs from seeds, images of their disks, and the examination of each.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::check::{Verdict, examine};
use crate::history::History;
use crate::image::{Disk, Image, Survival};
use crate::random::Random;
use crate::rig::{Rig, Script};
use crate::workload::Author;
use crate::world::{Call, Fault, FileKind, Trouble};

/// Turns of one life of a store.
const TURNS: u64 = 10;
/// Lives of a store: each begins with what a cut left of the one before.
const LIVES: u64 = 3;
/// Cuts of one life.
const CUTS_PER_LIFE: u64 = 24;

/// A deliberate bug the examination must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutant {
    /// Nothing is ever synced: what `synchronous=OFF` does.
    NoSync,
    /// The log is not synced: what `synchronous=NORMAL` does between checkpoints.
    NoLogSync,
    /// The database is not synced before the log starts over.
    NoDatabaseSync,
    /// Writes are answered before they are committed.
    EarlyAnswer,
}

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of everything.
    pub seed: u64,
    /// How many.
    pub cuts: u64,
    /// With this bug.
    pub mutant: Option<Mutant>,
    /// Each life has one sync that lies.
    pub lie: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Images examined.
    pub cuts: u64,
    /// Stores run.
    pub lives: u64,
    /// Changes of their disks.
    pub changes: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Images that held a write nobody had an answer for.
    pub unanswered: u64,
    /// Images of a lying disk that were a whole state of the past.
    pub older: u64,
    /// Images of a lying disk that were refused.
    pub refused: u64,
    /// Images of a lying disk that were neither.
    pub mixed: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            cuts: self.cuts + other.cuts,
            lives: self.lives + other.lives,
            changes: self.changes + other.changes,
            writes: self.writes + other.writes,
            unanswered: self.unanswered + other.unanswered,
            older: self.older + other.older,
            refused: self.refused + other.refused,
            mixed: self.mixed + other.mixed,
        }
    }
}

/// A directory in memory where there is one: the real files need not survive anything.
///
/// # Errors
/// When none can be made.
pub fn scratch() -> anyhow::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut make = tempfile::Builder::new();
    let make = make.prefix("outpost-powerloss-");
    let made = if memory.is_dir() { make.tempdir_in(memory) } else { make.tempdir() };
    made.context("making a directory for the images")
}

/// Runs stores and cuts until there were enough cuts.
///
/// # Errors
/// With the first image that is not lawful: its seed, its position and where it is kept.
pub fn campaign(plan: Plan) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut tally = Tally::default();
    let mut seed = plan.seed;
    while tally.cuts < plan.cuts {
        let scratch = scratch()?;
        let outcome = runtime.block_on(episode(plan, seed, scratch.path(), &mut tally));
        if let Err(error) = outcome {
            if plan.mutant.is_some() {
                // Wanted: nothing to look into.
                return Err(error.context(format!("seed {seed}")));
            }
            let kept = scratch.keep();
            return Err(error.context(format!("seed {seed}; kept in {}", kept.display())));
        }
        seed = Random::new(seed).next();
    }
    Ok(tally)
}

async fn episode(plan: Plan, seed: u64, scratch: &Path, tally: &mut Tally) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut author = Author::new(random.fork());
    let mut history = History::new().await?;
    let mut directory = scratch.join("life-0");
    std::fs::create_dir(&directory)?;
    for life in 1..=LIVES {
        let left = lifetime(plan, &directory, &mut author, history, &mut random, tally).await?;
        if tally.cuts >= plan.cuts {
            break;
        }
        let Some((image, next)) = left else {
            break;
        };
        std::fs::remove_dir_all(&directory)?;
        directory = scratch.join(format!("life-{life}"));
        image.write_to(&directory)?;
        history = next;
        author.reread(history.now()).await?;
    }
    Ok(())
}

/// Runs one store, cuts its record at many positions, and returns what one of the cuts left.
async fn lifetime(
    plan: Plan,
    directory: &Path,
    author: &mut Author,
    mut history: History,
    random: &mut Random,
    tally: &mut Tally,
) -> anyhow::Result<Option<(Image, History)>> {
    let mut rig = Rig::open(directory)?;
    rig.world.set_faults(faults(plan, random));
    let early = plan.mutant == Some(Mutant::EarlyAnswer);
    let inherited = history.line.len();
    let script = Script { turns: TURNS, plain: false, early };
    rig.run(script, author, &mut history, random).await?;
    let (base, steps) = rig.world.record();
    tally.lives += 1;
    tally.changes += steps.len() as u64;
    tally.writes += (history.line.len() - inherited) as u64;
    let mut cuts: Vec<usize> = (0..CUTS_PER_LIFE).map(|_| random.index(steps.len() + 1)).collect();
    cuts.sort_unstable();
    let chosen = random.index(cuts.len());
    let mut disk = Disk::new(&base, &steps, random.fork());
    let mut left = None;
    for (number, cut) in cuts.into_iter().enumerate() {
        disk.advance(cut);
        let image = disk.cut(None, &mut random.fork());
        let verdict = judge(plan, directory, &image, &history, cut, tally).await?;
        if number == chosen
            && let Verdict::Lawful(state) = verdict
        {
            let line = history.states[state].writes.clone();
            let next = History::from_state(history.writes.clone(), line).await?;
            left = Some((image, next));
        }
    }
    rig.close()?;
    Ok(left)
}

fn faults(plan: Plan, random: &mut Random) -> Vec<Fault> {
    use FileKind::{Database, Log};
    let deaf = |file| Fault::always(Call::Sync, file, Trouble::Lie);
    let mut faults = match plan.mutant {
        Some(Mutant::NoSync) => vec![deaf(Database), deaf(Log)],
        Some(Mutant::NoLogSync) => vec![deaf(Log)],
        Some(Mutant::NoDatabaseSync) => vec![deaf(Database)],
        Some(Mutant::EarlyAnswer) | None => Vec::new(),
    };
    if plan.lie {
        let file = if random.once_in(2) { Database } else { Log };
        let skip = random.below(if file == Log { 30 } else { 4 });
        faults.push(Fault { skip, ..Fault::once(Call::Sync, file, Trouble::Lie) });
    }
    faults
}

/// Examines one image and counts it.
async fn judge(
    plan: Plan,
    directory: &Path,
    image: &Image,
    history: &History,
    cut: usize,
    tally: &mut Tally,
) -> anyhow::Result<Verdict> {
    let place: PathBuf = directory.with_extension("cut");
    image.write_to(&place)?;
    let verdict =
        examine(&place, history, cut).await.with_context(|| format!("after the cut at {cut}"))?;
    tally.cuts += 1;
    match &verdict {
        Verdict::Lawful(state) => {
            // Newer than the oldest lawful one: a write nobody had an answer for is there.
            let lawful = |state: &crate::history::State| state.from <= cut && cut < state.until;
            let oldest = history.states.iter().position(lawful);
            tally.unanswered += u64::from(oldest.is_some_and(|oldest| oldest < *state));
        }
        Verdict::Older(_) if plan.lie => tally.older += 1,
        Verdict::Refused if plan.lie => tally.refused += 1,
        Verdict::Mixed(_) if plan.lie => tally.mixed += 1,
        Verdict::Older(state) => {
            bail!(
                "after the cut at {cut} the store is at state {state}: acknowledged writes are lost"
            )
        }
        Verdict::Refused => bail!("after the cut at {cut} the store is refused as damaged"),
        Verdict::Mixed(difference) => {
            bail!("after the cut at {cut} the store holds what was never written: {difference}")
        }
    }
    std::fs::remove_dir_all(&place)?;
    Ok(verdict)
}

/// Cuts a small run at every position, with each way to survive.
///
/// # Errors
/// As [`campaign`].
pub fn every_position(seed: u64, turns: u64, stride: usize) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let scratch = scratch()?;
    let directory = scratch.path().join("life");
    std::fs::create_dir(&directory)?;
    let mut tally = Tally { lives: 1, ..Tally::default() };
    let plan = Plan { seed, cuts: u64::MAX, mutant: None, lie: false };
    let outcome = runtime.block_on(async {
        let mut random = Random::new(seed);
        let mut author = Author::new(random.fork());
        let mut history = History::new().await?;
        let mut rig = Rig::open(&directory)?;
        let script = Script { turns, plain: true, early: false };
        rig.run(script, &mut author, &mut history, &mut random).await?;
        let (base, steps) = rig.world.record();
        tally.changes = steps.len() as u64;
        tally.writes = history.line.len() as u64;
        let mut disk = Disk::new(&base, &steps, random.fork());
        for cut in (0..=steps.len()).step_by(stride.max(1)) {
            disk.advance(cut);
            for survival in Survival::ALL {
                let image = disk.cut(Some(survival), &mut random.fork());
                judge(plan, &directory, &image, &history, cut, &mut tally).await?;
            }
        }
        anyhow::Ok(())
    });
    if let Err(error) = outcome {
        let kept = scratch.keep();
        return Err(error.context(format!("seed {seed}; kept in {}", kept.display())));
    }
    Ok(tally)
}
