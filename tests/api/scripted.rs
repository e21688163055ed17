//! The API over an engine that does what the first word of its prompt says, see [`Scripted::play`].

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hearth::api::{Keys, State, Tls, bind};
use hearth::config::{Config, KeyConfig, MemoryConfig, PresetConfig, ServerConfig};
use hearth::engine::{
    EngineError, Event, EventStream, FinishReason, GenerateRequest, Health, ModelFile, ModelInfo, PrefillProgress,
    Prompt, SamplingOverrides, SlotCounts, Timings, Token, TokenEngine, Usage,
};
use hearth::models::{Model, Models, Registry};
use hearth::telemetry::Metrics;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// The time in which a client that left must be noticed, on a busy machine: in practice it is a few milliseconds.
pub const SOON: Duration = Duration::from_secs(2);
pub const BODY_LIMIT: usize = 1 << 20;
pub const CHAT: &str = "/v1/chat/completions";
/// What the scripted engine says if its script says nothing.
pub const TEXT: &str = "Hello, \"wörld\"\n🦙";

struct Scripted {
    info: ModelInfo,
    health: Health,
    /// Hears that a request has come.
    arrived: Sender<()>,
    /// Hears when the API let go of a request.
    left: Sender<Instant>,
}

/// Tells when a future is dropped.
struct Guard(Sender<Instant>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(Instant::now());
    }
}

fn delta(text: &str) -> Event {
    Event::Delta {
        text: text.into(),
        tokens: vec![1],
        logprobs: Vec::new(),
    }
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished {
        reason,
        usage: Usage {
            prompt_tokens: 7,
            completion_tokens: 3,
            cached_tokens: 4,
            ..Usage::default()
        },
        timings: Timings {
            queue: Duration::from_millis(1),
            prefill: Duration::from_millis(10),
            decode: Duration::from_millis(20),
        },
    }
}

impl Scripted {
    fn play(&self, text: &str, events: &UnboundedSender<Event>) -> Result<(), EngineError> {
        let model = self.info.name.clone();
        let send = |event| {
            let _ = events.send(event);
        };
        match text.split_whitespace().next().unwrap_or_default() {
            "full" => {
                return Err(EngineError::QueueFull {
                    model,
                    limit: 1,
                    retry_after: Duration::from_millis(1200),
                });
            }
            "loading" => return Err(EngineError::Loading { model, progress: 0.5 }),
            "long" => {
                return Err(EngineError::ContextExceeded {
                    model,
                    prompt_tokens: 9000,
                    context: 4096,
                });
            }
            "tells" => send(finished(FinishReason::EndOfText)),
            "broken" => {
                send(delta("begun"));
                let reason = "out of luck".into();
                send(Event::Failed(EngineError::Compute { model, reason }));
            }
            "vanishes" => send(delta("begun")),
            #[expect(clippy::panic, reason = "the API must survive it")]
            "panics" => panic!("as the script says"),
            // Nothing comes, as in the queue.
            "waits" => self.every(events, |_| None),
            "prefills" => self.every(events, |step| {
                Some(Event::Progress(PrefillProgress {
                    slot: 0,
                    total: 1_000_000,
                    cached: 0,
                    processed: step,
                    elapsed: Duration::from_millis(1),
                }))
            }),
            "decodes" => self.every(events, |step| Some(delta(&format!("{step} ")))),
            "lines" => self.every(events, |step| Some(delta(&format!("{step}\n")))),
            "bursts" => {
                for step in 0..20_000 {
                    send(delta(&format!("{step} ")));
                }
                send(finished(FinishReason::Length));
            }
            "progresses" => {
                send(Event::Progress(PrefillProgress {
                    slot: 0,
                    total: 7,
                    cached: 4,
                    processed: 7,
                    elapsed: Duration::from_millis(5),
                }));
                send(finished(FinishReason::EndOfText));
            }
            _ => {
                for text in ["Hello", ", \"wörld\"", "\n🦙"] {
                    send(delta(text));
                }
                send(finished(FinishReason::EndOfText));
            }
        }
        Ok(())
    }

