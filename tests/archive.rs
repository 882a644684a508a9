//! What an archive holds comes back, and what is not as it was written is refused by name.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use claviger::{
    archive::{ArchiveError, CHUNK, End, Entry, Header, Part, Reader, Writer, verify},
    domain::{EntryId, InstallationId, Revision, Timestamp},
    sealing::{Random, RandomUnavailable, RootKey, RootKeys},
    store::{CopiedRow, Head},
};
use proptest::{collection::vec, option, prelude::*};
use zeroize::Zeroizing;

/// Of a header; the chunks follow.
const HEADER: usize = 174;

fn root(byte: u8) -> RootKey {
    RootKey::from_secret(&Zeroizing::new([byte; 32]))
}

fn header() -> Header {
    Header {
        made_at: Timestamp::from_millis(1_800_000_000_042),
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
        begun_at: Revision(77),
    }
}

fn head() -> Head {
    Head {
        installation: header().installation,
        epoch: header().epoch,
        revision: Revision(80),
        compacted: Revision(5),
        audit: 9,
        audit_purged: 3,
        available: true,
    }
}

fn random() -> Random {
    let next = AtomicU8::new(0);
    Random::from_fill(Arc::new(move |bytes| {
        bytes.fill_with(|| next.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }))
}

fn begun(random: Random) -> (Writer, Bytes) {
    let source = random.clone();
    let wrapped =
        Writer::begin::<RandomUnavailable>(&header(), |place, key| root(7).key().wrap(place, key, &source), random);
    wrapped.unwrap()
}

fn written(rows: &[CopiedRow]) -> Vec<u8> {
    let (mut writer, first) = begun(random());
    let mut archive = first.to_vec();
    let mut keep = |chunks: Vec<Bytes>| chunks.iter().for_each(|chunk| archive.extend_from_slice(chunk));
    rows.chunks(3).for_each(|page| keep(writer.add(page).unwrap()));
    let (last, end) = writer.finish(&head()).unwrap();
    assert_eq!(end.rows, rows.len() as u64);
    keep(last);
    archive
}

fn read(archive: &[u8], roots: &RootKeys) -> Result<(Vec<CopiedRow>, End), ArchiveError> {
    let mut reader = Reader::open(archive, roots)?;
    assert_eq!(*reader.header(), header());
    let mut rows = Vec::new();
    loop {
        match reader.take()? {
            Entry::Row(row) => rows.push(row),
            Entry::End(end) => return Ok((rows, end)),
        }
    }
}

fn refused(archive: &[u8]) -> ArchiveError {
    verify(archive, &root(7).into()).expect_err("it is not as it was written")
}

/// Three chunks; rows go over both borders.
static THREE_CHUNKS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let value = Bytes::from(vec![0x5a; 50_000]);
    let rows: Vec<CopiedRow> = (0..3).map(|number| row_of(vec![2, number], Some(value.clone()))).collect();
    let archive = written(&rows);
    assert_eq!(archive.len(), HEADER + 3 * CHUNK);
    archive
});

fn row_of(place: impl Into<Bytes>, value: Option<Bytes>) -> CopiedRow {
    CopiedRow { place: place.into(), value }
}

fn row() -> impl Strategy<Value = CopiedRow> {
    let lengths = prop_oneof![4 => 0..300_usize, 1 => 60_000..65_536_usize];
    let value = (lengths, any::<u8>()).prop_map(|(length, byte)| Bytes::from(vec![byte; length]));
    (vec(any::<u8>(), 0..300), option::weighted(0.8, value)).prop_map(|(place, value)| row_of(place, value))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_written_is_read_in_the_same_order(rows in vec(row(), 0..24)) {
        let archive = written(&rows);
        prop_assert_eq!((archive.len() - HEADER) % CHUNK, 0);
        let (read, end) = read(&archive, &RootKeys::new(root(3), vec![root(7)])).unwrap();
        prop_assert_eq!(&read, &rows);
        prop_assert_eq!(end, End { rows: rows.len() as u64, revision: Revision(80), compacted: Revision(5), audit: 9, audit_purged: 3 });
    }

    #[test]
    fn a_flipped_byte_anywhere_is_refused_and_never_as_a_truncation(at in 0..HEADER + 3 * CHUNK, bit in 0..8_u8) {
        let mut archive = THREE_CHUNKS.clone();
        archive[at] ^= 1 << bit;
        let told = refused(&archive);
        let expected = match at {
            0..16 => matches!(told, ArchiveError::NotAnArchive),
            16 => matches!(told, ArchiveError::UnknownVersion { version } if version == archive[16]),
            17..HEADER => matches!(told, ArchiveError::Damaged { part: Part::Header }),
            _ => matches!(told, ArchiveError::Damaged { part: Part::Chunk(number) }
                if number == ((at - HEADER) / CHUNK) as u64),
        };
        prop_assert!(expected, "{}: {:?}", at, told);
    }

    #[test]
    fn a_truncation_anywhere_is_told_as_one(length in 0..HEADER + 3 * CHUNK) {
        prop_assert!(matches!(refused(&THREE_CHUNKS[..length]), ArchiveError::Truncated));
    }

    #[test]
    fn whatever_is_no_archive_is_refused(bytes in vec(any::<u8>(), 0..400)) {
        let told = refused(&bytes);
        prop_assert!(matches!(told, ArchiveError::NotAnArchive) || bytes.is_empty(), "{:?}", told);
    }

    /// The parser behind a header that opens: whoever writes into the file afterwards gets nowhere.
    #[test]
    fn whatever_stands_in_place_of_chunks_is_refused(bytes in vec(any::<u8>(), 0..2 * CHUNK)) {
        let mut archive = THREE_CHUNKS.clone();
        archive.truncate(HEADER);
        archive.extend_from_slice(&bytes);
        refused(&archive);
    }
}

