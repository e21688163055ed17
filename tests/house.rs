//! The rules of the house: modules without cycles, `unsafe` only where it must be, files that can be read in one go, documents
//! that name what is there.
//!
//! Reading the paths that start with `crate::`, `super::` or `self::` is enough: nothing in this project reaches another module
//! in another way. What is compiled for tests only does not count.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::sources::{Source, code_of, files_below};

/// Where `unsafe` is needed: bindings to llama.cpp, the ggml backend, and the memory map.
const UNSAFE: [&str; 3] = ["src/llama/", "src/experts/plugin/", "src/gguf/map.rs"];
const MAX_LINES: usize = 600;

/// A module: the names from the root of the crate.
type Module = Vec<String>;

/// The files of a crate by their modules.
struct Crate {
    code: BTreeMap<Module, String>,
    /// Names that a module imports or exports, and the paths that they stand for.
    names: BTreeMap<(Module, String), Module>,
}

/// The module of a file below `src/`.
fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let parts = path.split('/').map(str::to_owned);
    let mut module: Module = parts.collect();
    if module.last().is_some_and(|name| name == "mod" || name == "lib") {
        module.pop();
    }
    module
}

impl Crate {
    fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        let code: BTreeMap<Module, String> = sources
            .into_iter()
            .filter(|source| source.path != "main.rs")
            .map(|source| (module_of(&source.path), code_of(&source.text)))
            .collect();
        let mut names = BTreeMap::new();
        for (module, text) in &code {
            for path in imports(text) {
                let path = absolute(module, path, &code);
                if let Some(name) = path.last() {
                    names.insert((module.clone(), name.clone()), path.clone());
                }
            }
        }
        Self { code, names }
    }

    /// The module that defines what a path names; re-exports are followed.
    fn definition(&self, path: &[String], depth: usize) -> Module {
        let mut module = Module::new();
        for (index, name) in path.iter().enumerate() {
            let mut child = module.clone();
            child.push(name.clone());
            if self.code.contains_key(&child) {
                module = child;
                continue;
            }
            let exported = self.names.get(&(module.clone(), name.clone()));
            return match exported.filter(|exported| depth < 8 && **exported != path[..=index]) {
                Some(exported) => self.definition(exported, depth + 1),
                None => module,
            };
        }
        module
    }

    /// For each module what it names: the path as it is written, and the module where it is defined.
    fn uses(&self) -> impl Iterator<Item = (&Module, Module, Module)> {
        self.code.iter().flat_map(move |(module, text)| {
            paths(text).into_iter().map(move |path| {
                let path = absolute(module, path, &self.code);
                let definition = self.definition(&path, 0);
                (module, path, definition)
            })
        })
    }

    /// Which folder or file directly below `src/` names which other one.
    fn between_modules(&self) -> Graph {
        let mut graph = Graph::new();
        for (from, path, _) in self.uses() {
            if let (Some(from), Some(to)) = (from.first(), path.first())
                && from != to
                && self.code.contains_key(std::slice::from_ref(to))
            {
                graph.entry(from.clone()).or_default().insert(to.clone());
            }
        }
        graph
    }

    /// The same between the files and folders of each folder. A folder's `mod.rs` is its index, and knows them all.
    fn between_files(&self) -> BTreeMap<Module, Graph> {
        let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
        for (from, _, to) in self.uses() {
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            // Things at the top are compared by `between_modules`.
            if common > 0
                && let (Some(a), Some(b)) = (from.get(common), to.get(common))
            {
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                graph.entry(a.clone()).or_default().insert(b.clone());
            }
        }
        graphs
    }
}

/// Makes a path that starts with `crate`, `super`, `self` or a child's name one from the root.
fn absolute(module: &Module, path: Vec<String>, code: &BTreeMap<Module, String>) -> Module {
    let mut start = module.clone();
    let mut rest = path.as_slice();
    match rest.first().map(String::as_str) {
        Some("crate") => {
            start.clear();
            rest = &rest[1..];
        }
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        Some(child) => {
            start.push(child.to_owned());
            if !code.contains_key(&start) {
                // Another crate.
                return Module::new();
            }
            rest = &rest[1..];
        }
        None => {}
    }
    while rest.first().is_some_and(|name| name == "super") {
        start.pop();
        rest = &rest[1..];
    }
    start.extend(rest.iter().cloned());
    start
}

