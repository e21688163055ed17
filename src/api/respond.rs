//! Answers as a stream or as a whole.

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderName, HeaderValue};

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
    mut shape: impl Shape,
) -> Result<HttpResponse, ApiError> {
    let substitute = outputs.substitute();
    if let Some(model) = &substitute {
        shape.served_by(model);
    }
    if delivery.streams {
        let live = delivery.timings_per_token.then(|| Live::new(delivery.progress));
        return Ok(served_by(substitute.as_deref(), sse(outputs, shape, live)));
    }
    let completion = outputs.collect().await?;
    let response = HttpResponse::Ok().json(shape.whole(completion));
    Ok(served_by(substitute.as_deref(), response))
}

/// Where the name of a model stands that answered in the place of another.
const SERVED_BY: HeaderName = HeaderName::from_static("x-hearth-served-by");

/// The same response, with the name of the model that answered in the place of the one that was asked.
pub(super) fn served_by(substitute: Option<&str>, mut response: HttpResponse) -> HttpResponse {
    // A name that no header can have is in the body all the same.
    if let Some(name) = substitute.and_then(|name| HeaderValue::from_str(name).ok()) {
        response.headers_mut().insert(SERVED_BY, name);
    }
    response
}
