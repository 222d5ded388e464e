#!/usr/bin/env bash
# stevedore beside wrk, both against the echo example on this machine: paired rounds, whose order alternates, and the
# median of the rounds' ratios. Plain keep-alive requests, then pipelined ones. The server has the first core, the
# clients have the second one. Then what the live view costs on a terminal. Ends with 1 if a median is below its bound
# (0.90 plain, 0.80 pipelined) or drawing takes 1 % of the time or more.
# Usage: benches/clients.sh [ROUNDS] [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7} seconds=${2:-3} depth=16 connections=16

command -v wrk >/dev/null || { echo "clients.sh: wrk is missing (Debian: apt-get install wrk)" >&2; exit 2; }
cargo build -q --release -p stevedore
cargo build -q --release --example echo

scratch=$(mktemp -d)
taskset -c 0 target/release/examples/echo --port 0 >"$scratch/echo" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT
url=
for _ in $(seq 100); do
  url=$(sed -n 's/^listening on //p' "$scratch/echo")
  [ -n "$url" ] && break
  sleep 0.05
done
[ -n "$url" ] || { echo "clients.sh: the echo example doesn't start" >&2; exit 2; }

cat >"$scratch/pipeline.lua" <<'LUA'
init = function(args)
  local depth, all = tonumber(args[1]), {}
  for i = 1, depth do all[i] = wrk.format("GET", "/") end
  batch = table.concat(all)
end
request = function() return batch end
LUA

# Each prints answers a second.
wrk_rate() {
  if [ "$1" = 1 ]; then taskset -c 1 wrk -t 1 -c "$connections" -d "${seconds}s" "$url/"
  else taskset -c 1 wrk -t 1 -c "$connections" -d "${seconds}s" -s "$scratch/pipeline.lua" "$url/" -- "$1"
  fi | awk '/^Requests\/sec:/ { print $2 }'
}
stevedore_rate() {
  taskset -c 1 target/release/stevedore --threads 1 -c "$connections" -z "${seconds}s" --pipeline "$1" --quiet --json "$scratch/json" "$url/" >/dev/null
  sed -n 's/^  "requests_per_second": \([0-9.]*\).*/\1/p' "$scratch/json"
}

status=0
for pipeline in 1 "$depth"; do
  ratios=() bound=0.90
  [ "$pipeline" = 1 ] || bound=0.80
  for round in $(seq "$rounds"); do
    if [ $((round % 2)) = 0 ]; then w=$(wrk_rate "$pipeline"); s=$(stevedore_rate "$pipeline")
    else s=$(stevedore_rate "$pipeline"); w=$(wrk_rate "$pipeline"); fi
    ratio=$(awk -v s="$s" -v w="$w" 'BEGIN { printf "%.3f", s / w }')
    printf 'pipeline %2d  round %d  wrk %9.0f/s  stevedore %9.0f/s  ratio %s\n' "$pipeline" "$round" "$w" "$s" "$ratio"
    ratios+=("$ratio")
  done
  printf '%s\n' "${ratios[@]}" | sort -n | awk -v pipeline="$pipeline" -v bound="$bound" '
    { all[NR] = $1 }
    END {
      median = all[int((NR + 1) / 2)]
      printf "pipeline %2d  median ratio %s (%s … %s), at least %s is wanted\n", pipeline, median, all[1], all[NR], bound
      exit median < bound
    }' || status=1
done

# A terminal that is high and wide, under full load.
tool="stty cols 200 rows 50; taskset -c 1 target/release/stevedore --threads 1 -c $connections -z 5s --json $scratch/json $url/"
TERM=xterm-256color script -qec "$tool" /dev/null >/dev/null
sed -n 's/^    "drawing": \([0-9.e-]*\).*/\1/p' "$scratch/json" |
  awk '{ printf "drawing      %.2f %% of the time, less than 1 is wanted\n", $1 * 100; exit $1 >= 0.01 }' || status=1
exit "$status"
