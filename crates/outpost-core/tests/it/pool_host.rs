//! The pool and its host: configuration, room, drain, agents that change, looks, age, and restarts.

use outpost_core::pool::{
    AGE_SECONDS_DEFAULT, AGE_SECONDS_MAX, AGE_SECONDS_MIN, AGENTS_COUNT_MAX, AgentSizes,
    AskedSizes, BACKOFF_MILLIS_FIRST, BUILDS_COUNT_DEFAULT, BUILDS_COUNT_MAX, BadPoolConfig,
    CHECK_SECONDS, CHECKS_PER_TICK_MAX, Effect, Event, FAILURE_TEXT_BYTES_MAX, Fingerprint, Found,
    GROW_WAITING_COUNT, Miss, Pool, PoolConfig, STOP_AGAIN_SECONDS, STOPPING_COUNT_MAX, Stage,
    StopReason, WARM_COUNT_DEFAULT, WARM_COUNT_MAX, WARM_SECONDS_DEFAULT, WARM_SECONDS_MAX,
    WorkerId,
};
use outpost_types::{Tier, Timestamp};

use crate::pool::{
    Bench, EPOCH, WARM_SECONDS, agent, config, counts, ready, sizes, start, stop, worker,
};

#[test]
fn idle_workers_give_way_to_attempts() {
    let config = config(&[("a", 1, 1), ("b", 1, 4), ("c", 1, 4)]);
    let mut bench = Bench::warm(PoolConfig { sandboxes_max: 6, ..config });
    // c is used, and may have two more than its minimum.
    bench.load(0, GROW_WAITING_COUNT);
    for _ in 0..2 {
        let (answer, effects) = bench.claim("c");
        assert!(answer.is_ok());
        bench.park(&effects);
    }
    bench.load(2, 0);
    assert_eq!((bench.figures("c").target, counts(&bench.figures("c"))), (3, [0, 2, 2, 0]));
    // An attempt that misses takes the place of the one that c has beyond its minimum.
    bench.load(3, 0);
    assert_eq!(bench.claim_of("a", Tier::Flagship).0, Err(Miss::OtherTier));
    let figures = bench.figures("c");
    assert_eq!(counts(&figures), [0, 1, 2, 1]);
    // Then of the one that was not wanted for longest; then the others.
    bench.load(4, 0);
    assert_eq!(bench.claim("nobody").0, Err(Miss::Disabled));
    assert_eq!(counts(&bench.figures("b")), [0, 0, 0, 1]);
    bench.load(5, 0);
    drop(bench.claim_of("c", Tier::Flagship));
    assert_eq!(
        (counts(&bench.figures("a")), counts(&bench.figures("c"))),
        ([0, 0, 0, 1], [0, 1, 2, 1])
    );
    // What was told without a claim is seen to by the next tick; nothing is made while there is no room.
    assert_eq!(bench.load(6, 0), []);
    assert_eq!(bench.after(1).len(), 1);
    assert_eq!(counts(&bench.figures("c")), [0, 0, 2, 2]);
    // Those that are being stopped need their room until they are gone.
    assert_eq!(bench.load(2, 0), []);
    assert_eq!(bench.load(1, 0), []);
    assert_eq!(bench.end(1), [start(7, "a")]);
}

#[test]
fn what_attempts_have_counts_before_their_load_is_told() {
    let mut bench = Bench::warm(PoolConfig { sandboxes_max: 2, ..config(&[("a", 2, 2)]) });
    assert_eq!(bench.claim("a"), (Ok(worker(2)), vec![]));
    assert_eq!(counts(&bench.figures("a")), [0, 1, 1, 0]);
    assert_eq!(bench.end(2), [start(3, "a")]);
    // A build gives way as well, when nothing is parked.
    bench.load(1, 0);
    assert_eq!(bench.claim("a").0, Ok(worker(1)));
    bench.load(2, 0);
    let (answer, effects) = bench.claim("a");
    assert_eq!((answer, effects), (Err(Miss::Starting), vec![stop(3, StopReason::MadeRoom)]));
    bench.load(9, 0);
    assert_eq!(bench.claim("a"), (Err(Miss::Exhausted), vec![]));
}

