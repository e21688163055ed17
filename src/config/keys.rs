//! All keys of `models.toml`, each one entry: reading, checking of single values, the schema, `hearth config show`, variables,
//! flags and the tables of docs/configuration.md follow from it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::diagnostic::Origin;
use super::kind::{Auto, Between, Choice, Kind, List, Maybe, Object, Text, Truth, whole};
use super::reader::Table;
use super::sampling::PartialSampling;
use super::secret::{ApiKey, Secret, Secrets};
use super::section::{Entry, Fallback, Key, Section, default_text, doc_text, entry, first, key_name, require, section};
use super::setting::Setting;
use super::types::{
    CacheDevice, CacheSize, ChatTemplate, DraftKind, ExpertPlacement, FallbackOn, KvMemory, LoadAt, MemoryLimit,
    ModelSource,
};
use super::upstream::{PartialUpstream, PartialUpstreams, Source, UpstreamConfig};
use super::value::{self, Fault};
use crate::experts::policy::PolicyKind;
use crate::memory::KvTypes;
use crate::pooling::Pooling;
use crate::sampling::SamplingOverrides;

use Fallback::{Required, RequiredUnless, Value};

section! {
    /// How the HTTP server listens and what it accepts.
    "[server]" ServerConfig, PartialServer {
        /// IP address to listen on; `"0.0.0.0"` serves the whole network
        host: IpAddr = Value(Ipv4Addr::LOCALHOST.into()), Text { parse: value::host, show: ToString::to_string },
            variable "HEARTH_HOST", flag "--host" "IP";
        /// serves all models; 0 lets the system choose
        port: u16 = Value(8080), whole(0..=65535), variable "HEARTH_PORT", flag "--port" "PORT";
        /// threads of the HTTP server. They do not compute
        http_threads as "threads": usize = Value(2), whole(1..=256), variable "HEARTH_HTTP_THREADS";
        /// largest request body, `"1KiB"` to `"1GiB"`
        body_limit: usize = Value(8 << 20), Text { parse: value::body_limit, show: |bytes| value::size_text(*bytes as u64) },
            variable "HEARTH_BODY_LIMIT", flag "--body-limit" "BYTES";
        /// how long running completions may go on after a stop signal, at most `"1h"`
        shutdown_grace: Duration = Value(Duration::from_secs(30)), DURATION, variable "HEARTH_SHUTDOWN_GRACE";
        /// longest pause that the prefill of other requests may cause in a running stream, `"10ms"` to `"60s"`. At least 64 tokens of
        /// a prompt are computed at once, which takes longer on slow machines
        max_pause: Duration = Value(Duration::from_millis(500)),
            Text { parse: value::max_pause, show: show_duration }, variable "HEARTH_MAX_PAUSE";
        /// while there are no requests, compute the beginning of the turn that may follow an answer with thoughts: chat templates leave
        /// the thoughts of earlier answers out, so that the answer itself would be computed again when the user goes on
        prepare_next_turn: bool = Value(true), Truth, variable "HEARTH_PREPARE_NEXT_TURN";
        /// names by which the server is asked, besides localhost and its addresses, such as `"box.lan"`; `"*"` for any. A server on a
        /// loopback address refuses all others
        allowed_hosts: Vec<String> = Value(Vec::new()), List(Text { parse: value::allowed_host, show: String::clone }),
            variable "HEARTH_ALLOWED_HOSTS";
        /// web pages that may use the server besides its own (CORS), such as `"https://chat.example"`; `"localhost"` for those of this
        /// machine on any port, `"*"` for any. Pages of others are refused
        cors: Vec<String> = Value(Vec::new()), List(Text { parse: value::cors_origin, show: String::clone }),
            variable "HEARTH_CORS";
        /// connections per thread of the HTTP server; further ones wait until one is closed
        max_connections: usize = Value(4096), whole(1..=1_000_000), variable "HEARTH_MAX_CONNECTIONS";
        /// refuse requests for a model that is not here even where only one model is served
        strict_models: bool = Value(false), Truth, variable "HEARTH_STRICT_MODELS";
        /// a request for a model that is not in memory has it loaded, and waits; `?autoload=false` of a request says no
        autoload: bool = Value(true), Truth, variable "HEARTH_AUTOLOAD";
        /// how long a request waits for its model to be loaded, `"1s"` to `"1h"`
        load_timeout: Duration = Value(Duration::from_secs(600)), DURATION, variable "HEARTH_LOAD_TIMEOUT";
        /// try a model file that hearth has not seen before in a process of its own first, so that one on which llama.cpp gives up
        /// ends nothing else; what passed is remembered
        try_files: bool = Value(true), Truth, variable "HEARTH_TRY_FILES";
        /// silence of an engine that has work after which `/readyz` calls it stuck, at most `"1h"`; `"0s"` never
        watchdog: Duration = Value(Duration::from_secs(120)), DURATION, variable "HEARTH_WATCHDOG";
        /// write what requests ask into the log, the first 2000 characters of each. What people write is nobody else's business: for
        /// finding faults only
        log_prompts: bool = Value(false), Truth, variable "HEARTH_LOG_PROMPTS";
        /// folder for what slots hold: `/slots/{id}?action=save` writes there and `restore` reads there, and what prompts go on from
        /// (`prompt_cache`) is kept there over restarts. Relative to the folder of the configuration
        slot_save_path: Option<PathBuf> = Value(None), Maybe(
            Text { parse: value::folder, show: |path| path.display().to_string() },
            "nothing is saved",
        ), variable "HEARTH_SLOT_SAVE_PATH";
        /// longest time for the headers of a request to arrive, and longest silence within its body
        request_timeout: Duration = Value(Duration::from_secs(30)),
            Text { parse: value::client_time, show: show_duration }, variable "HEARTH_REQUEST_TIMEOUT";
        /// how long a connection without a request is kept
        keep_alive: Duration = Value(Duration::from_secs(75)),
            Text { parse: value::client_time, show: show_duration }, variable "HEARTH_KEEP_ALIVE";
        /// keys of clients, each as it is or as `"sha256:..."`; from variables and flags with commas between them. Where there is one,
        /// requests need one
        api_keys: Vec<ApiKey> = Value(Vec::new()), Secrets, variable "HEARTH_API_KEY", flag "--api-key" "KEY";
        /// a file with further keys, one on each line, with settings of `[[key]]` behind it; relative to the folder of the
        /// configuration
        api_key_file: Option<PathBuf> = Value(None), Maybe(FILE, "none"),
            variable "HEARTH_API_KEY_FILE", flag "--api-key-file" "FILE";
        /// the key for administration: reloading, maintenance, loading, experts, slots, log levels. Other keys of `api_keys` are
        /// then for using the models only
        admin_key: Option<ApiKey> = Value(None), Maybe(Secret, "any of `api_keys`"), variable "HEARTH_ADMIN_KEY";
        /// the key for `/metrics`, and for nothing else
        metrics_key: Option<ApiKey> = Value(None), Maybe(Secret, "any key"), variable "HEARTH_METRICS_KEY";
        /// a listener for administration and `/metrics`, which are then nowhere else; 0 lets the system choose
        admin_port: Option<u16> = Value(None), Maybe(whole(0..=65535), "none of its own"), variable "HEARTH_ADMIN_PORT";
        /// IP address of that listener
        admin_host: IpAddr = Value(Ipv4Addr::LOCALHOST.into()), Text { parse: value::host, show: ToString::to_string },
            variable "HEARTH_ADMIN_HOST";
        /// PEM file with the server's certificate and those between it and the root: the server speaks TLS. A renewed file is taken
        /// within half a minute
        tls_certificate: Option<PathBuf> = Value(None), Maybe(FILE, "no TLS"),
            variable "HEARTH_TLS_CERTIFICATE", flag "--tls-certificate" "FILE";
        /// PEM file with the private key of the certificate
        tls_key: Option<PathBuf> = Value(None), Maybe(FILE, "no TLS"), variable "HEARTH_TLS_KEY", flag "--tls-key" "FILE";
    }
}

