//! Random histories give the same results on every store.

use bytes::Bytes;
use claviger::{
    domain::Revision,
    store::{Expect, IndexKind, Precondition, Store, Write},
};
use proptest::{collection::vec, prelude::*};

use crate::words::{Set, entry, fields, key, listed, open_at, open_memory};

const RECORDS: u8 = 4;
const INDEX_KEYS: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Wish>),
    Reopen,
}

/// A part of a change set; often one that has to be refused.
#[derive(Clone, Debug)]
enum Wish {
    Put { id: u8, expect: Option<u64>, text: u8, index: Vec<u8> },
    Delete { id: u8, expect: Option<u64> },
    Need { id: u8, expect: Option<u64> },
    Event(u8),
    Audit(u8),
    Purge { events: u64, audit: u64 },
}

fn wish() -> impl Strategy<Value = Wish> {
    let expect = || prop_oneof![Just(None), (1_u64..4).prop_map(Some)];
    prop_oneof![
        4 => (0..RECORDS, expect(), any::<u8>(), vec(0..INDEX_KEYS, 0..3))
            .prop_map(|(id, expect, text, index)| Wish::Put { id, expect, text, index }),
        1 => (0..RECORDS, expect()).prop_map(|(id, expect)| Wish::Delete { id, expect }),
        1 => (0..RECORDS, expect()).prop_map(|(id, expect)| Wish::Need { id, expect }),
        2 => any::<u8>().prop_map(Wish::Event),
        2 => any::<u8>().prop_map(Wish::Audit),
        1 => (0..20_u64, 0..20_u64).prop_map(|(events, audit)| Wish::Purge { events, audit }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![20 => vec(wish(), 1..4).prop_map(Step::Commit), 1 => Just(Step::Reopen)]
}

fn change_set(wishes: &[Wish]) -> Set {
    let expected = |expect: Option<u64>| expect.map_or(Expect::Absent, Expect::Version);
    let mut set = Set::default();
    for wish in wishes {
        match wish {
            Wish::Put { id, expect, text, index } => {
                let index = index.iter().map(|name| listed(*id, &format!("key {name}"))).collect();
                let put = Write::put(key(*id), expected(*expect), fields(&text.to_string()), index);
                set.0.writes.push(put);
            }
            Wish::Delete { id, expect } => {
                let delete = Write { expect: expected(*expect), ..Write::delete(key(*id), 0) };
                set.0.writes.push(delete);
            }
            Wish::Need { id, expect } => {
                set.0.preconditions.push(Precondition { key: key(*id), expect: expected(*expect) });
            }
            Wish::Event(id) => set.0.events.push(entry(*id, "event")),
            Wish::Audit(id) => set.0.audit.push(entry(*id, "audit")),
            Wish::Purge { events, audit } => set = set.purge(*events, *audit),
        }
    }
    set
}

async fn agree(sled: &dyn Store, memory: &dyn Store) {
    for id in 0..RECORDS {
        assert!(sled.row(key(id)).await.unwrap() == memory.row(key(id)).await.unwrap(), "row {id}");
    }
    for prefix in ["", "key ", "key 1", "none"] {
        let [one, other] = [sled, memory]
            .map(|store| store.index(IndexKind::ConnectionsOfSubject, Bytes::from_static(prefix.as_bytes()), None, 3));
        assert_eq!(one.await, other.await);
    }
    assert!(sled.events(Revision(1), 5).await.unwrap() == memory.events(Revision(1), 5).await.unwrap(), "events");
    assert!(sled.audit(1, 5).await.unwrap() == memory.audit(1, 5).await.unwrap(), "audit");
    assert_eq!(sled.head(), memory.head());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sled_and_memory_agree(history in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let memory = open_memory().await.store;
            let mut sled = open_at(directory.path()).await.unwrap();
            for step in &history {
                match step {
                    Step::Commit(wishes) => {
                        let (one, other) = (change_set(wishes), change_set(wishes));
                        assert_eq!(sled.commit(one.0).await, memory.commit(other.0).await);
                        agree(&sled, &*memory).await;
                    }
                    Step::Reopen => {
                        sled.close().await;
                        sled = open_at(directory.path()).await.unwrap();
                        agree(&sled, &*memory).await;
                    }
                }
            }
            sled.close().await;
        });
    }
}
