//! The JSON schema of `models.toml`, for editors and for the check of our own example.

use schemars::{JsonSchema, schema_for};
use serde::Serialize;

use crate::engine::SamplingOverrides;

/// The file, as the schema describes it. Reading is done in `file.rs`, which reports all mistakes at once; a test holds
/// the two together.
#[derive(JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
#[schemars(title = "hearth models.toml")]
struct File {
    /// How the server listens and what it accepts.
    server: Option<Server>,
    /// What the models together may take.
    memory: Option<Memory>,
    /// The models.
    model: Vec<Model>,
}

#[derive(JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct Server {
    /// IP address to listen on; default 127.0.0.1.
    host: Option<String>,
    /// Port that serves all models; default 8080, 0 lets the system choose.
    #[schemars(range(min = 0, max = 65535))]
    port: Option<u32>,
    /// Async worker threads of the HTTP server; default 2.
    #[schemars(range(min = 1, max = 256))]
    threads: Option<u32>,
    /// Largest request body; default "8MiB".
    body_limit: Option<String>,
    /// How long running answers may go on after a stop signal; default "30s".
    shutdown_grace: Option<String>,
    /// Names by which the server is asked, besides localhost and its addresses, such as "box.lan"; "*" for any. A server on a
    /// loopback address refuses all others.
    allowed_hosts: Option<Vec<String>>,
    /// Web pages that may use the server, such as "https://chat.example"; "*" for any. Pages of others are refused.
    allowed_origins: Option<Vec<String>>,
    /// Refuse requests for a model that is not here even where only one model is served; default false.
    strict_models: Option<bool>,
}

#[derive(JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// GPU memory: "auto" or an amount such as "16GiB".
    vram: Option<String>,
    /// Main memory: "auto" or an amount.
    ram: Option<String>,
    /// Memory that stays free: "auto" or an amount.
    headroom: Option<String>,
}

#[derive(JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct Model {
    /// Name under which clients ask for the model.
    name: String,
    /// Any word, such as reasoning or narrator; requests may name it instead of the model.
    role: Option<String>,
    /// Further names.
    aliases: Option<Vec<String>>,
    /// A GGUF file (of a split model its first part), demo:reasoner or demo:narrator.
    path: String,
    /// A second listener that serves only this model.
    #[schemars(range(min = 0, max = 65535))]
    port: Option<u32>,
    /// Tokens per slot; default: what the model was trained for, 32768 at most.
    #[schemars(range(min = 32, max = 4_194_304))]
    context: Option<u32>,
    /// Slots: sequences that are computed at once; default 4.
    #[schemars(range(min = 1, max = 64))]
    parallel: Option<u32>,
    /// Threads that compute; default: one per physical core, fewer for small models.
    #[schemars(range(min = 1, max = 1024))]
    threads: Option<u32>,
    /// Requests that may wait for a slot; default 64.
    #[schemars(range(min = 0, max = 100_000))]
    queue: Option<u32>,
    /// Data type of keys and values: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 or iq4_nl; default "f16". Quantised ones need
    /// flash attention.
    kv_type: Option<String>,
    /// Layers on the GPU, as llama.cpp counts them (the output is one); default: what the plan finds best.
    #[schemars(range(min = 0, max = 513))]
    gpu_layers: Option<u32>,
    /// Where the routed experts are computed.
    experts: Option<Experts>,
    /// Sampling where a request says nothing.
    sampling: Option<SamplingOverrides>,
}

#[derive(JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct Experts {
    /// "auto", "gpu" (all on the GPU), "cpu" (all in main memory), or "cache": in main memory, copies of the hot ones on the
    /// cache device; default "auto".
    placement: Option<String>,
    /// How much of the experts has a copy: "auto" (what the plan has left on the GPU), a share such as "25%", or an amount
    /// such as "6GiB".
    cache: Option<String>,
    /// What holds the copies: "auto" (the first GPU) or "cpu"; default "auto".
    device: Option<String>,
    /// Which experts have a copy: "lfu-decay", "lru", "static" or "predictive"; default "auto", which chooses by the size of
    /// the experts.
    policy: Option<String>,
}

/// The schema as JSON.
#[must_use]
pub fn schema() -> serde_json::Value {
    schema_for!(File).to_value()
}