const FILE: Text<PathBuf> = Text {
    parse: value::file,
    show: |path| path.display().to_string(),
};

section! {
    /// A client's key with a name, and with limits of its own.
    "[[key]]" KeyConfig, PartialKey {
        /// what logs call the owner of the key
        name: String = Required("add name = \"...\": logs call the key by it"), NAME;
        /// the key, or `"sha256:..."`
        key: Option<ApiKey> = Value(None), Maybe(Secret, "what `key_env` says");
        /// the environment variable that the key is in, instead of `key`
        key_env: Option<String> = Value(None), Maybe(ANY_TEXT, "none");
        /// names, aliases or roles of models, and names of presets, that the key is for; a model's presets come with it. Other models are
        /// refused and not listed
        models: Vec<String> = Value(Vec::new()), List(NAME);
        /// requests per minute
        requests_per_minute: Option<u32> = Value(None), Maybe(whole(1..=1_000_000), "no limit");
        /// requests at the same time
        concurrent_requests: Option<u32> = Value(None), Maybe(whole(1..=100_000), "no limit");
        /// whether the key is for administration too
        admin: bool = Value(false), Truth;
    }
}

const DURATION: Text<Duration> = Text {
    parse: value::duration,
    show: show_duration,
};

fn show_duration(span: &Duration) -> String {
    value::duration_text(*span)
}

