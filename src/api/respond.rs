//! Answers as a stream or as a whole.

use actix_web::HttpResponse;

use super::error::ApiError;
use super::shape::Shape;
use super::stream::{Live, sse};
use crate::generation::OutputStream;

/// How an answer is given out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    /// Piece by piece.
    pub(super) streams: bool,
    /// Each piece tells what the answer has taken so far.
    pub(super) timings_per_token: bool,
    /// The stream tells how far the prefill is.
    pub(super) progress: bool,
}

/// The request was taken: from here on the status is 200, or 500 if the engine fails before a whole answer is complete.
///
/// # Cancel safety
/// Dropping the future (the client left) drops the outputs and so ends the generation.
pub(super) async fn respond(
    outputs: OutputStream,
    delivery: Delivery,
    shape: impl Shape,
) -> Result<HttpResponse, ApiError> {
    if delivery.streams {
        let live = delivery.timings_per_token.then(|| Live::new(delivery.progress));
        return Ok(sse(outputs, shape, live));
    }
    let completion = outputs.collect().await?;
    Ok(HttpResponse::Ok().json(shape.whole(completion)))
}
