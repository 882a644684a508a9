//! The writes of a change set: one method for each thing that can happen to a record.

use super::{
    Change, FlowTokens, Misuse, Parked, Stored, TokenSet, Tokens, VaultError,
    flows::ATTEMPT_SECRETS,
    place,
    records::{self, Owned},
    stored::{Envelope, GrantedRecord, ParkedRecord},
};
use crate::{
    domain::{
        Attempt, CodeVerifier, Connection, Flow, FlowSecret, Holders, Job, Nonce, PostedResponse, Suspension, Timestamp,
    },
    sealing::sealed_key_id,
    store::{Expect, FieldTag, IndexEntry, RecordKey, Row, RowFields, Write},
};

/// The secret fields of a row, which a rewrite of its metadata leaves alone.
const TOKENS: [FieldTag; 4] = [FieldTag::AccessToken, FieldTag::RefreshToken, FieldTag::IdToken, FieldTag::Nonce];

/// A row about to be written.
struct Draft<'a, T> {
    key: RecordKey,
    expect: Expect,
    value: &'a T,
    parked: Option<ParkedRecord>,
    /// Beside the record itself.
    secrets: RowFields,
    index: Vec<IndexEntry>,
}

impl Change {
    pub fn insert_connection(&mut self, connection: &Connection, tokens: &TokenSet, next_action: Timestamp) {
        self.build(|change| {
            let key = place::connection_row(connection.id);
            let secrets = change.connection_tokens(&key, connection, tokens)?;
            let index = place::connection_index(change.vault.keys(), connection, next_action, 1);
            change.put(Draft { key, expect: Expect::Absent, value: connection, parked: None, secrets, index })
        });
    }

    /// `next_action` is when the scheduler looks at the connection again.
    pub fn update_connection(
        &mut self,
        from: &Stored<Connection>,
        to: &Connection,
        tokens: Tokens<'_>,
        next_action: Timestamp,
    ) {
        self.build(|change| {
            let key = from.key.clone();
            same_record(&key, &place::connection_row(to.id))?;
            let secrets = match tokens {
                Tokens::Replace(tokens) => change.connection_tokens(&key, to, tokens)?,
                Tokens::Drop => Vec::new(),
                Tokens::Keep if from.value.credential.generation == to.credential.generation => kept(&from.row),
                Tokens::Keep => return Err(Misuse::TokensOfOtherGeneration { record: format!("{key:?}") }.into()),
            };
            let index = place::connection_index(change.vault.keys(), to, next_action, from.version() + 1);
            change.put(Draft { key, expect: expect(from), value: to, parked: None, secrets, index })
        });
    }

    /// The flow is due when it can be forgotten.
    pub fn insert_flow(&mut self, flow: &Flow) {
        self.build(|change| {
            let index = place::flow_index(change.vault.keys(), flow, 1);
            let (key, expect, secrets) = (place::flow_row(flow.id), Expect::Absent, Vec::new());
            change.put(Draft { key, expect, value: flow, parked: None, secrets, index })
        });
    }

    pub fn update_flow(&mut self, from: &Stored<Flow>, to: &Flow, parked: Parked<'_>) {
        self.build(|change| {
            let key = from.key.clone();
            same_record(&key, &place::flow_row(to.id))?;
            let version = from.version() + 1;
            let (parked, secrets) = match parked {
                Parked::Keep => (from.parked.clone(), kept(&from.row)),
                Parked::Drop => (None, Vec::new()),
                Parked::Replace(waiting) => change.flow_tokens(&key, to, version, waiting)?,
            };
            let index = place::flow_index(change.vault.keys(), to, version);
            change.put(Draft { key, expect: expect(from), value: to, parked, secrets, index })
        });
    }

    pub fn delete_flow(&mut self, flow: &Stored<Flow>) {
        self.delete(flow);
    }

