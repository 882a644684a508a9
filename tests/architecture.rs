//! Each module imports only what lies on a floor below it. The table is the architecture.

use std::{fs, iter, path::Path};

struct Row {
    module: &'static str,
    floor: u8,
    may_import: &'static [&'static str],
}

const fn row(module: &'static str, floor: u8, may_import: &'static [&'static str]) -> Row {
    Row { module, floor, may_import }
}

/// The rows of ARCHITECTURE.md.
const FLOORS: &[Row] = &[
    row("domain", 0, &[]),
    row("proto", 0, &[]),
    row("telemetry", 0, &[]),
    row("metrics", 1, &["domain"]),
    row("listener", 1, &["domain"]),
    row("outbound", 1, &["domain"]),
    row("sealing", 1, &["domain"]),
    row("store", 1, &["domain"]),
    row("vault", 2, &["domain", "sealing", "store"]),
    row("archive", 2, &["domain", "sealing", "store"]),
    row("oauth", 3, &["domain", "outbound"]),
    row("identity", 3, &["domain", "outbound", "sealing"]),
    row("events", 3, &["domain", "sealing", "store", "vault"]),
    row("audit", 3, &["domain", "sealing", "store", "vault"]),
    row(
        "broker",
        4,
        &[
            "domain", "outbound", "sealing", "store", "vault", "archive", "oauth", "identity", "events", "audit",
            "metrics",
        ],
    ),
    row("config", 4, &["domain", "telemetry", "outbound", "listener", "sealing", "oauth", "identity"]),
    row("grpc", 5, &["domain", "proto", "listener", "metrics", "identity", "broker"]),
    row("http", 5, &["domain", "listener", "metrics", "identity", "broker"]),
    row("client", 5, &["domain", "proto"]),
    row("dev", 5, &["domain", "outbound"]),
    row("app", 6, EVERYTHING_BELOW),
    row("cli", 7, EVERYTHING_BELOW),
    row("main", 8, EVERYTHING_BELOW),
];

/// The edges may import every floor below theirs.
const EVERYTHING_BELOW: &[&str] = &["*"];

/// Crates that only these paths under `src/` may name, by the crate's first word.
const CONFINED: &[(&str, &[&str])] = &[
    ("tonic", &["grpc", "client", "cli", "app", "proto", "telemetry", "dev/tour"]),
    ("sled", &["store/sled"]),
    ("opentelemetry", &["telemetry"]),
    ("prometheus", &["metrics", "grpc/layers/count"]),
];

#[test]
fn modules_import_only_what_lies_below_them() {
    let breaches: Vec<String> = sources().iter().flat_map(|(path, source)| breaches(path, source)).collect();
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn every_module_has_a_row() {
    let unknown: Vec<String> = sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path != "lib.rs" && find(module_of(path)).is_none())
        .collect();
    assert!(unknown.is_empty(), "give each a floor: {unknown:?}");
}

#[test]
fn every_arrow_of_the_table_points_down() {
    for Row { module, floor, may_import } in FLOORS {
        for target in may_import.iter().filter(|target| **target != "*") {
            let below = find(target).is_some_and(|row| row.floor < *floor);
            assert!(below, "`{module}` may import `{target}`, which is not below it");
        }
    }
}

#[test]
fn the_document_has_the_same_table() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md"))
        .expect("the document is text");
    let written: Vec<String> = document
        .lines()
        .skip_while(|line| !line.starts_with("| floor |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            format!("{} {} {}", cells[1], cells[2].trim_matches('`'), cells[4])
        })
        .collect();
    let table: Vec<String> = FLOORS
        .iter()
        .map(|Row { module, floor, may_import }| {
            let imports = match *may_import {
                [] => "—".to_owned(),
                ["*"] => "everything below".to_owned(),
                some => some.join(", "),
            };
            format!("{floor} {module} {imports}")
        })
        .collect();
    assert_eq!(written, table);
}

#[test]
fn a_planted_import_is_found() {
    for planted in [
        "use crate::broker::Broker;",
        "use crate::{domain::Clock, broker::{Broker, Call}};",
        "fn f() { crate::broker::f() }",
        "use super::broker::Broker;",
        "mod inner { use super::super::broker; }",
        "use crate::*;",
        "use ::sled::Db;",
        "use sled;",
        "fn f(s: tonic::Status) {}",
        "use tonic_types::StatusExt;",
        "use {tonic::Status, domain::Clock};",
    ] {
        assert_eq!(breaches("store/mod.rs", planted).len(), 1, "{planted}");
    }
    assert_eq!(breaches("store/change.rs", "use super::super::broker::Broker;").len(), 1);
    assert_eq!(breaches("main.rs", "use claviger::nowhere;").len(), 1);
}

#[test]
fn what_is_allowed_or_no_import_is_left_alone() {
    for innocent in [
        "use crate::{domain::{Clock, Timestamp}, store::{Store, sled::SledStore}};",
        "pub use self::sled::SledStore;",
        "mod tests { use super::*; }",
        "pub(crate) fn f() {} // crate::broker::f",
        "/* crate::broker /* nested */ tonic::Status */",
        "const A: &str = \"crate::broker \\\" sled::\"; const B: &str = r#\"crate::grpc \" \"#;",
        "fn f<'a>(x: &'a str, c: char) -> bool { c == '\"' || c == '\\'' }",
        "self::sled::open()",
    ] {
        assert_eq!(breaches("store/mod.rs", innocent), Vec::<String>::new(), "{innocent}");
    }
    assert!(breaches("store/sled/mod.rs", "use ::sled::Db; use sled::Tree;").is_empty());
}