const IDLE: Text<Duration> = Text {
    parse: value::idle,
    show: show_duration,
};

const LIMIT: Text<MemoryLimit> = Text {
    parse: value::memory,
    show: value::memory_text,
};

section! {
    /// What the models together may take.
    #[derive(Copy, Eq)]
    "[memory]" MemoryConfig, PartialMemory {
        /// GPU memory that the models may take together: `"auto"` or an amount such as `"16GiB"`
        vram: MemoryLimit = Value(MemoryLimit::Auto), LIMIT, variable "HEARTH_VRAM", flag "--vram" "BYTES";
        /// main memory that the models may take together
        ram: MemoryLimit = Value(MemoryLimit::Auto), LIMIT, variable "HEARTH_RAM", flag "--ram" "BYTES";
        /// memory that stays free on each of the two; `"auto"` is 4 % of a GPU, 512 MiB at least, and 6 % of main memory, 2 GiB
        /// at least
        headroom: MemoryLimit = Value(MemoryLimit::Auto), LIMIT, variable "HEARTH_HEADROOM", flag "--headroom" "BYTES";
        /// whether the GPU's memory is main memory, where what its driver says misleads: some GPUs of processors have a part of it
        /// for themselves, and a virtual machine may have as much memory as its GPU
        unified: Option<bool> = Value(None), Maybe(Truth, "as the driver says"), variable "HEARTH_UNIFIED";
        /// main memory per model, beside the plan, for saved states of sequences: conversations whose slot was given to another
        /// one, and of models with recurrent layers the places where prompts part. `"0B"` saves none
        prompt_cache: u64 = Value(1 << 30), Text { parse: value::size, show: |bytes| value::size_text(*bytes) },
            variable "HEARTH_PROMPT_CACHE";
    }
}

const NAME: Text<String> = Text {
    parse: value::name,
    show: String::clone,
};

