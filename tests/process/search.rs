//! Looks for secrets in bytes, in every form in which a program writes bytes down.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// What must not be found.
#[derive(Default)]
pub(crate) struct Secrets {
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
    pub(crate) fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
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

    pub(crate) fn add_challenge(&mut self, challenge: String) {
        self.challenges.push(challenge);
    }

    /// The names and forms that are in `bytes`.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
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

    /// What is found in the files below `directory`, by file; `leave_out` are paths below it.
    pub(crate) fn found_below(&self, directory: &Path, leave_out: &[&str]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            if leave_out.iter().any(|left_out| name == **left_out) {
                continue;
            }
            if path.is_dir() {
                found.extend(self.found_below(&path, &[]));
            } else {
                let named = |what| format!("{}: {what}", path.display());
                found.extend(self.found_in(&fs::read(&path).unwrap()).into_iter().map(named));
            }
        }
        found
    }

    fn form(&mut self, name: &str, how: &str, bytes: Vec<u8>) {
        let begin = *bytes.first_chunk().unwrap_or_else(|| panic!("{name} {how} is too short to be looked for"));
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
    use tempfile::TempDir;

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
        secrets.add_challenge(URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier)));
        let raw = String::from_utf8(verifier.to_vec()).unwrap();
        for written in [raw.clone(), hex(verifier), STANDARD.encode(verifier), format!("id-{raw}-id")] {
            let found = secrets.found_in(format!("code_verifier={written}&x").as_bytes());
            assert_eq!(found.len(), 1, "{written}");
        }
        assert!(secrets.found_in(&[b'a'; 1000]).is_empty());
    }

    #[test]
    fn a_planted_file_is_found_and_named() {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        let mut secrets = Secrets::default();
        secrets.add("canary", PLANTED);
        assert!(secrets.found_below(directory.path(), &[]).is_empty());
        fs::write(directory.path().join("store/db"), [b"\0\x01\xff", PLANTED.as_bytes(), b"\0"].concat()).unwrap();
        let found = secrets.found_below(directory.path(), &[]);
        assert!(found.iter().next().unwrap().ends_with("store/db: canary as it is"), "{found:?}");
        assert!(secrets.found_below(directory.path(), &["store"]).is_empty());
    }
}
