//! Scopes that no definition puts in words: a reading of the name, which always stands beside it.

/// Words of scopes, and what they allow.
const VERBS: &[(&str, &str)] = &[
    ("readonly", "read"),
    ("readwrite", "read and change"),
    ("read", "read"),
    ("write", "change"),
    ("send", "send"),
    ("delete", "delete"),
    ("create", "create"),
    ("manage", "manage"),
    ("admin", "administer"),
];

/// Completes "wants to …".
pub(super) fn reading(scope: &str) -> String {
    // Where a scope is a URL, its last part tells.
    let tail = scope.rsplit('/').find(|part| !part.is_empty()).unwrap_or(scope);
    let words: Vec<_> = tail.split(['.', ':', '_', '-']).filter(|word| !word.is_empty()).collect();
    let verb_at = |word: &&str| VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    let Some((name, verb)) = words.iter().find_map(verb_at) else { return format!("use “{tail}”") };
    let things: Vec<_> = words.iter().filter(|word| !word.eq_ignore_ascii_case(name)).copied().collect();
    let things = things.join(" ").to_lowercase();
    if things.is_empty() { format!("{verb} everything there") } else { format!("{verb} {things}") }
}

#[cfg(test)]
mod tests {
    use super::reading;

    #[test]
    fn a_scope_is_read_as_far_as_it_goes() {
        for (scope, words) in [
            ("calendar.read", "read calendar"),
            ("notes.write", "change notes"),
            ("Mail.ReadWrite", "read and change mail"),
            ("https://www.googleapis.com/auth/calendar.readonly", "read calendar"),
            ("repo", "use “repo”"),
            ("read", "read everything there"),
        ] {
            assert_eq!(reading(scope), words);
        }
    }
}
