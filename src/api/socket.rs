//! What all WebSockets have in common: how they begin, how long they wait, and when they end.

use std::future::Future;
use std::time::Duration;

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseReason, Closed, Session};
use tokio::time::timeout;

use super::body::Limits;
use super::error::ApiError;
use super::state::State;

/// How often a client must show that it is there.
pub(super) const PING: Duration = Duration::from_secs(20);
/// Silence after which a client is gone, and longest time that it may leave an event unread.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client may take to close its side.
const FAREWELL: Duration = Duration::from_secs(2);

/// Makes a WebSocket of a request; messages have the limit of bodies.
pub(super) fn accept(
    request: &HttpRequest,
    payload: Payload,
) -> Result<(HttpResponse, Session, AggregatedMessageStream), ApiError> {
    let (response, session, messages) =
        actix_ws::handle(request, payload).map_err(|error| ApiError::no_socket(&error.to_string()))?;
    let limit = Limits::of(request).body;
    let messages = messages
        .max_frame_size(limit)
        .aggregate_continuations()
        .max_continuation_size(limit);
    Ok((response, session, messages))
}

/// Sends a message. A client that does not read is as good as gone.
pub(super) async fn send(session: &mut Session, text: String) -> Result<(), Closed> {
    timeout(PATIENCE, session.text(text)).await.unwrap_or(Err(Closed))
}

/// Ends a connection: says so, and waits until the client has said it too, or is gone.
///
/// A socket that is dropped with messages unread would leave the client without the end of the connection.
pub(super) async fn close(session: Session, mut messages: AggregatedMessageStream, reason: Option<CloseReason>) {
    let farewell = async {
        if session.close(reason).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = messages.recv().await {
            if matches!(message, AggregatedMessage::Close(_)) {
                return;
            }
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// Resolves when the server stops.
pub(super) fn shutdown(state: &State) -> impl Future<Output = ()> + use<> {
    let models = state.models().clone();
    async move { models.closing().await }
}
