//! Seals open only where they were made, keys come only from files that nobody else can read, and randomness that
//! fails stops everything.

use std::{
    collections::HashSet,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use claviger::{
    domain::{AuthorizationCode, FamilyId, KeyId, RefreshToken, Sealed, TenantId, canonical},
    sealing::{
        AssociatedData, InstallationKeys, InstallationSecret, Key, Random, RandomUnavailable, RootKey, Unsealable,
        hardening,
        private_file::PrivateFileError,
        root_key::file::{self, RootKeyFileError},
        sealed_key_id,
    },
};
use proptest::{collection::vec, prelude::*};
use zeroize::Zeroizing;

const RECORD: [u8; 16] =
    [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f];
const PLACE: AssociatedData<'static> = AssociatedData { kind: 5, record: &RECORD, field: 2, generation: 7 };

/// Computed with an independent implementation of the format: it may never change.
#[test]
fn the_sealed_format_is_what_it_was() {
    let random = counting_from(0x40);
    let sealed = key(1, "acme").seal(&PLACE, b"a plugin's access token", &random).unwrap();
    assert_eq!(
        hex(sealed.as_bytes()),
        "01000102030405060708090a0b0c0d0e0f404142434445464748494a4b4c4d4e4f5051525354555657\
         902c03982e979d34dc6157b295cdf826416706016e21f264c25115428535be68a296f679078c7e"
    );
    assert_eq!(sealed_key_id(&sealed), Ok(key_id(1)));
}

#[test]
fn a_key_other_than_the_named_one_is_not_tried() {
    let sealed = key(1, "acme").seal(&PLACE, b"secret", &Random::system()).unwrap();
    let refusal = key(2, "acme").open(&PLACE, &sealed).unwrap_err();
    assert_eq!(refusal, Unsealable::OtherKey { named: key_id(1), given: key_id(2) });
}

#[test]
fn renaming_the_key_in_the_header_does_not_make_it_open_under_equal_bytes() {
    let sealed = key(1, "acme").seal(&PLACE, b"secret", &Random::system()).unwrap();
    let mut renamed = sealed.as_bytes().to_vec();
    renamed[1..17].copy_from_slice(key_id(2).as_bytes());
    let twin = Key::from_bytes(key_id(2), Some(tenant("acme")), key_bytes());
    assert_eq!(twin.open(&PLACE, &Sealed::from_bytes(renamed.into())).unwrap_err(), Unsealable::Refused);
}

#[test]
fn nothing_opens_in_another_place() {
    let sealed = key(1, "acme").seal(&PLACE, b"secret", &Random::system()).unwrap();
    let mut other_record = RECORD;
    other_record[15] ^= 1;
    let elsewhere = [
        AssociatedData { kind: 6, ..PLACE },
        AssociatedData { record: &other_record, ..PLACE },
        AssociatedData { record: &RECORD[..15], ..PLACE },
        AssociatedData { field: 3, ..PLACE },
        AssociatedData { generation: 6, ..PLACE },
        AssociatedData { generation: 8, ..PLACE },
    ];
    for place in elsewhere {
        assert_eq!(key(1, "acme").open(&place, &sealed).unwrap_err(), Unsealable::Refused, "{place:?}");
    }
    assert_eq!(key(1, "umbrella").open(&PLACE, &sealed).unwrap_err(), Unsealable::Refused);
    let untenanted = Key::from_bytes(key_id(1), None, key_bytes());
    assert_eq!(untenanted.open(&PLACE, &sealed).unwrap_err(), Unsealable::Refused);
    assert_eq!(key(1, "acme").open(&PLACE, &sealed).unwrap().as_slice(), b"secret");
}

#[test]
fn a_wrapped_key_opens_what_the_original_sealed() {
    let random = Random::system();
    let parent = key(1, "acme");
    let child = Key::generate(tenant("acme"), &random).unwrap();
    let wrapped = parent.wrap(&PLACE, &child, &random).unwrap();
    let sealed = child.seal(&PLACE, b"secret", &random).unwrap();
    let unwrapped = parent.unwrap_key(&PLACE, &wrapped, child.id(), Some(tenant("acme"))).unwrap();
    assert_eq!(unwrapped.open(&PLACE, &sealed).unwrap().as_slice(), b"secret");

    let not_a_key = parent.seal(&PLACE, b"31 bytes are not a key, nor 33.", &random).unwrap();
    let refusal = parent.unwrap_key(&PLACE, &not_a_key, child.id(), None).err();
    assert_eq!(refusal, Some(Unsealable::Malformed));
}

#[test]
fn a_hundred_thousand_seals_have_as_many_nonces() {
    let (random, key) = (Random::system(), key(1, "acme"));
    let nonces: HashSet<[u8; 24]> =
        (0..100_000).map(|_| key.seal(&PLACE, b"", &random).unwrap().as_bytes()[17..41].try_into().unwrap()).collect();
    assert_eq!(nonces.len(), 100_000);
}

#[test]
fn a_failing_random_source_stops_everything() {
    let broken = Random::from_fill(Arc::new(|_: &mut [u8]| Err(RandomUnavailable)));
    let parent = key(1, "acme");
    assert!(parent.seal(&PLACE, b"secret", &broken).is_err());
    assert!(parent.wrap(&PLACE, &key(2, "acme"), &broken).is_err());
    assert!(Key::generate(tenant("acme"), &broken).is_err());
    assert!(InstallationSecret::generate(&broken).is_err());
    assert!(broken.flow_secret().is_err());
    assert!(broken.code_verifier().is_err());
    assert!(broken.nonce().is_err());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    assert!(matches!(file::create(&path, &broken), Err(RootKeyFileError::Random(_))));
    assert!(!path.exists());
}

#[test]
fn text_secrets_are_256_bits_of_base64url_and_never_repeat() {
    let random = Random::system();
    let seen: HashSet<String> = (0..1000).map(|_| random.flow_secret().unwrap().expose().to_owned()).collect();
    assert_eq!(seen.len(), 1000);
    let legal =
        |text: &String| text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    assert!(seen.iter().all(legal));
    // RFC 7636 §4.1: 43 to 128 characters.
    assert_eq!(random.code_verifier().unwrap().expose().len(), 43);
}

/// Computed with an independent HKDF and HMAC: subject ids, look-up keys and fingerprints may never change.
#[test]
fn the_installation_keys_are_what_they_were() {
    let keys = installation_keys();
    let family: FamilyId = "entra".parse().unwrap();
    let subject = keys.subject_id(&family, "9188040d-6c67-4c5b-b112-36a304b66dad", &["alice"]);
    assert_eq!(subject.to_string(), "sub_27c162fc0304ac58782ef98d3a6b8ef77e6ac737a4376e26b947fe1c605366d7");
    assert_eq!(
        hex(&keys.lookup().hash(&[b"tenant", b"acme"])),
        "bb88b9acbf85b4f17a4effa71d170477d80ed9ca8064bfdca91d3591c1dd79a8"
    );
    assert_eq!(
        hex(&keys.refresh_token_fingerprint(&RefreshToken::new("rt-1".to_owned()))),
        "bb2c4be4ce878eddf58db1989d9995a6bde03bfafe7899d6aaf336ef24a962ec"
    );
    assert_eq!(
        hex(&keys.code_digest(&AuthorizationCode::new("rt-1".to_owned()))),
        "0ddce01ae14c4737ea7bdfa396e8c2386de34cd082242c392dd7c584b92cc38e"
    );
    assert_eq!(hex(&keys.audit().hash(&[b"x"])), "7391ba11efab8b1186c5899601ab5fa52e1bca8fca7b05a9258e09dd8c77d6b5");
    assert_eq!(hex(&keys.resume().hash(&[b"x"])), "0629e5cad4f07a06ef876b0e178a7f5102a1222a98990b77f49de4f9fd1341f0");
}

#[test]
fn claims_cannot_be_shifted_between_the_parts_of_a_subject() {
    let keys = installation_keys();
    let id = |family: &str, realm: &str, claims: &[&str]| keys.subject_id(&family.parse().unwrap(), realm, claims);
    let subjects = [
        id("a", "b", &["c"]),
        id("a", "", &["b", "c"]),
        id("a", "bc", &[""]),
        id("a", "", &["bc"]),
        id("a", "b", &["c", ""]),
        id("a.b", "", &["c"]),
        id("a", "b:c", &[]),
        id("a", "b", &["c\0"]),
    ];
    assert_eq!(HashSet::from(subjects).len(), subjects.len());
}

#[test]
fn a_mac_of_other_parts_or_another_length_does_not_verify() {
    let keys = installation_keys();
    let mac = keys.resume().hash(&[b"a", b"bc"]);
    assert!(keys.resume().verify(&[b"a", b"bc"], &mac));
    assert!(!keys.resume().verify(&[b"ab", b"c"], &mac));
    assert!(!keys.audit().verify(&[b"a", b"bc"], &mac));
    assert!(!keys.resume().verify(&[b"a", b"bc"], &mac[..31]));
    assert!(!keys.resume().verify(&[b"a", b"bc"], b""));
}

#[test]
fn an_installation_secret_survives_wrapping() {
    let random = Random::system();
    let (root, secret) = (key(1, "acme"), InstallationSecret::generate(&random).unwrap());
    let wrapped = secret.wrap(&root, &PLACE, &random).unwrap();
    let unwrapped = InstallationSecret::unwrap_secret(&root, &PLACE, &wrapped).unwrap();
    assert_eq!(unwrapped.keys().lookup().hash(&[b"x"]), secret.keys().lookup().hash(&[b"x"]));
}

#[test]
fn a_root_key_is_created_private_and_loads_as_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    let created = file::create(&path, &filled_with(0x42)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "claviger-root-key-v1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\n");
    // Computed with an independent HKDF: sealed rows name the key by this id.
    assert_eq!(created.id().to_string(), "key_9f3677f472793524681f4675ba48e204");
    let loaded = file::load(&path).unwrap();
    let sealed = created.key().seal(&PLACE, b"secret", &Random::system()).unwrap();
    assert_eq!(loaded.key().open(&PLACE, &sealed).unwrap().as_slice(), b"secret");

    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert_eq!(file::load(&path).unwrap().id(), created.id());
}