#[test]
fn a_drained_pool_empties_and_fills_again() {
    let mut bench = Bench::warm(config(&[("a", 2, 5)]));
    assert_eq!(bench.claim("a"), (Ok(worker(2)), vec![start(3, "a")]));
    assert!(!bench.pool.is_drained());
    let stops = [stop(3, StopReason::Draining), stop(1, StopReason::Draining)];
    assert_eq!(bench.tell(&Event::Drain), stops);
    assert_eq!(bench.tell(&Event::Started { worker: worker(3) }), []);
    assert_eq!(bench.end(3), []);
    assert!(!bench.pool.is_drained());
    assert_eq!(bench.end(1), []);
    // The attempt keeps its worker.
    assert_eq!(counts(&bench.figures("a")), [0, 0, 1, 0]);
    assert!(bench.pool.is_drained());
    assert_eq!(bench.tell(&Event::Undrain), [start(4, "a"), start(5, "a")]);
    assert!(!bench.pool.is_drained());
}

#[test]
fn one_agent_is_drained_and_the_others_are_not() {
    let mut bench = Bench::warm(config(&[("a", 2, 5), ("b", 1, 1)]));
    let drain = |names: &[&str]| Event::DrainAgents(names.iter().map(|name| agent(name)).collect());
    let stops = [stop(3, StopReason::Draining), stop(1, StopReason::Draining)];
    let mut told = bench.tell(&drain(&["a", "unknown"]));
    told.sort_by_key(|effect| stops.iter().position(|stop| stop == effect));
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(counts(&bench.figures("a")), [0, 0, 0, 2]);
    assert_eq!(bench.claim("a"), (Err(Miss::Draining), vec![]));
    let (answer, built) = bench.claim("b");
    assert!(answer.is_ok());
    bench.park(&built);
    assert_eq!(bench.tell(&drain(&["a"])), []);
    let again = bench.tell(&drain(&[]));
    assert_eq!(again.len(), 2, "{again:?}");
}

#[test]
fn an_agent_that_is_removed_has_no_workers_and_a_reason() {
    let mut bench = Bench::warm(config(&[("a", 1, 3), ("b", 1, 3)]));
    bench.load(0, GROW_WAITING_COUNT);
    assert_eq!(bench.claim("a").1, [start(3, "a"), start(4, "a")]);
    let reason = "é".repeat(FAILURE_TEXT_BYTES_MAX);
    let told = Event::AgentUnavailable { agent: agent("a"), reason: reason.clone() };
    let stops = [stop(3, StopReason::Unavailable), stop(4, StopReason::Unavailable)];
    assert_eq!(bench.tell(&told), stops);
    let figures = bench.figures("a");
    assert_eq!(figures.unavailable.as_deref(), Some(&reason[..FAILURE_TEXT_BYTES_MAX]));
    assert_eq!((figures.target, counts(&figures)), (1, [0, 0, 1, 2]));
    assert_eq!(bench.tell(&told), []);
    assert_eq!(counts(&bench.figures("b")), [0, 1, 0, 0]);
    assert_eq!(bench.figures("b").unavailable, None);
    assert_eq!(bench.tell(&ready("a", 1)), [start(5, "a")]);
    assert_eq!(bench.tell(&ready("stranger", 1)), []);
}

#[test]
fn what_was_made_of_something_else_is_replaced() {
    let mut bench = Bench::warm(config(&[("a", 2, 2)]));
    assert!(bench.claim("a").0.is_ok());
    assert_eq!(bench.tell(&ready("a", 1)), []);
    let effects =
        [stop(3, StopReason::Changed), stop(1, StopReason::Changed), start(4, "a"), start(5, "a")];
    assert_eq!(bench.tell(&ready("a", 2)), effects);
    assert_eq!(counts(&bench.figures("a")), [2, 0, 1, 2]);
    assert_eq!(bench.figures("a").builds_failed, 0);
}

#[test]
fn idle_workers_are_looked_at_in_turns() {
    let mut bench = Bench::warm(config(&[("a", 5, 5), ("b", 5, 5)]));
    let checked = |effects: Vec<Effect>| {
        let worker = |effect| match effect {
            Effect::Check { worker } => worker,
            other => panic!("{other:?}"),
        };
        effects.into_iter().map(worker).collect::<Vec<_>>()
    };
    assert_eq!(bench.after(CHECK_SECONDS * 1_000 - 1), []);
    assert_eq!(bench.pool.wake_at(), Some(bench.now.plus_millis(1)));
    let first = checked(bench.after(1));
    assert_eq!(first.len(), CHECKS_PER_TICK_MAX);
    assert_eq!(bench.pool.wake_at(), Some(bench.now));
    let second = checked(bench.after(0));
    assert_eq!(second.len(), 10 - CHECKS_PER_TICK_MAX);
    assert!(second.iter().all(|worker| !first.contains(worker)));
    assert_eq!(bench.after(CHECK_SECONDS * 1_000 - 1), []);
    assert_eq!(checked(bench.after(1)), first);
    // Only a tick asks for looks.
    bench.now = bench.now.plus_millis(CHECK_SECONDS * 1_000);
    assert_eq!(bench.load(0, 0), []);
    assert_eq!(checked(bench.after(0))[..2], second);
    for worker in first.iter().chain(&second) {
        assert_eq!(bench.tell(&Event::HealthPassed { worker: *worker }), []);
    }
    assert_eq!(bench.figures("a").idle, 5);
}

