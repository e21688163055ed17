//! Which model a name means.

use crate::config::ModelConfig;
use crate::engine::ModelInfo;

/// What a model answers to.
pub trait Named {
    fn name(&self) -> &str;
    fn aliases(&self) -> &[String];
    fn role(&self) -> Option<&str>;
}

impl<M: Named + ?Sized> Named for &M {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn aliases(&self) -> &[String] {
        (**self).aliases()
    }

    fn role(&self) -> Option<&str> {
        (**self).role()
    }
}

impl Named for ModelConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }
}

impl Named for ModelInfo {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }
}

/// Providers that clients put before a name (`openai:qwen3-next`).
const PREFIXES: [&str; 2] = ["openai:", "openai/"];

/// The position of the model that is meant: the one with this name, else with this alias, else the first with this role.
/// Without a name, or with an empty one, the first model is meant. A provider before the name is left out, unless a model
/// is called so.
pub fn find<M: Named>(models: impl Iterator<Item = M> + Clone, name: Option<&str>) -> Option<usize> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return models.into_iter().next().map(|_| 0);
    };
    let exactly = |name: &str| {
        let named = |test: &dyn Fn(&M) -> bool| models.clone().position(|model| test(&model));
        named(&|model| model.name() == name)
            .or_else(|| named(&|model| model.aliases().iter().any(|alias| alias == name)))
            .or_else(|| named(&|model| model.role() == Some(name)))
    };
    let bare = || PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    exactly(name).or_else(|| exactly(bare()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::ModelSource;

    #[test]
    fn names_come_before_aliases_and_those_before_roles() {
        let model = |name: &str, aliases: &[&str], role: &str| ModelConfig {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            role: Some(role.to_owned()),
            ..ModelConfig::new(name, ModelSource::File(PathBuf::new()))
        };
        let models = [
            model("a", &["x"], "b"),
            model("b", &["c"], "r"),
            model("c", &["openai:a"], "r"),
        ];
        let cases = [
            (None, Some(0)),
            (Some(""), Some(0)),
            (Some("b"), Some(1)),
            (Some("c"), Some(2)),
            (Some("x"), Some(0)),
            (Some("r"), Some(1)),
            (Some("openai/b"), Some(1)),
            (Some("openai:x"), Some(0)),
            (Some("openai:a"), Some(2)),
            (Some("d"), None),
            (Some("openai:"), None),
        ];
        for (name, expected) in cases {
            assert_eq!(find(models.iter(), name), expected, "{name:?}");
        }
    }
}
