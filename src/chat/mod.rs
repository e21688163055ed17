//! Messages to text: the model's own Jinja template. Knows neither HTTP nor llama.cpp.

mod json;
mod python;
mod template;

pub use template::{RenderInput, Template, TemplateError};
