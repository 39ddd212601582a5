//! Every operation over the wire says the same as the backend; errors keep all they carry.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use outpost_types::{
    Api, ApiError, ByteStream, CancelRequest, DispatchId, DispatchRequest, DispatchStatus,
    ErrorCode, EventData, ListQuery, LogQuery, PutSecret, SecretKind, SecretScope, SecretValue,
};

use crate::harness::{DEADLINE, Server, anywhere, client};
use crate::memory::Memory;

const NASTY: &str = "é\r\n\"\\ \u{0}\u{1b}[31m \u{202e}\u{1F600}\u{2028} %0a &=+;";

fn request() -> DispatchRequest {
    DispatchRequest {
        agent: "claude".into(),
        task: NASTY.into(),
        repo: Some(NASTY.into()),
        tags: vec![NASTY.into(), "b".into()],
        timeout_seconds: Some(86_400),
        ..DispatchRequest::default()
    }
}

async fn all(stream: ByteStream) -> Vec<u8> {
    let pieces: Vec<_> = stream.try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test]
async fn a_dispatch_from_start_to_end() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    assert_eq!(api.ready().await.unwrap().status, "ok");
    memory.set_unready(Some("The store is full."));
    let health = api.ready().await.unwrap();
    assert_eq!(health.reason.as_deref(), Some("The store is full."));

    let key = Some("key-1".to_owned());
    let created = api.create_dispatch(request(), key.clone()).await.unwrap();
    assert!(!created.replayed);
    let again = api.create_dispatch(request(), key).await.unwrap();
    assert!(again.replayed && again.dispatch == created.dispatch);
    let id = created.dispatch.dispatch_id;
    assert_eq!(created.dispatch.task, NASTY);
    assert_eq!(api.get_dispatch(id, None, None).await.unwrap(), created.dispatch);

    let query = ListQuery { tag: Some(NASTY.into()), limit: Some(1), ..ListQuery::default() };
    let page = api.list_runs(query).await.unwrap();
    assert_eq!(page.items, [created.dispatch]);

    memory.print(id, b"\xff\x00out");
    memory.keep(id, "diff.patch", b"--- a\n");
    memory.keep(id, "a/b é?#%.txt", b"kept");
    let mut events = api.events(id, 0).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().seq, 1);
    memory.say(id, NASTY);
    let said = events.next().await.unwrap().unwrap();
    assert!(matches!(said.data, EventData::Log { text, .. } if text == NASTY));

    let part = LogQuery { after: 1, follow: false };
    assert_eq!(all(api.logs(id, part).await.unwrap()).await, b"\x00out");
    assert_eq!(all(api.diff(id).await.unwrap()).await, b"--- a\n");
    let files = api.artifacts(id, Duration::from_secs(60)).await.unwrap();
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a/b é?#%.txt", "diff.patch"]);
    assert_eq!(all(api.artifact(id, names[0]).await.unwrap()).await, b"kept");
    assert_eq!(api.fleet().await.unwrap().agents[0].agent, "claude");

    let wish = CancelRequest { reason: Some(NASTY.into()) };
    let cancelled = api.cancel_dispatch(id, wish).await.unwrap();
    assert_eq!(cancelled.status, DispatchStatus::Cancelled);
    assert!(events.next().await.unwrap().unwrap().data.is_terminal());
    assert!(events.next().await.is_none());
    // After the end there is nothing, at once.
    assert!(api.events(id, 3).await.unwrap().next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn errors_keep_code_field_hint_and_request_id() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    let whole = |error: ApiError| {
        assert!(error.request_id.is_some(), "{error:?}");
        (error.code, error.field, error.hint.is_some())
    };
    let long = DispatchRequest { agent: "x".repeat(33), ..request() };
    let error = api.create_dispatch(long, None).await.unwrap_err();
    assert_eq!(whole(error), (ErrorCode::InvalidField, Some("agent".into()), true));
    let key = Some("é".to_owned());
    let error = api.create_dispatch(request(), key).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("Idempotency-Key"));
    let query = ListQuery { limit: Some(101), ..ListQuery::default() };
    let error = api.list_runs(query).await.unwrap_err();
    assert_eq!(whole(error), (ErrorCode::InvalidField, Some("limit".into()), false));

    let unknown = DispatchId::from_parts(1, 1);
    let foreign = memory.add("acme");
    for id in [unknown, foreign] {
        let wait = LogQuery::default();
        let errors = [
            api.get_dispatch(id, None, None).await.map(drop),
            api.cancel_dispatch(id, CancelRequest::default()).await.map(drop),
            api.events(id, 0).await.map(drop),
            api.logs(id, wait).await.map(drop),
            api.diff(id).await.map(drop),
            api.artifacts(id, Duration::from_secs(60)).await.map(drop),
            api.artifact(id, "x").await.map(drop),
        ];
        for error in errors {
            assert_eq!(whole(error.unwrap_err()).0, ErrorCode::NotFound);
        }
    }
    for name in ["", "/", "../x", "a/../b", "a//b"] {
        let error = api.artifact(foreign, name).await.map(drop).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotFound, "{name}");
    }
    let stranger = client(server.address, "nobody");
    let error = stranger.fleet().await.unwrap_err();
    assert_eq!(whole(error), (ErrorCode::Unauthorized, None, true));
    server.stop().await;
}

