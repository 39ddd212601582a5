//! Each rule of the pool by itself.

use outpost_core::pool::{
    AgentFigures, AgentSizes, BACKOFF_MILLIS_FIRST, BACKOFF_MILLIS_MAX, BUILD_SECONDS_MAX, Claim,
    Effect, Event, Fingerprint, GROW_WAITING_COUNT, Miss, Pool, PoolConfig, STOP_AGAIN_SECONDS,
    StopReason, WorkerId,
};
use outpost_types::{AgentId, AttemptId, DispatchId, Tier, Timestamp};

pub(crate) const EPOCH: u64 = 0xabc;
pub(crate) const WARM_SECONDS: u64 = 100;

pub(crate) fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

pub(crate) fn sizes(min: u32, max: u32) -> AgentSizes {
    AgentSizes { tier: Tier::Fast, min, max, warm_seconds: WARM_SECONDS }
}

pub(crate) fn config(agents: &[(&str, u32, u32)]) -> PoolConfig {
    let of = |(name, min, max): &(&str, u32, u32)| (agent(name), sizes(*min, *max));
    PoolConfig { builds_max: 9, ..PoolConfig::of(agents.iter().map(of).collect()) }
}

pub(crate) fn worker(serial: u64) -> WorkerId {
    WorkerId::new(EPOCH, serial)
}

pub(crate) fn start(serial: u64, name: &str) -> Effect {
    Effect::Start { worker: worker(serial), agent: agent(name), tier: Tier::Fast }
}

pub(crate) fn stop(serial: u64, why: StopReason) -> Effect {
    Effect::Stop { worker: worker(serial), why }
}

pub(crate) fn ready(name: &str, made_of: u64) -> Event {
    Event::AgentReady { agent: agent(name), fingerprint: Fingerprint(made_of) }
}

/// A pool and a clock.
pub(crate) struct Bench {
    pub(crate) pool: Pool,
    pub(crate) now: Timestamp,
    attempts: u64,
}

impl Bench {
    /// All agents are ready, nothing was left, nothing is built.
    pub(crate) fn new(config: PoolConfig) -> Self {
        let agents: Vec<_> = config.agents.keys().cloned().collect();
        let pool = Pool::new(config, EPOCH).unwrap();
        let mut bench = Self { pool, now: Timestamp::from_millis(50_000_000), attempts: 0 };
        for agent in agents {
            assert_eq!(bench.tell(&ready(agent.as_str(), 1)), []);
        }
        bench
    }

    /// And its minima are parked.
    pub(crate) fn warm(config: PoolConfig) -> Self {
        let mut bench = Self::new(config);
        let effects = bench.tell(&Event::Recovered(vec![]));
        bench.park(&effects);
        bench
    }

    pub(crate) fn tell(&mut self, event: &Event) -> Vec<Effect> {
        self.pool.step(event, self.now)
    }

    /// Parks all that was begun, and all that is begun because of it.
    pub(crate) fn park(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Start { worker, .. } = effect else { continue };
            let more = self.tell(&Event::Started { worker: *worker });
            self.park(&more);
        }
    }

    pub(crate) fn after(&mut self, millis: u64) -> Vec<Effect> {
        self.now = self.now.plus_millis(millis);
        self.tell(&Event::Tick)
    }

    pub(crate) fn claim_of(
        &mut self,
        name: &str,
        tier: Tier,
    ) -> (Result<WorkerId, Miss>, Vec<Effect>) {
        self.attempts += 1;
        let dispatch = DispatchId::from_parts(self.attempts, 0);
        let attempt = AttemptId { dispatch, number: 1 };
        self.pool.claim(&Claim { attempt, agent: agent(name), tier }, self.now)
    }

    pub(crate) fn claim(&mut self, name: &str) -> (Result<WorkerId, Miss>, Vec<Effect>) {
        self.claim_of(name, Tier::Fast)
    }

    pub(crate) fn load(&mut self, attempts: u32, waiting: u32) -> Vec<Effect> {
        self.tell(&Event::Load { attempts, waiting })
    }

    pub(crate) fn fail(&mut self, serial: u64) -> Vec<Effect> {
        self.tell(&Event::BuildFailed { worker: worker(serial), reason: "no disk".into() })
    }

    pub(crate) fn end(&mut self, serial: u64) -> Vec<Effect> {
        self.tell(&Event::WorkerEnded { worker: worker(serial), reason: "killed".into() })
    }

    pub(crate) fn figures(&self, name: &str) -> AgentFigures {
        let all = self.pool.figures(self.now);
        all.into_iter().find(|figures| figures.agent.as_str() == name).unwrap()
    }
}

