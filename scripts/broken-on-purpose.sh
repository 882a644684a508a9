#!/usr/bin/env bash
# Proves that the checks can fail: plants one defect at a time in a copy of HEAD and demands that the tour, or the test
# that is there for it, fails for that defect's reason. A defect that cannot be planted any more fails too.
# Usage: scripts/broken-on-purpose.sh
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
place=$target/broken-on-purpose
tree=$place/tree
export CARGO_TARGET_DIR=$place/build
unset CLAVIGER_LOG CLAVIGER_SOAK CLAVIGER_SEED

# What is tested, wherever HEAD goes meanwhile.
head=$(git rev-parse HEAD)

copy_head() {
    rm -rf "$tree"
    mkdir -p "$tree"
    git archive "$head" | tar -x -C "$tree"
}

# What the tree's own build has of dependencies need not be built again. Cargo replaces files, so links are safe.
borrow_dependencies() {
    [ -d "$CARGO_TARGET_DIR" ] && return
    local profile part
    for profile in debug simulation; do
        mkdir -p "$CARGO_TARGET_DIR/$profile"
        for part in deps build .fingerprint; do
            [ ! -d "$target/$profile/$part" ] || cp -al "$target/$profile/$part" "$CARGO_TARGET_DIR/$profile/"
        done
    done
}

# plant FILE PERL: applies a substitution that must match exactly once.
plant() {
    git show "$head:$1" >"$tree/$1"
    perl -0777 -pi -e "\$planted = $2; END { exit(\$planted != 1) }" "$tree/$1" || {
        echo "the defect does not fit $1 any more: $2" >&2
        exit 1
    }
}

heal() {
    git show "$head:$1" >"$tree/$1"
}

in_tree() {
    (cd "$tree" && "$@")
}

tour() {
    in_tree cargo build --quiet --locked 2>"$place/build.log" || { cat "$place/build.log"; return 1; }
    timeout 60 "$CARGO_TARGET_DIR/debug/claviger" dev --tour 2>&1
}

failures=0

# defect NAME COMPLAINT FILE PERL COMMAND...: with the defect, the command must fail and say COMPLAINT.
defect() {
    local name=$1 complaint=$2 file=$3 substitution=$4 said code=0
    shift 4
    plant "$file" "$substitution"
    said=$("$@") || code=$?
    heal "$file"
    if [ "$code" -ne 0 ] && [ "$code" -ne 124 ] && grep -qF -- "$complaint" <<<"$said"; then
        printf 'caught  %s\n' "$name"
    else
        printf 'MISSED  %s (exit code %s)\n%s\n' "$name" "$code" "$said"
        failures=$((failures + 1))
    fi
}

durability() {
    in_tree cargo test --quiet --locked --test store_durability every_acknowledgement 2>&1
}

power_loss() {
    in_tree cargo test --quiet --locked --test store_crashes power:: 2>&1
}

torn_sets() {
    in_tree cargo test --quiet --locked --test store_conformance a_change_set_that_lost_a_row 2>&1
}

simulation() {
    in_tree env CLAVIGER_SEEDS=10000 cargo test --quiet --locked --profile simulation --test simulation invariants 2>&1
}

copy_head
borrow_dependencies
tour >/dev/null || { echo "the tour fails without a defect" >&2; exit 1; }
for sound in durability power_loss torn_sets simulation; do
    "$sound" >/dev/null || { echo "$sound fails without a defect" >&2; exit 1; }
done
echo "sound   without a defect"

defect "signatures are not checked" "a token with a forged signature was let in" \
    src/identity/token.rs 's/Ok\(false\) \| Err\(_\) => Err\(Flaw::Signature\)/Ok(false) | Err(_) => Ok(VerifiedToken { claims: self.unverified_claims, kind: self.unverified_type })/' \
    tour
defect "nothing is refreshed" "CREDENTIAL_EVENT_KIND_REFRESHED never came" \
    src/broker/refresh/flight.rs 's/(async fn refresh\(&self, id: ConnectionId, generation: u64\) -> Flown \{\n)/$1        if generation > 0 { return Flown::StoreUnavailable; }\n/' \
    tour
