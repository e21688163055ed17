//! `hearth benchmark --placements`: the expert cache beside the placements that llama.cpp offers, all within the same GPU memory.

use serde::Serialize;

use super::case::{self, Case};
use super::ways::{self, Facts, Load, Measured, Way};
use super::{Args, GENERATE, given_or, long_prompt, render};
use crate::cli::{engines, output};
use crate::config::{Config, DraftKind, ExpertPlacement, KvMemory, ModelConfig};
use crate::engine::ModelInfo;
use crate::engine::local::ALL_LAYERS;
use crate::memory::{Kind, Tier};
use crate::models::{self, Prepared};
use crate::plan::{Experts, LayerShape, ModelPlan, Plan};
use crate::report::Table;

/// What is measured where no lists are given, as far as the model has the context and the slots.
const PROMPTS: [u32; 2] = [512, 4096];
const STREAMS: [u32; 3] = [1, 4, 8];

/// Ways to place the experts.
#[derive(Debug, Serialize)]
struct Placements {
    #[serde(flatten)]
    facts: Facts,
    /// Size of the expert cache without drafts. Whole layers may take as much, and what the cache takes for larger buffers.
    cache_bytes: u64,
    /// What is not as in other comparisons.
    notes: Vec<String>,
    placements: Vec<Measured>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let loaded = engines::load_config(&args.overrides)?;
    let all = &loaded.config;
    let mut config = engines::choose(&all.models, args.one_model()?)?.clone();
    // Finds everything that can go wrong before minutes of loading and measuring.
    let file = models::open(&config)?;
    let info = models::describe(&config, &file)?;
    let load = load(args, &info, config.parallel);
    let mut needed = load.cases.clone();
    needed.extend(load.mixed.map(|mixed| Case {
        concurrency: mixed.concurrency + 1,
        ..mixed
    }));
    let slots = needed.iter().map(|case| case.concurrency).max();
    let parallel = config.parallel.or(slots).unwrap_or(info.parallel);
    case::check(&needed, &ModelInfo { parallel, ..info })?;
    case::fit(&needed, &mut config);

    let mut notes = Vec::new();
    let prepared = models::prepare(&config)?;
    let drafts = drafts(&prepared, &mut notes);
    drop(prepared);
    config.draft.kind = DraftKind::None;
    let without = config.clone();
    let prepared = models::prepare(&without)?;
    let plan = models::plan_one(&prepared, &all.memory)?;
    let planned = &plan.models[0];
    let Experts::Cache { device, .. } = planned.experts else {
        return Err(no_cache(&config, &plan));
    };
    let cache_bytes = planned.kind(device, Kind::ExpertCache);
    // What the plan chose for the cache is the same in all ways.
    let context = planned.context;
    config.kv_type = Some(context.kv_type);
    config.ubatch = Some(context.batch);
    config.kv = Some(if context.pool { KvMemory::Pool } else { KvMemory::Slots });

    let mut ways = vec![Way {
        name: "experts on the CPU".to_owned(),
        model: config.clone(),
        experts_in_ram: Some(ALL_LAYERS),
    }];
    if device == Tier::Gpu {
        let layers = &prepared.request.shape.layers;
        // A cache takes larger buffers too: whole layers get all that it takes.
        let mut on_cpu = config.clone();
        on_cpu.experts.placement = ExpertPlacement::Cpu;
        let rest = plan_of(&on_cpu, all)?.models[0].bytes(device);
        let room = planned.bytes(device).saturating_sub(rest);
        let (on_gpu, layers) = (whole_layers(layers, room), layers.len());
        ways.push(Way {
            name: format!("experts of {on_gpu} of {layers} layers on the GPU"),
            model: config.clone(),
            experts_in_ram: Some(u32::try_from(layers - on_gpu)?),
        });
    }
    ways.push(Way {
        name: cache_name(planned),
        model: config.clone(),
        experts_in_ram: None,
    });
    drop(prepared);
    if let Some((kind, what)) = drafts {
        let mut model = config.clone();
        model.draft.kind = kind;
        let name = format!("{}, drafts of {what}", cache_name(&plan_of(&model, all)?.models[0]));
        ways.push(Way {
            name,
            model,
            experts_in_ram: None,
        });
    }
    let date = super::now()?;
    // Ways take minutes each; what is known of them is told before an end in the middle loses it.
    let measured = ways::measure(ways, args, all, &load, |ways| eprintln!("  {}", last_row(ways, &load)));
    if args.json {
        output::print_json(&Placements {
            facts: Facts::new(args, &config, date),
            cache_bytes,
            notes,
            placements: measured.ways,
        })?;
    } else {
        let mut text = table(&measured.ways, &load).markdown();
        text += &format!(
            "\nThe cache takes {}. Rates are tokens per second, with their ratio to the first row.\n",
            output::bytes(cache_bytes)
        );
        for note in notes {
            text += &format!("{note}\n");
        }
        ways::print(&text)?;
    }
    measured.failed
}