#[test]
fn a_root_key_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    file::create(&path, &Random::system()).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(file::create(&path, &Random::system()), Err(RootKeyFileError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    // Nor through a dangling link.
    let link = directory.path().join("link.key");
    symlink(directory.path().join("target.key"), &link).unwrap();
    assert!(file::create(&link, &Random::system()).is_err());
    assert!(!directory.path().join("target.key").exists());
}

#[test]
fn making_a_key_where_no_directory_is_does_not_advise_itself() {
    let directory = tempfile::tempdir().unwrap();
    let error = file::create(&directory.path().join("absent/root.key"), &Random::system()).err().unwrap();
    assert!(matches!(error, RootKeyFileError::Io { .. }), "{error}");
}

#[test]
fn a_root_key_that_others_may_use_is_refused() {
    for mode in [0o640, 0o604, 0o644, 0o660, 0o700, 0o500, 0o200, 0o4600, 0o777] {
        let (_directory, path) = root_key_file(GOOD);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match refusal(&path) {
            RootKeyFileError::Refused(PrivateFileError::Mode { mode: reported, .. }) => assert_eq!(reported, mode),
            // Without the right to read it, opening fails already.
            RootKeyFileError::Refused(PrivateFileError::Io { .. }) => assert_eq!(mode, 0o200),
            other => panic!("{mode:o}: {other}"),
        }
    }
    let (_directory, path) = root_key_file(GOOD);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let shown = path.display();
    assert_eq!(refusal(&path).to_string(), format!("{shown} has mode 0644, so others may use it: `chmod 600 {shown}`"));
}

#[test]
fn a_root_key_of_another_user_is_refused() {
    let (_directory, mut path) = root_key_file(GOOD);
    if rustix::process::geteuid().is_root() {
        chown(&path, Some(65_534), None).unwrap();
    } else {
        path = PathBuf::from("/etc/passwd");
    }
    assert!(matches!(refusal(&path), RootKeyFileError::Refused(PrivateFileError::Owner { .. })));
}

#[test]
fn only_a_regular_file_is_a_root_key() {
    let (directory, path) = root_key_file(GOOD);
    let link = directory.path().join("link.key");
    symlink(&path, &link).unwrap();
    assert!(matches!(refusal(&link), RootKeyFileError::Refused(PrivateFileError::Symlink { .. })));
    assert!(matches!(refusal(directory.path()), RootKeyFileError::Refused(PrivateFileError::NotAFile { .. })));
    assert!(matches!(refusal(&directory.path().join("none.key")), RootKeyFileError::Missing { .. }));
    // Opening a FIFO that nobody writes would wait for ever.
    let fifo = directory.path().join("fifo.key");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(refusal(&fifo), RootKeyFileError::Refused(PrivateFileError::NotAFile { .. })));
}

