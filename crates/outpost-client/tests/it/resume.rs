//! Streams over connections that break: no gap, no repeat, and an end to the tries.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use outpost_client::{ApiKey, ClientConfig, HttpApi, RetryPolicy};
use outpost_types::{Api, DispatchId, DispatchStatus, ErrorCode, EventStream, LogQuery};

use crate::harness::{Cutter, DEADLINE, Server, anywhere, client};
use crate::memory::Memory;

async fn numbers(mut events: EventStream, count: usize) -> (Vec<u64>, EventStream) {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(DEADLINE, events.next()).await.unwrap();
        let Some(event) = next else { break };
        seen.push(event.unwrap().seq);
    }
    (seen, events)
}

fn running(memory: &Arc<Memory>, events: u64) -> DispatchId {
    let id = memory.add("local");
    for number in 2..=events {
        memory.say(id, &format!("line {number}"));
    }
    id
}

#[tokio::test]
async fn events_survive_cuts_at_any_byte() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let id = running(&memory, 59);
    memory.reach(id, DispatchStatus::Completed);
    // Large enough for the head and an event, and odd, so that cuts fall everywhere.
    for bytes_max in [613, 787, 1_021, 2_003] {
        let cutter = Cutter::start(server.address, bytes_max).await;
        let events = client(cutter.address, "admin").events(id, 0).await.unwrap();
        let (seen, _) = numbers(events, usize::MAX).await;
        assert_eq!(seen, (1..=60).collect::<Vec<_>>(), "{bytes_max}");
        assert!(cutter.cuts.load(Ordering::Relaxed) > 3, "{bytes_max}");
    }
    server.stop().await;
}

#[tokio::test]
async fn events_survive_a_stopped_and_a_crashed_server() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let address = server.address;
    let id = running(&memory, 10);
    let events = client(address, "admin").events(id, 0).await.unwrap();
    let (first, events) = numbers(events, 10).await;

    server.stop().await;
    memory.say(id, "while it was away");
    let server = Server::start(&memory, address);
    memory.say(id, "after it came back");
    let (second, events) = numbers(events, 2).await;

    server.crash().await;
    memory.say(id, "while it was away again");
    let server = Server::start(&memory, address);
    memory.reach(id, DispatchStatus::Failed);
    let (third, _) = numbers(events, usize::MAX).await;
    let seen = [first, second, third].concat();
    assert_eq!(seen, (1..=14).collect::<Vec<_>>());
    let asked = memory.asked.lock().unwrap().clone();
    assert_eq!(asked, [0, 10, 12], "each try began where the last ended");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stays_away_is_given_up() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let id = running(&memory, 1);
    let mut config =
        ClientConfig::new(format!("http://{}", server.address), Some(ApiKey::new("admin")));
    config.retry = RetryPolicy {
        tries_max: 3,
        pause_first: Duration::from_millis(1),
        pause_max: Duration::from_millis(2),
    };
    let api = HttpApi::new(config).unwrap();
    let mut events = api.events(id, 1).await.unwrap();
    let follow = LogQuery { after: 0, follow: true };
    let mut log = api.logs(id, follow).await.unwrap();
    server.stop().await;
    let error = tokio::time::timeout(DEADLINE, events.next()).await.unwrap();
    assert_eq!(error.unwrap().unwrap_err().code, ErrorCode::Unavailable);
    assert!(events.next().await.is_none(), "an error is the last item");
    let error = tokio::time::timeout(DEADLINE, log.next()).await.unwrap();
    assert_eq!(error.unwrap().unwrap_err().code, ErrorCode::Unavailable);
    assert!(log.next().await.is_none(), "an error is the last item");
}

#[tokio::test]
async fn a_dead_connection_is_noticed_by_its_silence() {
    let memory = Memory::new();
    // Its heartbeat is 15 s, far more than this client takes for death.
    let server = Server::start(&memory, anywhere());
    let id = running(&memory, 3);
    let mut config =
        ClientConfig::new(format!("http://{}", server.address), Some(ApiKey::new("admin")));
    config.silence_max = Duration::from_millis(50);
    config.retry.pause_first = Duration::from_millis(1);
    let api = HttpApi::new(config).unwrap();
    let events = api.events(id, 0).await.unwrap();
    let (_, mut events) = numbers(events, 3).await;
    let asked = || memory.asked.lock().unwrap().len();
    let end = async {
        while asked() < 3 {
            tokio::task::yield_now().await;
        }
        memory.reach(id, DispatchStatus::Completed);
    };
    let both = async { tokio::join!(events.next(), end) };
    let (last, ()) = tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(last.unwrap().unwrap().seq, 4);
    server.stop().await;
}

#[tokio::test]
async fn a_log_survives_cuts_and_restarts_byte_for_byte() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let id = memory.add("local");
    let printed: Vec<u8> = (0..20_000u32).map(|n| (n % 251) as u8).collect();
    memory.print(id, &printed);
    let cutter = Cutter::start(server.address, 1_999).await;
    let query = LogQuery { after: 3, follow: false };
    let mut log = client(cutter.address, "admin").logs(id, query).await.unwrap();
    let mut seen = Vec::new();
    while let Some(piece) = tokio::time::timeout(DEADLINE, log.next()).await.unwrap() {
        seen.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(seen, printed[3..]);
    assert!(cutter.cuts.load(Ordering::Relaxed) > 5);

    let address = server.address;
    let query = LogQuery { after: 19_990, follow: true };
    let mut log = client(address, "admin").logs(id, query).await.unwrap();
    let first = log.next().await.unwrap().unwrap();
    assert_eq!(first, printed[19_990..]);
    server.stop().await;
    memory.print(id, b"while it was away");
    let server = Server::start(&memory, address);
    let second = tokio::time::timeout(DEADLINE, log.next()).await.unwrap();
    assert_eq!(second.unwrap().unwrap(), &b"while it was away"[..]);
    memory.reach(id, DispatchStatus::Completed);
    let end = tokio::time::timeout(DEADLINE, log.next()).await.unwrap();
    assert!(end.is_none());
    server.stop().await;
}

#[tokio::test]
async fn half_a_file_is_an_error() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let id = memory.add("local");
    memory.keep(id, "diff.patch", &[b'x'; 9_000]);
    let cutter = Cutter::start(server.address, 3_000).await;
    let api = client(cutter.address, "admin");
    for mut file in [api.diff(id).await.unwrap(), api.artifact(id, "diff.patch").await.unwrap()] {
        let mut last = None;
        while let Some(piece) = file.next().await {
            last = Some(piece.map(drop));
        }
        assert_eq!(last.unwrap().unwrap_err().code, ErrorCode::Unavailable);
    }
    server.stop().await;
}
