//! JSON without duplicate members. Two readers that keep different ones of a pair see different documents.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// A whole JSON object that names no member twice, at any depth.
pub fn strict_json_object(text: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(text) {
        Ok(Strict(Value::Object(members))) => Some(members),
        Ok(_) | Err(_) => None,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with distinct members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_occurs_twice_is_refused_at_every_depth() {
        for text in [
            r#"{"alg":"none","alg":"RS256"}"#,
            r#"{"alg":"none","\u0061lg":"RS256"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
        ] {
            assert_eq!(strict_json_object(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn only_one_whole_object_is_accepted() {
        for text in [
            "",
            "[]",
            "1",
            "null",
            "{} {}",
            "{}x",
            "{\"a\":1",
            "<html>",
            "\u{feff}{}",
            "{\"a\":NaN}",
            "{'a':1}",
            "{\"a\":1,}",
        ] {
            assert_eq!(strict_json_object(text.as_bytes()), None, "{text}");
        }
        for opening in ["[", "{\"a\":"] {
            assert_eq!(strict_json_object(opening.repeat(10_000).as_bytes()), None, "{opening}");
        }
    }

    #[test]
    fn what_is_accepted_reads_as_written() {
        let text = br#"{"n":null,"b":true,"i":-1,"u":18446744073709551615,"f":1.5,"s":"\u00e9","a":[1,{"x":"y"}]}"#;
        assert_eq!(Value::Object(strict_json_object(text).unwrap()), serde_json::from_slice::<Value>(text).unwrap());
    }
}
