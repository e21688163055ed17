//! The form of an answer as a grammar, where no chat template has a say.

use serde_json::json;

use super::error::GenerationError;
use super::request::OutputFormat;
use crate::engine::Grammar;
use crate::grammar::prepare_schema;
use crate::llama::chat;

/// The grammar of a text; `None` if it may be any.
pub(super) async fn text_grammar(format: OutputFormat) -> Result<Option<Grammar>, GenerationError> {
    let (field, schema, strict) = match format {
        OutputFormat::Text => return Ok(None),
        OutputFormat::Grammar(text) => return Ok(Some(Grammar::new(text))),
        OutputFormat::JsonObject => ("response_format", json!({"type": "object"}), false),
        OutputFormat::JsonSchema { schema, strict } => ("json_schema", schema, strict),
    };
    let invalid = |message: String| GenerationError::InvalidRequest { field, message };
    let converted = chat::run(move || {
        let schema = prepare_schema(&schema, strict).map_err(|error| error.to_string())?;
        chat::schema_grammar(&schema).map_err(|error| error.to_string())
    });
    let converted = converted
        .await
        .map_err(|error| GenerationError::Internal(error.to_string()))?;
    Ok(Some(Grammar::new(converted.map_err(invalid)?)))
}
