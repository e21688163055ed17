//! A plan as text.

use std::fmt;

use super::outcome::{Experts, ModelPlan, Plan};
use crate::memory::{Tier, bytes};

/// Width of the first column, and of one with amounts.
const NAME: usize = 18;
const AMOUNT: usize = 11;

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<Tier> = self.tiers.iter().map(|tier| tier.tier).collect();
        self.write_machine(out)?;
        for model in &self.models {
            writeln!(out)?;
            self.write_model(out, model, &columns)?;
        }
        writeln!(out)?;
        line(out, "all models", self.tiers.iter().map(|tier| Some(tier.used)))?;
        let saved = self.prompt_cache * self.models.len() as u64;
        let last = self.tiers.len().saturating_sub(1);
        let saved = self
            .tiers
            .iter()
            .enumerate()
            .map(|(tier, _)| (tier == last && saved > 0).then_some(saved));
        line(out, "saved prompts", saved)?;
        line(out, "budget", self.tiers.iter().map(|tier| Some(tier.budget)))?;
        line(out, "of", self.tiers.iter().map(|tier| Some(tier.total)))?;
        for reason in &self.reasons {
            writeln!(out, "* {reason}")?;
        }
        for advice in &self.advice {
            writeln!(out, "hint: {advice}")?;
        }
        Ok(())
    }
}

impl Plan {
    fn write_machine(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ram = bytes(self.machine.ram_total);
        match self.device.map(|device| &self.machine.devices[device]) {
            None => writeln!(out, "machine: no GPU, RAM {ram}"),
            Some(device) if self.unified => {
                writeln!(
                    out,
                    "machine: {} with {} of unified memory",
                    device.name,
                    bytes(device.total)
                )
            }
            Some(device) => writeln!(out, "machine: {} {}, RAM {ram}", device.name, bytes(device.total)),
        }
    }

    fn write_model(&self, out: &mut fmt::Formatter<'_>, model: &ModelPlan, columns: &[Tier]) -> fmt::Result {
        let context = model.context;
        let sequences = if context.parallel == 1 { "sequence" } else { "sequences" };
        writeln!(
            out,
            "{}: {} {sequences} {} {} tokens, keys and values in {}, passes of {} tokens",
            model.name,
            context.parallel,
            if context.pool { "that share" } else { "of" },
            context.tokens,
            context.kv_type,
            context.batch
        )?;
        write!(out, "{:NAME$}", "")?;
        for tier in columns {
            let name = if self.unified { "memory" } else { tier.name() };
            write!(out, " {name:>AMOUNT$}")?;
        }
        writeln!(out)?;
        let mut done: Vec<&str> = Vec::new();
        for row in &model.rows {
            if done.contains(&row.component) {
                continue;
            }
            done.push(row.component);
            line(
                out,
                row.component,
                columns
                    .iter()
                    .map(|tier| self.amount(model, Some(row.component), *tier)),
            )?;
        }
        line(out, "sum", columns.iter().map(|tier| self.amount(model, None, *tier)))?;
        writeln!(out, "= {}", placement(model, self.device.is_some()))?;
        for reason in &model.reasons {
            writeln!(out, "* {reason}")?;
        }
        let decode = &model.decode;
        writeln!(
            out,
            "* about {} tokens/s for one stream, an estimate that assumes:",
            number(decode.tokens_per_second)
        )?;
        for assumption in &decode.assumptions {
            writeln!(out, "  {assumption}")?;
        }
        Ok(())
    }

    /// Bytes of a component, or of all, in a column; with unified memory there is one for everything.
    fn amount(&self, model: &ModelPlan, component: Option<&str>, tier: Tier) -> Option<u64> {
        let rows = model.rows.iter().filter(|row| {
            (self.unified || row.tier == tier) && component.is_none_or(|component| row.component == component)
        });
        let sum: u64 = rows.map(|row| row.bytes).sum();
        (sum > 0).then_some(sum)
    }
}

/// Two digits are all that an estimate has.
fn number(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn line(out: &mut fmt::Formatter<'_>, name: &str, amounts: impl Iterator<Item = Option<u64>>) -> fmt::Result {
    write!(out, "  {name:<width$}", width = NAME - 2)?;
    for amount in amounts {
        write!(out, " {:>AMOUNT$}", amount.map_or_else(|| "-".to_owned(), bytes))?;
    }
    writeln!(out)
}

/// What became of a model, in one line.
fn placement(model: &ModelPlan, gpu: bool) -> String {
    let layers = match model.gpu_layers {
        _ if !gpu => return "everything in RAM".to_owned(),
        None => format!("all {} layers on the GPU", model.all_layers),
        Some(0) => "no layer on the GPU".to_owned(),
        Some(layers) => format!("{layers} of {} layers on the GPU", model.all_layers),
    };
    match model.experts {
        Experts::None => layers,
        Experts::Layers if model.gpu_layers.is_none() => format!("{layers}, experts included"),
        Experts::Layers => format!("{layers}, experts with them"),
        Experts::Ram => format!("{layers}, experts in RAM"),
        Experts::Cache { device, capacity, of } => format!(
            "{layers}, experts in RAM, {capacity} of {of} per layer with a copy on the {} ({} %)",
            device.name(),
            capacity * 100 / of.max(1)
        ),
    }
}