/// Starting, idle, busy, stopping.
pub(crate) fn counts(figures: &AgentFigures) -> [u32; 4] {
    [figures.starting, figures.idle, figures.busy, figures.stopping]
}

#[test]
fn nothing_is_built_before_what_was_left_is_known() {
    let mut bench = Bench::new(config(&[("a", 2, 5)]));
    assert_eq!(bench.after(1_000), []);
    assert_eq!(bench.claim("a").0, Err(Miss::Exhausted));
    let effects = bench.tell(&Event::Recovered(vec![]));
    assert_eq!(effects, [start(1, "a"), start(2, "a")]);
    assert_eq!(counts(&bench.figures("a")), [2, 0, 0, 0]);
}

#[test]
fn a_claim_takes_the_newest_and_is_made_good() {
    let mut bench = Bench::warm(config(&[("a", 2, 5)]));
    assert_eq!(counts(&bench.figures("a")), [0, 2, 0, 0]);
    assert_eq!(bench.claim("a"), (Ok(worker(2)), vec![start(3, "a")]));
    assert_eq!(counts(&bench.figures("a")), [1, 1, 1, 0]);
    bench.now = bench.now.plus_millis(1);
    assert_eq!(bench.tell(&Event::Started { worker: worker(3) }), []);
    assert_eq!(bench.claim("a").0, Ok(worker(3)));
    // What was claimed serves nobody else, whatever is told of it.
    for serial in [2, 3] {
        let worker = worker(serial);
        assert_eq!(bench.tell(&Event::Started { worker }), []);
        assert_eq!(bench.fail(serial), []);
        assert_eq!(bench.tell(&Event::HealthFailed { worker, reason: "late".into() }), []);
    }
    assert_eq!(counts(&bench.figures("a")), [1, 1, 2, 0]);
    assert_eq!((bench.end(2), bench.end(2)), (vec![], vec![]));
    assert_eq!(counts(&bench.figures("a")), [1, 1, 1, 0]);
    let figures = bench.figures("a");
    assert_eq!((figures.hits, figures.built, figures.lost), (2, 4, 0));
    assert_eq!((figures.hour_claims, figures.hour_misses), (2, 0));
    assert_eq!(figures.hour_miss_rate(), Some(0.0));
}

#[test]
fn an_attempt_that_asks_again_has_what_it_has() {
    let mut bench = Bench::warm(config(&[("a", 2, 5), ("b", 1, 1)]));
    let first = bench.claim("a").0;
    bench.attempts -= 1;
    assert_eq!(bench.claim("a"), (first, vec![]));
    assert_ne!(bench.claim("a").0, first);
    assert_eq!(bench.figures("a").hits, 2);
}

#[test]
fn every_miss_has_its_reason() {
    let mut bench = Bench::warm(config(&[("a", 1, 1), ("off", 0, 0)]));
    assert_eq!(bench.claim("stranger").0, Err(Miss::Disabled));
    assert_eq!(bench.claim("off").0, Err(Miss::Disabled));
    assert_eq!(bench.claim_of("a", Tier::Flagship).0, Err(Miss::OtherTier));
    assert!(bench.claim("a").0.is_ok());
    assert_eq!(bench.claim("a").0, Err(Miss::Starting));
    bench.fail(2);
    assert_eq!(bench.claim("a").0, Err(Miss::BackingOff));
    let effects = bench.after(BACKOFF_MILLIS_FIRST);
    assert_eq!(effects, [start(3, "a")]);
    bench.park(&effects);
    bench.load(1, 0);
    bench.tell(&Event::Drain);
    assert_eq!(bench.claim("a").0, Err(Miss::Draining));
    bench.tell(&Event::AgentUnavailable { agent: agent("a"), reason: "gone".into() });
    assert_eq!(bench.claim("a").0, Err(Miss::Unavailable));
    let figures = bench.figures("a");
    let reasons =
        [Miss::OtherTier, Miss::Starting, Miss::Draining, Miss::Unavailable, Miss::BackingOff];
    assert_eq!(figures.misses, reasons.into_iter().map(|miss| (miss, 1)).collect());
    assert_eq!((figures.hour_claims, figures.hour_misses), (6, 5));
    assert_eq!(figures.hour_miss_rate(), Some(5.0 / 6.0));
    bench.now = bench.now.plus_millis(3_600_000);
    assert_eq!(bench.figures("a").hour_miss_rate(), None);
    let names: Vec<_> = Miss::ALL.iter().map(|miss| miss.as_str()).collect();
    let all = "disabled other_tier starting exhausted draining unavailable backing_off unhealthy";
    assert_eq!(names.join(" "), all);
}

