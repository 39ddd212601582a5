//! Promotions of dispatches, for one caller.

use std::time::Duration;

use async_trait::async_trait;
use outpost_types::{
    ApiError, DispatchId, ErrorCode, PromoteApi, PromoteRequest, Promoted, PromotionView,
};

use crate::EngineApi;

#[async_trait]
impl PromoteApi for EngineApi {
    async fn promote(
        &self,
        _request: PromoteRequest,
        _wait: Option<Duration>,
    ) -> Result<Promoted, ApiError> {
        Err(no_promoter())
    }

    async fn promotion(
        &self,
        _dispatch: DispatchId,
        _wait: Option<Duration>,
    ) -> Result<PromotionView, ApiError> {
        Err(no_promoter())
    }
}

fn no_promoter() -> ApiError {
    ApiError::new(ErrorCode::NotSupported, "This server does not push to code hosts.")
}