/// Words and marks of code.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The paths of a tree such as `a::{b, c::{d, e as f}}`, and the number of its tokens.
fn tree(tokens: &[&str], before: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at += tree(&tokens[at..], &path, out).max(1);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            Some(&"*") => {
                out.push(path);
                return at + 1;
            }
            // `use a::{self}` is `a`.
            Some(&"self") if !path.is_empty() => at += 1,
            Some(word) if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push((*word).to_owned());
                at += 1;
            }
            _ => return at,
        }
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    out.push(path);
    // The new name is no path.
    if tokens.get(at) == Some(&"as") {
        at += 2;
    }
    at
}

/// All paths of `use` declarations.
fn imports(text: &str) -> Vec<Vec<String>> {
    let tokens = tokens(text);
    let mut out = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if *token == "use" {
            tree(&tokens[at + 1..], &[], &mut out);
        }
    }
    out
}

/// All paths that start with `crate`, `super` or `self`, in declarations and elsewhere.
fn paths(text: &str) -> Vec<Vec<String>> {
    let tokens = tokens(text);
    let mut out = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let starts = matches!(*token, "crate" | "super" | "self") && tokens.get(at + 1) == Some(&"::");
        let inside = at > 0 && tokens[at - 1] == "::";
        if starts && !inside {
            tree(&tokens[at..], &[], &mut out);
        }
    }
    out
}

/// What names what.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// A cycle, if there is one: its members in order, the first again at the end.
fn cycle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(graph: &Graph, at: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(first) = way.iter().position(|before| before == at) {
            way.drain(..first);
            way.push(at.to_owned());
            return true;
        }
        if !done.insert(at.to_owned()) {
            return false;
        }
        way.push(at.to_owned());
        if graph
            .get(at)
            .into_iter()
            .flatten()
            .any(|next| visit(graph, next, way, done))
        {
            return true;
        }
        way.pop();
        false
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| {
        let mut way = Vec::new();
        visit(graph, start, &mut way, &mut done).then_some(way)
    })
}

fn this_crate() -> Crate {
    let sources = files_below("src", |path| path.ends_with(".rs"));
    assert!(sources.len() > 100, "the sources are read");
    Crate::new(sources.into_iter().map(|source| Source {
        path: source.path.trim_start_matches("src/").to_owned(),
        ..source
    }))
}

#[test]
fn modules_have_no_cycles() {
    let graph = this_crate().between_modules();
    assert!(graph["api"].contains("engine"), "{graph:?}");
    assert_eq!(cycle(&graph), None);
}

#[test]
fn files_of_a_module_have_no_cycles() {
    let cycles: Vec<String> = this_crate()
        .between_files()
        .iter()
        .filter_map(|(module, graph)| Some(format!("src/{}: {}", module.join("/"), cycle(graph)?.join(" -> "))))
        .collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn unsafe_code_is_where_it_must_be() {
    let elsewhere: Vec<String> = files_below("src", |path| path.ends_with(".rs"))
        .into_iter()
        .filter(|source| !UNSAFE.iter().any(|place| source.path.starts_with(place)))
        .filter(|source| tokens(&code_of(&source.text)).contains(&"unsafe"))
        .map(|source| source.path)
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
    for place in UNSAFE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
        assert!(path.exists(), "{place} is not there");
    }
}

#[test]
fn no_file_is_long() {
    let code = |path: &str| match Path::new(path).extension() {
        Some(extension) => ["rs", "py", "sh", "cpp", "h", "js", "css", "html"]
            .iter()
            .any(|known| extension == *known),
        None => path.starts_with("scripts/"),
    };
    let long: Vec<String> = ["src", "tests", "benches", "fuzz", "scripts"]
        .into_iter()
        .flat_map(|folder| files_below(folder, code))
        .filter_map(|source| {
            let lines = source.text.lines().count();
            (lines > MAX_LINES).then(|| format!("{}: {lines} lines", source.path))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// Files that a document names and that are not there: links, paths from the root, and in ARCHITECTURE.md names of sources.
fn not_there(document: &str, text: &str, sources: &BTreeSet<String>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join(document).parent().unwrap().to_owned();
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0));
    let links = links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .filter(|link| !folder.join(link.split('#').next().unwrap()).exists());
    let code = || text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |name: &str| {
        let folders = ["src/", "tests/", "scripts/", "docs/", "benches/", "assets/", "fuzz/"];
        folders.iter().any(|folder| name.starts_with(folder)) && !name.contains(['*', ' ', '<'])
    };
    let paths = code().filter(|name| is_path(name) && !root.join(name).exists());
    let names = code().filter(|name| {
        let source = document == "ARCHITECTURE.md" && name.ends_with(".rs") && !name.contains('/');
        source && !sources.contains(*name)
    });
    links
        .chain(paths)
        .chain(names)
        .map(|name| format!("{document}: {name}"))
        .collect()
}

#[test]
fn documents_name_what_is_there() {
    let sources = files_below("src", |path| path.ends_with(".rs"));
    let sources = sources
        .iter()
        .map(|source| source.path.rsplit('/').next().unwrap().to_owned());
    let sources: BTreeSet<String> = sources.collect();
    let mut documents = files_below("docs", |path| path.ends_with(".md"));
    for path in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        documents.push(Source {
            path: path.to_owned(),
            text: std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap(),
        });
    }
    let missing: Vec<String> = documents
        .iter()
        .flat_map(|document| not_there(&document.path, &document.text, &sources))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let text =
        "see `src/nowhere.rs`, `no_such.rs`, `mod.rs` and [x](docs/nothing.md#a), [y](README.md), [z](https://x.y)";
    let names = not_there("ARCHITECTURE.md", text, &sources);
    let expected = ["docs/nothing.md#a", "src/nowhere.rs", "no_such.rs"].map(|name| format!("ARCHITECTURE.md: {name}"));
    assert_eq!(names, expected);
}

