//! The service over a store in memory and a key file on disk.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use outpost_store::{AuditRange, Audits as _, Envelope, MemoryStore, Secrets as _};
use outpost_types::{
    DispatchId, GivenSecret, KeyId, Provider, SecretError, SecretSource as _, SecretValue,
    WantedSecret,
};

use super::*;
use crate::Machine;

/// Looked for wherever it must not be.
const CANARY: &str = "canary-4711";

struct Scene {
    dir: tempfile::TempDir,
    store: Arc<MemoryStore>,
    secrets: Secrets,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let store = Arc::new(MemoryStore::new());
        let secrets = service(&dir, &store);
        Self { dir, store, secrets }
    }

    /// As after a crash: what was in memory is gone.
    fn next(self) -> Self {
        Self { secrets: service(&self.dir, &self.store), ..self }
    }

    fn key_path(&self) -> PathBuf {
        self.dir.path().join("secrets.key")
    }

    fn key_text(&self) -> String {
        std::fs::read_to_string(self.key_path()).unwrap()
    }

    fn keys_in_file(&self) -> usize {
        self.key_text().lines().filter(|line| !line.starts_with('#')).count()
    }

    async fn put(&self, whose: &str, name: &str, kind: SecretKind, value: &str) -> SecretView {
        let scope = if whose == "*" { SecretScope::Platform } else { SecretScope::Tenant };
        let caller = if whose == "*" { caller("local") } else { caller(whose) };
        let request = PutSecret {
            value: SecretValue::new(value.to_owned()),
            kind: Some(kind),
            scope: Some(scope),
        };
        self.secrets.put(&caller, name.parse().unwrap(), request).await.unwrap()
    }

    async fn exposed(&self, name: &str, version: Option<u64>) -> Result<String, SecretError> {
        let wanted = WantedSecret { name: name.parse().unwrap(), version };
        let given = self.secrets.exposed(&tenant("acme"), dispatch(), &[wanted]).await?;
        Ok(given[0].value.expose().to_owned())
    }

    async fn actions(&self) -> Vec<String> {
        let rows = self.store.audit(AuditRange { after: 0, limit: 1_000 }).await.unwrap();
        assert!(!format!("{rows:?}").contains("canary"), "{rows:?}");
        rows.into_iter()
            .map(|row| format!("{} {} {}", row.action, row.subject, row.detail))
            .collect()
    }

    async fn sealed(&self, name: &str) -> (SecretRecord, SealedSecret) {
        let owner = SecretOwner::Tenant(tenant("acme"));
        self.store.sealed_secret(&owner, &name.parse().unwrap(), None).await.unwrap().unwrap()
    }

    /// Writes a row as somebody could who reached the database.
    async fn forge(&self, record: &SecretRecord, envelope: Envelope) {
        let mut record = record.clone();
        record.version += 1;
        let at = Machine.now();
        let entry = audit::of_secret("secret.set", &record, &tenant("acme"), None, at);
        self.store.put_secret(record, envelope, entry).await.unwrap();
    }
}