#[test]
fn old_workers_are_replaced_one_by_one() {
    let mut bench = Bench::warm(config(&[("a", 2, 2), ("b", 0, 0)]));
    let age = AGE_SECONDS_DEFAULT * 1_000;
    bench.now = bench.now.plus_millis(age - 2);
    bench.tell(&Event::Tick);
    assert_eq!(bench.after(1), []);
    assert_eq!(bench.pool.wake_at(), Some(bench.now.plus_millis(1)));
    assert_eq!(bench.after(1), [stop(1, StopReason::TooOld), start(3, "a")]);
    assert_eq!(bench.after(1), []);
    assert_eq!(bench.end(1), []);
    assert_eq!(bench.figures("a").target, 2);
    // Not before the first is replaced; not while that is tried in vain.
    assert_eq!(bench.fail(3), []);
    assert_eq!(bench.after(1), []);
    assert_eq!(bench.after(BACKOFF_MILLIS_FIRST - 1), [start(4, "a")]);
    let replaced = [stop(2, StopReason::TooOld), start(5, "a")];
    assert_eq!(bench.tell(&Event::Started { worker: worker(4) }), replaced);
    assert_eq!(counts(&bench.figures("a")), [1, 1, 0, 1]);
}

#[test]
fn no_more_are_replaced_at_once_than_can_be_built() {
    let names = [("a", 1, 1), ("b", 1, 1), ("c", 1, 1)];
    let mut bench = Bench::warm(PoolConfig { builds_max: 2, ..config(&names) });
    let stops = |effects: &[Effect]| {
        let old = |effect: &&Effect| matches!(effect, Effect::Stop { why: StopReason::TooOld, .. });
        effects.iter().filter(old).count()
    };
    let due = bench.now.plus_millis(AGE_SECONDS_DEFAULT * 1_000);
    bench.now = due;
    let effects = bench.tell(&Event::Tick);
    assert_eq!((stops(&effects), counts(&bench.figures("c"))), (2, [0, 1, 0, 0]));
    // The third waits for one of them, and no timer runs for it meanwhile.
    assert!(bench.pool.wake_at().unwrap() > due);
    let effects = bench.tell(&Event::Started { worker: worker(4) });
    assert_eq!((stops(&effects), counts(&bench.figures("c"))), (1, [1, 0, 0, 1]));
    // What is wanted anyway comes first, and no more than it is kept back for it.
    let mut bench =
        Bench::warm(PoolConfig { builds_max: 2, ..config(&[("a", 1, 1), ("b", 2, 2)]) });
    bench.now = bench.now.plus_millis(AGE_SECONDS_DEFAULT * 1_000);
    let (answer, effects) = bench.claim("b");
    assert!(answer.is_ok());
    assert_eq!((stops(&effects), counts(&bench.figures("a"))), (1, [1, 0, 0, 1]));
    assert_eq!(counts(&bench.figures("b")), [1, 1, 1, 0]);
}

#[test]
fn workers_that_will_not_end_stop_the_making_of_others() {
    let mut bench = Bench::warm(config(&[("a", 1, 1)]));
    let mut made = 1;
    for _ in 0..STOPPING_COUNT_MAX {
        let effects = bench.tell(&ready("a", made + 1));
        assert_eq!(effects[0], stop(made, StopReason::Changed));
        made += 1;
        let more = effects.contains(&start(made, "a"));
        assert_eq!(more, made <= u64::from(STOPPING_COUNT_MAX));
    }
    assert_eq!(bench.figures("a").stopping, STOPPING_COUNT_MAX);
    assert_eq!(bench.after(STOP_AGAIN_SECONDS * 1_000).len(), STOPPING_COUNT_MAX as usize);
    assert_eq!(bench.end(1), [start(made, "a")]);
}

fn found(serial: u64, name: &str, age_millis: u64, now: Timestamp) -> Found {
    Found {
        worker: WorkerId::new(1, serial),
        agent: agent(name),
        tier: Tier::Fast,
        fingerprint: Fingerprint(1),
        made_at: Timestamp::from_millis(now.as_millis() - age_millis),
    }
}

