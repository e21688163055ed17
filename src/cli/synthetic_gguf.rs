//! `hearth synthetic-gguf`: a file of a real model's shape with random weights.

use std::path::PathBuf;

use anyhow::bail;

use super::output;
use crate::synthetic::{Arch, Mix, Shape, Synthetic};

/// Arguments of `hearth synthetic-gguf`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Architecture.
    #[arg(long, value_enum)]
    arch: Arch,

    /// Shape to start from: 80b-a3b (qwen3next), 30b-a3b (qwen3moe), 20b and 120b (gpt-oss), mag-mell-12b (llama), or tiny.
    #[arg(long, default_value = "tiny")]
    preset: String,

    /// Layers, instead of the preset's.
    #[arg(long)]
    layers: Option<u32>,

    /// Experts per layer, instead of the preset's.
    #[arg(long)]
    experts: Option<u32>,

    /// Experts that compute a token, instead of the preset's.
    #[arg(long, alias = "experts-used")]
    experts_per_token: Option<u32>,

    /// Tokens of the vocabulary, instead of the preset's.
    #[arg(long)]
    vocabulary: Option<u32>,

    /// Trained context in tokens, instead of the preset's.
    #[arg(long)]
    context: Option<u32>,

    /// Mix of data types: f16, q8_0, q4_k_m, iq4_xs, mxfp4, ...
    #[arg(long = "type", default_value = "q4_k_m")]
    mix: String,

    /// Add a block for multi-token prediction (qwen3next).
    #[arg(long)]
    mtp: bool,

    /// Make gate and up of the experts one tensor (qwen3next).
    #[arg(long)]
    fused_gate_up: bool,

    /// How unequal the router's experts are: 0 for all alike, 1 for weights that fall as one over the rank.
    #[arg(long, default_value_t = 0.0)]
    skew: f64,

    /// The same seed makes the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Write the header alone; the data is a hole that takes no space. For `hearth inspect` and the like.
    #[arg(long)]
    header_only: bool,

    /// Replace a file that is there.
    #[arg(long)]
    force: bool,

    /// File to write.
    #[arg(long, short)]
    output: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Some(mut shape) = Shape::preset(args.arch, &args.preset) else {
        let known: Vec<_> = Shape::presets(args.arch).into_iter().map(|(name, _)| name).collect();
        bail!(
            "{} has no preset `{}`; it has {}",
            args.arch.as_str(),
            args.preset,
            known.join(", ")
        );
    };
    for (given, field) in [
        (args.layers, &mut shape.layers),
        (args.experts, &mut shape.experts),
        (args.experts_per_token, &mut shape.experts_per_token),
        (args.vocabulary, &mut shape.vocabulary),
        (args.context, &mut shape.context),
    ] {
        *field = given.unwrap_or(*field);
    }
    shape.mtp |= args.mtp;
    shape.fused_gate_up |= args.fused_gate_up;
    if !(0.0..=10.0).contains(&args.skew) {
        bail!("--skew must be between 0 and 10");
    }
    if args.output.exists() && !args.force {
        bail!("{} is there already; --force replaces it", args.output.display());
    }
    let synthetic = Synthetic {
        shape,
        mix: Mix::from_name(&args.mix)?,
        skew: args.skew,
        seed: args.seed,
        header_only: args.header_only,
    };
    let bar = output::progress_bar(1, "bytes");
    let bytes = synthetic.write(&args.output, |written, total| {
        bar.set_length(total);
        bar.set_position(written);
    })?;
    bar.finish_and_clear();
    let what = if args.header_only { " with a header only" } else { "" };
    eprintln!("{}: {}{what}", args.output.display(), output::bytes(bytes));
    Ok(())
}
