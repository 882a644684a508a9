//! Rules in the format of gitleaks, and what they find in a text. Of the format it knows what a rule file can say about
//! files and text; a file that says more is refused rather than half obeyed.

use std::collections::HashMap;

use regex::bytes::{Captures, Regex, RegexBuilder};
use serde::Deserialize;

/// The biggest rules need more than the default.
const REGEX_SIZE: usize = 100 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Rules {
    #[serde(rename = "title")]
    _title: Option<String>,
    #[serde(rename = "minVersion")]
    _min_version: Option<String>,
    #[serde(default)]
    allowlist: Allowlist,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    id: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    regex: Option<Pattern>,
    /// Only files of this path; alone, it is the find.
    path: Option<Pattern>,
    /// In lower case; without one of them in the file the rule is not tried.
    #[serde(default)]
    keywords: Vec<String>,
    /// Bits a character that a secret has more of.
    #[serde(default)]
    entropy: f64,
    /// 0: the first group that is not empty.
    #[serde(default)]
    secret_group: usize,
    #[serde(default)]
    allowlists: Vec<Allowlist>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Allowlist {
    #[serde(rename = "description")]
    _description: Option<String>,
    condition: Condition,
    regex_target: Target,
    regexes: Vec<Pattern>,
    paths: Vec<Pattern>,
    stopwords: Vec<String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Condition {
    #[default]
    Or,
    And,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    #[default]
    Secret,
    Match,
    Line,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex);

/// What a rule matched, of which an allowlist judges.
struct Found<'t> {
    path: &'t str,
    secret: &'t [u8],
    matched: &'t [u8],
    line: &'t [u8],
}

impl Rules {
    pub(crate) fn read(toml: &str) -> Self {
        toml::from_str(toml).unwrap()
    }

    /// Rule and line number of each find.
    pub(crate) fn found_in(&self, path: &str, text: &[u8]) -> Vec<String> {
        if self.allowlist.paths.iter().any(|pattern| pattern.is_in(path.as_bytes())) {
            return Vec::new();
        }
        let lower = String::from_utf8_lossy(text).to_lowercase();
        let tried = self.rules.iter().filter(|rule| rule.is_for(path, &lower));
        tried.flat_map(|rule| rule.found_in(path, text, &self.allowlist)).collect()
    }
}

impl Rule {
    fn is_for(&self, path: &str, lower: &str) -> bool {
        let named = self.keywords.is_empty() || self.keywords.iter().any(|keyword| lower.contains(&**keyword));
        named && self.path.as_ref().is_none_or(|pattern| pattern.is_in(path.as_bytes()))
    }

    fn found_in(&self, path: &str, text: &[u8], everywhere: &Allowlist) -> Vec<String> {
        let Some(Pattern(regex)) = &self.regex else { return vec![format!("{}: {path}", self.id)] };
        let mut finds = Vec::new();
        for captures in regex.captures_iter(text) {
            let whole = captures.get_match();
            let (start, end) = (whole.start(), whole.end());
            let line_start = text[..start].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let line_end = text[end..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |after| end + after);
            let secret = self.secret(&captures);
            let found = Found { path, secret, matched: whole.as_bytes(), line: &text[line_start..line_end] };
            let too_even = self.entropy > 0.0 && entropy(secret) <= self.entropy;
            if too_even || everywhere.allows(&found) || self.allowlists.iter().any(|list| list.allows(&found)) {
                continue;
            }
            let number = text[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            finds.push(format!("{}: {path}:{number}", self.id));
        }
        finds
    }

    fn secret<'t>(&self, captures: &Captures<'t>) -> &'t [u8] {
        let groups = (1..captures.len()).filter_map(|group| captures.get(group));
        let group = match self.secret_group {
            0 => groups.map(|group| group.as_bytes()).find(|group| !group.is_empty()),
            group => captures.get(group).map(|group| group.as_bytes()),
        };
        group.unwrap_or_else(|| captures.get_match().as_bytes())
    }
}

