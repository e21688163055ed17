//! `--mixed`: what a long prompt costs those who decode when it arrives.

use super::super::Target;
use super::Part;
use crate::cli::benchmark::case::Case;
use crate::cli::benchmark::long_prompt::{self, ANSWER, Begun, SHORT};
use crate::cli::benchmark::prompts::seed;

/// Streams that decode, and a prompt of `prompt_tokens` that arrives meanwhile.
pub(super) async fn measure(target: &mut Target, case: Case, run: u32) -> anyhow::Result<Vec<Part>> {
    let mut short = Vec::new();
    for stream in 0..case.concurrency {
        let prompt = target.prompts.prompt(&target.server, SHORT, seed(run, stream + 1));
        short.push(prompt.await?);
    }
    let long = target.prompts.prompt(&target.server, case.prompt_tokens, seed(run, 0));
    let long = long.await?;
    let (server, short) = (&target.server, &short);
    let begun = Begun::new(case);
    let decode = |index: u32, begun| async move {
        let counter = Begun::counter(begun);
        let reply = server.complete_and(&short[index as usize], case.generate, counter);
        anyhow::Ok(reply.await?.stream)
    };
    let arriving = async { anyhow::Ok(server.complete(&long, ANSWER).await?.stream) };
    Ok(vec![Part {
        name: "a long prompt arrives",
        values: long_prompt::run(case, &begun, decode, arriving).await?,
    }])
}
