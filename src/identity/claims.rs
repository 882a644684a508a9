//! Reading claims.

use serde_json::{Map, Value};

use super::Flaw;
use crate::domain::Timestamp;

/// A token's payload; verified or not is said by the name of what holds it.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn new(members: Map<String, Value>) -> Self {
        Self(members)
    }

    /// The claim of that very name (names may be URLs, with dots), else member `b` of claim `a` for `a.b`.
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        self.0.get(path).or_else(|| {
            let mut steps = path.split('.');
            let first = self.0.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.as_object()?.get(step))
        })
    }

    /// The claim when it is non-empty text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.value(path)?.as_str().filter(|text| !text.is_empty())
    }

    /// The claim as a list: text stands for a list of one (RFC 7519 §4.1.3).
    pub(super) fn list(&self, path: &str) -> Result<Vec<&str>, Flaw> {
        match self.value(path) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(elements)) => {
                elements.iter().map(|element| element.as_str().ok_or(Flaw::Claims)).collect()
            }
            Some(_) => Err(Flaw::Claims),
        }
    }

    /// Whether the issuer says that it left the claim out and where it can be asked for (OpenID Connect Core §5.6.2;
    /// Entra's `hasgroups`).
    pub(super) fn is_left_out(&self, path: &str) -> bool {
        let names = self.0.get("_claim_names").and_then(Value::as_object);
        let first = path.split('.').next().unwrap_or(path);
        names.is_some_and(|names| names.contains_key(path) || names.contains_key(first))
            || path == "groups" && self.0.get("hasgroups").is_some_and(|has| has != false)
    }

    /// A NumericDate (RFC 7519 §2), which may have a fraction. Anything else under that name is a flaw: reading it as
    /// absent would turn a limit off.
    pub(super) fn date(&self, name: &str) -> Result<Option<Timestamp>, Flaw> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let number = value.as_number().ok_or(Flaw::Claims)?;
        if let Some(seconds) = number.as_i64() {
            return Ok(Some(Timestamp::from_secs(seconds)));
        }
        let millis = number.as_f64().ok_or(Flaw::Claims)? * 1000.0;
        // A float cast saturates, as Timestamp does.
        Ok(Some(Timestamp::from_millis(millis as i64)))
    }
}
