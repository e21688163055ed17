//! Cross-field and file-system checks.

use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::fallback;
use super::keys::{PartialConfig, PartialModel};
use super::path;
use super::suggest::nearest;
use super::types::{Environment, ModelSource, STOPS};

/// All checks; mistakes of single values have been reported before.
pub(super) fn check(config: &PartialConfig, env: &Environment, problems: &Problems) {
    names(config, problems);
    roles(config, problems);
    ports(config, problems);
    for model in &config.models {
        file(model, problems);
        answer_length(model, problems);
        model.upstream.check(env, problems);
    }
    presets(config, problems);
    fallback::check(config, |text| named(config, text), problems);
    keys(config, problems);
    tls(config, problems);
}

/// The position of the model that a text means: its name, an alias, or its role.
fn named(config: &PartialConfig, text: &str) -> Option<usize> {
    let named = words(config).into_iter().find(|word| word.text == text);
    let role = |model: &PartialModel| model.role.get().is_some_and(|role| role.as_deref() == Some(text));
    named
        .map(|word| word.model)
        .or_else(|| config.models.iter().position(role))
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
            problems.push(fallback::no_model("model", text, &preset.model.origin, config));
        }
        if preset.stop.get().is_some_and(|stop| stop.len() > STOPS) {
            let message = format!("`stop` has more than {STOPS} texts");
            problems.push(Diagnostic::error(&preset.stop.origin, message));
        }
    }
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
    let admin = std::iter::once(("the listener for administration", &config.server.admin_port));
    let own = config.models.iter().map(|model| ("another model", &model.port));
    for (what, port) in admin.chain(own) {
        // Port 0 lets the system choose, as often as wanted.
        let Some(number) = port.get().copied().flatten().filter(|port| *port != 0) else {
            continue;
        };
        let origin = &port.origin;
        match taken.get(&number) {
            None => {
                taken.insert(number, (what, origin));
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

/// Keys are told apart by their names, and are for models that are there.
fn keys(config: &PartialConfig, problems: &Problems) {
    let mut taken: BTreeMap<&str, &Origin> = BTreeMap::new();
    for key in &config.keys {
        let origin = &key.name.origin;
        if let Some(name) = key.name.get()
            && let Some(first) = taken.insert(name, origin)
        {
            let message = format!("the key `{name}` is already at {}", problems.place(first));
            problems.push(Diagnostic::error(origin, message));
        }
        for (index, model) in key.models.get().into_iter().flatten().enumerate() {
            known_model(config, model, key.models.item_origin(index), problems);
        }
    }
    for key in &config.file_keys.named {
        for model in &key.models {
            known_model(config, model, &config.server.api_key_file.origin, problems);
        }
    }
}

/// Reports a name that a key is for, if nothing has it.
fn known_model(config: &PartialConfig, name: &str, origin: &Origin, problems: &Problems) {
    let roles = config.models.iter().filter_map(|model| model.role.get()?.as_deref());
    let presets = config
        .presets
        .iter()
        .filter_map(|preset| preset.name.get())
        .map(String::as_str);
    let words = words(config);
    let mut known = words.iter().map(|word| word.text).chain(roles).chain(presets);
    if known.clone().any(|known| known == name) {
        return;
    }
    let hint = match nearest(name, known.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are: {}", known.by_ref().collect::<Vec<_>>().join(", ")),
    };
    let message = format!("a key is for `{name}`, but there is no such model or preset");
    problems.push(Diagnostic::error(origin, message).hint(hint));
}

/// A certificate and its key come together, and are there.
fn tls(config: &PartialConfig, problems: &Problems) {
    let server = &config.server;
    let files = [
        ("tls_certificate", &server.tls_certificate),
        ("tls_key", &server.tls_key),
    ];
    for ((name, file), (other, partner)) in [(files[0], files[1]), (files[1], files[0])] {
        let Some(Some(path)) = file.get() else { continue };
        if partner.get() == Some(&None) {
            let message = format!("`{name}` is given, but not `{other}`");
            let hint = "TLS needs both: the certificate and its private key";
            problems.push(Diagnostic::error(&file.origin, message).hint(hint.to_owned()));
        }
        if let Err(error) = std::fs::File::open(path) {
            let message = format!("`{name}` names a file that cannot be read: {}: {error}", path.display());
            problems.push(Diagnostic::error(&file.origin, message));
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
        // A model that others stand in for may be missing.
        let has_fallback = model.fallback.get().is_some_and(|names| !names.is_empty());
        let diagnostic = if has_fallback {
            Diagnostic::warning(&source.origin, message)
        } else {
            Diagnostic::error(&source.origin, message)
        };
        problems.push(diagnostic.hint(fault.hint));
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
