#!/usr/bin/env bash
# Instructions a request of a whole server of HTTP/2 over sockets, by valgrind's callgrind under h2load: the slope between two
# counts. Usage: benches/count_http2.sh [SERVER...]
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build -q --release -p wharf-benches --bin http2
binary=${CARGO_TARGET_DIR:-target}/release/http2
body=$(mktemp); head -c 1024 /dev/zero | tr '\0' x >"$body"; trap 'rm -f "$body"' EXIT
port=$((20000 + RANDOM % 10000))
# count SERVER SCHEME REQUESTS H2LOAD-OPTION...
count() {
  local server=$1 scheme=$2 requests=$3 log; shift 3
  port=$((port + 1)); log=$(mktemp)
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$server" $port $([ "$scheme" = https ] && echo tls) 2>"$log" &
  local pid=$!
  until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.1; done
  h2load -n "$requests" "$@" "$scheme://127.0.0.1:$port/" >/dev/null
  kill -TERM $pid; wait $pid || true
  sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log"; rm -f "$log"
}
printf '%-8s %10s %10s %10s %10s\n' 'each' 'get, 1' 'get, 32' 'post, 16' 'tls, 16'
for server in "${@:-hyper wharf}"; do for server in $server; do
  printf '%-8s' "$server"
  for workload in 'http -c 1 -m 1' 'http -c 1 -m 32' "http -c 1 -m 16 -d $body" 'https -c 1 -m 16'; do
    # shellcheck disable=SC2086
    set -- $workload; scheme=$1; shift
    few=$(count $server $scheme 640 "$@"); many=$(count $server $scheme 3840 "$@")
    printf ' %10d' $(((many - few) / 3200))
  done
  echo
done; done
