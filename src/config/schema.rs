//! What the types say about the keys: which must be there, and what a good value looks like.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Config, Step};

/// The configuration's JSON schema; every part of it stands where it is used.
pub(super) struct Schema(Value);

impl Schema {
    pub(super) fn of_config() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        Self(settings.into_generator().into_root_schema_for::<Config>().into())
    }

    pub(super) fn root(&self) -> &Value {
        &self.0
    }

    /// The keys that the table at `path` must have.
    pub(super) fn required(&self, path: &[Step]) -> Vec<&str> {
        let names = self.at(path).and_then(|table| table["required"].as_array());
        names.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A good value of the key at `path`, as it is written.
    pub(super) fn example(&self, path: &[Step]) -> Option<String> {
        written(self.at(path)?.get("examples")?.get(0)?)
    }

    fn at(&self, path: &[Step]) -> Option<&Value> {
        path.iter().try_fold(&self.0, |schema, step| member(schema, step))
    }
}

/// As TOML. `None`: nothing is written.
pub(super) fn written(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(items) => Some(format!("[{}]", items.iter().filter_map(written).collect::<Vec<_>>().join(", "))),
        Value::Object(members) => {
            let pairs = members.iter().filter_map(|(name, value)| Some(format!("{name} = {}", written(value)?)));
            Some(format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", ")))
        }
        other => Some(other.to_string()),
    }
}

/// The schema one step down, through whichever of several forms has it.
fn member<'a>(schema: &'a Value, step: &Step) -> Option<&'a Value> {
    let own = match step {
        Step::Key(key) => schema
            .get("properties")
            .and_then(|properties| properties.get(key))
            .or_else(|| schema.get("additionalProperties").filter(|more| more.is_object())),
        Step::Index(_) | Step::Nth(_) | Step::Id(_) => schema.get("items"),
    };
    own.or_else(|| {
        let forms = ["oneOf", "anyOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten();
        forms.into_iter().find_map(|form| member(form, step))
    })
}