fn plan_of(model: &ModelConfig, all: &Config) -> anyhow::Result<Plan> {
    Ok(models::plan_one(&models::prepare(model)?, &all.memory)?)
}

fn cache_name(planned: &ModelPlan) -> String {
    match planned.experts {
        Experts::Cache { capacity, of, .. } => format!("cache of {capacity} of {of} experts per layer"),
        _ => "no room for a cache".to_owned(),
    }
}

fn no_cache(config: &ModelConfig, plan: &Plan) -> anyhow::Error {
    let reasons = plan.reasons.iter().chain(&plan.models[0].reasons);
    let reasons: Vec<&str> = reasons.map(String::as_str).collect();
    anyhow::anyhow!(
        "the plan has no expert cache for `{}`, so there is nothing to compare: {}\n  hint: --vram limits the GPU \
         memory; `experts = {{ placement = \"cache\" }}` asks for a cache",
        config.name,
        reasons.join("; ")
    )
}

/// The drafts that are measured beside none, with their name.
fn drafts(model: &Prepared<'_>, notes: &mut Vec<String>) -> Option<(DraftKind, &'static str)> {
    let draft = &model.config.draft;
    let (what, note) = match draft.kind {
        DraftKind::None => (None, "Without drafts: they are switched off for this model."),
        DraftKind::Ngram => (Some("the text"), ""),
        _ if model.draft_model.is_some() => (Some("a small model"), ""),
        _ if model.request.head => (Some("its head"), ""),
        _ => (
            None,
            "Without drafts: the model has no head for multi-token prediction, and no small model is named.",
        ),
    };
    if what.is_none() {
        notes.push(note.to_owned());
    }
    Some((draft.kind, what?))
}

/// How many of the last layers have experts that fit into so many bytes together.
fn whole_layers(layers: &[LayerShape], bytes: u64) -> usize {
    let mut left = bytes;
    let fit = layers.iter().rev().take_while(|layer| {
        let rest = left.checked_sub(layer.experts());
        left = rest.unwrap_or(left);
        rest.is_some()
    });
    fit.count()
}

