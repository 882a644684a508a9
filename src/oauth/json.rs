//! JSON from outside: an object without duplicate members, wiped when it is dropped.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use zeroize::Zeroize;

/// A JSON object. Its strings may be tokens, under whatever name a provider gave them.
pub(super) struct Document(Value);

impl Document {
    /// `None`: not JSON, not an object, or a member is given twice somewhere (two parsers could then read two
    /// different answers).
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let document = Self(Unique.deserialize(&mut deserializer).ok()?);
        deserializer.end().ok()?;
        document.0.is_object().then_some(document)
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
    pub(super) fn take_text(&mut self, member: &str) -> Option<String> {
        match self.0.get_mut(member) {
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

struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.insert(name, members.next_value_seed(Self)?).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::Document;

    #[test]
    fn a_duplicate_member_at_any_depth_is_refused() {
        assert!(Document::parse(br#"{"a":1,"b":{"a":1}}"#).is_some());
        assert!(Document::parse(br#"{"a":1,"a":1}"#).is_none());
        assert!(Document::parse(br#"{"x":[{"a":1,"\u0061":2}]}"#).is_none());
    }

    #[test]
    fn only_one_whole_object_is_a_document() {
        for text in ["", "[]", "null", "\"x\"", "{} {}", "{\"a\":NaN}", "\u{feff}{}", "{\"a\":1", "<html>"] {
            assert!(Document::parse(text.as_bytes()).is_none(), "{text}");
        }
        let deep = "{\"a\":".repeat(10_000);
        assert!(Document::parse(deep.as_bytes()).is_none());
    }
}
