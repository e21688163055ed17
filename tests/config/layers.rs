//! Defaults, the file, the environment and the flags on top of each other.

use std::fs;
use std::path::Path;

use hearth::config::{
    Config, Environment, ExpertPlacement, KvType, KvTypes, MemoryLimit, Origin, Overrides, load_from, load_text,
};
use hearth::experts::policy::PolicyKind;

use crate::{env, gguf, model, parse};

#[test]
fn without_a_file_the_built_in_pair_is_served() {
    let config = load_from(&Overrides::default(), &Environment::new())
        .expect("the built-in pair")
        .config;
    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["demo-reasoner", "demo-narrator"]);
    assert_eq!(config.server.port, 8080);
    assert!(config.server.host.is_loopback());
    assert_eq!(config.server.body_limit, 8 << 20);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let text = format!(
        "[server]\nport = 1000\nthreads = 3\n{}",
        model("parallel = 2\ncontext = 100")
    );
    let variables = env(&[
        ("HEARTH_PORT", "2000"),
        ("HEARTH_CONTEXT", "200"),
        ("HEARTH_VRAM", "14GiB"),
    ]);
    let overrides = Overrides::default()
        .with("--port", Some(3000))
        .with("--threads", Some(5));
    let loaded = load_text(&text, Path::new("m.toml"), &overrides, &variables).expect("a configuration");
    let Config {
        server, memory, models, ..
    } = &loaded.config;
    assert_eq!((server.port, server.http_threads), (3000, 3));
    assert_eq!(memory.vram, MemoryLimit::Bytes(14 << 30));
    assert_eq!(
        (models[0].parallel, models[0].context, models[0].threads),
        (Some(2), Some(200), Some(5))
    );
    insta::assert_snapshot!("show", loaded.to_toml());
}

#[test]
fn the_order_of_places_where_a_file_is_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| {
        let path = folder.path().join(name).join("hearth/models.toml");
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, model("").replace("\"a\"", &format!("{name:?}"))).expect("a file");
        path
    };
    let (flag, variable, xdg, home) = (file("flag"), file("variable"), file("xdg"), file(".config"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut variables = env(&[
        ("HEARTH_CONFIG", &text(&variable)),
        ("XDG_CONFIG_HOME", &text(&folder.path().join("xdg"))),
        ("HOME", &text(folder.path())),
    ]);
    let overrides = Overrides {
        config: Some(flag.clone()),
        ..Overrides::default()
    };
    let found = |overrides: &Overrides, env: &Environment| load_from(overrides, env).expect("a configuration").file;
    let none = Overrides::default();
    assert_eq!(found(&overrides, &variables), Some(flag));
    assert_eq!(found(&none, &variables), Some(variable));
    variables.insert("HEARTH_CONFIG".to_owned(), String::new());
    assert_eq!(found(&none, &variables), Some(xdg));
    variables.remove("XDG_CONFIG_HOME");
    assert_eq!(found(&none, &variables), Some(home));
    variables.remove("HOME");
    assert_eq!(found(&none, &variables), None);
}

#[test]
fn models_without_a_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let overrides = Overrides {
        model_path: vec![
            gguf(folder.path(), "My Model-Q4_K_M.gguf"),
            gguf(folder.path(), "big-00001-of-00001.gguf"),
        ],
        ..Overrides::default()
    }
    .with("--context", Some(512));
    // The environment's file is beaten by the flag: it need not even exist.
    let variables = env(&[("HEARTH_CONFIG", "/no/such/file")]);
    let config = load_from(&overrides, &variables).expect("two models").config;
    let models: Vec<_> = config
        .models
        .iter()
        .map(|model| (model.name.as_str(), model.context))
        .collect();
    assert_eq!(models, [("My-Model-Q4_K_M", Some(512)), ("big", Some(512))]);

    let twice = Overrides {
        model_path: vec![overrides.model_path[0].clone(); 2],
        ..Overrides::default()
    };
    let errors = load_from(&twice, &variables).expect_err("one name twice");
    assert_eq!(errors.diagnostics()[0].origin, Origin::Flag("--model-path".to_owned()));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let everything = model(
        "role = \"r\"\naliases = [\"b\"]\nport = 9000\ncontext = 4096\nparallel = 2\nthreads = 3\nqueue = 4\n\
         sampling = { temperature = 0.7, seed = 1, samplers = [\"top_k\", \"temp\"], dry_sequence_breakers = [\"\\n\", \"\\\"\"] }",
    );
    let text = format!(
        "[server]\nhost = \"::1\"\nbody_limit = \"10MB\"\nshutdown_grace = \"1500ms\"\nallowed_hosts = [\"box.lan\"]\n\
         cors = [\"null\"]\nstrict_models = true\n[memory]\nram = \"1.5GB\"\n{everything}"
    );
    for text in [text, model("")] {
        let loaded = parse(&text).expect("a configuration");
        let again = parse(&loaded.to_toml()).expect("what was shown");
        assert_eq!(again.config, loaded.config, "{}", loaded.to_toml());
    }
    let pair = load_from(&Overrides::default(), &Environment::new()).expect("the built-in pair");
    assert_eq!(parse(&pair.to_toml()).expect("what was shown").config, pair.config);
}

#[test]
fn memory_keys_of_a_model() {
    let text = model("kv_type = \"q8_0\"\ngpu_layers = 20\nexperts = { placement = \"gpu\", policy = \"lru\" }");
    let loaded = parse(&text).expect("a configuration");
    let config = &loaded.config.models[0];
    assert_eq!(
        (config.kv_type, config.gpu_layers),
        (Some(KvTypes::both(KvType::Q8_0)), Some(20))
    );
    assert_eq!(config.experts.placement, ExpertPlacement::Gpu);
    assert_eq!(config.experts.policy, Some(PolicyKind::Lru));
    let two = parse(&model("kv_type = \"f16/q8_0\"")).expect("a configuration");
    let kinds = KvTypes {
        keys: KvType::F16,
        values: KvType::Q8_0,
    };
    assert_eq!(two.config.models[0].kv_type, Some(kinds));
    let errors = parse(&model(
        "kv_type = \"q8-0\"\nexperts = { policy = \"random\", placement = \"vram\" }",
    ))
    .expect_err("mistakes");
    let text = errors.to_string();
    for part in [
        "`kv_type` must be one of \"f32\", \"f16\", \"bf16\", \"q8_0\"",
        "hint: did you mean \"q8_0\"?",
        "`policy` must be one of \"auto\", \"static\", \"lru\", \"lfu-decay\", \"predictive\", \"benefit\", but is \"random\"",
        "`placement` must be \"auto\", \"gpu\", \"cpu\" or \"cache\", but is \"vram\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
