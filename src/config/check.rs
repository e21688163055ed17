//! Cross-field and file-system checks.

use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::keys::{PartialConfig, PartialModel};
use super::path;
use super::suggest::nearest;
use super::types::{ModelSource, STOPS};

/// All checks; mistakes of single values have been reported before.
pub(super) fn check(config: &PartialConfig, problems: &Problems) {
    names(config, problems);
    roles(config, problems);
    ports(config, problems);
    for model in &config.models {
        file(model, problems);
        answer_length(model, problems);
    }
    presets(config, problems);
}

/// A word by which a request may mean a model.
struct Word<'c> {
    kind: &'static str,
    text: &'c str,
    origin: &'c Origin,
    /// The model's position.
    model: usize,
}

/// Names before aliases, and presets last: of two that clash, the later is the one to change.
fn words(config: &PartialConfig) -> Vec<Word<'_>> {
    let models = || config.models.iter().enumerate();
    let names = models().filter_map(|(model, partial)| {
        Some(Word {
            kind: "name",
            text: partial.name.get()?,
            origin: &partial.name.origin,
            model,
        })
    });
    let aliases = models().flat_map(|(model, partial)| {
        let aliases = partial.aliases.get().into_iter().flatten().enumerate();
        aliases.map(move |(index, text)| Word {
            kind: "alias",
            text,
            origin: partial.aliases.item_origin(index),
            model,
        })
    });
    names.chain(aliases).collect()
}

fn presets(config: &PartialConfig, problems: &Problems) {
    let words = words(config);
    let roles = || config.models.iter().enumerate();
    let role =
        |text: &str| roles().find(|(_, model)| model.role.get().is_some_and(|role| role.as_deref() == Some(text)));
    let mut taken: BTreeMap<&str, &Origin> = BTreeMap::new();
    for preset in &config.presets {
        let model = preset.model.get();
        let base = model.and_then(|text| {
            let named = words.iter().find(|word| word.text == text).map(|word| word.model);
            named.or_else(|| role(text).map(|(position, _)| position))
        });
        if let Some(text) = preset.name.get() {
            let origin = &preset.name.origin;
            let hint = "every name may occur only once; a preset may be called like the role of its model";
            if let Some(word) = words.iter().find(|word| word.text == text) {
                let place = problems.place(word.origin);
                let message = format!(
                    "the preset `{text}` is called like the {} of a model at {place}",
                    word.kind
                );
                problems.push(Diagnostic::error(origin, message).hint(hint.to_owned()));
            } else if let Some(first) = taken.insert(text, origin) {
                let message = format!("the preset `{text}` is already at {}", problems.place(first));
                problems.push(Diagnostic::error(origin, message).hint(hint.to_owned()));
            } else if let Some((position, other)) = role(text)
                && base.is_some_and(|base| base != position)
            {
                let place = problems.place(&other.role.origin);
                let message = format!("the preset `{text}` is called like the role of another model at {place}");
                let hint = "a request for it means the preset, and so not that model";
                problems.push(Diagnostic::warning(origin, message).hint(hint.to_owned()));
            }
        }
        if let (Some(text), None) = (model, base) {
            problems.push(no_base(text, &preset.model.origin, config));
        }
        if preset.stop.get().is_some_and(|stop| stop.len() > STOPS) {
            let message = format!("`stop` has more than {STOPS} texts");
            problems.push(Diagnostic::error(&preset.stop.origin, message));
        }
    }
}

/// Why a preset cannot have this model.
fn no_base(text: &str, origin: &Origin, config: &PartialConfig) -> Diagnostic {
    if config
        .presets
        .iter()
        .any(|preset| preset.name.get().is_some_and(|name| name == text))
    {
        let message = format!("`model` is `{text}`, which is a preset itself");
        return Diagnostic::error(origin, message).hint("a preset has a [[model]], not a preset".to_owned());
    }
    let message = format!("`model` is `{text}`, but there is no such [[model]]");
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

fn names(config: &PartialConfig, problems: &Problems) {
    let mut taken: BTreeMap<&str, Word<'_>> = BTreeMap::new();
    for word in words(config) {
        let text = word.text;
        match taken.get(text) {
            None => {
                taken.insert(text, word);
            }
            Some(first) => {
                let (kind, other) = (word.kind, first.kind);
                let place = problems.place(first.origin);
                let message = format!("the {kind} `{text}` is already taken by the {other} at {place}");
                let hint = match word.origin {
                    Origin::Flag(_) => "give the files different names, or write a configuration",
                    _ => "every name and alias may occur only once",
                };
                problems.push(Diagnostic::error(word.origin, message).hint(hint.to_owned()));
            }
        }
    }
}

fn roles(config: &PartialConfig, problems: &Problems) {
    let words = words(config);
    let mut first: BTreeMap<&str, &Origin> = BTreeMap::new();
    for (position, model) in config.models.iter().enumerate() {
        let Some(Some(text)) = model.role.get() else { continue };
        let origin = &model.role.origin;
        let clash = words.iter().find(|word| word.model != position && word.text == text);
        if let Some(word) = clash {
            let place = problems.place(word.origin);
            let message = format!(
                "the role `{text}` is also the {} of another model at {place}",
                word.kind
            );
            let hint = "a request for it could mean either; rename one of them";
            problems.push(Diagnostic::error(origin, message).hint(hint.to_owned()));
        }
        match first.get(text.as_str()) {
            None => {
                first.insert(text, origin);
            }
            Some(other) => {
                let place = problems.place(other);
                let message = format!("the role `{text}` is shared with the model at {place}");
                let hint = "a request for the role goes to the first model that has it";
                problems.push(Diagnostic::warning(origin, message).hint(hint.to_owned()));
            }
        }
    }
}

fn ports(config: &PartialConfig, problems: &Problems) {
    let mut taken: BTreeMap<u16, (&str, &Origin)> = BTreeMap::new();
    let server = &config.server.port;
    if let Some(port) = server.get().filter(|port| **port != 0) {
        taken.insert(*port, ("the server", &server.origin));
    }
    for model in &config.models {
        // Port 0 lets the system choose, as often as wanted.
        let Some(number) = model.port.get().copied().flatten().filter(|port| *port != 0) else {
            continue;
        };
        let origin = &model.port.origin;
        match taken.get(&number) {
            None => {
                taken.insert(number, ("another model", origin));
            }
            Some((owner, first)) => {
                let place = problems.place(first);
                let message = format!("port {number} is already taken by {owner} ({place})");
                let hint = "a model's own port serves only this model; leave it out or choose another";
                problems.push(Diagnostic::error(origin, message).hint(hint.to_owned()));
            }
        }
    }
}

fn file(model: &PartialModel, problems: &Problems) {
    let source = &model.source;
    let Some(ModelSource::File(path)) = source.get() else {
        return;
    };
    if let Err(fault) = path::probe(path) {
        let subject = match &source.origin {
            Origin::Flag(flag) => flag.as_str(),
            _ => "path",
        };
        let message = format!("`{subject}` {}", fault.message);
        problems.push(Diagnostic::error(&source.origin, message).hint(fault.hint));
    }
}

fn answer_length(model: &PartialModel, problems: &Problems) {
    let context = model.context.get().copied().flatten();
    let (Some(context), Some(answer)) = (context, model.sampling.values.max_tokens) else {
        return;
    };
    if answer > context {
        let message = format!("`max_tokens` is {answer}, but the context ends answers at {context}");
        let hint = "lower `max_tokens`, or raise `context`";
        problems.push(Diagnostic::warning(&model.sampling.origin, message).hint(hint.to_owned()));
    }
}
