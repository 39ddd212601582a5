//! Small histories written down by hand, each tried with a death at every single point of it.

use std::collections::BTreeMap;

use outpost_core::Limits;
use outpost_types::{DispatchStatus, Priority};

use crate::plan::{AgentPlan, Cancel, Faults, Job, Kill, Mutant, Plan, Provision};
use crate::run::{Outcome, simulate};

/// How long the death of a server takes to be noticed and made good, milliseconds.
const AWAY_MILLIS: (u64, u64) = (10, 500);
/// Time until everything must only come to rest, seconds.
const CHAOS_SECONDS: u64 = 5;

/// A history with a name.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For a person.
    pub name: String,
    /// The history.
    pub plan: Plan,
}

/// What all deaths of one scenario came to.
#[derive(Debug, Default)]
pub struct Crashes {
    /// Simulations that ran.
    pub ran: u64,
    /// The first one that failed: which died where, and what was wrong.
    pub failed: Option<String>,
}

fn plan(job: Job) -> Plan {
    Plan {
        seed: 1,
        mutant: None,
        limits: Limits {
            host_attempts_max: 2,
            tenant_attempts_max: None,
            tenant_attempts_max_of: BTreeMap::new(),
            agent_attempts_max_default: 1,
            agent_attempts_max: BTreeMap::new(),
        },
        jobs: vec![job],
        faults: Faults::default(),
        chaos_seconds: CHAOS_SECONDS,
        kills: Vec::new(),
        away_millis: AWAY_MILLIS,
        disk_full_millis: None,
    }
}

fn job() -> Job {
    Job {
        tenant: "acme",
        agent: "claude",
        at_millis: 10,
        timeout_seconds: 30,
        deadline_seconds: 3_600,
        priority: Priority::Normal,
        keyed: true,
        provisions: vec![Provision { millis: 50, fails: None }],
        behaviour: AgentPlan { runs_millis: Some(300), code: 0, ignores_term: false },
        collect_millis: 50,
        cancel: None,
        workspace_of: None,
    }
}

fn hangs(ignores_term: bool) -> AgentPlan {
    AgentPlan { runs_millis: None, code: 0, ignores_term }
}

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let named = |name: &str, plan: Plan| Scenario { name: name.to_owned(), plan };
    let of = |name: &str, job: Job| named(name, plan(job));
    let exits = |code| Job {
        behaviour: AgentPlan { runs_millis: Some(200), code, ignores_term: false },
        ..job()
    };
    let fails = |retry: bool| Provision { millis: 30, fails: Some(retry) };
    let works = Provision { millis: 30, fails: None };
    let mut scenarios = vec![
        of("happy", job()),
        of("exit 1", exits(1)),
        of("oom", exits(137)),
        of("timeout", Job { behaviour: hangs(false), ..job() }),
        of("timeout of one that ignores SIGTERM", Job { behaviour: hangs(true), ..job() }),
        of("provisioning is retried", Job { provisions: vec![fails(true), works], ..job() }),
        of("provisioning never works", Job { provisions: vec![fails(true)], ..job() }),
        of("provisioning cannot work", Job { provisions: vec![fails(false)], ..job() }),
    ];
    for status in [
        DispatchStatus::Pending,
        DispatchStatus::Provisioning,
        DispatchStatus::Running,
        DispatchStatus::Completing,
    ] {
        let cancelled = Job { cancel: Some(Cancel::At(status)), ..job() };
        scenarios.push(of(&format!("cancel while {status}"), cancelled));
    }
    let stubborn =
        Job { cancel: Some(Cancel::At(DispatchStatus::Running)), behaviour: hangs(true), ..job() };
    scenarios.push(of("cancel of one that ignores SIGTERM", stubborn));
    let mut queued = plan(job());
    let second = Job { at_millis: 30, cancel: Some(Cancel::At(DispatchStatus::Queued)), ..job() };
    queued.jobs.push(second);
    scenarios.push(named("cancel while QUEUED", queued));
    let mut waits = plan(job());
    waits.jobs.push(Job { at_millis: 30, ..job() });
    scenarios.push(named("two, one slot", waits));
    let of_ann = Job { workspace_of: Some("ann"), ..job() };
    let mut shared = plan(of_ann.clone());
    shared.limits.agent_attempts_max_default = 3;
    shared.limits.host_attempts_max = 3;
    shared.jobs.push(Job { at_millis: 30, ..of_ann });
    scenarios.push(named("two, one workspace", shared));
    let mut expires = plan(Job { behaviour: hangs(true), timeout_seconds: 60, ..job() });
    expires.jobs.push(Job { at_millis: 30, deadline_seconds: 30, ..job() });
    scenarios.push(named("a deadline passes in the queue", expires));
    let mut full = plan(job());
    full.disk_full_millis = Some((100, 3_000));
    scenarios.push(named("full disk", full));
    scenarios
}

/// Runs a scenario once undisturbed, then with one death at each of its points, and with a second
/// death at each of the `second_points` points after the first.
#[must_use]
pub fn crash_everywhere(
    scenario: &Scenario,
    mutant: Option<Mutant>,
    kills: &[Kill],
    second_points: u64,
) -> Crashes {
    let mut crashes = Crashes::default();
    let base = Plan { mutant, ..scenario.plan.clone() };
    let points = crashes.run(scenario, &base).points;
    for at in 1..=points {
        for kill in kills {
            let once = Plan { kills: vec![(at, *kill)], ..base.clone() };
            crashes.run(scenario, &once);
            for later in 1..=second_points {
                let kills = vec![(at, *kill), (at + later, Kill::Server)];
                crashes.run(scenario, &Plan { kills, ..base.clone() });
            }
            if crashes.failed.is_some() {
                return crashes;
            }
        }
    }
    crashes
}

impl Crashes {
    fn run(&mut self, scenario: &Scenario, plan: &Plan) -> Outcome {
        let outcome = simulate(plan.clone(), false);
        self.ran += 1;
        if let Some(violation) = &outcome.violation {
            let what = format!("{}, {:?}: {violation}", scenario.name, plan.kills);
            self.failed.get_or_insert(what);
        }
        outcome
    }
}