    /// The attempt is found by its `state`, of which only a keyed hash is kept, and is due when it can be forgotten.
    pub fn insert_attempt(
        &mut self,
        attempt: &Attempt,
        state: &FlowSecret,
        verifier: &CodeVerifier,
        nonce: Option<&Nonce>,
    ) {
        self.build(|change| {
            let key = place::attempt_row(change.vault.keys(), state);
            let held = change.key(&key, &attempt.tenant, attempt.subject)?;
            let random = change.vault.random();
            let seal = |tag, secret| records::secret_field(held, &key, tag, ATTEMPT_SECRETS, secret, random);
            let mut secrets = vec![(FieldTag::CodeVerifier, seal(FieldTag::CodeVerifier, verifier.expose())?)];
            if let Some(nonce) = nonce {
                secrets.push((FieldTag::Nonce, seal(FieldTag::Nonce, nonce.expose())?));
            }
            let index = place::attempt_index(&key, attempt, 1);
            change.put(Draft { key, expect: Expect::Absent, value: attempt, parked: None, secrets, index })
        });
    }

    pub fn update_attempt(&mut self, from: &Stored<Attempt>, to: &Attempt) {
        self.build(|change| {
            let key = from.key.clone();
            let index = place::attempt_index(&key, to, from.version() + 1);
            let secrets = beside_record(&from.row);
            change.put(Draft { key, expect: expect(from), value: to, parked: None, secrets, index })
        });
    }

    /// Keeps a response that was posted for the attempt until its browser comes for it. The first one stays: nothing may
    /// be put in its place, nor sealed twice for one place.
    pub fn park_response(&mut self, attempt: &Stored<Attempt>, response: &PostedResponse) {
        self.build(|change| {
            let (key, value) = (attempt.key.clone(), &attempt.value);
            if attempt.row.field(FieldTag::PostedResponse).is_some() {
                return Err(Misuse::Malformed { record: format!("{key:?}") }.into());
            }
            let held = change.key(&key, &value.tenant, value.subject)?;
            let (tag, random) = (FieldTag::PostedResponse, change.vault.random());
            let sealed = records::secret_field(held, &key, tag, ATTEMPT_SECRETS, response.expose(), random)?;
            let mut secrets = beside_record(&attempt.row);
            secrets.push((tag, sealed));
            let index = place::attempt_index(&key, value, attempt.version() + 1);
            change.put(Draft { key, expect: expect(attempt), value, parked: None, secrets, index })
        });
    }

    pub fn delete_attempt(&mut self, attempt: &Stored<Attempt>) {
        self.delete(attempt);
    }

    /// The job is due at `at`.
    pub fn insert_job(&mut self, job: &Job, tokens: Option<&TokenSet>, at: Timestamp) {
        self.build(|change| {
            let key = place::job_row(job.id);
            let mut secrets = Vec::new();
            if let Some(tokens) = tokens {
                let held = change.key_for(&key, job)?;
                secrets = records::token_fields(held, &key, 1, tokens, change.vault.random())?;
            }
            let parked = tokens.map(|_| ParkedRecord { version: 1, granted: None });
            let index = place::job_index(job, at, 1);
            change.put(Draft { key, expect: Expect::Absent, value: job, parked, secrets, index })
        });
    }

    /// Puts the job off until `at`, with the tokens that it carries.
    pub fn reschedule_job(&mut self, from: &Stored<Job>, to: &Job, at: Timestamp) {
        self.build(|change| {
            let key = from.key.clone();
            same_record(&key, &place::job_row(to.id))?;
            let index = place::job_index(to, at, from.version() + 1);
            let (parked, secrets) = (from.parked.clone(), kept(&from.row));
            change.put(Draft { key, expect: expect(from), value: to, parked, secrets, index })
        });
    }

    pub fn delete_job(&mut self, job: &Stored<Job>) {
        self.delete(job);
    }

    /// Takes the place of `from`, which must still be the newest; `None`: there must be none.
    pub fn put_holders(&mut self, from: Option<&Stored<Holders>>, to: &Holders) {
        self.build(|change| {
            let (key, expect) = (place::holders_row(to.connection), from.map_or(Expect::Absent, expect));
            let (secrets, index) = (Vec::new(), Vec::new());
            change.put(Draft { key, expect, value: to, parked: None, secrets, index })
        });
    }