#[test]
fn what_was_lost_is_told_apart_from_what_was_used_up() {
    // No room for another build, so that the reason stays.
    let mut bench = Bench::warm(PoolConfig { sandboxes_max: 1, ..config(&[("a", 1, 1)]) });
    bench.load(1, 0);
    bench.end(1);
    assert_eq!(bench.after(BACKOFF_MILLIS_FIRST), []);
    assert_eq!(bench.claim("a").0, Err(Miss::Unhealthy));
    let figures = bench.figures("a");
    assert_eq!((figures.lost, figures.builds_failed), (1, 0));
    assert_eq!(figures.last_failure.as_deref(), Some("killed"));
    assert_eq!(bench.load(0, 0), [start(2, "a")]);
    bench.tell(&Event::Started { worker: worker(2) });
    bench.load(1, 0);
    assert_eq!(bench.claim("a"), (Ok(worker(2)), vec![]));
    assert_eq!(bench.claim("a").0, Err(Miss::Exhausted));
}

#[test]
fn a_hit_that_could_not_be_used_was_a_miss() {
    let mut bench = Bench::warm(config(&[("a", 1, 2)]));
    assert!(bench.claim("a").0.is_ok());
    let told = Event::ClaimFailed { worker: worker(1), reason: "no answer".into() };
    assert_eq!(bench.tell(&told), [stop(1, StopReason::Unhealthy)]);
    assert_eq!(bench.tell(&told), []);
    let figures = bench.figures("a");
    assert_eq!((figures.hits, figures.lost), (0, 1));
    assert_eq!(figures.misses.get(&Miss::Unhealthy), Some(&1));
    assert_eq!((figures.hour_claims, figures.hour_misses), (1, 1));
    assert_eq!(counts(&figures), [1, 0, 0, 1]);
    // It means nothing of a worker that nobody claimed.
    assert_eq!(bench.tell(&Event::ClaimFailed { worker: worker(2), reason: "?".into() }), []);
    assert_eq!(counts(&bench.figures("a")), [1, 0, 0, 1]);
}

#[test]
fn a_pool_grows_when_too_many_miss() {
    let mut bench = Bench::warm(config(&[("a", 1, 3)]));
    // A hit and two misses: only the third claim is enough to judge by.
    let targets: Vec<_> = (0..5)
        .map(|_| {
            drop(bench.claim("a"));
            bench.figures("a").target
        })
        .collect();
    assert_eq!(targets, [1, 1, 2, 3, 3]);
    assert_eq!(bench.figures("a").starting, 3);
}

#[test]
fn one_miss_in_five_is_no_reason_to_grow_and_more_is() {
    for (hits, target) in [(3, 1), (2, 2)] {
        let mut bench = Bench::warm(config(&[("a", 1, 3)]));
        for _ in 0..hits {
            let (answer, effects) = bench.claim("a");
            assert!(answer.is_ok());
            bench.park(&effects);
        }
        drop(bench.claim("a"));
        assert_eq!(bench.claim("a").0, Err(Miss::Starting));
        assert_eq!(bench.figures("a").target, target);
    }
    // What is long past says nothing.
    let mut bench = Bench::warm(config(&[("a", 1, 3)]));
    for _ in 0..2 {
        drop(bench.claim("a"));
    }
    bench.now = bench.now.plus_millis(600_000);
    assert_eq!(bench.claim("a").0, Err(Miss::Starting));
    assert_eq!(bench.figures("a").target, 1);
}