#[test]
fn a_root_key_file_holds_one_key_and_nothing_else() {
    let body = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI";
    let malformed = [
        String::new(),
        "\n".to_owned(),
        body.to_owned(),
        format!("claviger-root-key-v2:{body}\n"),
        format!("claviger-root-key-v1:{body}=\n"),
        format!("claviger-root-key-v1:{body}\n\n"),
        format!("claviger-root-key-v1:{body}\r\n"),
        format!("claviger-root-key-v1: {body}\n"),
        format!("claviger-root-key-v1:{body}QkJC\n"),
        format!("claviger-root-key-v1:{}\n", &body[..40]),
        format!("claviger-root-key-v1:{}\n", "+".repeat(43)),
        // The last character carries two bits that must be zero.
        format!("claviger-root-key-v1:{}J\n", &body[..42]),
        format!("claviger-root-key-v1:{body}\nclaviger-root-key-v1:{body}\n"),
    ];
    for text in malformed {
        let (_directory, path) = root_key_file(&text);
        assert!(matches!(refusal(&path), RootKeyFileError::Malformed { .. }), "{text:?}");
    }
    let (_directory, path) = root_key_file(GOOD.trim_end());
    file::load(&path).unwrap();
}

#[test]
fn two_root_secrets_have_two_names() {
    let ids: HashSet<KeyId> = (0..64).map(|i| RootKey::from_secret(&Zeroizing::new([i; 32])).id()).collect();
    assert_eq!(ids.len(), 64);
}

