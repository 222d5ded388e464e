#!/usr/bin/env bash
# Instructions a request, by valgrind's callgrind: the slope between two counts, so that start and end cancel out.
# Usage: benches/count.sh [SERVER...]
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO_PROFILE_RELEASE_PANIC="${PANIC:-abort}" CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
  cargo build -q --release -p wharf-benches --bins --target-dir target/counted
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null target/counted/release/memory "$1" "$2" "$3" 2>&1 >/dev/null |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
printf '%-12s %8s %8s %9s %8s %8s\n' 'per request' tiny browser pipelined post split
for server in "${@:-hyper hyper-flush httparse strict}"; do for server in $server; do
  printf '%-12s' "$server"
  for workload in tiny browser pipelined post split; do
    each=$([ $workload = pipelined ] && echo 16 || echo 1)
    few=$(count "$server" $workload 200); many=$(count "$server" $workload 1200)
    printf ' %8d' $(((many - few) / 1000 / each))
  done
  echo
done; done