    /// Takes the place of `from`, which must still be the newest; `None`: there must be none. The suspension is due at
    /// `at`.
    pub fn put_suspension(&mut self, from: Option<&Stored<Suspension>>, to: &Suspension, at: Timestamp) {
        self.build(|change| {
            let key = place::suspension_row(change.vault.keys(), &to.provider);
            let expect = from.map_or(Expect::Absent, expect);
            let index = vec![IndexEntry::due(at, key.clone(), expect.next_version())];
            change.put(Draft { key, expect, value: to, parked: None, secrets: Vec::new(), index })
        });
    }

    pub fn delete_suspension(&mut self, suspension: &Stored<Suspension>) {
        self.delete(suspension);
    }

    fn put<T: Owned>(&mut self, draft: Draft<'_, T>) -> Result<(), VaultError> {
        let Draft { key, expect, value, parked, secrets, mut index } = draft;
        let held = self.key_for(&key, value)?;
        // What is taken over unopened may be under a superseded key. The index would list the row under the present one
        // alone, and the old key would be destroyed with the secret: the rotation has to move the row first.
        if secrets.iter().any(|(_, sealed)| sealed_key_id(sealed) != Ok(held.id())) {
            return Err(VaultError::PreconditionFailed { record: format!("{key:?}") });
        }
        let witnessed = index.iter().any(|entry| entry.due_at().is_some());
        let witness = (!witnessed).then(|| expect.next_version());
        index.push(IndexEntry::sealed_under(held.id(), key.clone(), witness));
        let envelope = Envelope { value, parked };
        let record = records::seal(held, &key, expect.next_version(), &envelope, self.vault.random())?;
        let fields = std::iter::once((FieldTag::Record, record)).chain(secrets).collect();
        self.write(Write::put(key, expect, fields, index));
        Ok(())
    }

    fn delete<T: Owned>(&mut self, stored: &Stored<T>) {
        self.build(|change| {
            change.key_for(&stored.key, &stored.value)?;
            change.write(Write::delete(stored.key.clone(), stored.version()));
            Ok(())
        });
    }

    fn connection_tokens(
        &self,
        key: &RecordKey,
        connection: &Connection,
        tokens: &TokenSet,
    ) -> Result<RowFields, VaultError> {
        let held = self.key(key, &connection.tenant, connection.subject)?;
        let generation = connection.credential.generation;
        Ok(records::token_fields(held, key, generation, tokens, self.vault.random())?)
    }

    fn flow_tokens(
        &self,
        key: &RecordKey,
        flow: &Flow,
        version: u64,
        waiting: &FlowTokens,
    ) -> Result<(Option<ParkedRecord>, RowFields), VaultError> {
        let held = self.key(key, &flow.tenant, flow.subject)?;
        let mut fields = records::token_fields(held, key, version, &waiting.tokens, self.vault.random())?;
        if let Some(nonce) = &waiting.nonce {
            let sealed =
                records::secret_field(held, key, FieldTag::Nonce, version, nonce.expose(), self.vault.random())?;
            fields.push((FieldTag::Nonce, sealed));
        }
        Ok((Some(ParkedRecord { version, granted: Some(GrantedRecord::of(waiting)) }), fields))
    }
}

fn expect<T>(from: &Stored<T>) -> Expect {
    Expect::Version(from.version())
}

fn same_record(from: &RecordKey, to: &RecordKey) -> Result<(), Misuse> {
    if from == to { Ok(()) } else { Err(Misuse::OtherRecord { record: format!("{from:?}") }) }
}

/// The tokens of a row as they are, unopened.
fn kept(row: &Row) -> RowFields {
    row.fields.iter().filter(|(tag, _)| TOKENS.contains(tag)).cloned().collect()
}

fn beside_record(row: &Row) -> RowFields {
    row.fields.iter().filter(|(tag, _)| *tag != FieldTag::Record).cloned().collect()
}
