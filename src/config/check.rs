//! What only shows when values are held against each other and against the disk.

use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Origin, Problems};
use super::draft::{Draft, ModelDraft, Setting};
use super::path;
use super::types::ModelSource;

/// All checks; mistakes of single values have been reported before.
pub(super) fn check(draft: &Draft, problems: &Problems) {
    names(draft, problems);
    roles(draft, problems);
    ports(draft, problems);
    for model in &draft.models {
        file(model, problems);
        answer_length(model, problems);
    }
}

/// A word by which a request may mean a model, with the model's position.
struct Word<'d> {
    kind: &'static str,
    setting: &'d Setting<String>,
    model: usize,
}

/// Names before aliases: of two that clash, the alias is the one to change.
fn words(draft: &Draft) -> Vec<Word<'_>> {
    let word = |kind, model, setting| Word { kind, setting, model };
    let models = || draft.models.iter().enumerate();
    let names = models().filter_map(|(model, draft)| Some(word("name", model, draft.name.as_ref()?)));
    let aliases =
        models().flat_map(|(model, draft)| draft.aliases.iter().map(move |alias| word("alias", model, alias)));
    names.chain(aliases).collect()
}

fn names(draft: &Draft, problems: &Problems) {
    let mut taken: BTreeMap<&str, Word<'_>> = BTreeMap::new();
    for word in words(draft) {
        let text = word.setting.value.as_str();
        match taken.get(text) {
            None => {
                taken.insert(text, word);
            }
            Some(first) => {
                let (kind, other) = (word.kind, first.kind);
                let place = problems.place(&first.setting.origin);
                let message = format!("the {kind} `{text}` is already taken by the {other} at {place}");
                let hint = match &word.setting.origin {
                    Origin::Flag(_) => "give the files different names, or write a configuration",
                    _ => "every name and alias may occur only once",
                };
                problems.push(Diagnostic::error(&word.setting.origin, message).hint(hint.to_owned()));
            }
        }
    }
}

fn roles(draft: &Draft, problems: &Problems) {
    let words = words(draft);
    let mut first: BTreeMap<&str, &Setting<String>> = BTreeMap::new();
    for (position, model) in draft.models.iter().enumerate() {
        let Some(role) = &model.role else { continue };
        let text = role.value.as_str();
        let clash = words
            .iter()
            .find(|word| word.model != position && word.setting.value == text);
        if let Some(word) = clash {
            let place = problems.place(&word.setting.origin);
            let message = format!(
                "the role `{text}` is also the {} of another model at {place}",
                word.kind
            );
            let hint = "a request for it could mean either; rename one of them";
            problems.push(Diagnostic::error(&role.origin, message).hint(hint.to_owned()));
        }
        match first.get(text) {
            None => {
                first.insert(text, role);
            }
            Some(other) => {
                let place = problems.place(&other.origin);
                let message = format!("the role `{text}` is shared with the model at {place}");
                let hint = "a request for the role goes to the first model that has it";
                problems.push(Diagnostic::warning(&role.origin, message).hint(hint.to_owned()));
            }
        }
    }
}

fn ports(draft: &Draft, problems: &Problems) {
    let server = &draft.server.port;
    let mut taken: BTreeMap<u16, (&str, &Origin)> = BTreeMap::new();
    if server.value != 0 {
        taken.insert(server.value, ("the server", &server.origin));
    }
    let ports = draft.models.iter().filter_map(|model| model.port.as_ref());
    // Port 0 lets the system choose, as often as wanted.
    for port in ports.filter(|port| port.value != 0) {
        match taken.get(&port.value) {
            None => {
                taken.insert(port.value, ("another model", &port.origin));
            }
            Some((owner, origin)) => {
                let (number, place) = (port.value, problems.place(origin));
                let message = format!("port {number} is already taken by {owner} ({place})");
                let hint = "a model's own port serves only this model; leave it out or choose another";
                problems.push(Diagnostic::error(&port.origin, message).hint(hint.to_owned()));
            }
        }
    }
}

fn file(model: &ModelDraft, problems: &Problems) {
    let Some(source) = &model.source else { return };
    let ModelSource::File(path) = &source.value else { return };
    if let Err(fault) = path::probe(path) {
        let subject = match &source.origin {
            Origin::Flag(flag) => flag.as_str(),
            _ => "path",
        };
        let message = format!("`{subject}` {}", fault.message);
        problems.push(Diagnostic::error(&source.origin, message).hint(fault.hint));
    }
}

fn answer_length(model: &ModelDraft, problems: &Problems) {
    let (Some(context), Some(answer)) = (model.context.value, model.sampling.value.max_tokens) else {
        return;
    };
    if answer > context {
        let message = format!("`max_tokens` is {answer}, but the context ends answers at {context}");
        let hint = "lower `max_tokens`, or raise `context`";
        problems.push(Diagnostic::warning(&model.sampling.origin, message).hint(hint.to_owned()));
    }
}