section! {
    /// One model to be served. Variables and flags apply to every model.
    "[[model]]" ModelConfig, PartialModel {
        /// clients ask for the model by it; no blanks
        name: String = Required("add name = \"...\": clients ask for the model by it"), NAME;
        /// what the model is for, such as `"reasoning"` or `"narrator"`; a request may name the role instead. Shared by several
        /// models, it means the first (with a warning)
        role: Option<String> = Value(None), Maybe(NAME, "none");
        /// further names
        aliases: Vec<String> = Value(Vec::new()), List(NAME);
        /// a GGUF file (of a split model, its first part), relative to the folder of the configuration; `~` is your home folder.
        /// Or `"demo:reasoner"`, `"demo:narrator"`
        source as "path": ModelSource =
            RequiredUnless("upstream", "add path = \"....gguf\", or path = \"demo:reasoner\" to try"), Source;
        /// `"startup"`: loaded when the server starts; `"demand"`: when it is first asked for. A model that is loaded on demand gives
        /// way where another one needs its memory and it answers nobody
        load: LoadAt = Value(LoadAt::Startup), Choice {
            words: [("startup", LoadAt::Startup), ("demand", LoadAt::Demand)],
            hint: Some("\"startup\" loads the model with the server, \"demand\" with the first request for it"),
        };
        /// time without a request after which the model is unloaded, such as `"30m"`, at most `"7d"`; the next request loads it again.
        /// A model that is loaded at start-up and has such a time gives way to others, too
        idle: Option<Duration> = Value(None), Maybe(IDLE, "never unloaded"), variable "HEARTH_IDLE";
        /// a second listener that serves only this model; 0 lets the system choose
        port: Option<u16> = Value(None), Maybe(whole(0..=65535), "none of its own");
        /// tokens per sequence, prompt and completion together. `"auto"` is what the model was trained for, 65536 at most (32768
        /// without a GPU), and less where the memory is worth more for experts and layers on the GPU
        context: Option<u32> = Value(None), Auto(whole(32..=4_194_304)),
            variable "HEARTH_CONTEXT", flag "--context" "TOKENS";
        /// sequences that are computed at once; each has its own `context`. `"auto"` is 4, or fewer where the memory is worth more
        /// for something else
        parallel: Option<u32> = Value(None), Auto(whole(1..=64)), variable "HEARTH_PARALLEL", flag "--parallel" "SLOTS";
        /// threads that compute. By default one per physical core; small models (under 128 MiB of weights per token) that are
        /// served beside others share the cores, and tiny ones take fewer for single tokens
        threads: Option<u32> = Value(None), Maybe(whole(1..=1024), "one per physical core, fewer for small models"),
            variable "HEARTH_THREADS", flag "--threads" "THREADS";
        /// requests that may wait for a slot
        queue: usize = Value(64), whole(0..=100_000), variable "HEARTH_QUEUE";
        /// data type of keys and values, or one for each: `"q8_0"`, `"q8_0/q4_0"`. `"q8_0"` needs about half of the memory of `"f16"`;
        /// quantised ones need flash attention and heads of a multiple of 32 elements. `"auto"` is `"f16"`, or `"q8_0"` where half of the
        /// memory is worth more for something else
        kv_type: Option<KvTypes> = Value(None), Auto(Text { parse: value::kv_types, show: ToString::to_string }),
            variable "HEARTH_KV_TYPE", flag "--kv-type" "TYPE";
        /// `"slots"`: each slot has a memory of `context` tokens; `"pool"`: all share one of `context` tokens, which takes less and
        /// is slower with many streams. Where it is full, prompts wait and the longest answer ends. `"auto"` is `"slots"`, or
        /// `"pool"` where the memory is worth more for something else
        kv: Option<KvMemory> = Value(None), Auto(Choice {
            words: [("slots", KvMemory::Slots), ("pool", KvMemory::Pool)],
            hint: Some("\"slots\" is fast with many streams, \"pool\" takes less memory"),
        }), flag "--kv" "KIND";
        /// tokens of prompts that are computed in one pass at most. Larger passes fetch the weights that lie in main memory less often,
        /// and take more memory for buffers. `"auto"` is 512, up to 4096 where that is worth it
        ubatch: Option<u32> = Value(None), Auto(whole(64..=8192)), variable "HEARTH_UBATCH";
        /// how much the speed of this model counts beside that of the others, where memory is shared out
        importance: u32 = Value(1), whole(1..=100);
        /// the chat template: a file, relative to the folder of the configuration, or the text of one. By default that of the
        /// model's file
        chat_template: Option<ChatTemplate> = Value(None),
            Maybe(Text { parse: value::chat_template, show: |template| template.given.clone() }, "the model's own");
        /// variables of the chat template where a request says nothing, such as `{ enable_thinking = false }`, or JSON in a string
        chat_template_kwargs: Option<Map<String, Json>> = Value(None),
            Maybe(Object { check: |_| Ok(()) }, "none");
        /// also make embeddings, in a small second context of the model (2048 tokens per text at most). A model whose role is
        /// `"embedding"` makes nothing else
        embeddings: bool = Value(false), Truth;
        /// how the vectors of a text's tokens become one: `"mean"`, `"cls"`, `"last"`, or `"rank"` for a model that ranks
        /// documents
        pooling: Option<Pooling> = Value(None), Maybe(
            Choice { words: Pooling::ALL.map(|pooling| (pooling.name(), pooling)), hint: None },
            "what the file says, else mean",
        );
        /// layers on the GPU, as llama.cpp counts them: the output is the first, then come the last layers
        gpu_layers: Option<u32> = Value(None), Auto(whole(0..=513));
        /// names of models that answer in its place, tried in order, where this one cannot and nothing was sent yet
        /// ([upstream.md](upstream.md#fallback))
        fallback: Vec<String> = Value(Vec::new()), List(NAME);
        /// when they do: `"overloaded"`, `"load_failed"`, `"engine_error"`, `"timeout"`, `"maintenance"`
        fallback_on: Vec<FallbackOn> = Value(FallbackOn::ALL.to_vec()), List(FALLBACK_ON);
    } below {
        /// Where the routed experts are computed.
        experts: ExpertsConfig = PartialExperts;
        /// Guesses for the tokens that come next.
        draft: DraftConfig = PartialDraft;
        /// Positions beyond those that the model was trained for.
        rope: RopeConfig = PartialRope;
        /// Servers that answer in the place of a file.
        upstream: Vec<UpstreamConfig> = PartialUpstreams;
        /// Sampling where a request says nothing.
        sampling: SamplingOverrides = PartialSampling;
    }
}