defect "the provider is not told of a revocation" "after the revocation the plugin's API answered 200" \
    src/broker/revoke.rs 's/self\.servers\(\)\.revoke\(provider, Some\(&tokens\.access\), tokens\.refresh\.as_ref\(\)\)\.await/{ let _ = (provider, tokens); Ok(RemoteRevocation::Confirmed) }/' \
    tour
defect "a revocation stops nothing here" "the provider did not confirm" \
    src/broker/revoke.rs 's/(async fn stop_serving\([^{]*\{\n)/$1        if !stored.value.credential.state.is_stopped() { return Ok(true); }\n/' \
    tour
defect "a revoked connection is served" "a token was served after the revocation" \
    src/domain/credential.rs 's/(fn revoked\(&self\).*?state = CredentialState::)Revoked;/$1Connected;/s' \
    tour
defect "watchers hear of nothing" "CREDENTIAL_EVENT_KIND_CONNECTED never came" \
    src/events/hub.rs 's/self\.ring\(\)\.push\(page\);/drop(page);/' \
    tour
defect "writes are acknowledged before they are durable" "FAILED" \
    src/store/sled/engine.rs 's/self\.data\.sync_data\(\)\?;//' \
    durability
defect "replies leave before the sync" "was acknowledged at revision" \
    src/store/sled/engine.rs 's/(self\.db\.apply_batch\(batch\)\?;.*?)self\.data\.sync_data\(\)\?;/self.data.sync_data()?; $1/s' \
    power_loss
defect "the head is announced before the sync" "was announced and is gone" \
    src/store/sled/writer.rs 's/(if let Err\(error\) = engine\.apply\(rows\))/shared.head.send_modify(|head| head.revision = changed.tail.revision);\n        $1/' \
    power_loss
defect "commit rows are not checked at open" "FAILED" \
    src/store/sled/tail.rs 's/(fn unchanged\([^{]*\{\n)/$1        if tail.revision.0 > 0 { return Ok(()); }\n/' \
    torn_sets
defect "a flight does not read the record again" "nobody needs it" \
    src/broker/refresh/flight.rs 's/if credential\.generation > generation \{/if false {/' \
    simulation
defect "a change that came first is overwritten" "] should be" \
    src/broker/refresh/settle.rs 's/(async fn settle\(.*?)(let next = .*?)change\.commit\(\)\.await\?;\n        Ok\(\(\)\)/$1let again = transition.clone();\n        $2match change.commit().await.map_err(BrokerError::from) {\n            Err(BrokerError::Conflict) => {\n                let Some(latest) = self.vault().any_connection(next.id).await? else { return Ok(()) };\n                Box::pin(self.settle(&latest, again, tokens, result)).await\n            }\n            other => other.map(|_| ()),\n        }/s' \
    simulation
defect "a dead connection's tokens are deleted" "were deleted" \
    src/broker/refresh/settle.rs 's/(fn settle_dead.*?)Tokens::Keep/$1Tokens::Drop/s' \
    simulation
defect "a flight ends with its caller" "gave up its POST" \
    src/broker/refresh/flight.rs 's/let work = move \|\| async move \{ broker\.fly\(id, generation, turn\)\.await \};/let (_caller, gone) = tokio::sync::oneshot::channel::<()>();\n        let work = move || async move { tokio::select! { biased; flown = broker.fly(id, generation, turn) => flown, _ = gone => Flown::StoreUnavailable } };/' \
    simulation
defect "a strict provider is asked a third time" "after two answers to it were lost" \
    src/domain/refresh.rs 's/attempts >= 2(.*?Strict => self\.refresh\.attempts) < 2/attempts >= 3$1 < 3/s' \
    simulation
defect "tokens are written back over a revocation" "was stopped, and is Connected again" \
    src/broker/refresh/settle.rs 's/if credential\.state\.is_stopped\(\) \{(.*?)(let transition = credential)(\.refreshed\()/if false {$1let connected = crate::domain::Credential { state: CredentialState::Connected, ..credential.clone() };\n            let credential = if credential.state.is_stopped() { &connected } else { credential };\n            $2$3/s' \
    simulation

exit "$((failures > 0))"