/// The end entry falls on every side of the border between the first chunk and the second.
#[test]
fn an_end_near_a_border_is_an_end() {
    for length in CHUNK - 116..CHUNK - 96 {
        let rows = [row_of("p", Some(vec![1; length].into()))];
        let archive = written(&rows);
        assert_eq!(archive.len(), HEADER + if length <= CHUNK - 106 { CHUNK } else { 2 * CHUNK }, "{length}");
        assert_eq!(read(&archive, &root(7).into()).unwrap().0, rows, "{length}");
    }
}

#[test]
fn every_flipped_byte_of_the_header_is_refused() {
    let whole = &*THREE_CHUNKS;
    for at in 0..HEADER {
        for bit in 0..8 {
            let mut archive = whole.clone();
            archive[at] ^= 1 << bit;
            let told = refused(&archive);
            assert!(!matches!(told, ArchiveError::Truncated | ArchiveError::WrongRootKey { .. }), "{at}: {told}");
        }
    }
}

#[test]
fn an_archive_cut_at_a_border_is_truncated() {
    let whole = &*THREE_CHUNKS;
    for length in [0, 16, 17, HEADER, HEADER + CHUNK, HEADER + 2 * CHUNK, HEADER + 3 * CHUNK - 1] {
        assert!(matches!(refused(&whole[..length]), ArchiveError::Truncated), "{length}");
    }
}

#[test]
fn chunks_have_their_places() {
    let whole = &*THREE_CHUNKS;
    let chunk = |number: usize| &whole[HEADER + number * CHUNK..HEADER + (number + 1) * CHUNK];
    let of = |numbers: &[usize]| {
        [&whole[..HEADER]].into_iter().chain(numbers.iter().map(|number| chunk(*number))).flatten().copied().collect()
    };
    for (numbers, damaged) in [(&[1, 0, 2][..], 0), (&[0, 0, 1, 2], 1), (&[0, 2], 1), (&[2], 0), (&[0, 1, 1], 2)] {
        let archive: Vec<u8> = of(numbers);
        assert!(
            matches!(refused(&archive), ArchiveError::Damaged { part: Part::Chunk(number) } if number == damaged),
            "{numbers:?}"
        );
    }
    let longer: Vec<u8> = of(&[0, 1, 2, 2]);
    assert!(matches!(refused(&longer), ArchiveError::Damaged { part: Part::AfterEnd }));
    let byte_more = [&whole[..], &[0]].concat();
    assert!(matches!(refused(&byte_more), ArchiveError::Damaged { part: Part::AfterEnd }));
}

#[test]
fn a_chunk_of_another_archive_does_not_fit() {
    let ours = &*THREE_CHUNKS;
    let (writer, _) = begun(Random::system());
    let theirs = writer.finish(&head()).unwrap().0.concat();
    let spliced = [&ours[..HEADER], &theirs].concat();
    assert!(matches!(refused(&spliced), ArchiveError::Damaged { part: Part::Chunk(0) }));
}

#[test]
fn a_wrong_root_key_is_told_by_its_name() {
    let archive = &*THREE_CHUNKS;
    let told = verify(&archive[..], &RootKeys::new(root(1), vec![root(2)])).expect_err("none of them is the key");
    let ArchiveError::WrongRootKey { expected, given } = &told else { panic!("{told}") };
    assert_eq!((*expected, given.as_slice()), (root(7).id(), &[root(1).id(), root(2).id()][..]));
    let message = told.to_string();
    assert!(message.contains(&expected.to_string()) && message.contains(&given[1].to_string()), "{message}");
}

#[test]
fn an_archive_of_a_later_version_is_left_to_a_later_claviger() {
    let mut later = THREE_CHUNKS.clone();
    later[16] = 2;
    assert!(matches!(refused(&later[..17]), ArchiveError::UnknownVersion { version: 2 }));
}

#[test]
fn nothing_is_read_for_an_archive_that_was_never_finished() {
    let (mut writer, first) = begun(random());
    let value = Some(Bytes::from(vec![0; 60_000]));
    let chunks = writer.add(&[row_of("a", value.clone()), row_of("b", value)]).unwrap();
    assert_eq!(chunks.len(), 1);
    assert!(matches!(refused(&[&first[..], &chunks[0]].concat()), ArchiveError::Truncated));
}

/// Archives outlive the version that wrote them: these bytes must be read for ever.
#[test]
fn the_header_is_as_version_1_wrote_it() {
    let (_, first) = begun(random());
    assert_eq!(first.len(), HEADER);
    let hex: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "636c6176696765722d6172636869766501000001a3185c502a01010101010101010101010101010101020202020202020202020202\
         02020202000000000000004d000102030405060708090a0b0c0d0e0f01cf2872c6bbb9dde811930d3cbb4a44e2303132333435363738\
         393a3b3c3d3e3f4041424344454647244711d94738eb8e6dea02dd496d648fa5758be3730bed7129fcb07bcbd302b6e5dc55d07aa43e\
         c7853ad9d149d13fe4db1ca7fd"
    );
}

/// The same for what follows it.
#[test]
fn the_chunks_are_as_version_1_wrote_them() {
    let archive = written(&[row_of("place", Some("value".into())), row_of("", None)]);
    assert_eq!((archive.len(), crc32fast::hash(&archive)), (HEADER + CHUNK, 751_816_807));
}
