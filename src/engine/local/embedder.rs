//! Embeddings: a second context of a model, on a thread of its own, or the only one of a model that does nothing else.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::{mpsc, oneshot};

use super::allocated;
use super::error::{ComputeError, LoadError};
use super::load::{EmbeddingSpec, LoadSpec, backend, stretched};
use super::tokenize::split;
use crate::engine::{self, Buffers, EngineError, Pooling, Token};
use crate::llama::log::Listener;

/// Texts that are computed in one pass at most.
const MAX_TEXTS: u32 = 16;
/// Jobs that may wait.
const QUEUE: usize = 64;
/// A job whose client left is noticed between two passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Texts that are to become vectors.
#[derive(Debug)]
pub(super) struct Job {
    /// Each not empty, and within [`Embedder::max_tokens`].
    pub(super) texts: Vec<Vec<Token>>,
    pub(super) result: oneshot::Sender<Result<Vec<Vec<f32>>, ComputeError>>,
}

/// Why a job was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    Full { retry_after: Duration },
    Stopped,
}

/// Where jobs are left. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Embedder {
    jobs: mpsc::Sender<Job>,
}

impl Embedder {
    pub(super) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        (Self { jobs }, receiver)
    }

    pub(super) fn push(&self, job: Job) -> Result<(), Refused> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full {
                retry_after: RETRY_AFTER,
            },
            mpsc::error::TrySendError::Closed(_) => Refused::Stopped,
        })
    }
}

/// The context that computes vectors.
pub(super) struct Embeddings<'m> {
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    max_tokens: usize,
    max_texts: usize,
}

impl<'m> Embeddings<'m> {
    pub(super) fn new(
        spec: &LoadSpec,
        embedding: EmbeddingSpec,
        model: &'m LlamaModel,
        log: &Listener,
    ) -> Result<Self, LoadError> {
        let max_tokens = embedding.max_tokens;
        // Each sequence has a state of its own, which may be large.
        let max_texts = if model.is_recurrent() || model.is_hybrid() {
            1
        } else {
            MAX_TEXTS
        };
        let threads = |count: u32| i32::try_from(count).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(max_tokens))
            .with_n_batch(max_tokens)
            // Pooling, and attention in both directions, need a text as a whole.
            .with_n_ubatch(max_tokens)
            .with_n_seq_max(max_texts)
            .with_kv_unified(true)
            .with_embeddings(true)
            .with_pooling_type(match embedding.pooling {
                Pooling::Mean => LlamaPoolingType::Mean,
                Pooling::Cls => LlamaPoolingType::Cls,
                Pooling::Last => LlamaPoolingType::Last,
                Pooling::Rank => LlamaPoolingType::Rank,
            })
            .with_n_threads(threads(spec.threads.prefill))
            .with_n_threads_batch(threads(spec.threads.prefill))
            .with_no_perf(true);
        let params = stretched(params, spec.yarn);
        let context = model
            .new_context(backend(), params)
            .map_err(|error| LoadError::Embeddings(log.explain(&error)))?;
        let max_tokens = max_tokens as usize;
        Ok(Self {
            context,
            batch: LlamaBatch::new(max_tokens, 1),
            max_tokens,
            max_texts: max_texts as usize,
        })
    }

    /// Computes jobs until there will be no more.
    pub(super) fn run(&mut self, mut jobs: mpsc::Receiver<Job>, log: &Listener) {
        while let Some(job) = jobs.blocking_recv() {
            let vectors = self.compute(&job, log);
            // The client may be gone.
            let _ = job.result.send(vectors);
        }
    }

    fn compute(&mut self, job: &Job, log: &Listener) -> Result<Vec<Vec<f32>>, ComputeError> {
        let mut vectors = Vec::with_capacity(job.texts.len());
        let mut rest = job.texts.as_slice();
        while !rest.is_empty() && !job.result.is_closed() {
            let mut tokens = 0;
            let fits = |text: &&Vec<Token>| {
                tokens += text.len();
                tokens <= self.max_tokens
            };
            let count = rest.iter().take(self.max_texts).take_while(fits).count();
            if count == 0 {
                return Err(ComputeError::Batch);
            }
            let (now, later) = rest.split_at(count);
            self.pass(now, &mut vectors, log)?;
            rest = later;
        }
        Ok(vectors)
    }

    /// Computes as many texts as fit a pass.
    fn pass(&mut self, texts: &[Vec<Token>], vectors: &mut Vec<Vec<f32>>, log: &Listener) -> Result<(), ComputeError> {
        self.context.clear_kv_cache();
        self.batch.clear();
        for (sequence, text) in (0..).zip(texts) {
            for (position, token) in (0..).zip(text) {
                let added = self.batch.add(LlamaToken(*token), position, &[sequence], true);
                added.map_err(|_| ComputeError::Batch)?;
            }
        }
        let decoded = self.context.decode(&mut self.batch);
        decoded.map_err(|error| ComputeError::Decode(log.explain(&error)))?;
        for (sequence, _) in (0..).zip(texts) {
            let vector = self.context.embeddings_seq_ith(sequence);
            let vector = vector.map_err(|error| ComputeError::Decode(error.to_string()))?;
            if vector.iter().any(|number| !number.is_finite()) {
                return Err(ComputeError::NotANumber);
            }
            vectors.push(vector.to_vec());
        }
        Ok(())
    }
}

