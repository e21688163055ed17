//! What a server says about its models, in rows. Any OpenAI-compatible server has a list; only hearth has the rest.

use serde::Serialize;
use serde_json::Value;

/// A model of a server. Amounts are bytes; `None` where the server does not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) model: String,
    /// `loaded`, `loading 40 %`, `unloaded`, `failed`, ...
    pub(super) state: Option<String>,
    pub(super) slots_busy: Option<u64>,
    pub(super) slots: Option<u64>,
    pub(super) waiting: Option<u64>,
    /// Tokens of a slot.
    pub(super) context: Option<u64>,
    pub(super) gpu_bytes: Option<u64>,
    pub(super) ram_bytes: Option<u64>,
    /// Share of the selected experts that had a copy, over the last minute.
    pub(super) hit_rate: Option<f64>,
    /// All streams together, since the last look.
    pub(super) tokens_per_second: Option<f64>,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// Answers of a server; null where there was none.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// `/v1/models`.
    pub(super) models: Value,
    /// `/api/v1/memory`.
    pub(super) memory: Value,
    /// `/api/v1/expert-stats`.
    pub(super) experts: Value,
    /// `/metrics`.
    pub(super) metrics: String,
}

/// The models without presets, in the server's order.
pub(super) fn rows(answers: &Answers) -> Vec<Row> {
    let models = answers.models["data"].as_array().into_iter().flatten();
    let models = models.filter(|model| model["parent"].is_null());
    models.filter_map(|model| row(model, answers)).collect()
}

fn row(model: &Value, answers: &Answers) -> Option<Row> {
    let name = model["id"].as_str()?;
    let meta = &model["meta"];
    let experts = of_model(&answers.experts, name).map(|model| &model["cache"]);
    // A minute without tokens says nothing.
    let hit_rate = |experts: &Value| {
        let minute = experts["last_minute"]["hit_rate"].as_f64();
        minute.or_else(|| experts["since_start"]["hit_rate"].as_f64())
    };
    let memory = of_model(&answers.memory, name).map(|model| &model["actual"]);
    let tier = |tier: &str| {
        let sums = memory?.get(tier)?.as_object()?;
        Some(sums.values().filter_map(Value::as_u64).sum())
    };
    let (state, reason) = state(&model["status"]);
    Some(Row {
        model: name.to_owned(),
        state,
        slots_busy: meta["slots_busy"].as_u64(),
        slots: meta["slots"].as_u64(),
        waiting: meta["requests_waiting"].as_u64(),
        context: model["context_length"]
            .as_u64()
            .or_else(|| model["max_model_len"].as_u64()),
        gpu_bytes: tier("gpu"),
        ram_bytes: tier("ram"),
        hit_rate: experts.and_then(hit_rate),
        tokens_per_second: None,
        reason,
    })
}

fn of_model<'v>(answer: &'v Value, name: &str) -> Option<&'v Value> {
    answer["models"].as_array()?.iter().find(|model| model["model"] == name)
}

/// A state in a word or two, and why it is not better.
fn state(status: &Value) -> (Option<String>, Option<String>) {
    let reason = status["reason"].as_str().map(str::to_owned);
    let Some(word) = status["value"].as_str() else {
        return (None, reason);
    };
    let word = word.replace('_', " ");
    let word = match (status["progress"].as_f64(), status["seconds"].as_u64()) {
        (Some(progress), _) if word == "loading" => format!("{word} {:.0} %", progress * 100.0),
        (_, Some(seconds)) if word == "stuck" => format!("{word} for {seconds} s"),
        _ => word,
    };
    (Some(word), reason)
}

/// Tokens that a model has generated since the server started.
pub(super) fn generated(metrics: &str, model: &str) -> Option<f64> {
    let label = format!("model=\"{}\"", model.replace('\\', "\\\\").replace('"', "\\\""));
    let lines = metrics.lines().filter(|line| {
        line.split_once('{')
            .is_some_and(|(name, rest)| name == "hearth_generation_tokens_total" && rest.contains(&label))
    });
    let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    numbers.reduce(|a, b| a + b)
}

/// Sets the rates of rows from two looks, so many seconds apart.
pub(super) fn set_rates(rows: &mut [Row], before: &str, after: &str, seconds: f64) {
    for row in rows {
        let counts = generated(before, &row.model).zip(generated(after, &row.model));
        // A count that fell is that of another server.
        let rate = counts.map(|(before, after)| (after - before) / seconds);
        row.tokens_per_second = rate.filter(|rate| rate.is_finite() && *rate >= 0.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_put_together_from_what_there_is() {
        let answers = Answers {
            models: json!({"data": [
                {"id": "a", "parent": null, "context_length": 4096, "status": {"value": "loaded"},
                 "meta": {"slots": 4, "slots_busy": 1, "requests_waiting": 2}},
                {"id": "preset", "parent": "a"},
                {"id": "b", "status": {"value": "loading", "progress": 0.4}},
                {"id": "c", "status": {"value": "failed", "reason": "no file"}},
                {"id": "other server", "max_model_len": 10},
                {"id": "d", "status": {"value": "stuck", "seconds": 40}},
            ]}),
            memory: json!({"models": [{"model": "a", "actual": {"gpu": {"x": 5}, "ram": {"x": 1, "y": 2}}}, {"model": "b", "actual": null}]}),
            experts: json!({"models": [{"model": "a", "cache": {"last_minute": {"hit_rate": null}, "since_start": {"hit_rate": 0.5}}}]}),
            metrics: String::new(),
        };
        let rows = rows(&answers);
        assert_eq!(
            rows[0],
            Row {
                model: "a".into(),
                state: Some("loaded".into()),
                slots_busy: Some(1),
                slots: Some(4),
                waiting: Some(2),
                context: Some(4096),
                gpu_bytes: Some(5),
                ram_bytes: Some(3),
                hit_rate: Some(0.5),
                ..Row::default()
            }
        );
        assert_eq!(rows[1].state.as_deref(), Some("loading 40 %"));
        assert_eq!(rows[2].reason.as_deref(), Some("no file"));
        assert_eq!(rows[3].context, Some(10));
        assert_eq!(rows[4].state.as_deref(), Some("stuck for 40 s"));
        assert_eq!(super::rows(&Answers::default()), []);
    }

    #[test]
    fn rates_come_from_two_looks() {
        let look = |a: u32| {
            format!(
                "# HELP x\nhearth_generation_tokens_total{{model=\"a\"}} {a}\nhearth_generation_tokens_total{{model=\"ab\"}} 9\n"
            )
        };
        let mut rows = vec![
            Row {
                model: "a".into(),
                ..Row::default()
            },
            Row {
                model: "none".into(),
                ..Row::default()
            },
        ];
        set_rates(&mut rows, &look(10), &look(30), 2.0);
        assert_eq!(rows[0].tokens_per_second, Some(10.0));
        assert_eq!(rows[1].tokens_per_second, None);
        set_rates(&mut rows, &look(30), &look(10), 2.0);
        assert_eq!(rows[0].tokens_per_second, None);
    }
}
