//! The rooms of the house and which way imports go, read from the text of the sources.
//!
//! `cargo test --test architecture -- --nocapture` prints the picture that ARCHITECTURE.md shows.
//! A binary of its own: it reads texts and needs nothing of the library.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, where it lies, and the rooms that it may import. Those come before it in this list, so that there can be
/// no cycle.
const ROOMS: [(&str, &str, &[&str]); 11] = [
    ("base", "src/base", &[]),
    ("kernels", "kernels", &["base"]),
    ("driver", "src/driver", &["base", "kernels"]),
    ("measure", "src/measure.rs", &["base", "kernels"]),
    ("quant", "src/quant", &["base", "kernels"]),
    ("sparse", "src/sparse", &["base"]),
    ("norm", "src/norm", &["base", "kernels", "driver"]),
    ("linear", "src/linear", &["base", "kernels", "driver", "quant", "sparse"]),
    ("attention", "src/attention", &["base", "kernels", "driver", "quant"]),
    ("ecoformer", "src/ecoformer", &["base", "kernels", "driver", "linear"]),
    ("tune", "src/tune.rs", &["base", "kernels", "linear", "sparse"]),
];

/// What may say `unsafe`: of the command where it maps files.
const UNSAFE: [&str; 5] =
    ["kernels/", "src/driver/", "src/base/buffer.rs", "src/base/parallel.rs", "cli/src/base/input.rs"];

/// The crate's root declares the rooms and exports what is public: it imports everything, and nobody imports it.
const ROOT: &str = "src/lib.rs";

struct Source {
    /// From the root of the repository.
    path: String,
    /// `crate::` left out: `["base", "ctx"]`.
    module: Vec<String>,
    /// Identifiers, `::` and single characters, without comments, strings and characters in quotes.
    tokens: Vec<String>,
}

fn sources() -> Vec<Source> {
    sources_of(&["src", "kernels"])
}

fn sources_of(dirs: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in dirs {
        rust_files(&root.join(dir), &mut files);
    }
    assert!(files.len() > 50, "only {} sources were found", files.len());
    let source = |file: &PathBuf| {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        let module = path.trim_start_matches("src/").trim_end_matches(".rs").split('/');
        let module = module.filter(|&name| name != "mod" && name != "lib").map(str::to_string).collect();
        Source { tokens: tokens(&fs::read_to_string(file).unwrap()), path, module }
    };
    files.iter().map(source).collect()
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            rust_files(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").unwrap() + 2
        } else if let Some(raw) =
            rest.strip_prefix("r").filter(|raw| raw.trim_start_matches('#').starts_with('"'))
        {
            let hashes = raw.find('"').unwrap();
            let end = format!("\"{}", "#".repeat(hashes));
            1 + hashes + 1 + raw[hashes + 1..].find(&end).unwrap() + end.len()
        } else if first == '"' {
            quoted(rest, '"').unwrap()
        } else if first == '\'' {
            // A lifetime is left as a quote and a word.
            quoted(rest, '\'')
                .filter(|&n| rest[1..].starts_with('\\') || rest[..n].chars().count() == 3)
                .unwrap_or(1)
        } else if word(first) {
            let n = rest.find(|c| !word(c)).unwrap_or(rest.len());
            tokens.push(rest[..n].to_string());
            n
        } else {
            let n = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(rest[..n].to_string());
            }
            n
        };
        rest = &rest[length..];
    }
    tokens
}

/// Bytes of the literal at the start of a text.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return Some(at + c.len_utf8());
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

