//! Every crash point of a promotion, against a code host that forgets nothing.

use std::collections::{HashSet, VecDeque};

use outpost_types::{
    DispatchId, ErrorCode, KeyId, PromotionFailure, PromotionStatus, PullRequestView, TenantId,
    Timestamp,
};

use super::*;

const COMMIT: &str = "cccccccccccccccccccccccccccccccccccccccc";

fn plan() -> PromotionPlan {
    PromotionPlan {
        repo: "https://github.com/o/r.git".into(),
        target: Some("main".into()),
        base_commit: "b".repeat(40),
        branch: "outpost/fix-1".into(),
        title: "Fix".into(),
        body: None,
        draft: true,
        allow_protected: false,
        allow_secrets: false,
        feedback: None,
    }
}

fn begun() -> Promotion {
    let (id, key) = (DispatchId::from_parts(1, 1), KeyId::from_parts(2, 2));
    Promotion::new(id, TenantId::local(), key, plan(), Timestamp::from_millis(1))
}

fn checked() -> CheckedFacts {
    CheckedFacts { target_branch: "main".into(), commit: COMMIT.into(), ..CheckedFacts::default() }
}

fn failure() -> PromotionFailure {
    PromotionFailure::new(ErrorCode::ForgeUnavailable, "It does not answer.")
}

/// What the code host holds. Like the real ones it takes one open pull request of a branch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Host {
    branch: Option<String>,
    pulls: u64,
}

impl Host {
    fn push(&mut self, expected: Option<&str>) -> bool {
        let lease_holds = self.branch.as_deref() == expected;
        if lease_holds {
            self.branch = Some(COMMIT.into());
        }
        lease_holds || self.branch.as_deref() == Some(COMMIT)
    }

    fn open(&mut self) -> PullRequestView {
        // Looked for before, and a duplicate is refused and looked for again: both end here.
        self.pulls = self.pulls.max(1);
        PullRequestView { number: 1, url: "https://github.com/o/r/pull/1".into() }
    }
}

