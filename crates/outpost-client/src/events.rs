//! Following a dispatch: events in order, resumed where they broke off.

use futures_util::{StreamExt, stream};
use outpost_types::{ApiError, DispatchId, EventEnvelope, EventStream};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::HttpApi;
use crate::http::{Pieces, from_problem};
use crate::retry::Tries;
use crate::sse::{Frame, Parser};

/// Opens the stream; faults before its head are the caller's, later ones are resumed.
pub(crate) async fn follow(
    http: HttpApi,
    id: DispatchId,
    after: u64,
) -> Result<EventStream, ApiError> {
    let tries = Tries::new(http.retry());
    let mut follower = Follower { http, id, last: after, source: None, tries, ended: false };
    follower.connect().await?;
    Ok(stream::unfold(follower, |mut follower| async move {
        let item = follower.next().await?;
        Some((item, follower))
    })
    .boxed())
}

struct Follower {
    http: HttpApi,
    id: DispatchId,
    /// Sequence number of the last event handed out.
    last: u64,
    source: Option<Source>,
    tries: Tries,
    ended: bool,
}

struct Source {
    pieces: Pieces,
    parser: Parser,
}

/// Where an envelope stands, for those whose kind this version does not know.
#[derive(Deserialize)]
struct Position {
    seq: u64,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<EventEnvelope, ApiError>> {
        while !self.ended {
            match self.step().await {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => {
                    self.source = None;
                    if let Err(error) = self.tries.pause(error).await {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    /// One event, or one step towards it.
    async fn step(&mut self) -> Result<Option<EventEnvelope>, ApiError> {
        let Some(source) = &mut self.source else {
            self.connect().await?;
            return Ok(None);
        };
        let unreadable = |_| self.http.not_ours("sent an event that could not be read");
        if let Some(frame) = source.parser.next().map_err(unreadable)? {
            return self.accept(frame);
        }
        let limit = self.http.silence_max();
        match tokio::time::timeout(limit, source.pieces.next()).await {
            Ok(Some(Ok(piece))) => {
                source.parser.push(&piece);
                Ok(None)
            }
            Ok(Some(Err(error))) => Err(self.http.broken(&error)),
            // Ended without a terminal event: the server is going away.
            Ok(None) => Err(self.http.cut()),
            Err(_) => Err(self.http.silent()),
        }
    }

    fn accept(&mut self, frame: Frame) -> Result<Option<EventEnvelope>, ApiError> {
        let unreadable = || self.http.not_ours("sent an event that could not be read");
        if frame.name == "error" {
            let error = from_problem(frame.data.as_bytes());
            return Err(error.unwrap_or_else(unreadable));
        }
        let Position { seq } = serde_json::from_str(&frame.data).map_err(|_| unreadable())?;
        if seq <= self.last {
            return Ok(None);
        }
        if seq > self.last + 1 {
            // What is missing may be there on the next try.
            return Err(ApiError {
                code: outpost_types::ErrorCode::Unavailable,
                ..self.http.not_ours("left out an event")
            });
        }
        self.last = seq;
        self.tries.progress();
        // A kind of event this version does not know is passed over.
        let event: Option<EventEnvelope> = serde_json::from_str(&frame.data).ok();
        self.ended = event.as_ref().is_some_and(|event| event.data.is_terminal());
        Ok(event)
    }

    async fn connect(&mut self) -> Result<(), ApiError> {
        let id = self.id.to_string();
        let request = self
            .http
            .request(Method::GET, ["dispatch", &id, "events"])
            .header("accept", "text/event-stream")
            .header("last-event-id", self.last);
        let response = self.http.open(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            self.ended = true;
            return Ok(());
        }
        self.source =
            Some(Source { pieces: Box::pin(response.bytes_stream()), parser: Parser::default() });
        Ok(())
    }
}
