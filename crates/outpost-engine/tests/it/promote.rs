//! Promotions through the engine on the real store, with real git and a stand-in of the code host: one branch
//! and one pull request, however often it is asked for and wherever it is cut off; the token is nowhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use outpost_core::{Dispatch, Event, Limits, RetentionRules};
use outpost_engine::{Engine, EngineApi, EngineConfig, KeyFile, Machine, Secrets};
use outpost_gateway::hooks::HookClient;
use outpost_promote::{ForgeHost, ForgeKind, Promoter, PromoterConfig};
use outpost_store::conformance::sample;
use outpost_store::{AuditRange, SqliteOptions, SqliteStore, Store};
use outpost_types::{
    Api as _, Caller, DispatchId, DispatchRequest, ErrorCode, KeyId, PromoteApi as _,
    PromoteRequest, PromotionStatus, PutSecret, Scope, SecretValue, TenantId,
};
use outpost_workspace::{CACHE_BYTES_MAX_DEFAULT, PersistentConfig, Workspaces, WorkspacesConfig};

use crate::puppet::Puppet;
use crate::standin::{Fault, Standin, TOKEN};

/// Longest wait for anything. Reaching it is a failure, never a pace.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    pub(crate) host: Standin,
    dir: tempfile::TempDir,
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) engine: Engine,
    pub(crate) puppet: Arc<Puppet>,
    pub(crate) api: EngineApi,
}

impl Scene {
    /// An engine whose tenant has the code host's token as a secret.
    pub(crate) async fn new() -> Self {
        let scene = Self::without_token().await;
        let value = SecretValue::new(TOKEN.into());
        let put = PutSecret { value, kind: None, scope: None };
        scene.api.put_secret("GITHUB_TOKEN".parse().unwrap(), put).await.unwrap();
        scene
    }

