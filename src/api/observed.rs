//! The body of a response, watched until its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use pin_project_lite::pin_project;
use tracing::Span;

use crate::telemetry::HttpExchange;

pin_project! {
    /// A body that ends its request when it is dropped, and whose log lines are the request's.
    pub(super) struct Observed<B> {
        #[pin]
        body: B,
        span: Span,
        exchange: Option<HttpExchange>,
    }
}

impl<B> Observed<B> {
    pub(super) fn new(body: B, span: Span, exchange: Option<HttpExchange>) -> Self {
        Self { body, span, exchange }
    }
}

impl<B: MessageBody> MessageBody for Observed<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        let _span = this.span.enter();
        this.body.poll_next(context)
    }
}
