use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::{frame::frame, *};
use crate::{
    domain::{EntryId, InstallationId, Revision, Sealed, Timestamp},
    store::{
        AuditEntry, EventEntry, StoreError,
        change::{MAX_ROW, Row},
        key::{FieldTag, IndexEntry, IndexKind, MAX_ID, MAX_INDEX_KEY, MAX_INDEX_VALUE, RecordKey, RecordKind},
    },
};

fn bytes(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}

/// Any one of them. One that is missing here does not compile.
macro_rules! any_of {
    ($what:ident: $($one:ident),+ $(,)?) => {{
        let _all = |one: $what| match one {
            $($what::$one => (),)+
        };
        prop::sample::select(vec![$($what::$one),+])
    }};
}

fn kind() -> impl Strategy<Value = RecordKind> {
    any_of!(RecordKind: Installation, Key, Tenant, Subject, Connection, Flow, Attempt, Job, Configuration, RootKeys,
        Suspension, Holders)
}

fn tag() -> impl Strategy<Value = FieldTag> {
    any_of!(FieldTag: Record, AccessToken, RefreshToken, CodeVerifier, Nonce, FlowSecret, IdToken, Key, PostedResponse)
}

fn record() -> impl Strategy<Value = RecordKey> {
    (kind(), bytes(0..=MAX_ID)).prop_map(|(kind, id)| RecordKey::new(kind, id))
}

fn index() -> impl Strategy<Value = IndexKind> {
    any_of!(IndexKind: ConnectionsOfSubject, FlowsByIntent, FlowsOfSubject, Due, SealedUnder)
}

fn index_entry() -> impl Strategy<Value = IndexEntry> {
    (index(), bytes(0..=MAX_INDEX_KEY), record(), bytes(0..=MAX_INDEX_VALUE))
        .prop_map(|(index, key, record, value)| IndexEntry { index, key, record, value })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        Just(Place::Meta),
        record().prop_map(Place::Record),
        (index(), bytes(0..=MAX_INDEX_KEY)).prop_map(|(index, key)| Place::Index(index, key)),
        (any::<u64>(), any::<u32>()).prop_map(|(revision, position)| Place::Event(Revision(revision), position)),
        any::<u64>().prop_map(Place::Audit),
        (any::<u16>(), any::<u16>()).prop_map(|(slot, part)| Place::Commit { slot, part }),
    ]
}

/// A record and its row. The row has no `Debug`, which a failed property needs, so it comes in parts.
#[derive(Clone, Debug)]
struct Parts {
    key: RecordKey,
    version: u64,
    revision: u64,
    fields: Vec<(FieldTag, Bytes)>,
    index: Vec<IndexEntry>,
}

impl Parts {
    fn row(&self) -> Row {
        let fields = self.fields.iter().map(|(tag, bytes)| (*tag, Sealed::from_bytes(bytes.clone()))).collect();
        let own = |entry: &IndexEntry| IndexEntry { record: self.key.clone(), ..entry.clone() };
        let index = self.index.iter().map(own).collect();
        Row { version: self.version, revision: Revision(self.revision), fields, index }
    }
}

fn row() -> impl Strategy<Value = Parts> {
    (record(), 1_u64.., any::<u64>(), vec((tag(), bytes(0..200)), 0..8), vec(index_entry(), 0..4))
        .prop_map(|(key, version, revision, fields, index)| Parts { key, version, revision, fields, index })
}

fn commit_part() -> impl Strategy<Value = CommitPart> {
    let footprint = (bytes(0..260), any::<Option<u32>>()).prop_map(|(place, checksum)| Footprint { place, checksum });
    (any::<u64>(), 0_u16..9, 0_u16..9, any::<u32>(), any::<u64>(), vec(footprint, 0..9)).prop_map(
        |(revision, part, more, rows, audit, footprints)| CommitPart {
            revision: Revision(revision),
            part,
            parts: part + 1 + more,
            rows,
            audit,
            footprints,
        },
    )
}

/// Reads the value as whatever belongs at the place, and writes it again.
fn rewritten(place: &Place, value: &Bytes) -> Result<Bytes, StoreError> {
    Ok(match place {
        Place::Meta => Meta::decode(value)?.encode(),
        Place::Record(key) => encode_row(key, &decode_row(key, value)?),
        Place::Index(index, key) => encode_index_entry(&decode_index_entry(*index, key.clone(), value)?),
        Place::Event(revision, index) => encode_event(&decode_event(*revision, *index, value)?),
        Place::Audit(sequence) => encode_audit(&decode_audit(*sequence, value)?),
        Place::Commit { slot, part } => CommitPart::decode(*slot, *part, value)?.encode(),
    })
}