    async fn without_token() -> Self {
        let (host, dir) = (Standin::start(), tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let options = SqliteOptions::new(dir.path().join("data"), 7);
        let store = Arc::new(SqliteStore::open(&options).unwrap());
        let puppet = Puppet::new();
        let engine = open(dir.path(), &store, &host, &puppet).await;
        let api = engine.api(Arc::new(caller("local")));
        Self { host, dir, store, engine, puppet, api }
    }

    /// Another server on the same records; what the one before did not finish is taken up.
    pub(crate) async fn next(self) -> Self {
        self.engine.leave().await;
        let puppet = Puppet::new();
        let engine = open(self.dir.path(), &self.store, &self.host, &puppet).await;
        let api = engine.api(Arc::new(caller("local")));
        Self { engine, puppet, api, ..self }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A dispatch that has ended and wrote this file.
    pub(crate) async fn ended(&self, serial: u64, file: &str) -> DispatchId {
        self.ended_with(serial, file, "1\n2\n4\n").await
    }

    /// The same with this text.
    async fn ended_with(&self, serial: u64, file: &str, text: &str) -> DispatchId {
        let id = DispatchId::from_parts(serial, 0);
        let kept = self.data().join("dispatches").join(id.to_string());
        let (base, _) = self.host.changes(&kept, file, text);
        self.record(serial, &base).await.id
    }

    async fn record(&self, serial: u64, base: &str) -> Dispatch {
        let request = DispatchRequest { repo: Some("octo/hello".into()), ..sample::request() };
        let mut record = sample::dispatch(serial, "local", request);
        self.store_new(&record).await;
        for mut event in sample::good_run(record.id) {
            if let Event::AgentStarted { prepared, .. } = &mut event {
                prepared.branch = Some("main".into());
                prepared.base_commit = Some(base.to_owned());
            }
            let next = sample::after(&record, &event);
            let entry = sample::audit(&next, "step");
            self.update(&next, record.generation, entry).await;
            record = next;
        }
        record
    }

    async fn store_new(&self, record: &Dispatch) {
        use outpost_store::Dispatches as _;
        self.store.accept(sample::accept_of(record.clone())).await.unwrap();
    }

    async fn update(&self, next: &Dispatch, expected: u64, entry: outpost_store::AuditEntry) {
        use outpost_store::Dispatches as _;
        self.store.update(next, expected, entry).await.unwrap();
    }

    pub(crate) async fn actions(&self) -> Vec<(String, String)> {
        use outpost_store::Audits as _;
        let rows = self.store.audit(AuditRange { after: 0, limit: 1_000 }).await.unwrap();
        rows.into_iter().map(|row| (row.action, row.detail)).collect()
    }
}

async fn open(
    dir: &Path,
    store: &Arc<SqliteStore>,
    host: &Standin,
    puppet: &Arc<Puppet>,
) -> Engine {
    let data_dir = dir.join("data");
    let store: Arc<dyn Store> = Arc::<SqliteStore>::clone(store);
    let file = KeyFile::new(dir.join("secrets.key"), data_dir.clone());
    let secrets = Secrets::new(Arc::clone(&store), Some(file), Arc::new(Machine));
    let limits = Limits {
        host_attempts_max: 1,
        tenant_attempts_max: None,
        tenant_attempts_max_of: Default::default(),
        agent_attempts_max_default: 1,
        agent_attempts_max: Default::default(),
    };
    let config = EngineConfig {
        data_dir: data_dir.clone(),
        limits,
        waiting_count_max: 10,
        secrets: Arc::new(secrets),
        retention: RetentionRules::default(),
        hooks: HookClient::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap(),
    };
    let runner = Arc::<Puppet>::clone(puppet);
    let engine = Engine::open(config, store, runner, Arc::new(Machine)).await.unwrap();
    engine.promote_with(promoter(dir, host)).await.unwrap();
    engine
}

fn promoter(dir: &Path, host: &Standin) -> Promoter {
    let forge = ForgeHost::new(&host.name(), ForgeKind::Github, Some(&host.api()), None).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let git = std::env::split_paths(&path).map(|dir| dir.join("git")).find(|git| git.is_file());
    let workspaces = Workspaces::new(WorkspacesConfig {
        cache_dir: dir.join("data/repos"),
        allow_local: true,
        github_base: format!("http://{}", host.address),
        repo_bytes_max: 1 << 30,
        cache_bytes_max: CACHE_BYTES_MAX_DEFAULT,
        persistent: PersistentConfig {
            dir: dir.join("data/workspaces"),
            bytes_max: 1 << 30,
            idle_seconds_max: 60,
        },
        git: git.unwrap(),
        token: None,
    });
    let config = PromoterConfig {
        dir: dir.join("data/promotions"),
        forges: vec![forge],
        tokens: Vec::new(),
        clone_bytes_max: 1 << 30,
        poll_millis: 20,
    };
    Promoter::new(config, workspaces.unwrap()).unwrap()
}

fn caller(tenant: &str) -> Caller {
    let scopes = [Scope::Admin].into();
    Caller { tenant: tenant.parse().unwrap(), key: KeyId::from_parts(1, 1), scopes }
}

#[tokio::test]
async fn a_dispatch_becomes_one_branch_and_one_pull_request_however_often_it_is_asked_for() {
    let scene = Scene::new().await;
    let id = scene.ended(1, "calc.txt").await;
    let ask = || scene.api.promote(PromoteRequest::of(id), Some(PATIENCE));
    let (first, second) = tokio::join!(ask(), ask());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.replayed != second.replayed, "one of them began it");
    assert_eq!(first.promotion, second.promotion);
    let view = first.promotion;
    assert_eq!(view.status, PromotionStatus::Done, "{view:?}");
    assert_eq!(view.pull_request.as_ref().unwrap().number, 1);
    assert!(view.branch.starts_with("outpost/fix-the-failing-test-"), "{}", view.branch);
    assert_eq!(scene.host.branch(&view.branch), view.commit);
    assert_eq!((view.behind_by, view.target_branch.as_deref()), (Some(0), Some("main")));
    let third = ask().await.unwrap();
    assert!(third.replayed && third.promotion == view);
    let pulls = scene.host.pulls();
    assert_eq!(pulls.len(), 1);
    let asked = &pulls[0]["asked"];
    assert_eq!((asked["draft"].as_bool(), asked["base"].as_str()), (Some(true), Some("main")));
    assert!(asked["body"].as_str().unwrap().contains("Fix the failing test"));
    let other = PromoteRequest { branch: Some("other".into()), ..PromoteRequest::of(id) };
    let refused = scene.api.promote(other, None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyPromoted);
    // Another tenant learns nothing of it.
    let stranger = scene.engine.api(Arc::new(caller("acme")));
    for refused in [
        stranger.promote(PromoteRequest::of(id), None).await.map(|_| ()),
        stranger.promotion(id, None).await.map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn the_use_of_the_token_is_on_record_before_it_is_used_and_the_token_is_nowhere() {
    let scene = Scene::new().await;
    let id = scene.ended(1, "calc.txt").await;
    let done = scene.api.promote(PromoteRequest::of(id), Some(PATIENCE)).await.unwrap();
    assert_eq!(done.promotion.status, PromotionStatus::Done, "{done:?}");
    let actions = scene.actions().await;
    let at = |wanted: &str| actions.iter().position(|(action, _)| action == wanted).unwrap();
    assert!(at("promotion.requested") < at("secret.used"));
    assert!(at("secret.used") < at("promotion.credential"));
    assert!(at("promotion.credential") < at("promotion.changed"));
    let used = &actions[at("secret.used")].1;
    assert!(used.contains("\"purpose\":\"forge\"") && used.contains(&id.to_string()), "{used}");
    let states: Vec<_> = actions
        .iter()
        .filter(|(action, _)| action == "promotion.changed")
        .map(|(_, detail)| serde_json::from_str::<serde_json::Value>(detail).unwrap()["to"].clone())
        .collect();
    assert_eq!(states, ["PREPARED", "PUSHING", "PUSHED", "OPENING", "DONE"]);
    for file in walk(&scene.data()) {
        let bytes = std::fs::read(&file).unwrap();
        let has = bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        assert!(!has, "the token is in {}", file.display());
    }
    assert!(walk(&scene.data().join("promotions")).is_empty(), "no clone is left");
    assert!(!format!("{:?}{done:?}", scene.engine).contains(TOKEN));
}

#[tokio::test]
async fn a_crash_between_pull_request_and_record_opens_no_second_one() {
    let scene = Scene::new().await;
    let id = scene.ended(1, "calc.txt").await;
    scene.host.fail_with(Fault::OpenAndFallSilent);
    scene.api.promote(PromoteRequest::of(id), None).await.unwrap();
    until(|| scene.host.pulls().len() == 1).await;
    let before = scene.api.promotion(id, None).await.unwrap();
    assert_eq!((before.status, before.pull_request), (PromotionStatus::Opening, None));
    let scene = scene.next().await;
    let after = scene.api.promotion(id, Some(PATIENCE)).await.unwrap();
    assert_eq!(after.status, PromotionStatus::Done, "{after:?}");
    assert_eq!(after.pull_request.unwrap().number, 1);
    assert_eq!(scene.host.pulls().len(), 1);
}

#[tokio::test]
async fn a_crash_between_push_and_record_pushes_no_second_time() {
    let scene = Scene::new().await;
    let id = scene.ended(1, "calc.txt").await;
    scene.host.fail_with(Fault::PushAndFallSilent);
    let begun = scene.api.promote(PromoteRequest::of(id), None).await.unwrap().promotion;
    until(|| scene.host.branch(&begun.branch).is_some()).await;
    let before = scene.api.promotion(id, None).await.unwrap();
    assert_eq!(before.status, PromotionStatus::Pushing);
    // The target has moved on since in a way that conflicts: what is pushed stays so.
    scene.host.move_on("calc.txt", "9\n");
    let scene = scene.next().await;
    let after = scene.api.promotion(id, Some(PATIENCE)).await.unwrap();
    assert_eq!(after.status, PromotionStatus::Done, "{after:?}");
    let pushes =
        scene.host.asked().iter().filter(|line| line.ends_with("git-receive-pack")).count();
    assert_eq!((pushes, scene.host.pulls().len()), (1, 1));
}

#[tokio::test]
async fn one_that_failed_goes_on_when_it_is_asked_for_again() {
    let scene = Scene::new().await;
    let id = scene.ended(1, ".github/workflows/ci.yml").await;
    let refused = scene.api.promote(PromoteRequest::of(id), Some(PATIENCE)).await.unwrap();
    let failure = refused.promotion.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::ProtectedPaths, "{failure:?}");
    let again = scene.api.promote(PromoteRequest::of(id), Some(PATIENCE)).await.unwrap();
    assert!(!again.replayed && again.promotion.status == PromotionStatus::Failed);
    // Pushed, and the pull request refused: only that is asked for anew.
    scene.host.fail_with(Fault::Api(403, Vec::new(), "no"));
    let allowed = PromoteRequest { allow_protected: Some(true), ..PromoteRequest::of(id) };
    let pushed = scene.api.promote(allowed.clone(), Some(PATIENCE)).await.unwrap().promotion;
    assert_eq!(pushed.failure.unwrap().code, ErrorCode::ForgeForbidden);
    assert_eq!(scene.host.branch(&pushed.branch), pushed.commit);
    let other = PromoteRequest { branch: Some("other".into()), ..allowed.clone() };
    let refused = scene.api.promote(other, None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyPromoted);
    let ready = PromoteRequest { draft: Some(false), ..allowed };
    let done = scene.api.promote(ready, Some(PATIENCE)).await.unwrap().promotion;
    assert_eq!(done.status, PromotionStatus::Done, "{done:?}");
    assert_eq!(done.protected_paths, [".github/workflows/ci.yml"]);
    let asked = scene.host.pulls()[0]["asked"].clone();
    assert_eq!(asked["draft"], false);
    assert!(asked["body"].as_str().unwrap().contains("`.github/workflows/ci.yml`"), "{asked}");
}

#[tokio::test]
async fn a_secret_is_pushed_only_when_somebody_says_so_and_that_is_on_record() {
    let value = concat!("ghp_", "0123456789abcdefghij0123456789ABCDEF");
    let scene = Scene::new().await;
    let id = scene.ended_with(1, "dev.env", &format!("TOKEN={value}\n")).await;
    let refused = scene.api.promote(PromoteRequest::of(id), Some(PATIENCE)).await.unwrap();
    let failure = refused.promotion.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::SecretsFound, "{failure:?}");
    let allowed = PromoteRequest { allow_secrets: Some(true), ..PromoteRequest::of(id) };
    let done = scene.api.promote(allowed, Some(PATIENCE)).await.unwrap().promotion;
    assert_eq!(done.status, PromotionStatus::Done, "{done:?}");
    let actions = scene.actions().await;
    assert!(actions.iter().any(|(_, detail)| detail.contains("\"allowSecrets\":true")));
    assert!(actions.iter().all(|(_, detail)| !detail.contains(value)));
}

#[tokio::test]
async fn a_limit_of_the_host_is_waited_for() {
    let scene = Scene::new().await;
    let id = scene.ended(1, "calc.txt").await;
    scene.host.fail_with(Fault::Api(429, vec![("Retry-After", "1")], "slow down"));
    let done = scene.api.promote(PromoteRequest::of(id), Some(PATIENCE)).await.unwrap().promotion;
    assert_eq!(done.status, PromotionStatus::Done, "{done:?}");
    assert!(done.notes[0].contains("no more requests"), "{:?}", done.notes);
}

#[tokio::test]
async fn what_cannot_be_promoted_is_refused_at_once() {
    let scene = Scene::without_token().await;
    let code =
        async |request: PromoteRequest| scene.api.promote(request, None).await.unwrap_err().code;
    let running = sample::dispatch(9, "local", sample::request());
    scene.store_new(&running).await;
    assert_eq!(code(PromoteRequest::of(running.id)).await, ErrorCode::NotFinished);
    let unchanged = scene.record(8, &"b".repeat(40)).await.id;
    assert_eq!(code(PromoteRequest::of(unchanged)).await, ErrorCode::NothingToPromote);
    let id = scene.ended(1, "calc.txt").await;
    assert_eq!(code(PromoteRequest::of(id)).await, ErrorCode::ForgeCredentials);
    for (field, request) in [
        ("branch", PromoteRequest { branch: Some("-x".into()), ..PromoteRequest::of(id) }),
        ("title", PromoteRequest { title: Some("a\nb".into()), ..PromoteRequest::of(id) }),
    ] {
        let refused = scene.api.promote(request, None).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field));
    }
    let unknown = PromoteRequest::of(DispatchId::from_parts(77, 7));
    assert_eq!(code(unknown).await, ErrorCode::NotFound);
    assert_eq!(scene.api.promotion(id, None).await.unwrap_err().code, ErrorCode::NotFound);
    assert!(scene.host.asked().is_empty(), "nobody was asked");
    assert!(caller("local").tenant == TenantId::local());
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(walk(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            files.push(entry.path());
        }
    }
    files
}
