//! Answers as a stream or as a whole.

use actix_web::HttpResponse;

use super::error::ApiError;
use super::shape::Shape;
use super::stream::sse;
use crate::generation::OutputStream;

/// The request was taken: from here on the status is 200, or 500 if the engine fails before a whole answer is complete.
///
/// # Cancel safety
/// Dropping the future (the client left) drops the outputs and so ends the generation.
pub(super) async fn respond(outputs: OutputStream, streams: bool, shape: impl Shape) -> Result<HttpResponse, ApiError> {
    if streams {
        return Ok(sse(outputs, shape));
    }
    let completion = outputs.collect().await?;
    Ok(HttpResponse::Ok().json(shape.whole(completion)))
}
