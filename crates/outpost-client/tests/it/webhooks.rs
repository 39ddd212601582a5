//! Webhooks through the real server.

use outpost_types::{CreateWebhook, ErrorCode, WebhookApi as _, WebhookId, WebhookKind};

use crate::harness::{Server, anywhere, client};
use crate::memory::Memory;
use crate::memory_webhooks::WEBHOOK;

#[tokio::test]
async fn webhooks_are_made_listed_tested_and_removed() {
    let memory = Memory::new();
    memory.workspace("local", "0123456789abcdef0123456789abcdef", false);
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    let request = CreateWebhook {
        url: "https://example.com/é".into(),
        events: Some(vec![WebhookKind::CostRecorded]),
    };
    let created = api.create_webhook(request).await.unwrap();
    assert_eq!(created.webhook.url, "https://example.com/é");
    assert!(created.secret.starts_with("whsec_"));
    let id: WebhookId = WEBHOOK.parse().unwrap();
    assert_eq!(api.list_webhooks().await.unwrap()[0].id, id);
    assert_eq!(api.test_webhook(id).await.unwrap().kind, WebhookKind::Test);
    let page = api.deliveries(id, Some(5), 3).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].id), (3, 4));
    assert_eq!(page.next_cursor.as_deref(), Some("4"));
    assert_eq!(api.replay_delivery(id, 7).await.unwrap().id, 7);
    assert_eq!(api.delete_webhook(id).await.unwrap().id, id);
    let other = WebhookId::from_parts(9, 9);
    for refused in [
        api.delete_webhook(other).await.map(drop),
        api.test_webhook(other).await.map(drop),
        api.deliveries(other, None, 20).await.map(drop),
        api.replay_delivery(id, 8).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
    }
    server.stop().await;
}
