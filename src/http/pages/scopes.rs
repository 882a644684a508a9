//! Scopes in words. The words are a reading of the name; the name itself always stands beside them.

/// Words that a scope ends or begins with, and what they allow.
const VERBS: &[(&str, &str)] = &[
    ("readonly", "Read"),
    ("readwrite", "Read and change"),
    ("read", "Read"),
    ("write", "Change"),
    ("send", "Send"),
    ("delete", "Delete"),
    ("create", "Create"),
    ("manage", "Manage"),
    ("admin", "Administer"),
];

pub(super) fn in_words(scope: &str) -> String {
    match scope {
        "openid" => "Know which account this is".to_owned(),
        "profile" => "See your name and profile".to_owned(),
        "email" => "See your e-mail address".to_owned(),
        "address" => "See your postal address".to_owned(),
        "phone" => "See your telephone number".to_owned(),
        "offline_access" => "Keep access while you are away".to_owned(),
        other => reading(other),
    }
}

fn reading(scope: &str) -> String {
    // Where a scope is a URL, its last part tells.
    let tail = scope.rsplit('/').find(|part| !part.is_empty()).unwrap_or(scope);
    let words: Vec<_> = tail.split(['.', ':', '_', '-']).filter(|word| !word.is_empty()).collect();
    let verb_at = |word: &&str| VERBS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
    let Some(verb) = words.iter().find_map(verb_at) else { return format!("Use “{tail}”") };
    let things: Vec<_> = words.iter().filter(|word| !word.eq_ignore_ascii_case(verb.0)).copied().collect();
    let things = things.join(" ").to_lowercase();
    if things.is_empty() { format!("{} everything there", verb.1) } else { format!("{}: {things}", verb.1) }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn known_and_readable_scopes_have_words() {
        for (scope, words) in [
            ("openid", "Know which account this is"),
            ("calendar.read", "Read: calendar"),
            ("notes.write", "Change: notes"),
            ("Mail.ReadWrite", "Read and change: mail"),
            ("read:user", "Read: user"),
            ("https://www.googleapis.com/auth/calendar.readonly", "Read: calendar"),
            ("repo", "Use “repo”"),
            ("read", "Read everything there"),
        ] {
            assert_eq!(in_words(scope), words);
        }
    }
}