fn service(dir: &tempfile::TempDir, store: &Arc<MemoryStore>) -> Secrets {
    let file = KeyFile::new(dir.path().join("secrets.key"), dir.path().join("data"));
    Secrets::new(Arc::clone(store) as Arc<dyn Store>, Some(file), Arc::new(Machine))
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn caller(name: &str) -> Caller {
    Caller { tenant: tenant(name), key: KeyId::from_parts(1, 1), scopes: [Scope::Admin].into() }
}

fn dispatch() -> DispatchId {
    DispatchId::from_parts(7, 7)
}

fn shown(given: &[GivenSecret]) -> Vec<(&str, &str)> {
    given.iter().map(|it| (it.scope.as_str(), it.value.expose())).collect()
}

#[tokio::test]
async fn the_tenants_own_key_comes_first_and_every_use_is_on_record() {
    use SecretKind::Injected;
    let scene = Scene::new();
    scene.put("*", "GROK_API_KEY", Injected, "canary-platform-grok").await;
    scene.put("*", "XAI_API_KEY", Injected, "canary-platform-xai").await;
    scene.put("acme", "GROK_API_KEY", Injected, "canary-acme-grok").await;
    scene.put("other", "XAI_API_KEY", Injected, "canary-other-xai").await;
    let before = scene.actions().await.len();
    let keys = async |whose: &str, provider| {
        scene.secrets.provider_credentials(&tenant(whose), dispatch(), provider).await.unwrap()
    };
    let given = keys("acme", Provider::Xai).await;
    assert_eq!(
        shown(&given),
        [
            ("tenant", "canary-acme-grok"),
            ("platform", "canary-platform-xai"),
            ("platform", "canary-platform-grok"),
        ]
    );
    assert!(keys("acme", Provider::Openai).await.is_empty());
    assert_eq!(keys("nobody", Provider::Xai).await.len(), 2);
    let actions = scene.actions().await;
    assert_eq!(actions.len(), before + 5);
    let first = &actions[before];
    for part in ["secret.used GROK_API_KEY", "gateway", "tenant", &dispatch().to_string()] {
        assert!(first.contains(part), "{first}");
    }
    let views = scene.secrets.list(&caller("acme")).await.unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!((views[0].use_count, views[0].provider), (1, Some(Provider::Xai)));
    assert!(views[0].last_used_at.is_some());
    let platform = scene.secrets.list(&caller("local")).await.unwrap();
    let counts: Vec<_> = platform.iter().map(|view| (view.scope, view.use_count)).collect();
    assert_eq!(counts, [(SecretScope::Platform, 2); 2]);
}

#[tokio::test]
async fn only_what_is_exposed_enters_a_sandbox_and_all_of_it_or_nothing() {
    use SecretKind::{Exposed, Injected};
    let scene = Scene::new();
    scene.put("acme", "TOKEN", Injected, CANARY).await;
    scene.put("acme", "DATABASE_URL", Exposed, "canary\nof two lines").await;
    scene.put("*", "DATABASE_URL", Exposed, "canary-of-all").await;
    scene.put("*", "SHARED", Exposed, "canary-shared").await;
    scene.put("other", "THEIRS", Exposed, "canary-theirs").await;
    let name = |text: &str| text.parse::<SecretName>().unwrap();
    let ask = async |names: &[&str]| {
        let wanted: Vec<_> =
            names.iter().map(|text| WantedSecret { name: name(text), version: None }).collect();
        scene.secrets.exposed(&tenant("acme"), dispatch(), &wanted).await
    };
    let given = ask(&["SHARED", "DATABASE_URL"]).await.unwrap();
    assert_eq!(shown(&given), [("platform", "canary-shared"), ("tenant", "canary\nof two lines")]);
    let before = scene.actions().await.len();
    let refused = [
        ("TOKEN", SecretError::NotExposed { name: name("TOKEN") }),
        ("THEIRS", SecretError::Missing { name: name("THEIRS") }),
        ("NONE", SecretError::Missing { name: name("NONE") }),
    ];
    for (wanted, error) in refused {
        assert_eq!(ask(&["SHARED", wanted]).await, Err(error));
    }
    assert!(ask(&[]).await.unwrap().is_empty());
    assert_eq!(scene.actions().await.len(), before);
    // A provider's key is never exposed, whoever asks for it.
    let request =
        PutSecret { value: SecretValue::new(CANARY.to_owned()), kind: Some(Exposed), scope: None };
    // Nor is what would lead past the gateway's proxy.
    for taken in ["OPENAI_API_KEY", "HTTPS_PROXY"] {
        let put = scene.secrets.put(&caller("acme"), name(taken), request.clone()).await;
        let error = put.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidField, Some("kind")));
    }
}

