#!/usr/bin/env bash
# Builds the peers, measures each part, writes benches/RESULTS.md and benches/results.svg. About a quarter of an hour beside the
# build; --quick takes about two minutes and writes into the target directory. A run that was stopped goes on where it was;
# --again forgets what was measured. Names of parts measure these alone. ALONE: a command to run each measurement under.
# Needs taskset (util-linux) and two cores; Go, nginx and strace where they are to be in it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
target=$root/target/peers
kind=full quick='' again=''
parts=()
for arg in "$@"; do
  case $arg in
    --quick) kind=quick quick=--quick ;;
    --again) again=yes ;;
    -*) echo "usage: benches/run.sh [--quick] [--again] [PART...]"; exit 2 ;;
    *) parts+=("$arg") ;;
  esac
done
command -v taskset >/dev/null || { echo "taskset is missing: install util-linux"; exit 1; }
[ "$(nproc)" -ge 2 ] || { echo "one core for the server and one for the load are needed"; exit 1; }

echo "== build"
cargo build --locked --release --manifest-path benches/peers/Cargo.toml --target-dir "$target"
bin=$target/release
if command -v go >/dev/null; then
  (cd benches/peers/go/nethttp && go build -o "$bin/nethttp" .)
  # Debian packages the sources (golang-github-valyala-fasthttp-dev); elsewhere a GOPATH that has them does.
  (cd benches/peers/go/fasthttp && GO111MODULE=off GOPATH="${GOPATH:-/usr/share/gocode}" go build -o "$bin/fasthttp" main.go 2>/dev/null) ||
    echo "fasthttp isn't installed: left out"
else
  echo "Go isn't installed: net/http and fasthttp are left out"
fi

export MEASURED=$bin/measured-$kind
export WRITTEN=$MEASURED
[ $kind = quick ] || WRITTEN=$root/benches
[ -z "$again" ] || rm -rf "$MEASURED"
# 9,000 idle connections on either side.
ulimit -n "$(ulimit -Hn)"
[ ${#parts[@]} -gt 0 ] || mapfile -t parts < <("$bin/drive" parts)
echo "== measure"
for part in "${parts[@]}"; do
  # shellcheck disable=SC2086
  ${ALONE:-} taskset -c 1 "$bin/drive" measure "$part" $quick
done
echo "== write"
"$bin/drive" report
