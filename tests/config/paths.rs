//! Files: the configuration's own, and those of models.

use std::fs;

use hearth::config::{ModelSource, Overrides, load_from, load_text};

use crate::{env, gguf};

#[test]
fn a_configuration_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = gguf(folder.path(), "model.gguf");
    let latin = folder.path().join("latin.toml");
    fs::write(&latin, b"# \xe4\n").expect("a file");
    let large = folder.path().join("large.toml");
    fs::write(&large, "#".repeat((1 << 20) + 1)).expect("a file");
    let cases = [
        (folder.path().join("none.toml"), "a file that is not there"),
        (folder.path().to_owned(), "a folder"),
        (model, "a model, not a configuration"),
        (latin, "a file that is not UTF-8"),
        (large, "a file of more than 1 MiB"),
    ];
    for (path, expected) in cases {
        let overrides = Overrides {
            config: Some(path.clone()),
            ..Overrides::default()
        };
        let errors = load_from(&overrides, &env(&[("HEARTH_PORT", "x")])).expect_err("unreadable");
        let told: Vec<&str> = errors
            .diagnostics()
            .iter()
            .map(|error| error.message.as_str())
            .collect();
        assert_eq!(told[0], format!("`--config` names {expected}: {}", path.display()));
        assert!(told[1].starts_with("`HEARTH_PORT` must be a whole number"), "{told:?}");
    }
}

#[test]
fn paths_of_models() {
    let folder = tempfile::tempdir().expect("a folder");
    gguf(folder.path(), "good.gguf");
    gguf(folder.path(), "part-00001-of-00003.gguf");
    gguf(folder.path(), "part-00002-of-00003.gguf");
    fs::write(folder.path().join("pointer.gguf"), "version https://git-lfs").expect("a file");
    let variables = env(&[("HOME", folder.path().to_str().expect("UTF-8"))]);
    let config = folder.path().join("models.toml");
    let try_path = |path: &str| {
        let text = format!("[[model]]\nname = \"a\"\npath = {path:?}\n");
        load_text(&text, &config, &Overrides::default(), &variables)
    };
    for path in ["good.gguf", "~/good.gguf", "../good.gguf"] {
        let from_sub = folder.path().join("sub/models.toml");
        let config = if path.starts_with("..") { &from_sub } else { &config };
        fs::create_dir_all(folder.path().join("sub")).expect("a folder");
        let text = format!("[[model]]\nname = \"a\"\npath = {path:?}\n");
        let loaded = load_text(&text, config, &Overrides::default(), &variables).expect(path);
        assert!(matches!(&loaded.config.models[0].source, ModelSource::File(file) if file.is_absolute()));
    }
    let cases = [
        ("god.gguf", "names a file that is not there", "did you mean good.gguf?"),
        ("no/good.gguf", "names a file that is not there", "there is no folder"),
        (".", "names a folder", "name the .gguf file in it"),
        ("pointer.gguf", "is not a GGUF", "Git LFS pointer"),
        ("part-00002-of-00003.gguf", "names part 2", "part-00001-of-00003.gguf"),
        ("part-00001-of-00003.gguf", "no. 3 is missing", "one folder"),
        (
            "demo:narator",
            "there is no \"demo:narator\"",
            "did you mean demo:narrator?",
        ),
        ("", "must not be empty", "name a .gguf file"),
    ];
    for (path, message, hint) in cases {
        let errors = try_path(path).expect_err(path);
        let found = &errors.diagnostics()[0];
        assert!(found.message.contains(message), "{path}: {}", found.message);
        assert!(
            found.hint.as_deref().unwrap_or_default().contains(hint),
            "{path}: {:?}",
            found.hint
        );
        assert_eq!(errors.line_column(found), Some((3, 8)), "{path}");
    }
}
