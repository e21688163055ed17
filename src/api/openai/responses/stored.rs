//! `GET` and `DELETE /v1/responses/{id}`, and `GET /v1/responses/{id}/input_items`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Query, ServiceConfig, delete};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::store::Store;
use super::wire::Response;
use crate::api::error::ApiError;
use crate::api::routing::get;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/v1/responses/{id}", get().to(retrieve))
        .route("/v1/responses/{id}", delete().to(forget))
        .route("/v1/responses/{id}/input_items", get().to(input_items));
}

#[derive(Debug, Deserialize)]
pub(super) struct Retrieval {
    stream: Option<bool>,
}

/// A response that is kept.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    params(("id" = String, Path, description = "Of a response"), ("stream" = Option<bool>, Query, description = "Must not be true")),
    responses((status = 200, description = "The response.", body = Response))
)]
pub(super) async fn retrieve(
    store: Data<Store>,
    id: Path<String>,
    query: Result<Query<Retrieval>, actix_web::Error>,
) -> Result<HttpResponse, ApiError> {
    let query = query.map_err(|error| ApiError::bad_body(format!("the query is wrong: {error}")))?;
    if query.stream == Some(true) {
        return Err(ApiError::unsupported("stream", "streaming a response again"));
    }
    let stored = store.get(&id).ok_or_else(|| ApiError::no_response(&id))?;
    let json = HttpResponse::Ok()
        .content_type("application/json")
        .body(stored.response.clone());
    Ok(json)
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeletedResponse)]
pub(super) struct Deleted {
    id: String,
    /// `response`.
    object: &'static str,
    deleted: bool,
}

/// Forgets a response.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    params(("id" = String, Path, description = "Of a response")),
    responses((status = 200, description = "It is not there any more.", body = Deleted))
)]
pub(super) async fn forget(store: Data<Store>, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    if !store.remove(&id) {
        return Err(ApiError::no_response(&id));
    }
    Ok(HttpResponse::Ok().json(Deleted {
        id,
        object: "response",
        deleted: true,
    }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    limit: Option<usize>,
    order: Option<Order>,
    /// The item behind which the list begins.
    after: Option<String>,
}

/// Which item comes first: the oldest, or the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Asc,
    Desc,
}

/// A part of the items that a request had.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseItemList)]
pub(super) struct ItemList {
    /// `list`.
    object: &'static str,
    data: Vec<Value>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// The items that a request had.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    params(
        ("id" = String, Path, description = "Of a response"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 100, description = "Items at most; 20 if not given"),
        ("order" = inline(Option<Order>), Query, description = "`desc` if not given"),
        ("after" = Option<String>, Query, description = "The item behind which the list begins")
    ),
    responses((status = 200, description = "A part of the items.", body = ItemList))
)]
pub(super) async fn input_items(
    store: Data<Store>,
    id: Path<String>,
    query: Result<Query<Listing>, actix_web::Error>,
) -> Result<HttpResponse, ApiError> {
    let query = query.map_err(|error| ApiError::bad_body(format!("the query is wrong: {error}")))?;
    let stored = store.get(&id).ok_or_else(|| ApiError::no_response(&id))?;
    let items: Vec<Value> = serde_json::from_slice(&stored.input)
        .map_err(|error| ApiError::internal(format!("a stored response is broken: {error}")))?;
    Ok(HttpResponse::Ok().json(list(items, &query)?))
}

fn list(mut items: Vec<Value>, query: &Listing) -> Result<ItemList, ApiError> {
    const LIMIT: usize = 20;
    const MAX_LIMIT: usize = 100;
    let limit = query.limit.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("`limit` is {limit}, but must be 1 to {MAX_LIMIT}");
        return Err(ApiError::field("limit", message));
    }
    if query.order != Some(Order::Asc) {
        items.reverse();
    }
    if let Some(after) = &query.after {
        let Some(at) = items.iter().position(|item| item["id"] == **after) else {
            return Err(ApiError::field(
                "after",
                "`after` is not the id of an item of this response",
            ));
        };
        items.drain(..=at);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&Value>| item.and_then(|item| Some(item["id"].as_str()?.to_owned()));
    Ok(ItemList {
        object: "list",
        first_id: id(items.first()),
        last_id: id(items.last()),
        has_more,
        data: items,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn items_come_in_parts() {
        let items = || (0..5).map(|id| json!({"id": id.to_string()})).collect::<Vec<_>>();
        let page = |limit, order, after: Option<&str>| {
            let query = Listing {
                limit,
                order,
                after: after.map(str::to_owned),
            };
            let list = list(items(), &query).ok()?;
            let ids: String = list.data.iter().map(|item| item["id"].as_str().unwrap()).collect();
            assert_eq!(list.first_id.unwrap_or_default(), ids.get(..1).unwrap_or_default());
            Some((ids, list.has_more))
        };
        let expect = |ids: &str, more| Some((ids.to_owned(), more));
        assert_eq!(page(None, None, None), expect("43210", false));
        assert_eq!(page(Some(2), Some(Order::Asc), None), expect("01", true));
        assert_eq!(page(Some(2), Some(Order::Asc), Some("1")), expect("23", true));
        assert_eq!(page(Some(2), Some(Order::Desc), Some("1")), expect("0", false));
        assert_eq!(page(None, Some(Order::Asc), Some("4")), expect("", false));
        assert_eq!(page(Some(0), None, None), None);
        assert_eq!(page(None, None, Some("x")), None);
    }
}
