//! The reference of every key, made from the types, their documentation and their defaults.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{Schema, written};

const HEAD: &str = "# Configuration

One TOML file: `claviger serve --config claviger.toml`. `claviger check-config claviger.toml` says everything that is
wrong with it, each with its line, key and cure, and exits with 78. `claviger.example.toml` has every key. This page is
made from the code.

- Unknown keys are refused. Durations and sizes have units: `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`, `\"7d\"`; `\"512B\"`, `\"64KiB\"`,
  `\"1MiB\"`, `\"2GiB\"`. Relative paths begin at the directory of the configuration file.
- `CLAVIGER__SECTION__KEY` in the environment overrides a key: `CLAVIGER__GRPC__RATE=500`. An element of an array is named
  by its `id` in capitals, with `_` for `.` and `-`, or by its number from 0:
  `CLAVIGER__PROVIDERS__GOOGLE__CLIENT_ID=…`, `CLAVIGER__IDENTITY__PLATFORM__ISSUERS__0__AUDIENCES='[\"api://a\"]'`. What has
  parts is written as TOML. Variables add no elements.
- SIGHUP makes `serve` read it again. Tenants, providers, plugins, `log.level` and the contents of TLS certificates come
  into force without a restart; what else has changed is named in the log as needing one. It is put on record and
  audited (`CONFIGURATION_CHANGED`) before it is in force. A file with a mistake leaves the old configuration in force,
  and the log lists what is wrong.
- Secrets stand in files of their own, regular files of the serving user with mode 0600 or 0400; neither this file nor a
  variable takes one.
";

/// `docs/configuration.md`.
pub fn reference() -> String {
    let schema = Schema::of_config();
    let mut out = HEAD.to_owned();
    for (name, section) in properties(schema.root()) {
        table(&mut out, name, section);
    }
    out
}

/// One table of keys, and after it the tables below them.
fn table(out: &mut String, path: &str, schema: &Value) {
    let array = schema.get("items");
    let keys = array.unwrap_or(schema);
    let heading = if array.is_some() { format!("[[{path}]]") } else { format!("[{path}]") };
    _ = write!(out, "\n## `{heading}`\n\n{}\n\n", prose(schema));
    out.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let mut inner = Vec::new();
    for (name, key) in properties(keys) {
        let here = format!("{path}.{name}");
        if let Some(table) = nested(key) {
            inner.push((here.clone(), key, table));
        }
        let required = keys["required"].as_array().is_some_and(|names| names.contains(&Value::from(name)));
        let default = if required { "*required*".to_owned() } else { default(key) };
        _ = writeln!(out, "| `{name}` | {} | {default} | {} |", kind(key, &here), meaning(key));
    }
    for (path, key, inner) in inner {
        let section = if key.get("items").is_some() { key } else { inner };
        table_of(out, &path, section, key);
    }
}

/// A table whose description stands at the key that leads to it.
fn table_of(out: &mut String, path: &str, section: &Value, key: &Value) {
    let mut section = section.clone();
    section["description"] = key["description"].clone();
    table(out, path, &section);
}

/// The table that a key holds, itself, in an array or among other forms.
fn nested(key: &Value) -> Option<&Value> {
    let tables = |schema: &&Value| schema.get("properties").is_some() && !is_choice(schema);
    forms(key).into_iter().chain(key.get("items")).find(tables)
}

/// What a key may be: alternatives, or the one thing that it is.
fn forms(schema: &Value) -> Vec<&Value> {
    let several = ["oneOf", "anyOf"].into_iter().find_map(|word| schema.get(word)?.as_array());
    several.map_or_else(|| vec![schema], |several| several.iter().flat_map(forms).collect())
}

/// `{ grace = … }`: a choice that is written with a value.
fn is_choice(schema: &Value) -> bool {
    let one = properties(schema).len() == 1;
    one && schema["required"].as_array().is_some_and(|names| names.len() == 1)
}

fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let all = schema.get("properties").and_then(Value::as_object);
    all.into_iter().flatten().map(|(name, key)| (name.as_str(), key)).collect()
}

fn kind(schema: &Value, path: &str) -> String {
    let words: Vec<_> = forms(schema).into_iter().filter_map(|form| word(form, path)).collect();
    words.join(" or ")
}