/// One driver: the epoch it holds, and what it did that it has not reported.
type Driver = (u32, Option<&'static str>);

#[derive(Debug, Clone, PartialEq)]
struct Node {
    record: Promotion,
    host: Host,
    drivers: Vec<Driver>,
    crashes: u32,
}

impl Node {
    fn key(&self) -> String {
        let Self { record, host, drivers, crashes } = self;
        format!("{:?}{}{}{host:?}{drivers:?}{crashes}", record.state, record.epoch, record.tries)
    }

    fn report(&mut self, driver: usize, event: PromotionEvent) {
        let epoch = self.drivers[driver].0;
        let now = Timestamp::from_millis(9);
        if let Ok(next) = promote_step(&self.record, event, Some(epoch), now) {
            assert_eq!(next.generation, self.record.generation + 1);
            self.record = next;
        }
        self.drivers[driver].1 = None;
    }

    /// What a driver does next: first its effect at the host, then, as a step of its own, its report.
    fn drive(&mut self, driver: usize) {
        let (epoch, unreported) = self.drivers[driver];
        match unreported {
            Some("checked") => self.report(driver, PromotionEvent::Prepared(checked())),
            Some("pushed") => self.report(driver, PromotionEvent::Pushed),
            Some(_) => {
                let pull = self.host.open();
                self.report(driver, PromotionEvent::Opened(pull, None));
            }
            None if epoch != self.record.epoch => {}
            None => match self.record.next_step() {
                PromotionStep::Prepare => self.drivers[driver].1 = Some("checked"),
                PromotionStep::BeginPush => self.report(driver, PromotionEvent::PushBegan),
                PromotionStep::Push => {
                    assert!(self.host.push(self.record.facts.expected.as_deref()), "{self:?}");
                    self.drivers[driver].1 = Some("pushed");
                }
                PromotionStep::BeginOpen => self.report(driver, PromotionEvent::OpenBegan),
                PromotionStep::Open => {
                    self.host.open();
                    self.drivers[driver].1 = Some("opened");
                }
                PromotionStep::Nothing => {}
            },
        }
    }

    /// A new server takes it up; the old driver may be gone, or still at it.
    fn take_up(&mut self, old_lives: bool) {
        let taken =
            promote_step(&self.record, PromotionEvent::TakenUp, None, Timestamp::from_millis(3));
        if let Ok(taken) = taken {
            self.record = taken;
        }
        if !old_lives {
            self.drivers.clear();
        }
        self.drivers.push((self.record.epoch, None));
        self.crashes += 1;
    }
}

#[test]
fn every_crash_at_every_point_ends_in_one_branch_and_one_pull_request() {
    const CRASHES_MAX: u32 = 3;
    let first =
        Node { record: begun(), host: Host::default(), drivers: vec![(1, None)], crashes: 0 };
    let (mut seen, mut ends) = (HashSet::new(), 0);
    let mut waiting = VecDeque::from([first]);
    while let Some(node) = waiting.pop_front() {
        if !seen.insert(node.key()) {
            continue;
        }
        assert!(node.host.pulls <= 1 && node.host.branch.as_deref().is_none_or(|b| b == COMMIT));
        let before = node.record.status();
        // What a client may see is at the host: never more than that, at any instant.
        if matches!(before, PromotionStatus::Pushed | PromotionStatus::Opening) {
            assert_eq!(node.host.branch.as_deref(), Some(COMMIT));
        }
        if before == PromotionStatus::Done {
            assert_eq!((node.host.branch.as_deref(), node.host.pulls), (Some(COMMIT), 1));
            ends += 1;
        }
        for driver in 0..node.drivers.len() {
            let mut next = node.clone();
            next.drive(driver);
            waiting.push_back(next);
        }
        if node.crashes < CRASHES_MAX {
            for old_lives in [false, true] {
                let mut next = node.clone();
                next.take_up(old_lives);
                waiting.push_back(next);
            }
        }
        // Left alone from here, its driver finishes.
        let mut alone = node;
        let last = alone.drivers.len() - 1;
        for _ in 0..16 {
            alone.drive(last);
        }
        assert_eq!(alone.record.status(), PromotionStatus::Done, "{alone:?}");
    }
    assert!(seen.len() > 300 && ends > 10, "{} states, {ends} ends", seen.len());
}

#[test]
fn an_older_driver_changes_nothing() {
    let taken =
        promote_step(&begun(), PromotionEvent::TakenUp, None, Timestamp::from_millis(2)).unwrap();
    assert_eq!(taken.epoch, 2);
    for event in [
        PromotionEvent::Prepared(checked()),
        PromotionEvent::Failed(failure()),
        PromotionEvent::Credential { source: "tenant".into() },
        PromotionEvent::Hindered { failure: failure(), pause_millis: None },
    ] {
        let refused = promote_step(&taken, event, Some(1), Timestamp::from_millis(3));
        assert_eq!(refused, Err(PromotionRejection::StaleEpoch));
    }
}

#[test]
fn nothing_happens_out_of_order_or_after_the_end() {
    let events = [
        PromotionEvent::Prepared(checked()),
        PromotionEvent::PushBegan,
        PromotionEvent::Pushed,
        PromotionEvent::OpenBegan,
        PromotionEvent::Opened(Host::default().open(), None),
    ];
    let mut record = begun();
    for (at, event) in events.iter().enumerate() {
        for (other, wrong) in events.iter().enumerate().filter(|(other, _)| *other != at) {
            let refused = promote_step(&record, wrong.clone(), Some(1), record.updated_at);
            assert_eq!(refused, Err(PromotionRejection::OutOfOrder), "{other} at {at}");
        }
        record = promote_step(&record, event.clone(), Some(1), record.updated_at).unwrap();
    }
    assert_eq!(record.status(), PromotionStatus::Done);
    let more = [PromotionEvent::TakenUp, PromotionEvent::Failed(failure()), PromotionEvent::Pushed];
    for event in more {
        assert!(promote_step(&record, event, None, record.updated_at).is_err());
    }
    let again = PromotionEvent::Again { plan: plan(), by: KeyId::from_parts(3, 3) };
    assert!(promote_step(&record, again, None, record.updated_at).is_err(), "it is done");
}

#[test]
fn tries_are_bounded_and_pause_longer_each_time() {
    let mut record = begun();
    let mut pauses = Vec::new();
    for _ in 0..PROMOTE_TRIES_MAX {
        let now = record.updated_at;
        let event = PromotionEvent::Hindered { failure: failure(), pause_millis: None };
        record = promote_step(&record, event, Some(1), now).unwrap();
        pauses.extend(record.not_before.map(|at| at.as_millis() - now.as_millis()));
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000]);
    assert_eq!(record.status(), PromotionStatus::Failed);
    let asked = PromotionEvent::Hindered { failure: failure(), pause_millis: Some(9_000_000) };
    let long = promote_step(&begun(), asked, Some(1), Timestamp::from_millis(0)).unwrap();
    assert_eq!(long.not_before, Some(Timestamp::from_millis(60_000)));
}

