//! Promotions through the real server.

use std::time::Duration;

use outpost_types::{ErrorCode, PromoteApi as _, PromoteRequest, PromotionStatus};

use crate::harness::{Server, anywhere, client};
use crate::memory::Memory;
use crate::memory_promote::PROMOTED;

#[tokio::test]
async fn a_promotion_is_begun_repeated_and_waited_for() {
    let memory = Memory::new();
    let server = Server::start(&memory, anywhere());
    let api = client(server.address, "admin");
    let mut request = PromoteRequest::of(PROMOTED.parse().unwrap());
    request.branch = Some("fix/é".into());
    let begun = api.promote(request.clone(), None).await.unwrap();
    assert!(!begun.replayed);
    assert_eq!(begun.promotion.branch, "fix/é");
    assert_eq!(begun.promotion.status, PromotionStatus::Requested);
    request.title = Some("again".into());
    let again = api.promote(request, Some(Duration::from_millis(1))).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.promotion.status, PromotionStatus::Done);
    let id = PROMOTED.parse().unwrap();
    let now = api.promotion(id, None).await.unwrap();
    assert_eq!(now.status, PromotionStatus::Requested);
    let over = api.promotion(id, Some(Duration::from_secs(200))).await.unwrap();
    assert_eq!(over.status, PromotionStatus::Done);
    let foreign = memory.add("acme");
    for refused in [
        api.promote(PromoteRequest::of(foreign), None).await.map(|_| ()),
        api.promotion(foreign, None).await.map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().code, ErrorCode::NotFound);
    }
    server.stop().await;
}
