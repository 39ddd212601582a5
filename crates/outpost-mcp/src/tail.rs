//! The end of a log, without reading all that is before it.
//!
//! Nobody says how long a log is, but one refuses to be read from beyond its end. So its end is looked for, first in
//! steps that double and then by halving, and only what is around it is read. Bounded: looks, and bytes that are read.

use bytes::Bytes;
use futures_util::stream;
use outpost_types::{Api, ApiError, DispatchId, ErrorCode, LogQuery, LogStream};

use crate::read::{self, Piece};

/// Most looks for the end of a log: twice the bits of an offset.
const LOOKS_COUNT_MAX: u32 = 128;

/// The log from a byte on; none when that is beyond its end.
async fn from(api: &dyn Api, id: DispatchId, after: u64) -> Result<Option<LogStream>, ApiError> {
    match api.logs(id, LogQuery { after, follow: false }).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if after > 0
                && error.code == ErrorCode::InvalidField
                && error.field.as_deref() == Some("after") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The last `bytes_max` bytes of a log, from the beginning of a line where there is one.
pub(crate) async fn of_log(
    api: &dyn Api,
    id: DispatchId,
    bytes_max: usize,
) -> Result<Piece, ApiError> {
    let window = bytes_max as u64;
    let whole = api.logs(id, LogQuery::default()).await?;
    let first = read::head(whole, 0, bytes_max.saturating_mul(2)).await?;
    if !first.more {
        let bytes = Bytes::from(first.bytes);
        return read::tail(Box::pin(stream::once(async { Ok(bytes) })), 0, bytes_max).await;
    }
    // `within` is never beyond the end, `beyond` is, once there is one.
    let (mut within, mut beyond, mut step) = (first.end(), None, window.max(1));
    for _ in 0..LOOKS_COUNT_MAX {
        let at = match beyond {
            Some(beyond) if beyond - within <= window => break,
            Some(beyond) => within + (beyond - within) / 2,
            None => within.saturating_add(step),
        };
        match from(api, id, at).await? {
            Some(_) => within = at,
            None => beyond = Some(at),
        }
        step = step.saturating_mul(2);
    }
    let start = within.saturating_sub(window);
    let last = api.logs(id, LogQuery { after: start, follow: false }).await?;
    read::tail(last, start, bytes_max).await
}
