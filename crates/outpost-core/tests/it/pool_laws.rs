//! Laws of the pool that no history breaks: bounds hold, no worker is used twice, what is repeated changes
//! nothing, a quiet pool returns to its minima, and a drained one empties.

use std::collections::{BTreeMap, BTreeSet};

use outpost_core::pool::{
    AgentFigures, AgentSizes, CHECKS_PER_TICK_MAX, Claim, Effect, Event, Fingerprint, Found, Miss,
    Pool, PoolConfig, StopReason, WorkerId,
};
use outpost_types::{AgentId, AttemptId, DispatchId, Tier, Timestamp};
use proptest::prelude::*;

const AGENTS: [&str; 3] = ["claude", "codex", "own"];
const EPOCH: u64 = 7;
const HOUR_MILLIS: u64 = 3_600_000;

fn agent(index: usize) -> AgentId {
    AGENTS[index].parse().unwrap()
}

/// What the shell does, by index of agents and workers.
#[derive(Debug, Clone)]
enum Act {
    Claim { agent: usize, tier: Tier },
    Finish { worker: usize, fails: bool },
    End { worker: usize },
    Health { worker: usize, passes: bool },
    ClaimFailed { worker: usize },
    Ready { agent: usize, made_of: u64 },
    Unavailable { agent: usize },
    Load { attempts: u32, waiting: u32 },
    Drain,
    Undrain,
    Wait { millis: u64 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let agents = 0..AGENTS.len();
    let workers = 0..40_usize;
    let tier = prop_oneof![8 => Just(Tier::Fast), 1 => Just(Tier::Balanced)];
    let act = prop_oneof![
        12 => (agents.clone(), tier).prop_map(|(agent, tier)| Act::Claim { agent, tier }),
        12 => (workers.clone(), prop::bool::weighted(0.2))
            .prop_map(|(worker, fails)| Act::Finish { worker, fails }),
        8 => workers.clone().prop_map(|worker| Act::End { worker }),
        3 => (workers.clone(), any::<bool>())
            .prop_map(|(worker, passes)| Act::Health { worker, passes }),
        1 => workers.prop_map(|worker| Act::ClaimFailed { worker }),
        1 => (agents.clone(), 1..3_u64).prop_map(|(agent, made_of)| Act::Ready { agent, made_of }),
        1 => agents.prop_map(|agent| Act::Unavailable { agent }),
        3 => (0..12_u32, 0..15_u32).prop_map(|(attempts, waiting)| Act::Load { attempts, waiting }),
        1 => Just(Act::Drain),
        1 => Just(Act::Undrain),
        6 => (0..400_000_u64).prop_map(|millis| Act::Wait { millis }),
        1 => (0..2 * HOUR_MILLIS).prop_map(|millis| Act::Wait { millis }),
    ];
    proptest::collection::vec(act, 0..120)
}

fn config() -> impl Strategy<Value = PoolConfig> {
    let sizes = (0..3_u32, 0..4_u32, 1..400_u64);
    let sizes = proptest::collection::vec(sizes, AGENTS.len());
    (sizes, 0..6_u32, 1..4_u32, prop_oneof![Just(u32::MAX), 4..14_u32]).prop_map(
        |(sizes, spare, builds_max, sandboxes_max)| {
            let of = |(index, (min, more, warm_seconds))| {
                (agent(index), AgentSizes { tier: Tier::Fast, min, max: min + more, warm_seconds })
            };
            let agents: BTreeMap<_, _> = sizes.into_iter().enumerate().map(of).collect();
            let warm_max = agents.values().map(|sizes| sizes.min).sum::<u32>() + spare;
            PoolConfig { warm_max, builds_max, sandboxes_max, ..PoolConfig::of(agents) }
        },
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Starting,
    Parked,
    Used,
    Stopping,
    Gone,
}

/// A shell that knows for itself what became of each worker.
struct Shell {
    pool: Pool,
    config: PoolConfig,
    now: Timestamp,
    workers: BTreeMap<WorkerId, Stands>,
    attempts: u64,
}

impl Shell {
    fn new(config: PoolConfig) -> Self {
        let pool = Pool::new(config.clone(), EPOCH).unwrap();
        let now = Timestamp::from_millis(1_000_000);
        Self { pool, config, now, workers: BTreeMap::new(), attempts: 0 }
    }

    fn begin(&mut self, found: Vec<Found>) -> Result<(), TestCaseError> {
        for index in 0..AGENTS.len() {
            let event = Event::AgentReady { agent: agent(index), fingerprint: Fingerprint(1) };
            self.tell(&event)?;
            prop_assert_eq!(self.warm(), 0, "nothing is built before what was left is known");
        }
        self.workers.extend(found.iter().map(|found| (found.worker, Stands::Parked)));
        self.tell(&Event::Recovered(found))
    }

    fn warm(&self) -> u32 {
        self.pool.figures(self.now).iter().map(warm).sum()
    }

    fn nth(&self, index: usize) -> Option<WorkerId> {
        let live = self.workers.iter().filter(|(_, stands)| **stands != Stands::Gone);
        let live: Vec<_> = live.map(|(worker, _)| *worker).collect();
        (!live.is_empty()).then(|| live[index % live.len()])
    }

    /// Tells it twice, and holds that the second time changes nothing.
    fn tell(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let effects = self.pool.step(event, self.now);
        self.carry_out(&effects)?;
        let before = (self.pool.figures(self.now), self.pool.wake_at());
        let again = self.pool.step(event, self.now);
        let told_again = matches!(event, Event::Recovered(_) | Event::Tick);
        prop_assert!(told_again || again.is_empty(), "{event:?} again: {again:?}");
        if *event != Event::Tick {
            prop_assert_eq!(before, (self.pool.figures(self.now), self.pool.wake_at()));
        }
        self.carry_out(&again)?;
        self.check()
    }

    fn carry_out(&mut self, effects: &[Effect]) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Start { worker, tier, .. } => {
                    prop_assert_eq!(*tier, Tier::Fast);
                    prop_assert_eq!(worker.epoch(), EPOCH);
                    let before = self.workers.insert(*worker, Stands::Starting);
                    prop_assert_eq!(before, None, "{} is made twice", worker);
                }
                Effect::Stop { worker, why } => {
                    let stands = self.workers.get_mut(worker).unwrap();
                    // What an attempt has is stopped only because it is no good for it.
                    let may = *stands != Stands::Used || *why == StopReason::Unhealthy;
                    prop_assert!(may && *stands != Stands::Gone, "{} is {:?}", worker, stands);
                    *stands = Stands::Stopping;
                }
                Effect::Check { worker } => {
                    prop_assert_eq!(self.workers[worker], Stands::Parked);
                }
            }
        }
        Ok(())
    }

    fn claim(&mut self, index: usize, tier: Tier) -> Result<(), TestCaseError> {
        self.attempts += 1;
        let dispatch = DispatchId::from_parts(self.attempts, 0);
        let attempt = AttemptId { dispatch, number: 1 };
        let claim = Claim { attempt, agent: agent(index), tier };
        let idle = self.pool.figures(self.now)[index].idle;
        let (answer, effects) = self.pool.claim(&claim, self.now);
        match answer {
            Ok(worker) => {
                let before = self.workers.insert(worker, Stands::Used);
                prop_assert_eq!(before, Some(Stands::Parked), "{} is given away", worker);
                prop_assert_eq!(tier, Tier::Fast);
                let (again, effects) = self.pool.claim(&claim, self.now);
                prop_assert_eq!((again, effects), (Ok(worker), vec![]));
            }
            Err(miss) => {
                let refused = matches!(miss, Miss::OtherTier | Miss::Disabled);
                prop_assert!(refused || idle == 0, "{miss:?} with {idle} idle");
            }
        }
        self.carry_out(&effects)?;
        self.check()
    }

    fn finish(&mut self, worker: WorkerId, fails: bool) -> Result<(), TestCaseError> {
        // One that was stopped while it was made may still report either.
        let stands = self.workers[&worker];
        if fails {
            if matches!(stands, Stands::Starting | Stands::Stopping) {
                self.workers.insert(worker, Stands::Gone);
            }
            return self.tell(&Event::BuildFailed { worker, reason: "no".into() });
        }
        if stands == Stands::Starting {
            self.workers.insert(worker, Stands::Parked);
        }
        self.tell(&Event::Started { worker })
    }

    fn end(&mut self, worker: WorkerId) -> Result<(), TestCaseError> {
        self.workers.insert(worker, Stands::Gone);
        self.tell(&Event::WorkerEnded { worker, reason: "killed".into() })
    }

    fn tick(&mut self) -> Result<(), TestCaseError> {
        self.tell(&Event::Tick)?;
        let idle: u32 = self.pool.figures(self.now).iter().map(|figures| figures.idle).sum();
        let all_checked = idle as usize <= 2 * CHECKS_PER_TICK_MAX;
        let later = self.pool.wake_at().is_none_or(|at| at > self.now);
        prop_assert!(!all_checked || later, "a tick leaves nothing for the same instant");
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let event = match act {
            Act::Claim { agent, tier } => return self.claim(*agent, *tier),
            Act::Finish { worker, fails } => {
                return self.nth(*worker).map_or(Ok(()), |worker| self.finish(worker, *fails));
            }
            Act::End { worker } => {
                return self.nth(*worker).map_or(Ok(()), |worker| self.end(worker));
            }
            Act::Health { worker, passes } => {
                let Some(worker) = self.nth(*worker) else { return Ok(()) };
                if *passes {
                    Event::HealthPassed { worker }
                } else {
                    Event::HealthFailed { worker, reason: "stuck".into() }
                }
            }
            Act::ClaimFailed { worker } => {
                let Some(worker) = self.nth(*worker) else { return Ok(()) };
                Event::ClaimFailed { worker, reason: "no answer".into() }
            }
            Act::Ready { agent: index, made_of } => {
                Event::AgentReady { agent: agent(*index), fingerprint: Fingerprint(*made_of) }
            }
            Act::Unavailable { agent: index } => {
                Event::AgentUnavailable { agent: agent(*index), reason: "removed".into() }
            }
            Act::Load { attempts, waiting } => {
                Event::Load { attempts: *attempts, waiting: *waiting }
            }
            Act::Drain => Event::Drain,
            Act::Undrain => Event::Undrain,
            Act::Wait { millis } => {
                self.now = self.now.plus_millis(*millis);
                return self.tick();
            }
        };
        self.tell(&event)
    }

    /// The pool's figures are what the shell saw, and within every bound.
    fn check(&self) -> Result<(), TestCaseError> {
        let figures = self.pool.figures(self.now);
        let count =
            |wanted: Stands| self.workers.values().filter(|stands| **stands == wanted).count();
        let sum = |of: fn(&AgentFigures) -> u32| figures.iter().map(of).sum::<u32>() as usize;
        prop_assert_eq!(sum(|figures| figures.starting), count(Stands::Starting));
        prop_assert_eq!(sum(|figures| figures.idle), count(Stands::Parked));
        prop_assert_eq!(sum(|figures| figures.busy), count(Stands::Used));
        for figures in &figures {
            let sizes = self.config.agents[&figures.agent];
            prop_assert!(sizes.min <= figures.target && figures.target <= sizes.max);
            prop_assert!(warm(figures) <= figures.target);
            prop_assert!(figures.unavailable.is_none() || warm(figures) == 0);
        }
        prop_assert!(self.warm() <= self.config.warm_max);
        prop_assert!(sum(|figures| figures.starting) <= self.config.builds_max as usize);
        Ok(())
    }

    /// Does all that it is asked to until the pool asks for nothing more than looks at what is idle.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        const STEPS_MAX: usize = 4_000;
        let end = self.now.plus_millis(HOUR_MILLIS / 3);
        for _ in 0..STEPS_MAX {
            let open = self.workers.iter().find_map(|(worker, stands)| match stands {
                Stands::Starting | Stands::Stopping => Some((*worker, *stands)),
                _ => None,
            });
            match (open, self.pool.wake_at()) {
                (Some((worker, Stands::Starting)), _) => self.finish(worker, false)?,
                (Some((worker, _)), _) => self.end(worker)?,
                (None, Some(at)) if at < end => {
                    self.now = self.now.max(at);
                    self.tick()?;
                }
                (None, _) => return Ok(()),
            }
        }
        Err(TestCaseError::fail("it never comes to rest"))
    }
}

