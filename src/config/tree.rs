//! A configuration as it was written: values, and where each stands.

use std::{borrow::Cow, fmt, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Fault, Finding, KeyPath, Place, Step};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
    pub(super) state: State,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(Vec<(String, Node)>),
    Array(Vec<Node>),
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Date,
    /// From the environment: becomes whatever its key wants.
    Variable(String),
}

/// What the reader thinks of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Sound,
    /// Reported, and left out from then on.
    Refused,
    /// Not written at all; stands in for what was reported missing, so that the rest can be looked at.
    StandIn,
}

impl Node {
    /// Every syntax error, or the whole document.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Finding>> {
        let lines = Lines::of(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self::table(document.get_ref(), &lines, Place::Line(1)));
        }
        let finding = |error: &toml::de::Error| Finding {
            place: error.span().map_or(Place::Nowhere, |span| lines.place(span.start)),
            ..Finding::new(KeyPath::default(), Fault::Syntax { message: error.message().to_owned() })
        };
        Err(errors.iter().map(finding).collect())
    }

    /// One value, such as an array in a variable; `None`: it is not TOML.
    pub(super) fn parse_value(text: &str, place: &Place) -> Option<Self> {
        let value = DeValue::parse(text).ok()?;
        Some(Self::of(value.get_ref(), &Lines::of(""), place.clone()))
    }

    pub(super) fn new(value: Value, place: Place) -> Self {
        Self { value, place, state: State::Sound }
    }

    /// All of it was written at `place`.
    pub(super) fn placed(self, place: &Place) -> Self {
        let value = match self.value {
            Value::Table(entries) => {
                Value::Table(entries.into_iter().map(|(name, node)| (name, node.placed(place))).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(|node| node.placed(place)).collect()),
            other => other,
        };
        Self { value, place: place.clone(), ..self }
    }

    fn of(value: &DeValue<'_>, lines: &Lines, place: Place) -> Self {
        let value = match value {
            DeValue::Table(table) => return Self::table(table, lines, place),
            DeValue::Array(array) => Value::Array(array.iter().map(|item| Self::spanned(item, lines)).collect()),
            DeValue::String(text) => Value::Text(Cow::clone(text).into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::Float(f64::INFINITY), Value::Integer),
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(yes) => Value::Bool(*yes),
            DeValue::Datetime(_) => Value::Date,
        };
        Self::new(value, place)
    }

    fn table(table: &DeTable<'_>, lines: &Lines, place: Place) -> Self {
        let entries = table.iter().map(|(key, value)| {
            let place = lines.place(key.span().start);
            (key.get_ref().clone().into_owned(), Self::of(value.get_ref(), lines, place))
        });
        Self::new(Value::Table(entries.collect()), place)
    }

    fn spanned(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Self {
        Self::of(value.get_ref(), lines, lines.place(value.span().start))
    }

    pub(super) fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => {
                entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
            }
            (Value::Array(items), Step::Index(index)) => items.get(*index),
            (Value::Array(items), Step::Nth(nth)) => items.iter().filter(|item| item.state == State::Sound).nth(*nth),
            _ => None,
        }
    }

    pub(super) fn child_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (&mut self.value, step) {
            (Value::Table(entries), Step::Key(key)) => {
                entries.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
            }
            (Value::Array(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        }
    }

    pub(super) fn at(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.child(step))
    }

    pub(super) fn at_mut(&mut self, path: &[Step]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, step| node.child_mut(step))
    }

    pub(super) fn put(&mut self, key: &str, node: Self) {
        if let Value::Table(entries) = &mut self.value {
            entries.retain(|(name, _)| name != key);
            entries.push((key.to_owned(), node));
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Variable(text) => Some(text),
            _ => None,
        }
    }

    /// The `id` of an element, whatever the reader thinks of the element.
    pub(super) fn id(&self) -> Option<&str> {
        self.child(&Step::Key("id".to_owned()))?.text()
    }

    /// The elements of an array; none for anything else.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Array(items) => items,
            _ => &[],
        }
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn place(&self, byte: usize) -> Place {
        Place::Line(1 + self.0.partition_point(|start| *start <= byte))
    }
}

/// What a value is, in the words of a message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table(_) => "a table",
            Self::Array(_) => "an array",
            Self::Text(_) | Self::Variable(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Date => "a date",
        })
    }
}

/// A variable's name, shared by everything that it brought.
pub(super) fn variable(name: &str) -> Place {
    Place::Variable(Arc::from(name))
}