/// `None`: nothing, which is not written.
fn word(form: &Value, path: &str) -> Option<String> {
    if let Some(text) = form.get("const") {
        return Some(format!("`{text}`"));
    }
    if let Some(choices) = form.get("enum").and_then(Value::as_array) {
        let choices: Vec<_> =
            choices.iter().filter(|choice| !choice.is_null()).map(|choice| format!("`{choice}`")).collect();
        return Some(choices.join(" or "));
    }
    let types = form["type"].as_array().map_or_else(|| vec![&form["type"]], |all| all.iter().collect());
    let format = form["format"].as_str();
    Some(match types.iter().find_map(|name| name.as_str().filter(|name| *name != "null"))? {
        "string" if format == Some("uri") => "URL".to_owned(),
        "string" => format.unwrap_or("string").to_owned(),
        "integer" => "whole number".to_owned(),
        "array" => format!("array of {}", form.get("items").map_or_else(String::new, |items| elements(items, path))),
        "object" if is_choice(form) => {
            let (name, value) = properties(form).pop()?;
            format!("`{{ {name} = … }}` ({})", chosen(value, path))
        }
        "object" if form.get("properties").is_some() => format!("table, see [`[{path}]`](#{})", anchor(path)),
        "object" => "table of strings".to_owned(),
        other => other.to_owned(),
    })
}

fn elements(items: &Value, path: &str) -> String {
    if nested(items).is_some() { format!("tables, see [`[[{path}]]`](#{})", anchor(path)) } else { kind(items, path) }
}

/// What is written with a choice; a table there has no heading of its own.
fn chosen(value: &Value, path: &str) -> String {
    let members = properties(value);
    if members.is_empty() {
        return kind(value, path);
    }
    let members: Vec<_> = members.iter().map(|(name, key)| format!("`{name}`: {}", kind(key, path))).collect();
    format!("table of {}", members.join(", "))
}

/// As renderers make it of the heading.
fn anchor(path: &str) -> String {
    path.replace('.', "")
}

fn default(key: &Value) -> String {
    match key.get("default").and_then(written) {
        Some(default) if nested(key).is_none() => format!("`{default}`"),
        _ => "—".to_owned(),
    }
}

/// The description, and what each of several choices means.
fn meaning(key: &Value) -> String {
    let mut text = prose(key);
    let choices = forms(key).into_iter().chain(key.get("items").map(forms).into_iter().flatten());
    for form in choices.filter(|form| !std::ptr::eq(*form, key)) {
        let name = form.get("const").map(ToString::to_string);
        let name =
            name.or_else(|| properties(form).first().filter(|_| is_choice(form)).map(|(name, _)| (*name).to_owned()));
        if let (Some(name), Some(description)) = (name, form["description"].as_str()) {
            _ = write!(text, " `{name}`: {}", oneline(description));
        }
    }
    text.replace('|', "\\|")
}

fn prose(schema: &Value) -> String {
    oneline(schema["description"].as_str().unwrap_or_default())
}

fn oneline(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Step, tree::Node};

    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

    #[test]
    fn the_document_is_what_the_code_says() {
        let fresh = std::env::temp_dir().join("claviger-configuration.md");
        let said = reference();
        if fs::read_to_string(DOCUMENT).unwrap_or_default() != said {
            fs::write(&fresh, said).unwrap();
            panic!("docs/configuration.md is stale: cp {} {DOCUMENT}", fresh.display());
        }
    }

    #[test]
    fn every_key_has_its_meaning() {
        let said = reference();
        let silent: Vec<_> = said.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
        assert!(silent.is_empty(), "{silent:#?}");
    }

    #[test]
    fn the_example_has_every_key() {
        let text = include_str!("../../claviger.example.toml").replace("# directory =", "directory =");
        let tree = Node::parse(&text).unwrap();
        let mut missing = Vec::new();
        look(&tree, Schema::of_config().root(), "", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    fn look(node: &Node, schema: &Value, path: &str, missing: &mut Vec<String>) {
        for (name, key) in properties(schema) {
            let here = format!("{path}.{name}");
            match node.child(&Step::Key(name.to_owned())) {
                None => missing.push(here),
                // Another of its forms: `"off"`.
                Some(child) if child.text().is_some() => {}
                Some(child) => {
                    let child = child.items().first().unwrap_or(child);
                    nested(key).into_iter().for_each(|table| look(child, table, &here, missing));
                }
            }
        }
    }
}
