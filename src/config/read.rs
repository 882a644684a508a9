//! A tree becomes a [`Config`], and everything in it that cannot be read is found, not only the first.

use serde::Deserialize as _;

use super::{
    Config, Fault, Finding, Place, Step,
    schema::Schema,
    tree::{Node, State, Value},
};

/// Reads the tree again and again. What is refused is reported and left out; what is missing is reported and stood in
/// for; so what comes out in the end is everything that could be read, `None` if not even that makes a configuration.
pub(super) fn read(tree: &mut Node, schema: &Schema) -> (Option<Config>, Vec<Finding>) {
    let mut findings = Vec::new();
    loop {
        let refusal = match Config::deserialize(&*tree) {
            Ok(config) => return (Some(config), findings),
            Err(refusal) => refusal,
        };
        let path = refusal.key.0;
        let Some((Step::Key(key), above)) = path
            .split_last()
            .map(|(last, above)| (last.clone(), above))
            .filter(|_| matches!(refusal.fault, Fault::Missing { .. }))
        else {
            match refuse(tree, &path) {
                Some(node_place) => findings.extend(finding(&path, node_place, refusal.fault, schema)),
                None => return (None, findings),
            }
            continue;
        };
        if !stand_in(tree, above, &key, schema, &mut findings) && refuse(tree, above).is_none() {
            return (None, findings);
        }
    }
}

/// Leaves the value at `path` out from now on, or, if it only stood in, the table that it is in. Gives where it was
/// written; `Nowhere` for a stand-in, which was reported before. `None`: nothing is left that could be left out.
fn refuse(tree: &mut Node, path: &[Step]) -> Option<Place> {
    let (_, above) = path.split_last()?;
    match tree.at_mut(path) {
        Some(node) if node.state == State::Sound => {
            node.state = State::Refused;
            Some(node.place.clone())
        }
        _ => refuse(tree, above).map(|_| Place::Nowhere),
    }
}

fn finding(path: &[Step], place: Place, fault: Fault, schema: &Schema) -> Option<Finding> {
    if place == Place::Nowhere {
        return None;
    }
    let fault = match fault {
        Fault::Value { message, .. } => Fault::Value { message, example: schema.example(path) },
        Fault::Type { found, expected, .. } => Fault::Type { found, expected, example: schema.example(path) },
        other => other,
    };
    Some(Finding { place, ..Finding::new(super::KeyPath(path.to_vec()), fault) })
}

/// Reports every key that the table at `above` lacks, and puts an empty text in the place of each. False: all of them
/// stand in already, and the table cannot be read all the same.
fn stand_in(tree: &mut Node, above: &[Step], key: &str, schema: &Schema, findings: &mut Vec<Finding>) -> bool {
    let Some(table) = tree.at_mut(above) else { return false };
    let place = table.place.clone();
    let mut names = schema.required(above);
    if !names.contains(&key) {
        names.push(key);
    }
    let mut stood_in = false;
    for name in names {
        let step = Step::Key(name.to_owned());
        let before = table.child(&step).map(|node| node.state);
        let filler = Node { value: Value::Text(String::new()), place: Place::Nowhere, state: State::StandIn };
        match before {
            Some(State::Sound | State::StandIn) => continue,
            Some(State::Refused) if name != key => continue,
            Some(State::Refused) => {}
            None => {
                let mut path = above.to_vec();
                path.push(step);
                let fault = Fault::Missing { example: schema.example(&path) };
                findings.push(Finding { place: place.clone(), ..Finding::new(super::KeyPath(path), fault) });
            }
        }
        table.put(name, filler);
        stood_in = true;
    }
    stood_in
}
