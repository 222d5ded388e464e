#!/usr/bin/env bash
# Instructions a request, by valgrind's callgrind: the slope between two counts, so that start and end cancel out. wharf with
# both codecs beside hyper (default, and with pipeline_flush), the goals, and the ceilings that a regression runs into.
# Usage: benches/count.sh [check]   "check" counts wharf alone and fails above a ceiling
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_PROFILE_RELEASE_PANIC="${PANIC:-abort}" CARGO_PROFILE_RELEASE_DEBUG=line-tables-only \
  cargo build -q --release -p wharf-benches --bins --target-dir target/counted

workloads='tiny browser pipelined post split'
# Two in a hundred above what was counted when they were set: inlining differs that much from one compiler to the next.
declare -A ceiling=(
  [strict]='3425 9470 2740 5850 7280'
  [httparse]='4840 15000 4100 7500 8940'
  [unlimited]='3440 9470 2740 5885 7315'
)
must='3300 12000 2900 5800 6800'
ambition='2800 10000 2400 4800 5500'

count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null target/counted/release/memory "$1" "$2" "$3" 2>&1 >/dev/null |
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
# slope SERVER WORKLOAD: instructions a request.
slope() {
  local each=1 few many
  [ "$2" = pipelined ] && each=16
  few=$(count "$1" "$2" 200)
  many=$(count "$1" "$2" 1200)
  echo $(((many - few) / 1000 / each))
}
row() { printf '%-22s' "$1"; shift; printf ' %9s' "$@"; echo; }

# shellcheck disable=SC2086
row 'instructions a request' $workloads
declare -A of
for server in $([ "${1:-}" = check ] || echo hyper hyper-flush) httparse strict unlimited; do
  figures=''
  for workload in $workloads; do figures+="$(slope "$server" "$workload") "; done
  of[$server]=$figures
  # shellcheck disable=SC2086
  row "$server" $figures
done
# shellcheck disable=SC2086
{ row 'must' $must; row 'ambition' $ambition; }

# ratio OVER UNDER: row by row.
ratio() {
  # shellcheck disable=SC2086
  row "$1 / $2" $(paste -d/ <(printf '%s\n' ${of[$1]}) <(printf '%s\n' ${of[$2]}) | awk -F/ '{ printf "%.3f ", $1 / $2 }')
}
if [ "${1:-}" != check ]; then
  for over in strict httparse; do for under in hyper hyper-flush; do ratio $over $under; done; done
fi
ratio strict unlimited

failed=
for server in httparse strict unlimited; do
  read -ra figures <<<"${of[$server]}"
  read -ra most <<<"${ceiling[$server]}"
  for at in "${!figures[@]}"; do
    if [ "${figures[at]}" -gt "${most[at]}" ]; then
      read -ra names <<<"$workloads"
      echo "$server needs ${figures[at]} instructions for ${names[at]}, above its ceiling of ${most[at]}" >&2
      failed=yes
    fi
  done
done
[ -z "$failed" ]

[ "${1:-}" = check ] || { echo; target/counted/release/weigh; }