section! {
    /// Where the routed experts of a model are computed.
    #[derive(Copy, Eq)]
    "[model.experts]" ExpertsConfig, PartialExperts {
        /// `"gpu"`: all on the GPU; `"cpu"`: all in main memory; `"cache"`: in main memory, with copies of the hot ones on the
        /// cache device; `"auto"`: what `hearth plan` finds best
        placement: ExpertPlacement = Value(ExpertPlacement::Auto), Choice {
            words: [
                ("auto", ExpertPlacement::Auto),
                ("gpu", ExpertPlacement::Gpu),
                ("cpu", ExpertPlacement::Cpu),
                ("cache", ExpertPlacement::Cache),
            ],
            hint: Some("\"cache\" keeps copies of the hot experts, \"auto\" leaves the choice to hearth"),
        };
        /// how much of the experts has a copy: a share such as `"25%"`, an amount such as `"6GiB"`; `"auto"` is what the plan has
        /// left on the GPU, a quarter with `device = "cpu"`
        cache: CacheSize = Value(CacheSize::Auto), Text { parse: value::cache_size, show: value::cache_size_text };
        /// what holds the copies. `"auto"` is the GPU; without one the cache is left out. `"cpu"` keeps copies in main memory:
        /// that makes nothing faster, but takes every step that a GPU takes
        device: CacheDevice = Value(CacheDevice::Auto), Choice {
            words: [("auto", CacheDevice::Auto), ("cpu", CacheDevice::Cpu)],
            hint: Some("\"auto\" is the first GPU, \"cpu\" is for trying the cache without one"),
        };
        /// which experts have a copy ([compared](expert-policies.md)). `"auto"` is `"benefit"`, and `"predictive"` for small
        /// experts, where two uploads per layer and token are less than 16 MiB together
        policy: Option<PolicyKind> = Value(None), Choice { words: policies(), hint: None };
    }
}

section! {
    /// Guesses for the tokens that come next, which are computed together with the one that is sure. The answers have the
    /// distribution that they have without: a guess counts only if the model samples the same token.
    "[model.draft]" DraftConfig, PartialDraft {
        /// `"mtp"`: by the model's own head for multi-token prediction; `"model"`: by the small model of `path`; `"ngram"`: what
        /// followed the same three tokens before in the text; `"none"`; `"auto"`: by the small model if there is one, else by
        /// the head if the file has one, else by the text, and only where it is measured to be faster
        kind: DraftKind = Value(DraftKind::Auto), Choice {
            words: [
                ("auto", DraftKind::Auto),
                ("mtp", DraftKind::Mtp),
                ("model", DraftKind::Model),
                ("ngram", DraftKind::Ngram),
                ("none", DraftKind::None),
            ],
            hint: Some("\"auto\" makes guesses where they pay, \"none\" makes none"),
        }, variable "HEARTH_DRAFT", flag "--draft" "KIND";
        /// the small model: a GGUF file with the same vocabulary, without recurrent layers
        path: Option<ModelSource> = Value(None),
            Maybe(Text { parse: value::source, show: value::source_text }, "none"), flag "--draft-model" "GGUF";
        /// guesses for each stream in a pass at most
        max: u32 = Value(2), whole(1..=16);
        /// a guess of the head that is less likely than this is not made
        min_probability: f32 = Value(0.0), Between(0.0, 1.0);
    }
}