#[tokio::test]
async fn versions_go_on_and_an_attempt_keeps_the_one_it_had() {
    let scene = Scene::new();
    for version in 1..=6 {
        let view = scene.put("acme", "A", SecretKind::Exposed, &format!("canary-{version}")).await;
        assert_eq!(view.version, version);
    }
    assert_eq!(scene.exposed("A", None).await.unwrap(), "canary-6");
    assert_eq!(scene.exposed("A", Some(3)).await.unwrap(), "canary-3");
    let error = scene.exposed("A", Some(2)).await.unwrap_err();
    assert!(matches!(error, SecretError::Missing { .. }), "{error:?}");
    // The kind stays when it is not said.
    let request = PutSecret { value: SecretValue::new("canary-7".into()), kind: None, scope: None };
    let name: SecretName = "A".parse().unwrap();
    let view = scene.secrets.put(&caller("acme"), name.clone(), request).await.unwrap();
    assert_eq!((view.kind, view.version), (SecretKind::Exposed, 7));
    let removed = scene.secrets.delete(&caller("acme"), &name, SecretScope::Tenant).await.unwrap();
    assert_eq!(removed.version, 7);
    let gone = scene.secrets.delete(&caller("acme"), &name, SecretScope::Tenant).await;
    assert_eq!(gone.unwrap_err().code, ErrorCode::NotFound);
    for version in [None, Some(7)] {
        let error = scene.exposed("A", version).await.unwrap_err();
        assert!(matches!(error, SecretError::Missing { .. }), "{error:?}");
    }
    assert!(scene.actions().await.last().unwrap().starts_with("secret.deleted A"));
}

#[tokio::test]
async fn the_platforms_secrets_are_the_operators() {
    let scene = Scene::new();
    let mut weak = caller("local");
    weak.scopes = [Scope::Dispatch].into();
    for who in [caller("acme"), weak] {
        let request = PutSecret {
            value: SecretValue::new(CANARY.into()),
            kind: None,
            scope: Some(SecretScope::Platform),
        };
        let name: SecretName = "A".parse().unwrap();
        let error = scene.secrets.put(&who, name.clone(), request).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        let error = scene.secrets.delete(&who, &name, SecretScope::Platform).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
        let error = scene.secrets.rekey(&who).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
    }
    assert!(!scene.key_path().exists());
}

#[tokio::test]
async fn tampering_is_found() {
    let scene = Scene::new();
    for name in ["A", "B", "C"] {
        scene.put("acme", name, SecretKind::Exposed, &format!("canary-{name}")).await;
    }
    let (a, sealed_a) = scene.sealed("A").await;
    let (b, sealed_b) = scene.sealed("B").await;
    // The values of two names swapped; the earlier value of a name as its next.
    scene.forge(&a, sealed_b.envelope).await;
    scene.forge(&b, sealed_a.envelope.clone()).await;
    let (c, sealed_c) = scene.sealed("C").await;
    scene.forge(&c, sealed_c.envelope).await;
    for name in ["A", "B", "C"] {
        let error = scene.exposed(name, None).await.unwrap_err();
        let SecretError::Damaged { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("not what was stored"), "{reason}");
    }
    // What was not touched is still good, and a new value heals.
    assert_eq!(scene.exposed("A", Some(1)).await.unwrap(), "canary-A");
    scene.put("acme", "A", SecretKind::Exposed, "canary-new").await;
    assert_eq!(scene.exposed("A", None).await.unwrap(), "canary-new");
    let foreign = KeyRing::of(Zeroizing::new([9; KEY_BYTES]));
    let (a, _) = scene.sealed("A").await;
    let value = SecretValue::new("canary-planted".into());
    let next = SecretRecord { version: a.version + 1, ..a.clone() };
    scene.forge(&a, foreign.seal(&next, &value, [0; NONCE_LEN])).await;
    let error = scene.exposed("A", None).await.unwrap_err();
    assert!(error.to_string().contains("key that is not in the key file"), "{error}");
    assert!(!scene.actions().await.iter().any(|action| action.contains("canary")));
}