    /// Sends events until the receiver is gone, and tells when that was.
    fn every(&self, events: &UnboundedSender<Event>, mut event: impl FnMut(u32) -> Option<Event> + Send + 'static) {
        let (events, left) = (events.clone(), self.left.clone());
        std::thread::spawn(move || {
            for step in 0.. {
                if events.is_closed() {
                    let _ = left.send(Instant::now());
                    return;
                }
                if let Some(event) = event(step) {
                    let _ = events.send(event);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    }
}

/// What an engine is asked, as JSON.
fn told(request: &GenerateRequest) -> String {
    let sampling = &request.sampling;
    let bias = |(token, bias): &(Token, f32)| json!([token, bias.to_string()]);
    json!({
        "prompt": match &request.prompt {
            Prompt::Text { text, .. } => json!(text),
            Prompt::Tokens(tokens) => json!(tokens),
        },
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "top_n_sigma": sampling.top_n_sigma,
        "dynatemp": [sampling.dynatemp_range, sampling.dynatemp_exponent],
        "samplers": sampling.samplers,
        "logit_bias": sampling.logit_bias.iter().map(bias).collect::<Vec<_>>(),
    })
    .to_string()
}

impl TokenEngine for Scripted {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn watch_health(&self) -> watch::Receiver<Health> {
        watch::Sender::new(self.health.clone()).subscribe()
    }

    fn slots(&self) -> SlotCounts {
        SlotCounts {
            total: self.info.parallel,
            ..SlotCounts::default()
        }
    }

    fn submit(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        async move {
            let text = match &request.prompt {
                // The conversation's first message, without ChatML's header.
                Prompt::Text { text, .. } => text.trim_start_matches("<|im_start|>user\n").replace("<|im_end|>", " "),
                // Tokens are bytes here.
                Prompt::Tokens(tokens) => {
                    let bytes = tokens.iter().map(|token| u8::try_from(*token).unwrap_or(b'?'));
                    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
                }
            };
            let _ = self.arrived.send(());
            if text.starts_with("pending") {
                let _guard = Guard(self.left.clone());
                std::future::pending::<()>().await;
            }
            let (sender, receiver) = unbounded_channel();
            if text.starts_with("tells") {
                let _ = sender.send(delta(&told(&request)));
            }
            self.play(&text, &sender)?;
            Ok(EventStream::new(receiver))
        }
        .boxed()
    }

    fn tokenize(&self, text: String, _: bool, _: bool) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        async move { Ok(text.bytes().map(Token::from).collect()) }.boxed()
    }

    fn token_pieces(&self, tokens: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        async move {
            let piece = |token| vec![u8::try_from(token).unwrap_or(b'?')];
            Ok(tokens.into_iter().map(piece).collect())
        }
        .boxed()
    }

    fn shutdown(&self, _: Duration) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

fn engine(name: &str, health: Health, arrived: Sender<()>, left: Sender<Instant>) -> Arc<dyn TokenEngine> {
    let info = ModelInfo {
        name: name.into(),
        role: Some(format!("{name}-role")),
        aliases: vec![format!("{name}-alias")],
        architecture: "scripted".into(),
        context: 4096,
        context_train: 8192,
        parallel: 1,
        vocabulary: 256,
        parameters: 1,
        size_bytes: 1,
        file: ModelFile::default(),
        chat_template: None,
        tool_template: None,
        control_tokens: Vec::new(),
        template_variables: serde_json::Map::new(),
        bos_token: String::new(),
        eos_token: String::new(),
        sampling: SamplingOverrides::default(),
        created: 1,
    };
    Arc::new(Scripted {
        info,
        health,
        arrived,
        left,
    })
}

/// The API on a free port, with two models of which the second has a port of its own.
pub struct Api {
    pub address: SocketAddr,
    pub own: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub tls: Option<Tls>,
    /// A message for each request that an engine got.
    pub arrived: Receiver<()>,
    pub left: Receiver<Instant>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    pub fn start() -> Self {
        Self::with(Health::Ready)
    }

    /// With the second model in this state.
    pub fn with(second: Health) -> Self {
        Self::configured(second, ServerConfig::default())
    }

    /// With more than the usual settings of the server.
    pub fn configured(second: Health, config: ServerConfig) -> Self {
        Self::whole(second, config, Vec::new(), Vec::new())
    }

    /// With presets.
    pub fn with_presets(presets: Vec<PresetConfig>) -> Self {
        Self::whole(Health::Ready, ServerConfig::default(), presets, Vec::new())
    }

    /// For clients with keys.
    pub fn locked(config: ServerConfig, keys: Vec<KeyConfig>, presets: Vec<PresetConfig>) -> Self {
        Self::whole(Health::Ready, config, presets, keys)
    }

    /// With all of it.
    pub fn whole(second: Health, config: ServerConfig, presets: Vec<PresetConfig>, keys: Vec<KeyConfig>) -> Self {
        let (arrives, arrived) = channel();
        let (leaves, left) = channel();
        let engines = vec![
            engine("first", Health::Ready, arrives.clone(), leaves.clone()),
            engine("second", second, arrives, leaves),
        ];
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = ServerConfig {
            host,
            port: 0,
            http_threads: 1,
            body_limit: BODY_LIMIT,
            shutdown_grace: Duration::from_secs(20),
            ..config
        };
        let bound = bind(host, 0, &[("second", 0)]).unwrap().secured(&config).unwrap();
        let (address, own, admin, tls) = (bound.address, bound.own[0].1, bound.admin, bound.tls());
        let keys = Keys::new(&Config {
            server: config.clone(),
            memory: MemoryConfig::default(),
            models: Vec::new(),
            presets: presets.clone(),
            keys,
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let stopping = engines.iter().any(|engine| engine.health() == Health::ShuttingDown);
                let models = engines.into_iter().map(|engine| Arc::new(Model::new(engine)));
                let models = Registry::new(models, config.strict_models).with_presets(&presets);
                let models = Models::fixed(models, Metrics::new());
                let servers = bound
                    .start(&State::new(models.clone(), Metrics::new()).with_keys(keys), &config)
                    .unwrap();
                if stopping {
                    models.shutdown(Duration::ZERO).await;
                }
                let handles: Vec<_> = servers.iter().map(actix_web::dev::Server::handle).collect();
                let running = actix_web::rt::spawn(futures_util::future::join_all(servers));
                let _ = stopped.await;
                futures_util::future::join_all(handles.iter().map(|handle| handle.stop(true))).await;
                let _ = running.await;
            });
        });
        Self {
            address,
            own,
            admin,
            tls,
            arrived,
            left,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let response = client().get(self.url(path)).send().unwrap();
        (response.status().as_u16(), response.json().unwrap())
    }

    pub fn send(&self, path: &str, body: &Value) -> reqwest::blocking::Response {
        client().post(self.url(path)).body(body.to_string()).send().unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.send(path, body);
        let status = response.status().as_u16();
        (status, response.json().unwrap())
    }

    /// The payloads of a stream's events.
    pub fn stream(&self, path: &str, mut body: Value) -> Vec<String> {
        body["stream"] = true.into();
        let response = self.send(path, &body);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().unwrap();
        let events = text.strip_suffix("\n\n").expect("ends with an event").split("\n\n");
        events
            .map(|event| event.strip_prefix("data: ").expect("one field").to_owned())
            .collect()
    }

    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// Ends it, and tells how long that took.
    pub fn stop(mut self) -> Duration {
        let started = Instant::now();
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
        started.elapsed()
    }
}

pub fn client() -> reqwest::blocking::Client {
    reqwest::blocking::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

pub fn chat(script: &str) -> Value {
    json!({"messages": [{"role": "user", "content": script}]})
}

pub fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until the text appears.
pub fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = socket.read(&mut part).unwrap();
        all.extend_from_slice(&part[..count]);
        let found = String::from_utf8_lossy(&all);
        if found.contains(text) {
            return found.into_owned();
        }
        assert!(count > 0, "the connection ended before {text:?}:\n{found}");
    }
}