#[test]
fn core_dumps_are_off_once_disabled() {
    hardening::disable_core_dumps().unwrap();
    assert!(hardening::core_dumps_are_disabled());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    #[cfg(target_os = "linux")]
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
}

proptest! {
    #[test]
    fn what_was_sealed_opens(plaintext in vec(any::<u8>(), 0..4096), generation: u64, record in vec(any::<u8>(), 0..40)) {
        let place = AssociatedData { kind: 5, record: &record, field: 2, generation };
        let sealed = key(1, "acme").seal(&place, &plaintext, &Random::system()).unwrap();
        let opened = key(1, "acme").open(&place, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
    }

    #[test]
    fn no_flipped_bit_goes_unseen(plaintext in vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0u8..8) {
        let sealed = key(1, "acme").seal(&PLACE, &plaintext, &Random::system()).unwrap();
        let mut bytes = sealed.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(key(1, "acme").open(&PLACE, &Sealed::from_bytes(bytes.into())).is_err());
    }

    #[test]
    fn nothing_cut_short_or_extended_opens(cut in 0usize..90, extra in vec(any::<u8>(), 1..20)) {
        let sealed = key(1, "acme").seal(&PLACE, &[7; 33], &Random::system()).unwrap();
        let whole = sealed.as_bytes();
        prop_assert!(key(1, "acme").open(&PLACE, &Sealed::from_bytes(whole.slice(..cut.min(whole.len() - 1)))).is_err());
        let longer = Bytes::from([whole.as_ref(), &extra].concat());
        prop_assert!(key(1, "acme").open(&PLACE, &Sealed::from_bytes(longer)).is_err());
    }

    #[test]
    fn arbitrary_bytes_neither_open_nor_panic(bytes in vec(any::<u8>(), 0..200), named: bool) {
        let mut bytes = bytes;
        if named && bytes.len() >= 17 {
            bytes[0] = 1;
            bytes[1..17].copy_from_slice(key_id(1).as_bytes());
        }
        prop_assert!(key(1, "acme").open(&PLACE, &Sealed::from_bytes(bytes.into())).is_err());
    }

    #[test]
    fn canonical_is_injective(a in parts(), b in parts()) {
        let bytes = |parts: &[Vec<u8>]| canonical(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        prop_assert_eq!(bytes(&a) == bytes(&b), a == b);
    }

    #[test]
    fn canonical_sees_where_parts_meet(text in vec(any::<u8>(), 1..20), first: prop::sample::Index, second: prop::sample::Index) {
        let (first, second) = (first.index(text.len() + 1), second.index(text.len() + 1));
        let split = |at: usize| canonical(&[&text[..at], &text[at..]]);
        prop_assert_eq!(split(first) == split(second), first == second);
    }
}

const GOOD: &str = "claviger-root-key-v1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI\n";

/// Few distinct bytes and short parts, among them what looks like a length, so that collisions would be found.
fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(prop_oneof![Just(0u8), Just(1), Just(4), Just(b':')], 0..6), 0..4)
}

fn root_key_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("root.key");
    fs::write(&path, text).expect("a writable directory");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
    (directory, path)
}

fn refusal(path: &Path) -> RootKeyFileError {
    let error = file::load(path).err().expect("the file is refused");
    assert!(error.to_string().contains(&path.display().to_string()));
    error
}

fn installation_keys() -> InstallationKeys {
    InstallationSecret::generate(&filled_with(0x42)).expect("a source that never fails").keys()
}

fn filled_with(byte: u8) -> Random {
    Random::from_fill(Arc::new(move |bytes: &mut [u8]| {
        bytes.fill(byte);
        Ok(())
    }))
}

fn counting_from(first: u8) -> Random {
    Random::from_fill(Arc::new(move |bytes: &mut [u8]| {
        (first..).zip(bytes).for_each(|(next, byte)| *byte = next);
        Ok(())
    }))
}

fn key(id: u8, of: &str) -> Key {
    Key::from_bytes(key_id(id), Some(tenant(of)), key_bytes())
}

/// 1: the bytes 0 to 15.
fn key_id(id: u8) -> KeyId {
    let mut bytes: [u8; 16] = std::array::from_fn(|i| i as u8);
    bytes[0] = id - 1;
    KeyId::from_bytes(bytes)
}

fn key_bytes() -> Zeroizing<[u8; 32]> {
    Zeroizing::new(std::array::from_fn(|i| 0x80 + i as u8))
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a legal name")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
