//! JSON from outside: an object without duplicate members, wiped when it is dropped.

use serde_json::Value;
use zeroize::Zeroize;

use crate::domain::strict_json_object;

/// A JSON object. Its strings may be tokens, under whatever name a provider gave them.
pub(super) struct Document(Value);

impl Document {
    /// `None`: not JSON, not an object, or a member is given twice somewhere (two parsers could then read two
    /// different answers).
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        strict_json_object(text).map(|members| Self(Value::Object(members)))
    }

    /// The value at a JSON pointer (RFC 6901).
    pub(super) fn at(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer)
    }

    /// The member of that very name: a claim may be a URL, and hold slashes.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.at(pointer)?.as_str()
    }

    /// Moves a string out, without leaving a copy behind. Empty counts as absent.
    pub(super) fn take_text(&mut self, pointer: &str) -> Option<String> {
        match self.0.pointer_mut(pointer) {
            Some(Value::String(text)) if !text.is_empty() => Some(std::mem::take(text)),
            _ => None,
        }
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