#[tokio::test]
async fn a_lost_or_wrong_key_changes_nothing_and_the_right_one_heals() {
    let scene = Scene::new();
    scene.put("acme", "A", SecretKind::Exposed, CANARY).await;
    let right = scene.key_text();
    let mut scene = scene.next();
    let wrong = format!("{}\n", "ab".repeat(32));
    for (text, part) in
        [(None, "is gone"), (Some(&*wrong), "not the one"), (Some("x"), "no key file")]
    {
        std::fs::remove_file(scene.key_path()).unwrap_or_default();
        if let Some(text) = text {
            std::fs::write(scene.key_path(), text).unwrap();
            std::fs::set_permissions(scene.key_path(), Permissions::from_mode(0o600)).unwrap();
        }
        scene = scene.next();
        scene.secrets.settle().await;
        let request =
            || PutSecret { value: SecretValue::new("canary-new".into()), kind: None, scope: None };
        let name: SecretName = "A".parse().unwrap();
        let operator = scene.secrets.put(&caller("local"), name.clone(), request()).await;
        let operator = operator.unwrap_err();
        assert_eq!(operator.code, ErrorCode::SecretsUnavailable);
        assert!(operator.message.contains(part) && operator.hint.is_some(), "{operator:?}");
        // Nobody else learns where files are.
        let other = scene.secrets.put(&caller("acme"), name, request()).await.unwrap_err();
        assert_eq!(other.code, ErrorCode::SecretsUnavailable);
        assert!(!format!("{other:?}").contains("secrets.key"), "{other:?}");
        let error = scene.exposed("A", None).await.unwrap_err();
        assert!(matches!(error, SecretError::Unavailable { .. }), "{error:?}");
        assert!(!error.to_string().contains("secrets.key"), "{error}");
        assert!(scene.secrets.rekey(&caller("local")).await.is_err());
        assert_eq!(std::fs::read_to_string(scene.key_path()).ok().as_deref(), text);
        assert_eq!(scene.secrets.list(&caller("acme")).await.unwrap()[0].version, 1);
        // What needs no secret is not held up.
        let acme = tenant("acme");
        let none = scene.secrets.provider_credentials(&acme, dispatch(), Provider::Xai);
        assert!(none.await.unwrap().is_empty());
    }
    // It was made with mode 0600 by the last round.
    std::fs::write(scene.key_path(), right).unwrap();
    assert_eq!(scene.exposed("A", None).await.unwrap(), CANARY);
}

#[tokio::test]
async fn without_a_place_for_a_key_there_are_no_secrets() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let secrets = Secrets::new(store, None, Arc::new(Machine));
    secrets.settle().await;
    let request = PutSecret { value: SecretValue::new(CANARY.into()), kind: None, scope: None };
    let error = secrets.put(&caller("local"), "A".parse().unwrap(), request).await.unwrap_err();
    assert!(error.message.contains("OUTPOST_SECRETS_KEY_FILE"), "{error:?}");
}

#[tokio::test]
async fn a_rekey_leaves_one_new_key_that_opens_everything() {
    let scene = Scene::new();
    // Nothing there yet: then the first key is made, and replaced.
    scene.secrets.rekey(&caller("local")).await.unwrap();
    scene.put("acme", "A", SecretKind::Exposed, "canary-1").await;
    scene.put("acme", "A", SecretKind::Exposed, "canary-2").await;
    scene.put("other", "A", SecretKind::Exposed, "canary-3").await;
    let before = scene.key_text();
    let done = scene.secrets.rekey(&caller("local")).await.unwrap();
    assert_eq!((done.versions, done.old_key_left), (3, false));
    assert_eq!(scene.keys_in_file(), 1);
    assert_ne!(scene.key_text(), before);
    for scene in [scene.next()] {
        assert_eq!(scene.exposed("A", None).await.unwrap(), "canary-2");
        assert_eq!(scene.exposed("A", Some(1)).await.unwrap(), "canary-1");
        assert!(scene.actions().await.iter().any(|action| action.starts_with("secret.rekeyed")));
        // With the old key nothing opens any more.
        std::fs::write(scene.key_path(), &before).unwrap();
        let scene = scene.next();
        let error = scene.exposed("A", None).await.unwrap_err();
        assert!(matches!(error, SecretError::Unavailable { .. }), "{error:?}");
    }
}