#[tokio::test]
async fn no_server_says_how_to_start_one() {
    let server = Server::start(&Memory::new(), anywhere());
    let address = server.address;
    server.stop().await;
    let api = client(address, "admin");
    let id = DispatchId::from_parts(1, 1);
    for error in [
        api.fleet().await.map(drop),
        api.ready().await.map(drop),
        api.events(id, 0).await.map(drop),
        api.create_dispatch(request(), None).await.map(drop),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.message.contains(&address.to_string()), "{error:?}");
        assert!(error.hint.unwrap().contains("`outpost serve`"));
    }
}

#[tokio::test]
async fn a_wait_longer_than_one_poll_ends_with_the_change() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    let id = memory.add("local");
    let waiting = api.get_dispatch(id, Some(Duration::from_secs(300)), None);
    let change = async {
        memory.until_waiting(1).await;
        memory.reach(id, DispatchStatus::Completing);
    };
    let both = async { tokio::join!(waiting, change) };
    let (view, ()) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(view.unwrap().generation, 2);
    let short = api.get_dispatch(id, Some(Duration::from_millis(1)), Some(1));
    assert_eq!(short.await.unwrap().generation, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_workspace_is_listed_looked_at_and_deleted() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    let (free, used, foreign) = ("a".repeat(32), "b".repeat(32), "c".repeat(32));
    let view = memory.workspace("local", &free, false);
    memory.workspace("local", &used, true);
    memory.workspace("acme", &foreign, false);
    assert_eq!(api.get_workspace(&free).await.unwrap(), view);
    let error = api.delete_workspace(&used).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WorkspaceInUse);
    // A text that is no id names no other address either.
    for id in [&foreign, "", ".", "..", "../dispatch", &"A".repeat(32)] {
        let (get, delete) = (api.get_workspace(id).await, api.delete_workspace(id).await);
        let codes = (get.unwrap_err().code, delete.unwrap_err().code);
        assert_eq!(codes, (ErrorCode::NotFound, ErrorCode::NotFound), "{id:?}");
    }
    api.delete_workspace(&free).await.unwrap();
    let left = api.list_workspaces().await.unwrap();
    assert_eq!(left.iter().map(|view| &view.id).collect::<Vec<_>>(), [&used]);
    server.stop().await;
}

#[tokio::test]
async fn a_secret_arrives_whole_and_comes_back_without_its_value() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    let put = |kind| PutSecret {
        value: SecretValue::new(format!("canary-1{}", NASTY.replace('\0', ""))),
        kind,
        scope: Some(SecretScope::Tenant),
    };
    let name: outpost_types::SecretName = "DATABASE_URL".parse().unwrap();
    let view = api.put_secret(name.clone(), put(Some(SecretKind::Exposed))).await.unwrap();
    assert_eq!((&view.name, view.version, view.kind), (&name, 1, SecretKind::Exposed));
    let arrived = memory.secret("local", "DATABASE_URL").unwrap();
    assert!(arrived == put(None).value);
    assert_eq!(api.list_secrets().await.unwrap(), std::slice::from_ref(&view));
    assert_eq!(api.rekey_secrets().await.unwrap().versions, 1);
    let error = api.put_secret(name.clone(), put(Some(SecretKind::Injected))).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidField, Some("value")));
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    let other = api.delete_secret(name.clone(), SecretScope::Platform).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::NotFound);
    assert_eq!(api.delete_secret(name, SecretScope::Tenant).await.unwrap(), view);
    server.stop().await;
}