/// The packages of a lock file with their versions, and the names of what this project's package depends on.
fn locked(path: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let lock: toml::Table = text.parse().unwrap();
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let packages = lock["package"].as_array().unwrap();
    let ours = packages
        .iter()
        .find(|package| text(&package["name"]) == "hearth")
        .unwrap();
    // A version stands behind a name that is there twice.
    let name = |dependency| text(dependency).split(' ').next().unwrap().to_owned();
    let dependencies = ours["dependencies"].as_array().unwrap().iter().map(name);
    let versions = packages
        .iter()
        .map(|package| (text(&package["name"]), text(&package["version"])));
    (versions.collect(), dependencies.collect())
}

/// The fuzz targets have a lock file of their own: it must have what this package needs, in the same versions.
#[test]
fn what_is_fuzzed_is_what_is_shipped() {
    let (versions, dependencies) = locked("Cargo.lock");
    let (fuzzed, known) = locked("fuzz/Cargo.lock");
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let needed = |name: &String| {
        ["dependencies", "build-dependencies"]
            .iter()
            .any(|kind| manifest[*kind].get(name).is_some())
    };
    let missing: Vec<_> = dependencies
        .iter()
        .filter(|name| needed(name) && !known.contains(*name))
        .collect();
    assert!(missing.is_empty(), "fuzz/Cargo.lock has none of {missing:?}");
    let names: BTreeSet<_> = versions.iter().map(|(name, _)| name).collect();
    let other: Vec<_> = fuzzed
        .difference(&versions)
        .filter(|(name, _)| names.contains(name))
        .collect();
    assert!(other.is_empty(), "fuzz/Cargo.lock has other versions: {other:?}");
}

/// What the checks above would say of a crate with these files.
fn made_up(files: &[(&str, &str)]) -> Crate {
    Crate::new(files.iter().map(|(path, text)| Source {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    }))
}

#[test]
fn cycles_of_modules_are_found() {
    let sound = made_up(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::{self, X, c::Y}; fn f() { crate::c::g() }"),
        ("b/mod.rs", "pub struct X; mod c;"),
        ("b/c.rs", "// use crate::a::Z;\nconst TEXT: &str = \"crate::a\";"),
        ("c.rs", "#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n"),
    ]);
    assert_eq!(cycle(&sound.between_modules()), None);
    let cyclic = made_up(&[
        ("a.rs", "use crate::b::X;"),
        ("b.rs", "fn f() -> super::c::Y {}"),
        ("c.rs", "pub(crate) use crate::{\n    a::{A as B},\n};"),
    ]);
    let names = ["a", "b", "c", "a"].map(str::to_owned).to_vec();
    assert_eq!(cycle(&cyclic.between_modules()), Some(names));
}

#[test]
fn cycles_of_files_are_found_behind_exports() {
    let files = |b: &'static str| {
        made_up(&[
            ("m/mod.rs", "mod a; mod b; pub use a::X; pub use self::b::{Y, Z};"),
            ("m/a.rs", "use super::Y;"),
            ("m/b.rs", b),
        ])
    };
    let found = |krate: Crate| krate.between_files().values().find_map(cycle);
    assert_eq!(found(files("struct Y;")), None);
    let names = Some(["a", "b", "a"].map(str::to_owned).to_vec());
    assert_eq!(found(files("use super::a::X;")), names);
    assert_eq!(found(files("use crate::m::X;")), names);
    // The index of a folder knows its files, and they it.
    assert_eq!(found(files("use super::NotExported;")), None);
}