/// A place and a value that belongs there.
fn stored() -> impl Strategy<Value = (Place, Bytes)> {
    let id = || any::<[u8; 16]>();
    prop_oneof![
        4 => row().prop_map(|parts| (Place::Record(parts.key.clone()), encode_row(&parts.key, &parts.row()))),
        2 => index_entry().prop_map(|entry| (Place::Index(entry.index, entry.key.clone()), encode_index_entry(&entry))),
        1 => (any::<u64>(), any::<u32>(), id(), bytes(0..99)).prop_map(|(revision, index, id, body)| {
            let (revision, id) = (Revision(revision), EntryId::from_bytes(id));
            let event = EventEntry { revision, index, id, body: Sealed::from_bytes(body) };
            (Place::Event(revision, index), encode_event(&event))
        }),
        1 => (any::<u64>(), id(), bytes(0..99)).prop_map(|(sequence, id, linked)| {
            (Place::Audit(sequence), encode_audit(&AuditEntry { sequence, id: EntryId::from_bytes(id), linked }))
        }),
        1 => (id(), id(), any::<[u64; 3]>()).prop_map(|(installation, epoch, [compacted, audit_purged, filled_at])| {
            let meta = Meta {
                installation: InstallationId::from_bytes(installation),
                epoch: EntryId::from_bytes(epoch),
                compacted: Revision(compacted),
                audit_purged,
                filled_at: Revision(filled_at),
            };
            (Place::Meta, meta.encode())
        }),
        2 => commit_part().prop_map(|part| (part.place(), part.encode())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn different_places_have_different_keys(one in place(), other in place()) {
        prop_assert_eq!(one == other, one.encode() == other.encode());
    }

    #[test]
    fn no_key_of_one_family_begins_a_key_of_another(one in place(), other in place()) {
        prop_assume!(one.family() != other.family());
        prop_assert!(!other.encode().starts_with(&one.encode()));
    }

    #[test]
    fn no_numbered_key_begins_another(one in place(), other in place()) {
        let numbered = |place: &Place| matches!(place.family(), Family::Event | Family::Audit | Family::Commit);
        prop_assume!(one != other && numbered(&one) && numbered(&other));
        prop_assert!(!other.encode().starts_with(&one.encode()));
    }

    #[test]
    fn a_place_is_read_back_from_its_key(place in place()) {
        prop_assert_eq!(Place::decode(&place.encode()), Some(place));
    }

    #[test]
    fn a_key_is_read_as_one_place_or_none(mut key in vec(any::<u8>(), 0..300), family in 0_u8..8) {
        if let Some(first) = key.first_mut() {
            *first = family;
        }
        prop_assert!(Place::decode(&key).is_none_or(|place| place.encode() == key));
    }

    #[test]
    fn events_sort_by_revision_then_position(one in any::<(u64, u32)>(), other in any::<(u64, u32)>()) {
        let place = |(revision, position)| Place::Event(Revision(revision), position).encode();
        prop_assert_eq!(one.cmp(&other), place(one).cmp(&place(other)));
    }

    #[test]
    fn audit_records_sort_by_number(one: u64, other: u64) {
        prop_assert_eq!(one.cmp(&other), Place::Audit(one).encode().cmp(&Place::Audit(other).encode()));
    }

    #[test]
    fn entries_of_an_index_sort_by_key(one in bytes(0..40), other in bytes(0..40), index in index()) {
        let place = |key: &Bytes| Place::Index(index, key.clone()).encode();
        prop_assert_eq!(one.cmp(&other), place(&one).cmp(&place(&other)));
    }

    #[test]
    fn due_entries_sort_by_time(one: i64, other: i64, early in record(), late in record()) {
        let due = |millis, record: &RecordKey| IndexEntry::due(Timestamp::from_millis(millis), record.clone(), 1);
        let (one_entry, other_entry) = (due(one, &early), due(other, &late));
        prop_assert_eq!(one_entry.due_at(), Some(Timestamp::from_millis(one)));
        prop_assume!(one != other);
        prop_assert_eq!(one.cmp(&other), one_entry.key.cmp(&other_entry.key));
    }

    #[test]
    fn a_row_is_read_back_as_it_was(parts in row()) {
        let row = parts.row();
        let value = encode_row(&parts.key, &row);
        prop_assert_eq!(value.len(), row_size(&row.fields, &row.index));
        prop_assert!(decode_row(&parts.key, &value).is_ok_and(|read| read == row));
    }

    #[test]
    fn an_index_entry_is_read_back_as_it_was(entry in index_entry()) {
        let value = encode_index_entry(&entry);
        prop_assert_eq!(decode_index_entry(entry.index, entry.key.clone(), &value), Ok(entry));
    }

    #[test]
    fn a_commit_part_is_read_back_as_it_was(part in commit_part()) {
        let slot = CommitPart::slot(part.revision);
        prop_assert_eq!(CommitPart::decode(slot, part.part, &part.encode()), Ok(part));
    }

    #[test]
    fn every_value_is_read_and_written_alike((place, value) in stored()) {
        prop_assert_eq!(rewritten(&place, &value), Ok(value));
    }

    #[test]
    fn a_damaged_value_is_corrupt_and_named((place, value) in stored(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut damaged = value.to_vec();
        damaged[at.index(value.len())] ^= 1 << bit;
        prop_assert_eq!(rewritten(&place, &damaged.into()), Err(StoreError::Corrupt { row: place.to_string() }));
    }

    #[test]
    fn a_value_cut_short_or_drawn_out_is_corrupt((place, value) in stored(), at: prop::sample::Index, more: u8) {
        let corrupt = Err(StoreError::Corrupt { row: place.to_string() });
        prop_assert_eq!(&rewritten(&place, &value.slice(..at.index(value.len()))), &corrupt);
        prop_assert_eq!(&rewritten(&place, &[&value[..], &[more]].concat().into()), &corrupt);
    }

    #[test]
    fn a_value_in_anothers_place_is_corrupt((place, value) in stored(), (other, _) in stored()) {
        prop_assume!(place != other);
        prop_assert_eq!(rewritten(&other, &value), Err(StoreError::Corrupt { row: other.to_string() }));
    }

    /// With a sound frame, so that the content itself has to be judged.
    #[test]
    fn any_content_is_read_in_one_way_or_corrupt(place in place(), content in vec(any::<u8>(), 0..120)) {
        let value = frame(&place.encode(), content.len(), |out| out.extend_from_slice(&content));
        match rewritten(&place, &value) {
            Ok(again) => prop_assert_eq!(again, value),
            Err(error) => prop_assert_eq!(error, StoreError::Corrupt { row: place.to_string() }),
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_corrupt(place in place(), value in bytes(0..120)) {
        if let Err(error) = rewritten(&place, &value) {
            prop_assert_eq!(error, StoreError::Corrupt { row: place.to_string() });
        }
    }

    #[test]
    fn a_long_list_is_split_into_rows_within_the_limit(count in 0_usize..2_000, length in 0_usize..260) {
        let footprint = |number| Footprint { place: vec![7; length].into(), checksum: Some(number) };
        let footprints: Vec<_> = (0..).map(footprint).take(count).collect();
        let parts = CommitPart::split(Revision(300), 5, footprints.clone());
        prop_assert!(parts.iter().all(|part| part.encode().len() <= MAX_ROW && usize::from(part.parts) == parts.len()));
        prop_assert!(parts.iter().zip(0..).all(|(part, number)| part.part == number && part.rows as usize == count));
        prop_assert_eq!(parts.into_iter().flat_map(|part| part.footprints).collect::<Vec<_>>(), footprints);
    }
}

/// Stored bytes outlive the program that wrote them.
#[test]
fn the_stored_form_is_this_one() {
    let key = RecordKey::new(RecordKind::Connection, [0xab; 16]);
    let index = IndexEntry::due(Timestamp::from_millis(-1), key.clone(), 3);
    let fields = vec![(FieldTag::AccessToken, Sealed::from_bytes(Bytes::from_static(b"sealed")))];
    let row = Row { version: 2, revision: Revision(9), fields, index: vec![index] };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&Place::Record(key.clone()).encode()), "0205abababababababababababababababab");
    assert_eq!(
        hex(&encode_row(&key, &row)),
        "01afbadd6000000000000000020000000000000009010200000006\
         7365616c656400010419\
         7fffffffffffffff05abababababababababababababababab080000000000000003"
    );
}
