#!/usr/bin/env bash
# Processor time a request, as the kernel accounts for it (user and system of the whole server): wharf beside hyper with
# hyper-util on the same h2, rustls and tokio. Paired rounds whose order alternates, and the median of the rounds' ratios; the
# servers have the first core, h2load the second. Ends with 1 where wharf needs more than hyper by the median.
# Usage: benches/http2.sh [WORKLOAD...]   ROUNDS: how many, 9 by default. ALONE: a command to run each workload under.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-9}
declare -A workload=(
  [get-1]='http -c 4 -m 1 -n 20000'
  [get-32]='http -c 4 -m 32 -n 40000'
  [post-16]='http -c 4 -m 16 -n 30000 -d'
  [tls-http1]='https -c 4 --h1 -n 20000'
  [tls-get-1]='https -c 4 -m 1 -n 20000'
  [tls-get-32]='https -c 4 -m 32 -n 40000'
  [tls-handshake]='https -c 300 -m 1 -n 300'
)
order='get-1 get-32 post-16 tls-http1 tls-get-1 tls-get-32 tls-handshake'

for tool in taskset:util-linux h2load:nghttp2-client; do
  command -v "${tool%:*}" >/dev/null || { echo "http2.sh: ${tool%:*} is missing (Debian: apt-get install ${tool#*:})" >&2; exit 2; }
done
binary=${BINARY:-${CARGO_TARGET_DIR:-target}/release/http2}
[ -n "${BINARY:-}" ] || cargo build -q --release -p wharf-benches --bin http2
scratch=$(mktemp -d)
head -c 1024 /dev/zero | tr '\0' x >"$scratch/body"

# Nanoseconds that all threads of a process have run.
spent() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'; }

# cost SERVER: microseconds a request of the workload in `$words`.
cost() {
  local before after asked
  asked=$(sed 's/.*-n \([0-9]*\).*/\1/' <<<"$words")
  before=$(spent "${pid[$1]}")
  # shellcheck disable=SC2086
  taskset -c 1 h2load $words "$scheme://127.0.0.1:${port[$1]}/" >"$scratch/load"
  after=$(spent "${pid[$1]}")
  grep -q " $asked succeeded, 0 failed" "$scratch/load" || { cat "$scratch/load" >&2; exit 2; }
  awk -v spent=$((after - before)) -v asked="$asked" 'BEGIN { printf "%.3f", spent / asked / 1000 }'
}

declare -A pid=() port=()
# start SERVER: on a port that is free.
start() {
  local at
  for _ in $(seq 20); do
    at=$((20000 + RANDOM % 10000))
    (exec 3<>"/dev/tcp/127.0.0.1/$at") 2>/dev/null && continue
    # shellcheck disable=SC2046
    taskset -c 0 "$binary" "$1" $at $([ "$scheme" = http ] || echo tls) &
    pid[$1]=$! port[$1]=$at
    for _ in $(seq 100); do
      (exec 3<>"/dev/tcp/127.0.0.1/$at") 2>/dev/null && return
      sleep 0.05
    done
  done
  echo "http2.sh: $1 doesn't start" >&2; exit 2
}
stop() { [ ${#pid[@]} = 0 ] || kill "${pid[@]}" 2>/dev/null || true; wait 2>/dev/null || true; pid=(); }
trap 'stop; rm -rf "$scratch"' EXIT

# measure WORKLOAD
measure() {
  local scheme words round wharf hyper
  read -r scheme words <<<"${workload[$1]}"
  [[ $words != *-d ]] || words+=" $scratch/body"
  start hyper; start wharf
  cost hyper >/dev/null; cost wharf >/dev/null
  for round in $(seq "$rounds"); do
    if [ $((round % 2)) = 0 ]; then hyper=$(cost hyper); wharf=$(cost wharf)
    else wharf=$(cost wharf); hyper=$(cost hyper); fi
    echo "$hyper $wharf $(awk -v w="$wharf" -v h="$hyper" 'BEGIN { printf "%.4f", w / h }')"
  done >"$scratch/rounds"
  stop
  for column in 1 2 3; do
    cut -d' ' -f$column "$scratch/rounds" | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)], all[1], all[NR] }'
  done | tr '\n' ' ' | awk -v name="$1" '{
    printf "%-14s %9.2f %9.2f   %.3f (%.3f … %.3f)\n", name, $1, $4, $7, $8, $9
    exit $7 > 1
  }'
}

if [ "${1:-}" = --measure ]; then measure "$2"; exit; fi
status=0
printf '%-14s %9s %9s   %s\n' 'µs a request' hyper wharf 'wharf / hyper, median (least … most)'
# shellcheck disable=SC2086
for name in ${@:-$order}; do
  [ -n "${workload[$name]:-}" ] || { echo "http2.sh: there is no workload $name, but: $order" >&2; exit 2; }
  BINARY=$binary ${ALONE:-} "$0" --measure "$name" || status=1
done
exit $status