/// What the file at `path` under `src/` must not name.
fn breaches(path: &str, source: &str) -> Vec<String> {
    let module = module_of(path);
    let code = strip(source);
    let tokens = tokens(&code);
    let imports = root_imports(&tokens, module_depth(path))
        .into_iter()
        .filter(|target| path != "lib.rs" && !may_import(module, target))
        .map(|target| format!("src/{path}: `{module}` must not import `{target}`"));
    let foreign = foreign_crates(&tokens)
        .into_iter()
        .filter(|krate| !may_name(path, krate))
        .map(|krate| format!("src/{path}: `{krate}` is confined elsewhere"));
    imports.chain(foreign).collect()
}

fn may_import(module: &str, target: &str) -> bool {
    let (Some(from), Some(to)) = (find(module), find(target)) else { return module == target };
    module == target
        || from.may_import.contains(&target)
        || (from.may_import == EVERYTHING_BELOW && to.floor < from.floor)
}

fn may_name(path: &str, krate: &str) -> bool {
    CONFINED
        .iter()
        .filter(|(word, _)| krate.split('_').any(|part| part == *word))
        .all(|(_, places)| places.iter().any(|place| path.starts_with(place)))
}

fn find(module: &str) -> Option<&'static Row> {
    FLOORS.iter().find(|row| row.module == module)
}

fn module_of(path: &str) -> &str {
    path.split('/').next().map_or(path, |first| first.trim_end_matches(".rs"))
}

/// How many `super` lead from the file's module to the crate root.
fn module_depth(path: &str) -> usize {
    let parts = path.split('/').count();
    if path.ends_with("/mod.rs") || path == "lib.rs" || path == "main.rs" { parts - 1 } else { parts }
}

/// The modules that are named through the crate root: `crate::`, enough `super::`, or the crate's own name.
fn root_imports<'a>(tokens: &[&'a str], depth: usize) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut inline_modules = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |before| tokens[before]);
        match *token {
            "{" => inline_modules.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => drop(inline_modules.pop()),
            "crate" | "claviger" if before != "::" => found.extend(targets(&tokens[at + 1..])),
            "super" if before != "::" => {
                let supers = tokens[at..].chunks(2).take_while(|pair| *pair == ["super", "::"]).count();
                if supers == depth + inline_modules.iter().filter(|inline| **inline).count() {
                    found.extend(targets(&tokens[at + 2 * supers - 1..]));
                }
            }
            _ => {}
        }
    }
    found
}

/// The first names after `::`, of which a group has several.
fn targets<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    match tokens {
        ["::", "{", group @ ..] => {
            let mut names = Vec::new();
            let mut nested = 0_usize;
            let mut at_start = true;
            for token in group {
                match *token {
                    "{" => nested += 1,
                    "}" if nested == 0 => break,
                    "}" => nested -= 1,
                    "," if nested == 0 => at_start = true,
                    name if at_start => {
                        names.push(name);
                        at_start = false;
                    }
                    _ => {}
                }
            }
            names
        }
        ["::", name, ..] => vec![name],
        _ => Vec::new(),
    }
}

/// Crates that are named at the start of a path.
fn foreign_crates<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let at = |index: usize| tokens.get(index).copied().unwrap_or_default();
    let mut found = Vec::new();
    // For each open brace whether it continues a path, as in `crate::store::{sled::Store}`.
    let mut groups = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let back = |steps: usize| index.checked_sub(steps).map_or("", at);
        match *token {
            "{" => groups.push(back(1) == "::"),
            "}" => drop(groups.pop()),
            _ => {}
        }
        let leads = back(1) != "::" || back(2) == "use" || !back(2).ends_with(is_word);
        let is_path = at(index + 1) == "::" || back(1) == "use";
        if leads && is_path && back(1) != "." && !groups.contains(&true) && is_confined(token) {
            found.push(*token);
        }
    }
    found
}

fn is_confined(krate: &str) -> bool {
    CONFINED.iter().any(|(word, _)| krate.split('_').any(|part| part == *word))
}

/// Words, `::`, and every other character that is not white space on its own.
fn tokens(code: &str) -> Vec<&str> {
    let mut rest = code;
    iter::from_fn(|| {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
    .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The source without comments, and with empty strings.
fn strip(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(is_word);
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            'r' | 'b' if !after_word => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

fn block_comment(rest: &str) -> usize {
    let mut open = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            open += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            open -= 1;
            at += 2;
            if open == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// 0 unless a raw string starts here.
fn raw_string(rest: &str) -> usize {
    let Some(body) = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')) else { return 0 };
    let hashes = body.len() - body.trim_start_matches('#').len();
    let Some(text) = body[hashes..].strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - text.len();
    text.find(&end).map_or(rest.len(), |at| start + at + end.len())
}

/// 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// All files under `src/`, by their path from there.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("src is readable") {
            let path = entry.expect("src is readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("found under src").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("sources are text")));
            }
        }
    }
    found
}