/// A crash after each step of a rekey: everything opens, and the next start finishes.
#[tokio::test]
async fn a_crash_at_any_point_of_a_rekey_loses_nothing() {
    for steps in 0..=2 {
        let scene = Scene::new();
        scene.put("acme", "A", SecretKind::Exposed, "canary-1").await;
        scene.put("acme", "A", SecretKind::Exposed, "canary-2").await;
        let old = scene.key_text();
        if steps > 0 {
            let mut keys = scene.secrets.keys.write().await;
            let ring = scene.secrets.load(&mut keys).await.unwrap();
            let both = scene.secrets.begin_rekey(&mut keys, &ring).unwrap();
            if steps > 1 {
                let entry = audit::of_rekey(None, Machine.now());
                assert_eq!(scene.secrets.reseal(&both, entry).await.unwrap(), 2);
            }
        }
        // Torn next to the file, as a power cut may leave it.
        std::fs::write(scene.dir.path().join("secrets.key.partial"), "ab").unwrap();
        let scene = scene.next();
        for version in [1, 2] {
            let value = scene.exposed("A", Some(version)).await.unwrap();
            assert_eq!(value, format!("canary-{version}"), "after step {steps}");
        }
        let scene = scene.next();
        scene.secrets.settle().await;
        assert_eq!(scene.keys_in_file(), 1, "after step {steps}");
        assert_eq!(scene.key_text() == old, steps == 0, "after step {steps}");
        let scene = scene.next();
        assert_eq!(scene.exposed("A", None).await.unwrap(), "canary-2");
        assert_eq!(scene.exposed("A", Some(1)).await.unwrap(), "canary-1");
    }
}

#[tokio::test]
async fn a_rekey_that_meets_a_damaged_value_changes_none_and_can_be_repeated() {
    let scene = Scene::new();
    scene.put("acme", "A", SecretKind::Exposed, "canary-1").await;
    scene.put("acme", "BAD", SecretKind::Exposed, "canary-2").await;
    let (record, sealed) = scene.sealed("BAD").await;
    scene.forge(&record, sealed.envelope).await;
    let error = scene.secrets.rekey(&caller("local")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SecretsUnavailable);
    assert!(error.message.contains("version 2 of BAD of acme"), "{error:?}");
    assert_eq!(scene.exposed("A", None).await.unwrap(), "canary-1");
    assert_eq!(scene.keys_in_file(), 2);
    let name: SecretName = "BAD".parse().unwrap();
    scene.secrets.delete(&caller("acme"), &name, SecretScope::Tenant).await.unwrap();
    assert_eq!(scene.secrets.rekey(&caller("local")).await.unwrap().versions, 1);
    assert_eq!(scene.keys_in_file(), 1);
    assert_eq!(scene.next().exposed("A", None).await.unwrap(), "canary-1");
}

#[tokio::test]
async fn a_key_file_that_somebody_replaced_is_not_overwritten() {
    let scene = Scene::new();
    scene.put("acme", "A", SecretKind::Exposed, CANARY).await;
    let theirs = format!("{}\n", "cd".repeat(32));
    std::fs::write(scene.key_path(), &theirs).unwrap();
    let error = scene.secrets.rekey(&caller("local")).await.unwrap_err();
    assert!(error.message.contains("changed while the server ran"), "{error:?}");
    assert_eq!(scene.key_text(), theirs);
}

#[tokio::test]
async fn a_credential_is_rekeyed_by_who_provides_it() {
    let scene = Scene::new();
    scene.put("acme", "A", SecretKind::Exposed, CANARY).await;
    let credential = || {
        let file = KeyFile::credential(scene.key_path(), scene.dir.path().join("data"));
        Secrets::new(Arc::clone(&scene.store) as Arc<dyn Store>, Some(file), Arc::new(Machine))
    };
    let error = credential().rekey(&caller("local")).await.unwrap_err();
    assert!(error.message.contains("a line above the old one"), "{error:?}");
    let (old, new) = (scene.key_text(), "ef".repeat(32));
    std::fs::write(scene.key_path(), format!("{new}\n{old}")).unwrap();
    credential().settle().await;
    let done = credential().rekey(&caller("local")).await.unwrap();
    assert_eq!((done.versions, done.old_key_left), (0, true));
    // The provider takes the old line away.
    std::fs::write(scene.key_path(), new).unwrap();
    assert_eq!(scene.next().exposed("A", None).await.unwrap(), CANARY);
}
