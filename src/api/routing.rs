//! Routes that several resources share the form of.

use actix_web::Route;
use actix_web::guard;
use actix_web::web;

/// A route that answers to GET, and to HEAD without a body.
pub(super) fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}