section! {
    /// Positions beyond those that the model was trained for.
    #[derive(Copy)]
    "[model.rope]" RopeConfig, PartialRope {
        /// stretches positions by this factor with YaRN, as far as the model's authors say that it works: 4 makes 1,048,576 tokens
        /// of 262,144. It costs a little exactness in short texts, and memory as the context does
        yarn: Option<f32> = Value(None), Maybe(Between(1.0, 64.0), "not stretched"), flag "--rope-yarn" "FACTOR";
    }
}

const FALLBACK_ON: Text<FallbackOn> = Text {
    parse: value::fallback_on,
    show: |on| on.name().to_owned(),
};

const ANY_TEXT: Text<String> = Text {
    parse: |text| Ok(text.to_owned()),
    show: String::clone,
};

section! {
    /// A model under a name of its own, with defaults for requests; fields of a request come first.
    "[[preset]]" PresetConfig, PartialPreset {
        /// clients ask for it as they ask for a model
        name: String = Required("add name = \"...\": clients ask for the preset by it"), NAME;
        /// the name, an alias or the role of the `[[model]]` that answers
        model: String = Required("add model = \"...\": the [[model]] that answers"), NAME;
        /// system message of conversations that do not begin with one
        system: Option<String> = Value(None), Maybe(ANY_TEXT, "none");
        /// texts before which an answer ends
        stop: Vec<String> = Value(Vec::new()), List(Text { parse: value::stop, show: String::clone });
        /// `response_format` of requests, as a table or as JSON in a string: `{ type = "json_object" }`, or
        /// `{ type = "json_schema", json_schema = { name = "...", schema = { ... } } }`
        response_format: Option<Map<String, Json>> = Value(None), Maybe(Object { check: value::response_format }, "text");
        /// `reasoning_effort` of requests, which some templates read
        reasoning_effort: Option<&'static str> = Value(None), Maybe(Choice {
            words: ["none", "minimal", "low", "medium", "high", "xhigh", "max"].map(|word| (word, word)),
            hint: None,
        }, "the template's");
        /// whether the model thinks before it answers, where its template can tell it
        enable_thinking: Option<bool> = Value(None), Maybe(Truth, "the template's");
        /// further variables of the chat template
        chat_template_kwargs: Option<Map<String, Json>> = Value(None), Maybe(Object { check: |_| Ok(()) }, "none");
        /// names of models that answer where the model cannot, instead of the model's own `fallback`
        fallback: Vec<String> = Value(Vec::new()), List(NAME);
        /// when they do, as `fallback_on` of a model
        fallback_on: Vec<FallbackOn> = Value(FallbackOn::ALL.to_vec()), List(FALLBACK_ON);
    } below {
        /// Sampling, on top of the model's own.
        sampling: SamplingOverrides = PartialSampling;
    }
}

