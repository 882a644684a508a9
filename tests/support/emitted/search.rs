//! Looks for secrets in bytes, in every form in which a program writes bytes down.

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// What must not be found.
#[derive(Default)]
pub(super) struct Secrets {
    forms: Vec<Form>,
    /// Forms by their first bytes.
    begin: HashMap<[u8; SHORTEST], Vec<usize>>,
    /// S256 challenges of PKCE verifiers that only the broker knows (RFC 7636 §4.2): what hashes to one is found.
    challenges: Vec<String>,
}

struct Form {
    name: String,
    bytes: Vec<u8>,
}

/// Less than this would be found by chance.
const SHORTEST: usize = 7;
/// 256 bits as base64url (RFC 7636 §4.1).
const VERIFIER: usize = 43;

impl Secrets {
    /// `name` is what is told of a find, never the secret.
    pub(super) fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        self.form(name, "as it is", secret.to_vec());
        self.form(name, "as hex", hex(secret).into_bytes());
        self.form(name, "as upper hex", hex(secret).to_uppercase().into_bytes());
        for percent in [percent(secret), percent(secret).to_uppercase()] {
            self.form(name, "percent-encoded", percent.into_bytes());
        }
        self.form(name, "as a form", url::form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes());
        for offset in 0..3 {
            self.form(name, "as base64", inside(secret, offset, |bytes| STANDARD_NO_PAD.encode(bytes)));
            self.form(name, "as base64url", inside(secret, offset, |bytes| URL_SAFE_NO_PAD.encode(bytes)));
        }
    }

    /// As [`Self::add`]; a `code_challenge` stands for its verifier.
    pub(super) fn know(&mut self, name: &str, secret: &[u8]) {
        match name {
            "code_challenge" => self.challenges.push(String::from_utf8(secret.to_vec()).unwrap()),
            _ => self.add(name, secret),
        }
    }

    /// The names and forms that are in `bytes`.
    pub(super) fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for at in 0..bytes.len().saturating_sub(SHORTEST - 1) {
            let rest = &bytes[at..];
            let Some(candidates) = rest.first_chunk().and_then(|begin| self.begin.get::<[u8; SHORTEST]>(begin)) else {
                continue;
            };
            let there = candidates.iter().map(|form| &self.forms[*form]).filter(|form| rest.starts_with(&form.bytes));
            found.extend(there.map(|form| form.name.clone()));
        }
        found.extend(self.verifiers_in(bytes));
        found
    }

    /// `bytes` without these secrets as they are, to the end of what could be a token.
    pub(super) fn without(&self, names: &[&str], bytes: &[u8]) -> Vec<u8> {
        let cut: Vec<_> = names.iter().map(|name| format!("{name} as it is")).collect();
        let forms: Vec<_> = self.forms.iter().filter(|form| cut.contains(&form.name)).collect();
        let (mut left, mut rest) = (Vec::new(), bytes);
        while let Some(first) = rest.first() {
            if forms.iter().any(|form| rest.starts_with(&form.bytes)) {
                let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"-._~+/=".contains(byte));
                rest = &rest[end.unwrap_or(rest.len())..];
            } else {
                left.push(*first);
                rest = &rest[1..];
            }
        }
        left
    }

    fn form(&mut self, name: &str, how: &str, bytes: Vec<u8>) {
        assert!(bytes.len() >= SHORTEST, "{name} {how} is too short to be looked for");
        let begin = *bytes.first_chunk().unwrap();
        let alike = self.begin.entry(begin).or_default();
        if alike.iter().any(|form| self.forms[*form].bytes == bytes) {
            return;
        }
        alike.push(self.forms.len());
        self.forms.push(Form { name: format!("{name} {how}"), bytes });
    }

    /// Runs of the characters of all the encodings are few, so every stretch of one is tried.
    fn verifiers_in<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = String> + 'a {
        let runs = bytes.split(|byte| !byte.is_ascii_alphanumeric() && !b"-_+/".contains(byte));
        runs.filter(|run| run.len() >= VERIFIER).flat_map(move |run| {
            let raw = run.windows(VERIFIER).map(|verifier| ("as it is", Some(verifier.to_vec())));
            let hex = run.windows(2 * VERIFIER).map(|text| ("as hex", from_hex(text)));
            let base64 = run.windows(58).map(|text| ("as base64", STANDARD_NO_PAD.decode(text).ok()));
            let candidates = raw.chain(hex).chain(base64);
            candidates.filter_map(|(how, verifier)| self.is_verifier(&verifier?).then(|| format!("a verifier {how}")))
        })
    }

    fn is_verifier(&self, candidate: &[u8]) -> bool {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, candidate));
        self.challenges.contains(&challenge)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// The characters that depend on `bytes` alone when they stand `offset` bytes into something that is encoded.
fn inside(bytes: &[u8], offset: usize, encode: impl Fn(Vec<u8>) -> String) -> Vec<u8> {
    let encoded = encode([&[0; 2][..offset], bytes].concat());
    let (first, end) = ((offset * 8).div_ceil(6), (offset + bytes.len()) * 8 / 6);
    encoded.as_bytes()[first..end].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use claviger::sealing::Random;

    use super::*;

    const PLANTED: &str = "p1anted/canary+value?";

    #[test]
    fn a_planted_secret_is_found_in_every_form() {
        let mut secrets = Secrets::default();
        secrets.add("canary", PLANTED);
        let basic = STANDARD.encode(format!("client:{PLANTED}"));
        for written in [
            format!("INFO something {PLANTED} happened"),
            format!("INFO {{\"token\":\"{}\"}}", URL_SAFE_NO_PAD.encode(format!("a{PLANTED}b"))),
            format!("authorization: Basic {basic}"),
            format!("bytes={}", hex(PLANTED.as_bytes())),
            format!("bytes={}", hex(PLANTED.as_bytes()).to_uppercase()),
            format!("code={}", url::form_urlencoded::byte_serialize(PLANTED.as_bytes()).collect::<String>()),
            format!("code={}", percent(PLANTED.as_bytes())),
        ] {
            assert!(!secrets.found_in(written.as_bytes()).is_empty(), "{written}");
        }
        assert!(secrets.found_in(b"INFO nothing planted, canaries sing elsewhere").is_empty());
    }

    #[test]
    fn a_planted_verifier_is_found_by_its_challenge() {
        let verifier = Random::system().code_verifier().ok().unwrap();
        let verifier = verifier.expose().as_bytes();
        let mut secrets = Secrets::default();
        secrets.know("code_challenge", URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier)).as_bytes());
        let raw = String::from_utf8(verifier.to_vec()).unwrap();
        for written in [raw.clone(), hex(verifier), STANDARD.encode(verifier), format!("id-{raw}-id")] {
            let found = secrets.found_in(format!("code_verifier={written}&x").as_bytes());
            assert_eq!(found.len(), 1, "{written}");
        }
        assert!(secrets.found_in(&[b'a'; 1000]).is_empty());
    }

    #[test]
    fn what_is_handed_over_is_cut_out_and_nothing_else() {
        let mut secrets = Secrets::default();
        secrets.add("prefix", "canary_");
        secrets.add("other", "another_");
        let left = |names: &[&str]| {
            let left = secrets.without(names, b"token \"canary_ab-c.d\", another_one, canary_");
            String::from_utf8(left).unwrap()
        };
        assert_eq!(left(&["prefix"]), "token \"\", another_one, ");
        assert_eq!(left(&[]), "token \"canary_ab-c.d\", another_one, canary_");
    }
}