#[test]
fn a_pool_grows_while_many_wait_but_not_for_what_workers_do_not_help() {
    let mut bench = Bench::warm(config(&[("a", 1, 3)]));
    bench.load(1, GROW_WAITING_COUNT - 1);
    assert!(bench.claim("a").0.is_ok());
    assert_eq!(bench.figures("a").target, 1);
    bench.load(1, GROW_WAITING_COUNT);
    assert_eq!(bench.claim_of("a", Tier::Flagship).0, Err(Miss::OtherTier));
    assert_eq!(bench.figures("a").target, 1);
    assert_eq!(bench.claim("a"), (Err(Miss::Starting), vec![start(3, "a")]));
    assert_eq!(bench.figures("a").target, 2);
    bench.tell(&Event::Started { worker: worker(2) });
    assert!(bench.claim("a").0.is_ok());
    assert_eq!(bench.figures("a").target, 3);
    // Many misses of another size are no shortage either.
    let mut bench = Bench::warm(config(&[("a", 1, 3)]));
    for _ in 0..9 {
        drop(bench.claim_of("a", Tier::Flagship));
    }
    drop(bench.claim("a"));
    assert_eq!(bench.claim("a").0, Err(Miss::Starting));
    assert_eq!(bench.figures("a").target, 1);
}

#[test]
fn growth_never_takes_the_minimum_of_another() {
    let mut bench = Bench::warm(PoolConfig { warm_max: 3, ..config(&[("a", 1, 9), ("b", 1, 9)]) });
    bench.load(0, GROW_WAITING_COUNT);
    for _ in 0..9 {
        drop(bench.claim("a"));
    }
    assert_eq!((bench.figures("a").target, bench.figures("b").target), (2, 1));
    drop(bench.claim("b"));
    assert_eq!((bench.figures("a").target, bench.figures("b").target), (2, 1));
}

#[test]
fn what_nobody_uses_is_stopped_down_to_the_minimum() {
    let mut bench = Bench::warm(config(&[("a", 1, 3)]));
    bench.load(0, GROW_WAITING_COUNT);
    let (_, effects) = bench.claim("a");
    bench.park(&effects);
    bench.load(0, 0);
    assert_eq!(counts(&bench.figures("a")), [0, 2, 1, 0]);
    assert_eq!(bench.after(WARM_SECONDS * 1_000 - 1).len(), 2);
    assert_eq!(bench.figures("a").target, 2);
    assert_eq!(bench.pool.wake_at(), Some(bench.now.plus_millis(1)));
    assert_eq!(bench.after(1), [stop(2, StopReason::Surplus)]);
    assert_eq!((bench.figures("a").target, counts(&bench.figures("a"))), (1, [0, 1, 1, 1]));
    assert_eq!(bench.end(2), []);
    assert_eq!(bench.after(WARM_SECONDS * 1_000), [Effect::Check { worker: worker(3) }]);
    assert_eq!(counts(&bench.figures("a")), [0, 1, 1, 0]);
}

#[test]
fn a_target_is_given_up_when_nobody_asks() {
    let mut bench = Bench::warm(PoolConfig { sandboxes_max: 1, ..config(&[("a", 1, 3)]) });
    bench.load(1, GROW_WAITING_COUNT);
    drop(bench.claim("a"));
    assert_eq!((bench.figures("a").target, bench.figures("a").starting), (2, 0));
    assert_eq!(bench.pool.wake_at(), Some(bench.now.plus_millis(WARM_SECONDS * 1_000)));
    bench.after(WARM_SECONDS * 1_000 - 1);
    assert_eq!(bench.figures("a").target, 2);
    bench.after(1);
    assert_eq!((bench.figures("a").target, bench.pool.wake_at()), (1, None));
}