impl Source {
    /// Every path that starts at `crate` or `super`, in `use` lines and elsewhere, from the root of the crate.
    fn imports(&self) -> Vec<Vec<String>> {
        let (mut all, mut module, mut open) = (Vec::new(), self.module.clone(), Vec::new());
        let token = |at: usize| self.tokens.get(at).map_or("", String::as_str);
        let mut depth = 0;
        for at in 0..self.tokens.len() {
            match token(at) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if open.last() == Some(&depth) {
                        open.pop();
                        module.pop();
                    }
                }
                "mod" => {
                    // A macro names it `$name`.
                    let name = at + 1 + usize::from(token(at + 1) == "$");
                    if token(name + 1) == "{" {
                        open.push(depth);
                        module.push(token(name).to_string());
                    }
                }
                start @ ("crate" | "super")
                    if token(at + 1) == "::" && (at == 0 || token(at - 1) != "::") =>
                {
                    let from =
                        if start == "crate" { &[][..] } else { &module[..module.len().saturating_sub(1)] };
                    self.tree(at + 2, from.to_vec(), &mut all);
                }
                _ => {}
            }
        }
        all
    }

    /// The paths of a `use` tree, or the one path, that goes on at a token; returns the token behind it.
    fn tree(&self, mut at: usize, mut path: Vec<String>, all: &mut Vec<Vec<String>>) -> usize {
        loop {
            match self.tokens[at].as_str() {
                "{" => {
                    at += 1;
                    while self.tokens[at] != "}" {
                        at = self.tree(at, path.clone(), all);
                        while !matches!(self.tokens[at].as_str(), "," | "}") {
                            at += 1;
                        }
                        at += usize::from(self.tokens[at] == ",");
                    }
                    return at + 1;
                }
                "super" => drop(path.pop()),
                "self" => {}
                name => path.push(name.to_string()),
            }
            if self.tokens.get(at + 1).is_none_or(|next| next != "::") {
                all.push(path);
                return at + 1;
            }
            at += 2;
        }
    }

    fn room(&self) -> Option<&'static str> {
        room(&self.module)
    }
}

/// The room of a path from the root of the crate.
fn room(path: &[String]) -> Option<&'static str> {
    ROOMS.iter().map(|room| room.0).find(|&name| path.first().is_some_and(|first| first == name))
}

fn may_import(room: &str) -> &'static [&'static str] {
    ROOMS.iter().find(|r| r.0 == room).unwrap().2
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = r##"
        //! crate::not::this
        use crate::base::{ctx::{Ctx as C, Other}, error::*, self};
        use super::{float, softmax::T};
        use super::super::table;
        pub(crate) fn f<'a>(x: &'a str) -> crate::quant::Q { '{'; '\''; "crate::nor::this \" {"; r#"crate::"nor"#; 1 }
        mod tests { use super::f; }
        macro_rules! m { ($n:ident) => { mod $n { use super::*; use $crate::base::isa; } } }
        use super::last;
    "##;
    let module = ["kernels", "attention", "sums"].map(str::to_string).to_vec();
    let source = Source { path: String::new(), module, tokens: tokens(text) };
    let imports: Vec<String> = source.imports().iter().map(|path| path.join("::")).collect();
    let expected = [
        "base::ctx::Ctx",
        "base::ctx::Other",
        "base::error::*",
        "base",
        "kernels::attention::float",
        "kernels::attention::softmax::T",
        "kernels::table",
        "quant::Q",
        "kernels::attention::sums::f",
        "kernels::attention::sums::*",
        "base::isa",
        "kernels::attention::last",
    ];
    assert_eq!(imports, expected);
}

#[test]
fn every_source_has_a_room() {
    for (i, (name, place, below)) in ROOMS.iter().enumerate() {
        assert!(
            below.iter().all(|b| ROOMS[..i].iter().any(|r| r.0 == *b)),
            "{name} may import what comes after it"
        );
        assert!(sources().iter().any(|s| s.path.starts_with(place)), "{place} is empty");
    }
    for source in sources() {
        let place = |name: &str| ROOMS.iter().find(|r| r.0 == name).unwrap().1;
        let at_home = source.room().map_or(source.path == ROOT, |name| source.path.starts_with(place(name)));
        assert!(at_home, "{} is in no room", source.path);
    }
}