/// Each prompt alone; streams that decode behind the shortest; and the longest, which arrives while others decode.
fn load(args: &Args, info: &ModelInfo, parallel: Option<u32>) -> Load {
    let generate = given_or(&args.generate, &GENERATE);
    let longest_answer = generate.iter().copied().max().unwrap_or(1);
    let lengths = match args.prompt_tokens.as_slice() {
        [] => fitting(&PROMPTS, info.context.saturating_sub(longest_answer)),
        given => given.to_vec(),
    };
    let streams = match args.concurrency.as_slice() {
        [] => fitting(&STREAMS, parallel.unwrap_or(u32::MAX)),
        given => given.to_vec(),
    };
    let shortest = lengths.iter().copied().min().unwrap_or(1);
    let mut cases = case::combine(&[shortest], generate, &streams);
    for case in case::combine(&lengths, &[1], &[1]) {
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    // A slot is for the long prompt.
    let beside = parallel.map_or(long_prompt::STREAMS, |slots| {
        slots.saturating_sub(1).min(long_prompt::STREAMS)
    });
    let mixed = Case {
        prompt_tokens: lengths.iter().copied().max().unwrap_or(1),
        generate: longest_answer,
        concurrency: beside,
    };
    Load {
        cases,
        mixed: (beside > 0 && longest_answer > 1).then_some(mixed),
    }
}

/// Those that are no more than `most`, but at least the least.
fn fitting(list: &[u32], most: u32) -> Vec<u32> {
    let fit: Vec<u32> = list.iter().copied().filter(|number| *number <= most).collect();
    if fit.is_empty() { list[..1].to_vec() } else { fit }
}

/// The last row of the table, on a line of its own, each value with the name of its column.
fn last_row(ways: &[Measured], load: &Load) -> String {
    let Table { header, rows } = table(ways, load);
    let values = header.iter().zip(rows.last().into_iter().flatten()).skip(1);
    let told: Vec<String> = values
        .filter(|(_, value)| !value.is_empty())
        .map(|(column, value)| format!("{column}: {value}"))
        .collect();
    told.join("; ")
}

/// A row for each way.
fn table(ways: &[Measured], load: &Load) -> Table {
    let mut header = vec!["experts".to_owned(), "GPU memory".to_owned()];
    header.extend(load.cases.iter().map(|case| match case.generate {
        1 => format!("prefill of {}", case.prompt_tokens),
        tokens => format!("decode {tokens}, {} at once", case.concurrency),
    }));
    header.push("hit rate".to_owned());
    if let Some(mixed) = load.mixed {
        let beside = format!("{} tokens beside {}", mixed.prompt_tokens, mixed.concurrency);
        header.push(format!("{beside}: decode that is left"));
        header.push("longest pause ms".to_owned());
        header.push("first token ms".to_owned());
    }
    let rows = ways.iter().map(|way| row(way, &ways[0], load, header.len()));
    Table {
        rows: rows.collect(),
        header,
    }
}

fn row(way: &Measured, base: &Measured, load: &Load, columns: usize) -> Vec<String> {
    let mut row = vec![way.name.clone(), output::bytes(way.gpu_bytes)];
    if let Some(error) = &way.error {
        row.push(format!("failed: {error}"));
        row.resize(columns, String::new());
        return row;
    }
    for (index, (case, report)) in load.cases.iter().zip(&way.cases).enumerate() {
        let rate = |way: &Measured| {
            let rates = &way.cases.get(index)?.rates;
            match case.generate {
                1 => rates.prefill_per_second,
                _ => rates.decode_per_second,
            }
        };
        let drafts = report.rates.drafts;
        let accepted = drafts.acceptance().map_or(String::new(), |share| {
            format!(", {:.0} % of {} drafts right", share * 100.0, drafts.computed)
        });
        row.push(format!(
            "{} x{}{accepted}",
            render::spread_text(rate(way)),
            render::ratio_text(rate(way), rate(base))
        ));
    }
    let decoded = way.cases.iter().find(|report| report.case.generate > 1);
    let hits = decoded.and_then(|report| report.experts.as_ref()?.hit_rate);
    row.push(hits.map_or("-".to_owned(), |rate| format!("{:.1} %", rate.median * 100.0)));
    let values = long_prompt::COLUMNS.map(|(key, _)| key);
    for wanted in ["share", "longest_pause_ms", "first_token_ms"] {
        let spread = values.iter().position(|key| *key == wanted);
        if let (Some(mixed), Some(column)) = (&way.mixed, spread) {
            row.push(render::spread_text(mixed.spreads[column]));
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Component;

    #[test]
    fn the_last_layers_go_to_the_gpu_as_far_as_they_fit() {
        let layers = [5, 3, 2, 4].map(|bytes| LayerShape {
            weights: [(Component::RoutedExperts, bytes)].into(),
            ..LayerShape::default()
        });
        let fit = [0, 3, 4, 6, 8, 9, 13, 14, 99].map(|bytes| whole_layers(&layers, bytes));
        assert_eq!(fit, [0, 0, 1, 2, 2, 3, 3, 4, 4]);
    }

    #[test]
    fn lists_that_are_not_given_are_what_the_model_has_room_for() {
        assert_eq!(fitting(&PROMPTS, 65_536), [512, 4096]);
        assert_eq!(fitting(&PROMPTS, 4095), [512]);
        assert_eq!(fitting(&PROMPTS, 100), [512]);
        assert_eq!(fitting(&STREAMS, 5), [1, 4]);
    }
}