impl Allowlist {
    fn allows(&self, found: &Found<'_>) -> bool {
        let target = match self.regex_target {
            Target::Secret => found.secret,
            Target::Match => found.matched,
            Target::Line => found.line,
        };
        let secret = String::from_utf8_lossy(found.secret).to_lowercase();
        let said = [
            (!self.paths.is_empty()).then(|| self.paths.iter().any(|pattern| pattern.is_in(found.path.as_bytes()))),
            (!self.regexes.is_empty()).then(|| self.regexes.iter().any(|pattern| pattern.is_in(target))),
            (!self.stopwords.is_empty())
                .then(|| self.stopwords.iter().any(|word| secret.contains(&word.to_lowercase()))),
        ];
        let mut said = said.into_iter().flatten().peekable();
        match self.condition {
            Condition::Or => said.any(|holds| holds),
            Condition::And => said.peek().is_some() && said.all(|holds| holds),
        }
    }
}

impl Pattern {
    fn is_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// RE2 takes a brace that begins no repetition as it is, and its classes are ASCII.
impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(re2: String) -> Result<Self, regex::Error> {
        let repetition = Regex::new(r"^\{[0-9]+(,[0-9]*)?\}")?;
        let mut pattern = String::new();
        for (at, character) in re2.char_indices() {
            let literal = character == '{' && !re2[..at].ends_with('\\') && !repetition.is_match(&re2.as_bytes()[at..]);
            pattern.extend(literal.then_some('\\'));
            pattern.push(character);
        }
        RegexBuilder::new(&pattern).unicode(false).size_limit(REGEX_SIZE).build().map(Self)
    }
}

/// Shannon's, in bits a character.
fn entropy(text: &[u8]) -> f64 {
    let mut counts: HashMap<u8, f64> = HashMap::new();
    text.iter().for_each(|byte| *counts.entry(*byte).or_default() += 1.0);
    let length: f64 = counts.values().sum();
    counts.values().map(|count| -(count / length) * (count / length).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
        [allowlist]
        paths = ['\.png$']
        regexes = ['^\${(?:[A-Z_]+)}$']
        stopwords = ["example"]
        [[rules]]
        id = "assigned"
        regex = '''(?i)secret\s*[=:]\s*"?(\$?{?[\w{}-]{8,40})'''
        keywords = ["secret"]
        entropy = 3.0
        [[rules.allowlists]]
        regexTarget = "line"
        regexes = ["by design"]
        [[rules.allowlists]]
        condition = "AND"
        paths = ['\.txt$']
        stopwords = ["f00d"]
        [[rules]]
        id = "second"
        regex = "(left)=(right[0-9]{4})"
        secretGroup = 2
        entropy = 2.5
        [[rules]]
        id = "key-file"
        path = '\.p12$'
    "#;

    #[track_caller]
    fn finds(path: &str, text: &str, expected: &[&str]) {
        assert_eq!(Rules::read(RULES).found_in(path, text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn a_secret_is_found_with_its_rule_and_line() {
        finds(
            "log",
            "one\ntwo Secret = \"a8f3k2j5h7d1\"\nSECRET:q9w8e7r6t5y4",
            &["assigned: log:2", "assigned: log:3"],
        );
        finds("log", "left=right2749", &["second: log:1"]);
        finds("store.p12", "", &["key-file: store.p12"]);
    }

    #[test]
    fn what_is_even_or_allowed_is_no_find() {
        finds("log", "secret=aaaaaaaaaaaa", &[]);
        finds("log", "left=right1111", &[]);
        finds("log", "secret=${PLACE_HOLDER}", &[]);
        finds("log", "secret=a8f3EXAMPLEk2j5", &[]);
        finds("log", "secret=a8f3k2j5h7d1 by design\nsecret=a8f3k2j5h7d1", &["assigned: log:2"]);
        finds("page.png", "secret=a8f3k2j5h7d1", &[]);
        finds("log", "secret=a8f3f00dh7d1", &["assigned: log:1"]);
        finds("log.txt", "secret=a8f3f00dh7d1", &[]);
        finds("log.txt", "secret=a8f3k2j5h7d1", &["assigned: log.txt:1"]);
    }

    #[test]
    fn entropy_is_in_bits_a_character() {
        assert_eq!(entropy(b"aaaa"), 0.0);
        assert_eq!(entropy(b"abcd"), 2.0);
    }
}
