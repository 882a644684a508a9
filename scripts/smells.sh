#!/usr/bin/env bash
# Looks for what reviews keep finding and no lint does. Prints each finding under the smell's name; fails on any.
# Usage: scripts/smells.sh [DIRECTORY]
set -uo pipefail
cd "${1:-.}" || exit 2

# Product lines as file:line:text: what comes before a file's test module.
code() {
    find src -name '*.rs' -exec awk 'FNR==1{t=0} /^#\[cfg\(test\)\]/{t=1} !t{print FILENAME":"FNR":"$0}' {} +
}

# Product lines outside the paths that match $1.
code_outside() {
    code | grep -vE "^src/($1)"
}

smell() {
    local hits
    hits=$(cat)
    [ -z "$hits" ] || printf '%s:\n%s\n\n' "$1" "$hits"
}

smells() {
    code | cut -d: -f1 | sort | uniq -c | awk '$1 > 400 {print $2 ": " $1 " lines"}' | smell "file over 400 lines"

    code_outside '(main|telemetry)\.rs|cli/|app' | grep -E 'anyhow|eyre|Box<dyn (std::error::)?Error' | grep -v '#\[source\]' |
        smell "opaque error below the edge"

    # A payload is a fact; a payload that is the whole message, or a variant for whatever comes, is prose.
    code | grep -E '#\[error\("\{0\}"\)\]|^[^ ]+: +(Internal|Other|Custom|Message|Generic|Unknown)\(String\),' |
        smell "error that is a sentence"
    code | grep -E 'to_string\(\)\.(contains|starts_with|ends_with)|map_err\(\|[a-z_]+\| *format!' | smell "matching or building error text"
    code_outside 'grpc/|client/' | grep -E '[^A-Za-z]Status::' | smell "status made outside grpc"

    # Flights, quotas and rates are about this process and end with it; the development server keeps its state in memory.
    code_outside 'broker/(flights|scheduler|watch/quota)\.rs|grpc/layers/rate_limit\.rs|dev/' | grep -E 'Arc<[a-z_:]*(Mutex|RwLock)<' | smell "shared locked map"

    { code; grep -rnE '//' tests --include='*.rs'; } |
        grep -E '[^/!]// +(Create|Get|Set|Check|Initialize|Call|Return|Handle|Loop|Convert|Parse|Build|Store|Fetch|Update|Now|First|Then|Finally|Step [0-9])\b' |
        smell "narration"
    { code; grep -rn '' proto README.md ARCHITECTURE.md SECURITY.md docs 2>/dev/null; } |
        grep -iE '# Arguments|\b(robust|production-ready|comprehensive|enterprise-grade|seamless|battle-tested|blazing)' | smell "marketing or boilerplate"

    code_outside 'config|cli' | grep -E 'env::var' | smell "environment read outside config and cli"
    find src -path 'src/config*' -name '*.rs' -exec grep -hoE 'pub [a-z_]+: ' {} + | tr -d ':' | awk '{print $2}' | sort -u |
        while read -r field; do
            find src -name '*.rs' -not -path 'src/config*' -exec grep -lE "\b$field\b" {} + | grep -q . || echo "$field"
        done | smell "configuration that nobody reads"

    grep -rnE 'mockall|automock|\.times\(|expect_[a-z_]+\(\)' src tests Cargo.toml | smell "mock with call counts"

    awk '/^\[features\]/{f=1;next} /^\[/{f=0} f&&/^[a-z]/{print $1}' Cargo.toml |
        while read -r feature; do grep -rq "feature = \"$feature\"" src || echo "$feature"; done | smell "dead feature"
    grep -rnE '#!?\[allow\(|todo!|unimplemented!|TODO|FIXME|XXX' src tests build.rs proto --include='*.rs' --include='*.proto' |
        smell "hushed warning or unfinished work"

    code | grep -E '\b[a-z_]*(access_token|refresh_token|id_token|secret|password|verifier|private_key)[a-z_]*: *(Option<)?(String|Vec<u8>)' |
        smell "secret as plain text"
    code | grep 'instrument' | grep -E '#\[.*instrument' | grep -v 'skip_all' | smell "span that records its arguments"
    code | grep -E '(info|warn|error|debug|trace)!\(.*[?%](req|request|config|token|self)([^a-z_.]|$)' | smell "log of a whole value"

    # Signing needs a source of its own; the development server's keys are worth nothing.
    code_outside 'app|telemetry\.rs|sealing/|dev/keys\.rs' | grep -E '(SystemTime|Instant|Utc)::now|thread_rng|rand::random|OsRng|SystemRandom' |
        smell "hidden clock or dice"
    grep -rnE '\bsleep\(' tests --include='*.rs' | smell "sleep in a test"
    code | grep -E '\.unwrap\(\)|\bpanic!|\.expect\("(failed|should|error)' | smell "panic as control flow"
}

report=$(smells)
[ -z "$report" ] || {
    printf '%s\n' "$report"
    exit 1
}