fn not_adopted(found: &Found) -> Effect {
    Effect::Stop { worker: found.worker, why: StopReason::NotAdopted }
}

#[test]
fn what_an_earlier_server_left_goes_on_if_it_can() {
    let mut bench = Bench::new(config(&[("a", 1, 3), ("b", 1, 1)]));
    let (now, age) = (bench.now, AGE_SECONDS_DEFAULT * 1_000);
    let good = [found(1, "a", age - 1, now), found(2, "a", 0, now), found(3, "a", 0, now)];
    let bad = [
        found(4, "a", 0, now),
        found(5, "b", age, now),
        found(6, "stranger", 0, now),
        Found { tier: Tier::Balanced, ..found(7, "b", 0, now) },
        Found { fingerprint: Fingerprint(2), ..found(8, "b", 0, now) },
        Found { worker: worker(9), ..found(9, "b", 0, now) },
    ];
    let all: Vec<_> = good.iter().chain(&bad).cloned().collect();
    let mut expected: Vec<_> = bad.iter().map(not_adopted).collect();
    expected.push(start(1, "b"));
    assert_eq!(bench.tell(&Event::Recovered(all)), expected);
    assert_eq!((bench.figures("a").target, counts(&bench.figures("a"))), (3, [0, 3, 0, 0]));
    let (answer, effects) = bench.claim("a");
    assert_eq!(answer, Ok(WorkerId::new(1, 3)));
    bench.park(&effects);
    // One that is told of again is not taken up again, neither while it is known nor after it is gone.
    assert_eq!(bench.tell(&Event::Recovered(vec![good[2].clone()])), []);
    bench.tell(&Event::WorkerEnded { worker: good[2].worker, reason: "done".into() });
    let again = bench.tell(&Event::Recovered(vec![good[2].clone()]));
    assert_eq!(again, [not_adopted(&good[2])]);
    // Its age goes on from where it was.
    let too_old = Effect::Stop { worker: good[0].worker, why: StopReason::TooOld };
    assert_eq!(bench.after(0), []);
    assert_eq!(bench.after(1)[0], too_old);
}

#[test]
fn nothing_is_adopted_beyond_the_total_or_into_a_drained_pool() {
    let narrow = PoolConfig { warm_max: 3, ..config(&[("a", 1, 9), ("b", 2, 2)]) };
    let mut bench = Bench::new(narrow.clone());
    let left = |bench: &Bench| vec![found(1, "a", 0, bench.now), found(2, "a", 0, bench.now)];
    let all = left(&bench);
    let expected = [not_adopted(&all[1]), start(1, "b"), start(2, "b")];
    assert_eq!(bench.tell(&Event::Recovered(all)), expected);
    let mut bench = Bench::new(narrow.clone());
    bench.tell(&Event::Drain);
    let all = left(&bench);
    let expected = [not_adopted(&all[0]), not_adopted(&all[1])];
    assert_eq!(bench.tell(&Event::Recovered(all)), expected);
    // An agent that was not said to be ready has nothing to go on with.
    let mut pool = Pool::new(narrow, EPOCH).unwrap();
    let all = left(&bench);
    let effects = pool.step(&Event::Recovered(all.clone()), bench.now);
    assert_eq!(effects, [not_adopted(&all[0]), not_adopted(&all[1])]);
}

#[test]
fn sizes_come_from_the_operator_then_the_stage_then_the_design() {
    let of = |name: &str, stage| {
        let sizes = AgentSizes::default_of(&agent(name), Tier::Fast, stage);
        assert_eq!((sizes.tier, sizes.warm_seconds), (Tier::Fast, WARM_SECONDS_DEFAULT));
        (sizes.min, sizes.max)
    };
    assert_eq!(["claude", "codex"].map(|name| of(name, None)), [(2, 5); 2]);
    assert_eq!(["gemini", "aider", "grok"].map(|name| of(name, None)), [(1, 3); 3]);
    assert_eq!(of("own", None), (1, 1));
    assert_eq!(Stage::ALL.map(|stage| of("claude", Some(stage))), [(1, 1), (2, 5), (5, 10)]);
    assert_eq!(Stage::ALL.map(Stage::as_str), ["dev", "staging", "prod"]);
    let base = sizes(2, 5);
    let asked = |min, max, warm_seconds| base.resolve(AskedSizes { min, max, warm_seconds });
    assert_eq!(asked(None, None, None), base);
    assert_eq!(asked(Some(7), None, None), sizes(7, 7));
    assert_eq!(asked(None, Some(1), None), sizes(1, 1));
    assert_eq!(asked(None, Some(0), None), sizes(0, 0));
    assert_eq!(asked(Some(1), Some(9), Some(5)), AgentSizes { warm_seconds: 5, ..sizes(1, 9) });
}

