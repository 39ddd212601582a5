//! What was used is told to whom it belongs.

use std::sync::Arc;

use outpost_types::{
    Api as _, Caller, DispatchStatus, ErrorCode, KeyId, Scope, UsageGroup, UsageQuery,
};

use crate::world::{Scene, first};

#[tokio::test]
async fn what_ended_is_told_to_the_operator_and_to_no_other_tenant() {
    let scene = Scene::new(1).await;
    let query = UsageQuery { group_by: Some("tenant,day".into()), ..UsageQuery::default() };
    let id = scene.dispatch().await.dispatch_id;
    assert!(scene.api.usage(query.clone()).await.unwrap().rows.is_empty(), "it has not ended");
    scene.puppet.release(first(id));
    scene.until(id, DispatchStatus::Completed).await;
    let report = scene.api.usage(query.clone()).await.unwrap();
    let [row] = report.rows.as_slice() else { panic!("{report:?}") };
    assert_eq!((row.tenant.as_deref(), row.day), (Some("local"), Some(report.to)));
    assert_eq!((row.sum.dispatches, row.sum.cost_usd), (1, None));
    assert_eq!(report.group_by, [UsageGroup::Tenant, UsageGroup::Day]);
    let tenant = "acme".parse().unwrap();
    let caller = Caller { tenant, key: KeyId::from_parts(1, 2), scopes: [Scope::Admin].into() };
    let other = scene.engine.api(Arc::new(caller));
    assert!(other.usage(query.clone()).await.unwrap().rows.is_empty());
    let theirs = UsageQuery { tenant: Some("local".into()), ..query };
    assert_eq!(other.usage(theirs).await.unwrap_err().code, ErrorCode::Forbidden);
}