fn policies() -> [(&'static str, Option<PolicyKind>); 6] {
    let [a, b, c, d, e] = PolicyKind::ALL.map(|policy| (policy.name(), Some(policy)));
    [("auto", None), a, b, c, d, e]
}

impl Default for ServerConfig {
    fn default() -> Self {
        PartialServer::default().build().expect("no key of it is required")
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        PartialMemory::default().build().expect("no key of it is required")
    }
}

impl Default for ExpertsConfig {
    fn default() -> Self {
        PartialExperts::default().build().expect("no key of it is required")
    }
}

impl Default for DraftConfig {
    fn default() -> Self {
        PartialDraft::default().build().expect("no key of it is required")
    }
}

impl ModelConfig {
    /// A model with the defaults of everything but its name and source.
    #[must_use]
    pub fn new(name: impl Into<String>, source: ModelSource) -> Self {
        PartialModel::new(name, source)
            .build()
            .expect("all that is required is given")
    }
}

impl PartialModel {
    /// A model with the defaults of everything but its name and source.
    pub fn new(name: impl Into<String>, source: ModelSource) -> Self {
        Self {
            name: Setting::default_of(name.into()),
            source: Setting::default_of(source),
            ..Self::default()
        }
    }
}

/// The whole configuration, checked: every number in range, every name unique, every file present.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub memory: MemoryConfig,
    /// At least one.
    pub models: Vec<ModelConfig>,
    /// Each of one of the models.
    pub presets: Vec<PresetConfig>,
    /// Keys with a name, those of `api_key_file` among them. Each has its `key`.
    pub keys: Vec<KeyConfig>,
}

/// The keys of `api_key_file`.
#[derive(Debug, Clone, Default)]
pub(super) struct FileKeys {
    /// Like those of `api_keys`.
    pub plain: Vec<ApiKey>,
    /// Those with settings, like `[[key]]`.
    pub named: Vec<KeyConfig>,
}

/// The configuration while its layers are put on top of each other.
#[derive(Debug, Clone, Default)]
pub(super) struct PartialConfig {
    pub server: PartialServer,
    pub memory: PartialMemory,
    pub models: Vec<PartialModel>,
    pub presets: Vec<PartialPreset>,
    pub keys: Vec<PartialKey>,
    pub file_keys: FileKeys,
}

impl PartialConfig {
    /// Takes the text of a variable or a flag; keys of a model are set in every model.
    pub fn set(&mut self, key: &Key, text: &str, origin: &Origin) -> Result<(), Fault> {
        match key.table {
            PartialServer::TITLE => self.server.set(key.name, text, origin),
            PartialMemory::TITLE => self.memory.set(key.name, text, origin),
            PartialModel::TITLE => {
                // A text that is wrong is so without any model too, and only once.
                PartialModel::default().set(key.name, text, origin)?;
                let mut models = self.models.iter_mut();
                models.try_for_each(|model| model.set(key.name, text, origin))
            }
            PartialDraft::TITLE => {
                PartialDraft::default().set(key.name, text, origin)?;
                let mut models = self.models.iter_mut();
                models.try_for_each(|model| model.draft.set(key.name, text, origin))
            }
            PartialRope::TITLE => {
                PartialRope::default().set(key.name, text, origin)?;
                let mut models = self.models.iter_mut();
                models.try_for_each(|model| model.rope.set(key.name, text, origin))
            }
            _ => {
                PartialExperts::default().set(key.name, text, origin)?;
                let mut models = self.models.iter_mut();
                models.try_for_each(|model| model.experts.set(key.name, text, origin))
            }
        }
    }

    /// The checked configuration; `None` where a model lost its name or its source to a reported mistake.
    pub fn build(&self) -> Option<Config> {
        Some(Config {
            server: {
                let mut server = self.server.build()?;
                server.api_keys.extend(self.file_keys.plain.iter().cloned());
                server
            },
            memory: self.memory.build()?,
            models: self.models.iter().map(PartialModel::build).collect::<Option<_>>()?,
            presets: self.presets.iter().map(PartialPreset::build).collect::<Option<_>>()?,
            keys: {
                let keys = self.keys.iter().map(PartialKey::build);
                keys.chain(self.file_keys.named.iter().cloned().map(Some))
                    .collect::<Option<_>>()?
            },
        })
    }
}

/// All keys but those of `[model.sampling]` and `[preset.sampling]`.
#[must_use]
pub fn keys() -> Vec<Key> {
    [
        PartialServer::keys(),
        PartialMemory::keys(),
        PartialModel::keys(),
        PartialExperts::keys(),
        PartialDraft::keys(),
        PartialRope::keys(),
        PartialUpstream::keys(),
        PartialPreset::keys(),
        PartialKey::keys(),
    ]
    .concat()
}