#[test]
fn builds_at_once_are_bounded_and_go_to_whom_lacks_most() {
    let config = PoolConfig { builds_max: 2, ..config(&[("a", 1, 4), ("b", 2, 4), ("c", 3, 4)]) };
    let mut bench = Bench::new(config);
    // All lack all of their minimum; who has none built yet is first.
    assert_eq!(bench.tell(&Event::Recovered(vec![])), [start(1, "a"), start(2, "b")]);
    // c lacks three of three, b one of two.
    assert_eq!(bench.tell(&Event::Started { worker: worker(1) }), [start(3, "c")]);
    assert_eq!(bench.tell(&Event::Started { worker: worker(3) }), [start(4, "c")]);
    // b lacks a half, c a third.
    assert_eq!(bench.tell(&Event::Started { worker: worker(2) }), [start(5, "b")]);
    assert_eq!(bench.tell(&Event::Started { worker: worker(5) }), [start(6, "c")]);
    // A grown target comes after any minimum.
    bench.load(0, GROW_WAITING_COUNT);
    assert_eq!(bench.claim("a"), (Ok(worker(1)), vec![]));
    assert_eq!(bench.figures("a").target, 2);
    assert_eq!(bench.claim("b"), (Ok(worker(5)), vec![]));
    assert_eq!(bench.tell(&Event::Started { worker: worker(4) }), [start(7, "a")]);
    assert_eq!(bench.tell(&Event::Started { worker: worker(6) }), [start(8, "b")]);
    // Each lacks a third to a half of its target, and nothing of its minimum.
    assert_eq!(bench.tell(&Event::Started { worker: worker(7) }), [start(9, "a")]);
}

#[test]
fn beyond_the_minimum_who_lacks_most_of_its_target_is_first() {
    let config = config(&[("a", 4, 5), ("b", 1, 4)]);
    let mut bench = Bench::warm(PoolConfig { sandboxes_max: 20, ..config });
    bench.load(0, GROW_WAITING_COUNT);
    for name in ["a", "b", "b", "b"] {
        let (answer, effects) = bench.claim(name);
        assert!(answer.is_ok());
        bench.park(&effects);
    }
    // Without room for builds one of a's five is used, and two of b's four.
    bench.load(20, 0);
    for name in ["a", "b", "b"] {
        assert!(matches!(bench.claim(name), (Ok(_), effects) if effects.is_empty()));
    }
    // Each time there is room for one: b lacks a half, then a quarter, then nothing.
    let starts: Vec<_> = [13, 12, 11].into_iter().flat_map(|busy| bench.load(busy, 0)).collect();
    assert_eq!(starts, [start(14, "b"), start(15, "b"), start(16, "a")]);
}

#[test]
fn failed_builds_wait_twice_as_long_each_time() {
    let mut bench = Bench::warm(config(&[("a", 1, 1), ("b", 1, 1)]));
    drop(bench.claim("a"));
    let mut wait = BACKOFF_MILLIS_FIRST;
    for serial in 3..16 {
        assert_eq!(bench.fail(serial), []);
        let until = bench.now.plus_millis(wait);
        assert_eq!(bench.figures("a").backing_off_until, Some(until));
        // Another agent's workers are made meanwhile, and looks at them are asked for.
        assert!(!bench.after(wait - 1).contains(&start(serial + 1, "a")));
        assert!(bench.after(1).contains(&start(serial + 1, "a")));
        wait = (wait * 2).min(BACKOFF_MILLIS_MAX);
    }
    assert_eq!(wait, BACKOFF_MILLIS_MAX);
    let figures = bench.figures("a");
    assert_eq!((figures.builds_failed, figures.lost, figures.backing_off_until), (13, 0, None));
    assert_eq!(figures.last_failure.as_deref(), Some("no disk"));
    assert_eq!(bench.fail(16), []);
    bench.now = bench.now.plus_millis(BACKOFF_MILLIS_MAX);
    assert!(bench.tell(&Event::Tick).contains(&start(17, "a")));
    bench.tell(&Event::Started { worker: worker(17) });
    // A worker that is good ends it; that it came to be is not enough.
    bench.end(17);
    let long = Some(bench.now.plus_millis(BACKOFF_MILLIS_MAX));
    assert_eq!(bench.figures("a").backing_off_until, long);
    bench.after(BACKOFF_MILLIS_MAX);
    bench.tell(&Event::Started { worker: worker(18) });
    bench.tell(&Event::HealthPassed { worker: worker(18) });
    bench.end(18);
    let short = Some(bench.now.plus_millis(BACKOFF_MILLIS_FIRST));
    assert_eq!(bench.figures("a").backing_off_until, short);
}