#[test]
fn a_configuration_beyond_its_bounds_is_refused() {
    let base = config(&[("a", 2, 5), ("b", 3, 5)]);
    assert_eq!((base.warm_max, base.age_seconds), (WARM_COUNT_DEFAULT, AGE_SECONDS_DEFAULT));
    assert_eq!(PoolConfig::of(base.agents.clone()).builds_max, BUILDS_COUNT_DEFAULT);
    assert_eq!(config(&[("a", 6, 6), ("b", 6, 6)]).warm_max, 12);
    assert_eq!(config(&[("a", 50, 50), ("b", 50, 50)]).warm_max, WARM_COUNT_MAX);
    let refused = |config: PoolConfig| config.check().unwrap_err();
    let total = |warm_max| PoolConfig { warm_max, ..base.clone() };
    assert_eq!([5, WARM_COUNT_MAX].map(|most| total(most).check()), [Ok(()), Ok(())]);
    assert_eq!(refused(total(4)), BadPoolConfig::Minima { minima: 5, total: 4 });
    assert_eq!(refused(total(WARM_COUNT_MAX + 1)), BadPoolConfig::Total(WARM_COUNT_MAX + 1));
    let builds = |builds_max| PoolConfig { builds_max, ..base.clone() };
    assert_eq!([1, BUILDS_COUNT_MAX].map(|most| builds(most).check()), [Ok(()), Ok(())]);
    assert_eq!(refused(builds(0)), BadPoolConfig::Builds(0));
    assert_eq!(refused(builds(BUILDS_COUNT_MAX + 1)), BadPoolConfig::Builds(BUILDS_COUNT_MAX + 1));
    let age = |age_seconds| PoolConfig { age_seconds, ..base.clone() };
    assert_eq!([AGE_SECONDS_MIN, AGE_SECONDS_MAX].map(|s| age(s).check()), [Ok(()), Ok(())]);
    assert_eq!(refused(age(AGE_SECONDS_MIN - 1)), BadPoolConfig::Age(AGE_SECONDS_MIN - 1));
    assert_eq!(refused(age(AGE_SECONDS_MAX + 1)), BadPoolConfig::Age(AGE_SECONDS_MAX + 1));
    let warm = |warm_seconds| {
        let mut config = base.clone();
        config.agents.insert(agent("a"), AgentSizes { warm_seconds, ..sizes(1, 1) });
        config
    };
    assert_eq!([1, WARM_SECONDS_MAX].map(|seconds| warm(seconds).check()), [Ok(()), Ok(())]);
    for seconds in [0, WARM_SECONDS_MAX + 1] {
        assert_eq!(refused(warm(seconds)), BadPoolConfig::Warm { agent: agent("a"), seconds });
    }
    for (min, max) in [(3, 2), (0, WARM_COUNT_MAX + 1)] {
        let error = BadPoolConfig::Sizes { agent: agent("a"), min, max };
        assert_eq!(refused(config(&[("a", min, max)])), error);
    }
    let many = |count: usize| {
        let agents = (0..count).map(|n| (agent(&format!("a{n}")), sizes(0, 1)));
        PoolConfig::of(agents.collect())
    };
    assert_eq!(many(AGENTS_COUNT_MAX).check(), Ok(()));
    assert_eq!(refused(many(AGENTS_COUNT_MAX + 1)), BadPoolConfig::Agents(AGENTS_COUNT_MAX + 1));
    assert!(Pool::new(total(4), EPOCH).is_err());
    assert_eq!(WARM_SECONDS, base.agents[&agent("a")].warm_seconds);
}

#[test]
fn the_id_of_a_worker_is_written_in_one_way() {
    let id = WorkerId::new(0xabc, 12);
    assert_eq!(id.to_string(), "0000000000000abc-12");
    assert_eq!(("0000000000000abc-12".parse(), id.epoch()), (Ok(id), 0xabc));
    for bad in [
        "",
        "abc-12",
        "0000000000000ABC-12",
        "0000000000000abc-012",
        "0000000000000abc",
        "0000000000000abc-",
        "-12",
        "+000000000000abc-12",
        "0000000000000abc-12-1",
    ] {
        assert!(bad.parse::<WorkerId>().is_err(), "{bad}");
    }
    assert!(WorkerId::new(1, 2) < WorkerId::new(1, 3) && WorkerId::new(1, 3) < WorkerId::new(2, 1));
}