#[test]
fn asking_again_keeps_what_was_pushed() {
    let step = |record: &Promotion, event| {
        promote_step(record, event, None, Timestamp::from_millis(5)).unwrap()
    };
    let again = || PromotionEvent::Again { plan: plan(), by: KeyId::from_parts(3, 3) };
    let early = step(&begun(), PromotionEvent::Failed(failure()));
    let early = step(&early, again());
    assert_eq!((early.status(), early.epoch), (PromotionStatus::Requested, 2));
    let mut late = step(&begun(), PromotionEvent::Prepared(checked()));
    for event in [PromotionEvent::PushBegan, PromotionEvent::Pushed, PromotionEvent::OpenBegan] {
        late = step(&late, event);
    }
    let late = step(&step(&late, PromotionEvent::Failed(failure())), again());
    assert_eq!((late.status(), late.facts.pushed), (PromotionStatus::Pushed, true));
    assert_eq!(late.facts.commit.as_deref(), Some(COMMIT));
}

#[test]
fn the_branch_stays_when_nobody_knows_whether_it_was_pushed() {
    let step = |record: &Promotion, event| {
        promote_step(record, event, None, Timestamp::from_millis(5)).unwrap()
    };
    let mut pushing = step(&begun(), PromotionEvent::Prepared(checked()));
    pushing = step(&pushing, PromotionEvent::PushBegan);
    let refused = step(&pushing, PromotionEvent::Failed(failure()));
    assert!(!refused.keeps_branch() && pushing.keeps_branch());
    for _ in 0..PROMOTE_TRIES_MAX {
        let event = PromotionEvent::Hindered { failure: failure(), pause_millis: None };
        pushing = step(&pushing, event);
    }
    assert_eq!((pushing.status(), pushing.keeps_branch()), (PromotionStatus::Failed, true));
    let by = KeyId::from_parts(3, 3);
    let again = step(&pushing, PromotionEvent::Again { plan: plan(), by });
    assert!(again.facts.may_be_pushed && again.facts.commit.is_none());
    let early = step(&again, PromotionEvent::Failed(failure()));
    assert!(early.keeps_branch(), "the checks do not tell");
}

#[test]
fn names_of_branches() {
    let id: DispatchId = "01J9Z3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    for (task, branch) in [
        ("Fix the build!\nNow.", "outpost/fix-the-build-69g5fav"),
        ("  \n -- ", "outpost/task-69g5fav"),
        ("日本", "outpost/task-69g5fav"),
    ] {
        let made = default_branch(task, id);
        assert!(made.ends_with("q69g5fav") && made.starts_with(&branch[..branch.len() - 7]));
        assert!(is_branch_name(&made), "{made}");
    }
    assert!(is_branch_name(&default_branch(&"word ".repeat(100), id)));
    for good in ["fix", "a/b.c", "é", "outpost/fix-1"] {
        assert!(is_branch_name(good), "{good}");
    }
    let long = "x".repeat(241);
    for bad in [
        "",
        "-a",
        "a/-b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.",
        "a..b",
        "a.lock",
        "a.lock/b",
        "a b",
        "a~",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "@",
        "HEAD",
        "a@{b",
        "a\nb",
        "refs/heads/x",
        "a\u{202e}b",
        &long,
    ] {
        assert!(!is_branch_name(bad), "{bad}");
    }
}
