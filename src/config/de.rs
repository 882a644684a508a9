//! From what was written to what is meant: a serde deserializer whose errors know their key and keep their data.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
    value::MapAccessDeserializer,
};

use super::{
    Fault, KeyPath, Step,
    problem::nearest,
    tree::{Node, State, Value},
};

/// The first thing that is wrong below some value.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Innermost last.
    pub(super) key: KeyPath,
    pub(super) fault: Fault,
}

impl Refusal {
    fn new(fault: Fault) -> Self {
        Self { key: KeyPath::default(), fault }
    }

    fn below(mut self, step: Step) -> Self {
        self.key.0.insert(0, step);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.fault)
    }
}

impl std::error::Error for Refusal {}

impl Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Value { message: message.to_string(), example: None })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let expected = plain(&expected.to_string());
        Self::new(Fault::Type { found: kind(found).to_owned(), expected, example: None })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::Choice {
            found: found.to_owned(),
            nearest: nearest(found, known.iter().copied()),
            known: known.iter().copied().map(str::to_owned).collect(),
        })
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownKey {
            nearest: nearest(found, known.iter().copied()),
            known: known.iter().copied().map(str::to_owned).collect(),
        })
        .below(Step::Key(found.to_owned()))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Fault::Missing { example: None }).below(Step::Key(key.to_owned()))
    }
}

/// Kinds only: whoever puts a secret in the wrong place does not want it printed.
fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

/// serde's words for what it expects are Rust's.
fn plain(expected: &str) -> String {
    match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        "path string" => "a path as a string",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.starts_with("enum ") => "one of its choices",
        _ if expected.starts_with(['u', 'i']) && expected[1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            "a whole number that is not negative and not too large"
        }
        other => other,
    }
    .to_owned()
}

macro_rules! number_from_variable {
    ($($method:ident $visit:ident $number:ty;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            match &self.value {
                Value::Variable(text) => match text.parse::<$number>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(Refusal::invalid_type(Unexpected::Str(text), &visitor)),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )+};
}

/// What has parts is written as TOML in a variable too.
macro_rules! parts_from_variable {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            match &self.value {
                Value::Variable(text) => match Node::parse_value(text, &self.place) {
                    Some(node) => node.deserialize_any(visitor),
                    None => Err(Refusal::invalid_type(Unexpected::Str(text), &visitor)),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::Table(entries) => visitor.visit_map(Entries::of(entries)),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Text(text) | Value::Variable(text) => visitor.visit_str(text),
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(yes) => visitor.visit_bool(*yes),
            Value::Date => Err(Refusal::invalid_type(Unexpected::Other("a date"), &visitor)),
        }
    }

    number_from_variable! {
        deserialize_bool visit_bool bool;
        deserialize_u8 visit_u64 u64;
        deserialize_u16 visit_u64 u64;
        deserialize_u32 visit_u64 u64;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i64 i64;
        deserialize_i16 visit_i64 i64;
        deserialize_i32 visit_i64 i64;
        deserialize_i64 visit_i64 i64;
        deserialize_f32 visit_f64 f64;
        deserialize_f64 visit_f64 f64;
    }

    parts_from_variable! { deserialize_seq deserialize_map }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        // A derived visitor would also take the fields in order, without their names.
        match &self.value {
            Value::Array(_) => Err(Refusal::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if let Value::Variable(text) = &self.value
            && let Some(node) =
                Node::parse_value(text, &self.place).filter(|node| matches!(node.value, Value::Table(_)))
        {
            return node.deserialize_enum(name, variants, visitor);
        }
        match &self.value {
            Value::Table(entries) if entries.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries::of(entries)))
            }
            Value::Text(text) | Value::Variable(text) => visitor.visit_enum(Unit { text, variants }),
            other => Err(Refusal::new(Fault::Type {
                found: other.to_string(),
                expected: format!("one of {}", variants.join(", ")),
                example: None,
            })),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A choice that is written as its name alone.
struct Unit<'a> {
    text: &'a str,
    variants: &'static [&'static str],
}

impl<'de> EnumAccess<'de> for Unit<'_> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        Ok((seed.deserialize(self.text.into_deserializer())?, self))
    }
}

impl<'de> serde::de::VariantAccess<'de> for Unit<'_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Refusal> {
        Err(self.bare())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Refusal> {
        Err(self.bare())
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Refusal> {
        Err(self.bare())
    }
}

impl Unit<'_> {
    fn bare(&self) -> Refusal {
        let name = self.variants.iter().find(|name| **name == self.text).unwrap_or(&"");
        Refusal::new(Fault::Value { message: format!("{name} needs a value; write {{ {name} = … }}"), example: None })
    }
}

/// The entries of a table that were not refused.
struct Entries<'a> {
    left: Vec<&'a (String, Node)>,
    value: Option<&'a (String, Node)>,
}

impl<'a> Entries<'a> {
    fn of(entries: &'a [(String, Node)]) -> Self {
        let left = entries.iter().rev().filter(|(_, node)| node.state != State::Refused).collect();
        Self { left, value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        self.value = self.left.pop();
        let Some((name, _)) = self.value else { return Ok(None) };
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let (name, node) = self.value.expect("serde asks for a key first");
        seed.deserialize(node).map_err(|refusal| refusal.below(Step::Key(name.clone())))
    }
}

/// The elements of an array that were not refused.
struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        while let Some(node) = self.items.get(self.next) {
            let index = self.next;
            self.next += 1;
            if node.state != State::Refused {
                return seed.deserialize(node).map(Some).map_err(|refusal| refusal.below(Step::Index(index)));
            }
        }
        Ok(None)
    }
}
