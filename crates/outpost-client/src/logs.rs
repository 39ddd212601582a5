//! Bodies that are bytes: the log, resumed by offset; files, which are not.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use outpost_types::{ApiError, ByteStream, DispatchId, LogQuery, LogStream};
use reqwest::{Method, Response};

use crate::HttpApi;
use crate::http::{HEAD_SECONDS_MAX, Pieces};
use crate::retry::Tries;

/// Opens the log; faults before its head are the caller's, later ones are resumed.
pub(crate) async fn read(
    http: HttpApi,
    id: DispatchId,
    query: LogQuery,
) -> Result<LogStream, ApiError> {
    let tries = Tries::new(http.retry());
    let mut reader = Reader { http, id, query, source: None, tries, ended: false };
    reader.connect().await?;
    Ok(stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((item, reader))
    })
    .boxed())
}

/// A file. A fault in its middle is the reader's: half a file is none.
pub(crate) fn file(http: HttpApi, response: Response) -> ByteStream {
    let pieces: Pieces = Box::pin(response.bytes_stream());
    stream::unfold(Some((http, pieces)), |state| async move {
        let (http, mut pieces) = state?;
        match piece(&http, &mut pieces, Some(Duration::from_secs(HEAD_SECONDS_MAX))).await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some((http, pieces)))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

async fn piece(
    http: &HttpApi,
    pieces: &mut Pieces,
    silence_max: Option<Duration>,
) -> Result<Option<bytes::Bytes>, ApiError> {
    let next = match silence_max {
        Some(limit) => {
            tokio::time::timeout(limit, pieces.next()).await.map_err(|_| http.silent())?
        }
        None => pieces.next().await,
    };
    next.transpose().map_err(|error| http.broken(&error))
}

struct Reader {
    http: HttpApi,
    id: DispatchId,
    /// What is left to read: `after` grows with every byte handed out.
    query: LogQuery,
    source: Option<Pieces>,
    tries: Tries,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<bytes::Bytes, ApiError>> {
        while !self.ended {
            let error = match self.step().await {
                Ok(Some(bytes)) => {
                    self.query.after += bytes.len() as u64;
                    self.tries.progress();
                    return Some(Ok(bytes));
                }
                Ok(None) => continue,
                Err(error) => error,
            };
            self.source = None;
            if let Err(error) = self.tries.pause(error).await {
                self.ended = true;
                return Some(Err(error));
            }
        }
        None
    }

    async fn step(&mut self) -> Result<Option<bytes::Bytes>, ApiError> {
        let Some(pieces) = &mut self.source else {
            self.connect().await?;
            return Ok(None);
        };
        // An agent may think for long, and a log has no heartbeat: a dead connection is noticed by
        // the keepalive of TCP.
        let silence_max = (!self.query.follow).then_some(Duration::from_secs(HEAD_SECONDS_MAX));
        let bytes = piece(&self.http, pieces, silence_max).await?;
        self.ended = bytes.is_none();
        Ok(bytes)
    }

    async fn connect(&mut self) -> Result<(), ApiError> {
        let id = self.id.to_string();
        let LogQuery { after, follow } = self.query;
        let request = self
            .http
            .request(Method::GET, ["dispatch", &id, "logs"])
            .query(&[("after", after.to_string()), ("follow", follow.to_string())]);
        let response = self.http.open(request).await?;
        let begins = response.headers().get("x-outpost-log-offset");
        let begins = begins.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if begins != Some(after) {
            return Err(self.http.not_ours("sent another part of the log"));
        }
        self.source = Some(Box::pin(response.bytes_stream()));
        Ok(())
    }
}