#[test]
fn a_claim_proves_workers_good_and_a_new_version_may_be() {
    let mut bench = Bench::warm(config(&[("a", 2, 2)]));
    bench.end(1);
    bench.after(BACKOFF_MILLIS_FIRST);
    assert_eq!(bench.claim("a"), (Ok(worker(2)), vec![start(4, "a")]));
    bench.fail(4);
    let until = |bench: &Bench, millis| Some(bench.now.plus_millis(millis));
    assert_eq!(bench.figures("a").backing_off_until, until(&bench, BACKOFF_MILLIS_FIRST));
    // What fails meanwhile is the same mishap; what fails after it is another.
    bench.now = bench.now.plus_millis(1);
    bench.fail(3);
    assert_eq!(bench.figures("a").backing_off_until, until(&bench, BACKOFF_MILLIS_FIRST - 1));
    assert_eq!(bench.after(BACKOFF_MILLIS_FIRST - 1), [start(5, "a"), start(6, "a")]);
    bench.fail(5);
    assert_eq!(bench.figures("a").backing_off_until, until(&bench, 2 * BACKOFF_MILLIS_FIRST));
    bench.fail(6);
    assert_eq!(bench.tell(&ready("a", 2)), [start(7, "a"), start(8, "a")]);
    assert_eq!(bench.figures("a").backing_off_until, None);
    bench.fail(7);
    assert_eq!(bench.figures("a").backing_off_until, until(&bench, BACKOFF_MILLIS_FIRST));
}

#[test]
fn a_build_that_takes_too_long_has_failed() {
    let mut bench = Bench::new(config(&[("a", 1, 1)]));
    assert_eq!(bench.tell(&Event::Recovered(vec![])), [start(1, "a")]);
    assert_eq!(bench.pool.wake_at(), Some(bench.now.plus_millis(BUILD_SECONDS_MAX * 1_000)));
    assert_eq!(bench.after(BUILD_SECONDS_MAX * 1_000 - 1), []);
    assert_eq!(bench.after(1), [stop(1, StopReason::TooSlow)]);
    let figures = bench.figures("a");
    assert_eq!((figures.builds_failed, counts(&figures)), (1, [0, 0, 0, 1]));
    assert_eq!(figures.last_failure.as_deref(), Some("it was not ready after 300 s"));
    // It comes too late, and its end is no second failure.
    assert_eq!(bench.tell(&Event::Started { worker: worker(1) }), []);
    assert_eq!(bench.fail(1), []);
    assert_eq!(bench.figures("a").builds_failed, 1);
    assert_eq!(counts(&bench.figures("a")), [0, 0, 0, 0]);
    assert_eq!(bench.after(BACKOFF_MILLIS_FIRST), [start(2, "a")]);
}

#[test]
fn a_stop_is_asked_for_until_its_end_is_told() {
    let mut bench = Bench::warm(config(&[("a", 1, 1)]));
    let failed = Event::HealthFailed { worker: worker(1), reason: "stuck".into() };
    assert_eq!(bench.tell(&failed), [stop(1, StopReason::Unhealthy)]);
    assert_eq!(bench.figures("a").last_failure.as_deref(), Some("stuck"));
    let effects = bench.after(BACKOFF_MILLIS_FIRST);
    bench.park(&effects);
    let again = STOP_AGAIN_SECONDS * 1_000;
    assert_eq!(bench.after(again - BACKOFF_MILLIS_FIRST - 1), []);
    assert_eq!(bench.pool.wake_at(), Some(bench.now.plus_millis(1)));
    assert_eq!(bench.after(1), [stop(1, StopReason::Unhealthy)]);
    assert!(!bench.after(again - 1).contains(&stop(1, StopReason::Unhealthy)));
    assert!(bench.after(1).contains(&stop(1, StopReason::Unhealthy)));
    bench.end(1);
    assert!(!bench.after(again).contains(&stop(1, StopReason::Unhealthy)));
}
