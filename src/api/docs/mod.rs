//! The API's description: `/openapi.json`, made of the types that the handlers use, and `/docs`, a page that shows it.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use actix_web::web::{Bytes, ServiceConfig};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Info, OpenApi, OpenApiBuilder, Paths, Ref, RefOr, ResponseBuilder};

use super::routing::get;
use super::{admin, anthropic, llama_server, native, openai};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/openapi.json", get().to(document))
        .route("/docs", get().to(page));
}

/// The tag of resources whose errors are in llama-server's form.
const LLAMA_SERVER: &str = "llama-server";

/// Further paths of resources.
const ALSO_AT: [(&str, &str); 10] = [
    ("/api/v1/chat/completions", "/v1/chat/completions"),
    ("/completions", "/completion"),
    ("/embeddings", "/embedding"),
    ("/models", "/v1/models"),
    ("/readyz", "/health"),
    ("/reranking", "/rerank"),
    ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"),
    ("/v1/health", "/health"),
    ("/v1/rerank", "/rerank"),
    ("/v1/reranking", "/rerank"),
];

/// The tag of the resources whose errors have an envelope of their own.
const ANTHROPIC: &str = "anthropic";

/// Errors that any request may be answered with.
const ERRORS: [(&str, &str); 5] = [
    (
        "401",
        "The server asks for a key, and the request has none of its keys.",
    ),
    (
        "403",
        "The key is not for this, or the request comes from a web page that may not use the server, or is for a foreign host \
         name.",
    ),
    ("404", "There is no such model."),
    ("500", "An error inside hearth; its log says more."),
    ("503", "The model is loading, has failed, or is being stopped."),
];

/// Errors of requests with a body.
const BODY_ERRORS: [(&str, &str); 4] = [
    (
        "400",
        "A field cannot be used, or the prompt does not fit into the context; `param` names the field.",
    ),
    ("408", "The body arrives too slowly."),
    ("413", "The body is larger than `body_limit`."),
    (
        "429",
        "The queue is full, or the key has asked enough; `Retry-After` says when to try again.",
    ),
];

/// The error of requests with a query.
const QUERY_ERROR: (&str, &str) = ("400", "The query cannot be read.");

/// The page loads nothing from elsewhere, and talks to this server only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn document() -> HttpResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| serde_json::to_vec(&describe()).unwrap_or_default().into());
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(DOCUMENT.clone())
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .body(include_str!("page.html"))
}

/// Puts together what the folders say.
fn describe() -> OpenApi {
    let mut info = Info::new("hearth", env!("CARGO_PKG_VERSION"));
    info.description = Some("Local language models behind the APIs of OpenAI, Anthropic and llama-server.".into());
    let mut api = OpenApiBuilder::new().info(info).paths(Paths::new()).build();
    for (tag, part) in [
        ("openai", openai::docs()),
        (ANTHROPIC, anthropic::docs()),
        (LLAMA_SERVER, llama_server::docs()),
        ("native", native::docs()),
        ("admin", admin::docs()),
    ] {
        let mut part = part;
        for item in part.paths.paths.values_mut() {
            for (_, operation) in operations(item) {
                operation.tags = Some(vec![tag.to_owned()]);
            }
        }
        api.merge(part);
    }
    for (also, path) in ALSO_AT {
        if let Some(item) = api.paths.paths.get(path).cloned() {
            api.paths.paths.insert(also.to_owned(), item);
        }
    }
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in operations(item) {
            let words = path.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            operation.operation_id = Some(format!("{method}{words}"));
            add_errors(operation);
        }
    }
    let schemes = [
        (
            "bearer",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        ),
        (
            "x-api-key",
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Api-Key"))),
        ),
    ];
    if let Some(components) = &mut api.components {
        for (name, scheme) in schemes {
            components.add_security_scheme(name, scheme);
        }
    }
    // With a key or without: whether one is needed is the server's configuration.
    api.security = Some(vec![
        SecurityRequirement::default(),
        SecurityRequirement::new("bearer", [""; 0]),
        SecurityRequirement::new("x-api-key", [""; 0]),
    ]);
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let methods = [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
    ];
    methods
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn add_errors(operation: &mut Operation) {
    let parameters = operation.parameters.iter().flatten();
    let has_query = parameters.into_iter().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Query,
        RefOr::Ref(_) => false,
    });
    let body = match &operation.request_body {
        Some(_) => &BODY_ERRORS[..],
        None if has_query => &[QUERY_ERROR],
        None => &[],
    };
    let form = match operation.tags.as_deref() {
        Some([tag]) if tag == ANTHROPIC => "AnthropicError",
        Some([tag]) if tag == LLAMA_SERVER => "LlamaErrorBody",
        _ => "ErrorBody",
    };
    for (status, description) in ERRORS.iter().chain(body) {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(form))).build();
        let response = ResponseBuilder::new()
            .description(*description)
            .content("application/json", content)
            .build();
        let responses = &mut operation.responses.responses;
        responses.entry((*status).to_owned()).or_insert(RefOr::T(response));
    }
}