#[test]
fn imports_follow_the_flow() {
    let mut wrong = BTreeSet::new();
    for source in sources() {
        let Some(here) = source.room() else { continue };
        for path in source.imports() {
            let there = room(&path);
            if there.is_none_or(|there| there != here && !may_import(here).contains(&there)) {
                wrong.insert(format!("{}: crate::{}", source.path, path.join("::")));
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{} imports against the flow:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn files_of_the_ground_floor_make_no_cycle() {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.module.len() == 2 && source.room() == Some("base"))
    {
        let of_base = |path: &Vec<String>| (path[0] == "base").then(|| path[1].clone());
        let file = &source.module[1];
        let others = source.imports().iter().filter_map(of_base).filter(|other| other != file).collect();
        imports.insert(file.clone(), others);
    }
    assert!(imports.values().any(|others| !others.is_empty()));
    // Files that import nothing but what is gone are taken away, until only cycles are left.
    while let Some(file) = imports.iter().find(|(_, others)| others.is_empty()).map(|(file, _)| file.clone())
    {
        imports.remove(&file);
        for others in imports.values_mut() {
            others.remove(&file);
        }
    }
    assert!(imports.is_empty(), "in or above a cycle: {imports:?}");
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let says_unsafe = |source: &&Source| source.tokens.iter().any(|token| token == "unsafe");
    for source in sources_of(&["src", "kernels", "cli/src"]).iter().filter(says_unsafe) {
        assert!(UNSAFE.iter().any(|place| source.path.starts_with(place)), "{} says unsafe", source.path);
    }
}

/// The feature `internal` opens kernels and drivers, which are not sound for every argument: a crate that depends on siskin
/// must ask for it by name, and no crate of this workspace does so but for its tests.
#[test]
fn the_door_is_closed_by_default() {
    let cargo = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let packages = list(&metadata["packages"]);
    let siskin = packages.iter().find(|package| package["name"] == "siskin").unwrap();
    assert!(siskin["features"].get("internal").is_some());
    for (feature, of) in siskin["features"].as_object().unwrap() {
        assert!(!list(of).contains(&"internal".into()), "{feature} turns internal on");
    }
    let depends = packages.iter().flat_map(|package| list(&package["dependencies"]));
    let on_siskin: Vec<Value> = depends.filter(|dependency| dependency["name"] == "siskin").collect();
    assert!(on_siskin.len() > 1);
    for dependency in on_siskin.iter().filter(|dependency| dependency["kind"] != "dev") {
        assert!(!list(&dependency["features"]).contains(&"internal".into()), "{dependency}");
    }
}

/// The imports between rooms that follow the flow, as Mermaid draws them; what follows from others is left out.
fn picture() -> String {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources() {
        let Some(here) = source.room() else { continue };
        let rooms = source.imports().into_iter().filter_map(|path| room(&path));
        arrows.entry(here).or_default().extend(rooms.filter(|there| may_import(here).contains(there)));
    }
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(room) = next.pop() {
            next.extend(arrows.get(room).into_iter().flatten().filter(|&&there| seen.insert(there)));
        }
        seen.contains(to)
    };
    let mut lines = vec!["```mermaid".to_string(), "graph TD".to_string()];
    for (here, _, _) in ROOMS.iter().rev() {
        for there in arrows.get(here).into_iter().flatten() {
            if !arrows[here].iter().any(|via| via != there && reaches(via, there)) {
                lines.push(format!("    {here} --> {there}"));
            }
        }
    }
    lines.push("```".to_string());
    lines.join("\n")
}

#[test]
fn architecture_md_shows_the_picture() {
    let picture = picture();
    println!("{picture}");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let shown =
        page.split_once("<!-- rooms -->\n").and_then(|(_, rest)| rest.split_once("\n<!-- /rooms -->"));
    let shown = shown.expect("ARCHITECTURE.md has the marks <!-- rooms --> and <!-- /rooms -->").0;
    assert_eq!(shown, picture, "between the marks in ARCHITECTURE.md there should be:\n{picture}\n");
}