fn warm(figures: &AgentFigures) -> u32 {
    figures.starting + figures.idle
}

fn found() -> impl Strategy<Value = Vec<Found>> {
    let one = (0..AGENTS.len(), 0..2 * HOUR_MILLIS, 1..3_u64, any::<bool>());
    proptest::collection::vec(one, 0..8).prop_map(|left| {
        let of = |((index, made_at, made_of, same), serial)| Found {
            worker: WorkerId::new(1, serial),
            agent: agent(index),
            tier: if same { Tier::Fast } else { Tier::Flagship },
            fingerprint: Fingerprint(made_of),
            made_at: Timestamp::from_millis(made_at),
        };
        left.into_iter().zip(1..).map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn every_law_holds(config in config(), found in found(), acts in acts()) {
        let mut shell = Shell::new(config);
        shell.now = Timestamp::from_millis(2 * HOUR_MILLIS);
        shell.begin(found)?;
        for act in &acts {
            shell.act(act)?;
        }
        // The load is over, all is well: back to the minima, and no further.
        let used: BTreeSet<_> = shell.workers.iter()
            .filter(|(_, stands)| **stands == Stands::Used).map(|(worker, _)| *worker).collect();
        for worker in used {
            shell.end(worker)?;
        }
        shell.tell(&Event::Load { attempts: 0, waiting: 0 })?;
        shell.tell(&Event::Undrain)?;
        for index in 0..AGENTS.len() {
            shell.tell(&Event::AgentReady { agent: agent(index), fingerprint: Fingerprint(1) })?;
        }
        shell.settle()?;
        let minima: u32 = shell.config.agents.values().map(|sizes| sizes.min).sum();
        let room = minima <= shell.config.sandboxes_max;
        for figures in shell.pool.figures(shell.now) {
            let wanted = if room { figures.sizes.min } else { figures.idle };
            prop_assert_eq!((figures.idle, figures.starting), (wanted, 0), "{:?}", figures);
            prop_assert_eq!((figures.target, figures.stopping), (figures.sizes.min, 0));
        }
        shell.tell(&Event::Drain)?;
        shell.settle()?;
        prop_assert!(shell.pool.is_drained());
        prop_assert_eq!(shell.pool.wake_at(), None);
        prop_assert!(shell.workers.values().all(|stands| *stands == Stands::Gone));
    }
}