/// A thread for the second context of a model that also generates, and what that context takes.
pub(super) fn start_beside(
    name: &str,
    spec: LoadSpec,
    embedding: EmbeddingSpec,
    model: Arc<LlamaModel>,
) -> Result<(Embedder, Vec<Buffers>), LoadError> {
    let (embedder, jobs) = Embedder::new();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let work = move || {
        let log = Listener::start();
        match Embeddings::new(&spec, embedding, &model, &log) {
            Ok(mut embeddings) => {
                let mapped = !spec.placement.no_mmap;
                let _ = ready.send(Ok(allocated::buffers(&log, mapped)));
                embeddings.run(jobs, &log);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    };
    let thread = std::thread::Builder::new().name(format!("embed {name}")).spawn(work);
    thread.map_err(|error| LoadError::Embeddings(error.to_string()))?;
    let buffers = is_ready.recv().map_err(|_| LoadError::Panic)??;
    Ok((embedder, buffers))
}

/// What a client's call needs of an engine.
pub(super) struct Call<'e> {
    pub(super) name: &'e str,
    pub(super) model: Arc<LlamaModel>,
    pub(super) embedder: &'e Embedder,
    pub(super) max_tokens: u32,
}

impl Call<'_> {
    /// The vectors of texts.
    pub(super) async fn embed(&self, texts: Vec<Vec<Token>>) -> Result<engine::Embeddings, EngineError> {
        let max_tokens = self.max_tokens as usize;
        if let Some(text) = texts.iter().find(|text| text.len() > max_tokens) {
            return Err(EngineError::ContextExceeded {
                model: self.name.to_owned(),
                prompt_tokens: text.len(),
                context: self.max_tokens,
            });
        }
        let tokens = texts.iter().map(Vec::len).sum::<usize>();
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let (result, vectors) = oneshot::channel();
        self.embedder
            .push(Job { texts, result })
            .map_err(|refused| match refused {
                Refused::Full { retry_after } => EngineError::QueueFull {
                    model: self.name.to_owned(),
                    limit: QUEUE,
                    retry_after,
                },
                Refused::Stopped => EngineError::ShuttingDown,
            })?;
        let vectors = vectors.await.map_err(|_| EngineError::ShuttingDown)?;
        let vectors = vectors.map_err(|error| EngineError::Compute {
            model: self.name.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(engine::Embeddings { vectors, tokens })
    }

    /// A query and a document as a model of [`Pooling::Rank`] reads them: its own template, or the pair with the tokens that
    /// its vocabulary puts around texts.
    pub(super) async fn pair(&self, query: &str, document: &str) -> Result<Vec<Token>, EngineError> {
        if let Ok(template) = self.model.meta_val_str("tokenizer.chat_template.rerank") {
            let text = template.replace("{query}", query).replace("{document}", document);
            return split(self.model.clone(), text, true, true).await;
        }
        let query = split(self.model.clone(), query.to_owned(), false, false).await?;
        let document = split(self.model.clone(), document.to_owned(), false, false).await?;
        let vocab = self.model.vocab();
        let sep = vocab.sep().0;
        let eos = if vocab.eos().0 >= 0 { vocab.eos().0 } else { sep };
        let token = |token: Token, wanted: bool| Some(token).filter(|token| wanted && *token >= 0);
        let mut tokens: Vec<Token> = token(vocab.bos().0, vocab.should_add_bos()).into_iter().collect();
        tokens.extend(query);
        tokens.extend(token(eos, vocab.should_add_eos()));
        tokens.extend(token(sep, vocab.should_add_sep()));
        tokens.extend(document);
        tokens.extend(token(eos, vocab.should_add_eos()));
        Ok(tokens)
    }
}
