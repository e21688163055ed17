//! Models that stand in for others: `fallback` and `fallback_on`.

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::PartialConfig;
use super::setting::Setting;
use super::suggest::nearest;

/// Checks the names of those who stand in; `position` is that of the model which a name means.
pub(super) fn check(config: &PartialConfig, position: impl Fn(&str) -> Option<usize>, problems: &Problems) {
    let edges: Vec<Vec<(usize, &Origin)>> = config
        .models
        .iter()
        .enumerate()
        .map(|(model, partial)| targets(&partial.fallback, Some(model), config, &position, problems))
        .collect();
    for preset in &config.presets {
        let model = preset.model.get().and_then(|text| position(text));
        targets(&preset.fallback, model, config, &position, problems);
    }
    circles(config, &edges, problems);
}

/// The models of a list with the places of their names. Names that cannot be meant are reported.
fn targets<'c>(
    names: &'c Setting<Vec<String>>,
    of: Option<usize>,
    config: &PartialConfig,
    position: &impl Fn(&str) -> Option<usize>,
    problems: &Problems,
) -> Vec<(usize, &'c Origin)> {
    let mut found = Vec::new();
    for (index, text) in names.get().into_iter().flatten().enumerate() {
        let origin = names.item_origin(index);
        match position(text) {
            None => problems.push(no_model("fallback", text, origin, config)),
            model if model == of => {
                let message = format!("`fallback` has `{text}`, which is the model itself");
                let hint = "name another [[model]], such as one with `upstream`";
                problems.push(Diagnostic::error(origin, message).hint(hint.to_owned()));
            }
            Some(model) => found.push((model, origin)),
        }
    }
    found
}

/// Reports models that stand in for each other.
fn circles(config: &PartialConfig, edges: &[Vec<(usize, &Origin)>], problems: &Problems) {
    let name = |model: usize| config.models[model].name.get().map_or("?", String::as_str);
    let mut done = vec![false; edges.len()];
    for start in 0..edges.len() {
        // The way to where we are, each with how many of its edges were followed.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((model, next)) = way.last_mut() {
            if done[*model] {
                way.pop();
                continue;
            }
            let Some(&(target, origin)) = edges[*model].get(*next) else {
                done[*model] = true;
                way.pop();
                continue;
            };
            *next += 1;
            match way.iter().position(|(model, _)| *model == target) {
                None => way.push((target, 0)),
                Some(at) => {
                    let mut circle: Vec<&str> = way[at..].iter().map(|(model, _)| name(*model)).collect();
                    circle.push(name(target));
                    let message = format!("`fallback` goes round in a circle: {}", circle.join(" -> "));
                    let hint = "a model that stands in must not fall back to one that it stands in for";
                    problems.push(Diagnostic::error(origin, message).hint(hint.to_owned()));
                }
            }
        }
    }
}

/// Why a key cannot name this model.
pub(super) fn no_model(key: &str, text: &str, origin: &Origin, config: &PartialConfig) -> Diagnostic {
    let is = if key == "model" { "is" } else { "has" };
    if config
        .presets
        .iter()
        .any(|preset| preset.name.get().is_some_and(|name| name == text))
    {
        let message = if key == "model" {
            format!("`model` is `{text}`, which is a preset itself")
        } else {
            format!("`{key}` has `{text}`, which is a preset")
        };
        return Diagnostic::error(origin, message).hint("name a [[model]], not a preset".to_owned());
    }
    let message = format!("`{key}` {is} `{text}`, but there is no such [[model]]");
    let known = config.models.iter().flat_map(|model| {
        let role = model.role.get().into_iter().flatten();
        let aliases = model.aliases.get().into_iter().flatten();
        model.name.get().into_iter().chain(aliases).chain(role)
    });
    let hint = match nearest(text, known.clone().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "there are: {}",
            known.map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    };
    Diagnostic::error(origin, message).hint(hint)
}
