//! `CLAVIGER__SECTION__KEY` in place of what the file says.

use super::{
    Fault, Finding, KeyPath, Place, Step,
    tree::{Node, Value, variable},
};

const PREFIX: &str = "CLAVIGER__";

/// The variables that override the file, in the order of their names.
pub fn variables() -> Vec<(String, String)> {
    let all = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let ours = all.filter(|(name, _)| name.starts_with(PREFIX));
    let mut ours: Vec<_> = ours.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect();
    ours.sort();
    ours
}

/// Puts each variable where it belongs. An element of an array is named by its id or by its number from 0; none is
/// added.
pub(super) fn overlay(tree: &mut Node, variables: &[(String, String)]) -> Vec<Finding> {
    variables.iter().filter_map(|(name, value)| put(tree, name, value)).collect()
}

fn put(tree: &mut Node, name: &str, value: &str) -> Option<Finding> {
    let words: Vec<String> = name.strip_prefix(PREFIX)?.split("__").map(str::to_lowercase).collect();
    let place = variable(name);
    let mut path = KeyPath::default();
    let mut node = tree;
    let (last, ways) = words.split_last().expect("split gives at least one piece");
    for word in ways {
        let step = step(node, word);
        path.0.push(step.clone());
        if node.child(&step).is_none() {
            if matches!(step, Step::Id(_)) {
                return Some(Finding { place, ..Finding::new(path, Fault::NoElement) });
            }
            node.put(word, Node::new(Value::Table(Vec::new()), place.clone()));
        }
        node = node.child_mut(&step)?;
    }
    match step(node, last) {
        Step::Key(key) => node.put(&key, written(value, &place)),
        index @ Step::Index(_) => *node.child_mut(&index)? = written(value, &place),
        other => {
            path.0.push(other);
            return Some(Finding { place, ..Finding::new(path, Fault::NoElement) });
        }
    }
    None
}

/// Tables and arrays stand in the tree as such, so that what is wrong inside of them has a place.
fn written(value: &str, place: &Place) -> Node {
    Node::parse_value(value, place)
        .filter(|node| matches!(node.value, Value::Table(_) | Value::Array(_)))
        .map_or_else(|| Node::new(Value::Variable(value.to_owned()), place.clone()), |node| node.placed(place))
}

/// In an array, the element that a word means; [`Step::Id`] if there is none. Anything else is made a table.
fn step(node: &mut Node, word: &str) -> Step {
    if let Value::Array(items) = &node.value {
        let mut those = (0..).zip(items).filter(|(_, item)| item.id().is_some_and(|id| spelt(id) == word));
        let named = those.next().map(|(index, _)| index);
        if those.next().is_some() {
            return Step::Id(word.to_owned());
        }
        let index = named.or_else(|| word.parse().ok().filter(|index| *index < items.len()));
        return index.map_or_else(|| Step::Id(word.to_owned()), Step::Index);
    }
    if !matches!(node.value, Value::Table(_)) {
        node.value = Value::Table(Vec::new());
    }
    Step::Key(word.to_owned())
}

/// An id as a variable can name it: no shell lets a dot or hyphen stand in a name.
fn spelt(id: &str) -> String {
    id.replace(['.', '-'], "_")
}
