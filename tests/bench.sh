#!/bin/sh
# tests/bench.sh ORRERY TESTS_RUN BENCH_ENGINE: speed, memory and instructions per request as a Markdown table on stdout. Times are
# recorded only; the gate is on instructions, which do not depend on the machine's mood: exit 1 if a figure exceeds
# tests/bench.limits by more than 5 %.
set -eu
orrery=$1 run=$2 engine=$3
case_yaml=tests/bench-prefix.yaml
one="--sim.threads=1 --json"
field() { tr -d ' ,"' | sed -n "s/^$1://p" | head -1; }
median() { sort -g | sed -n "$(( ($1 + 1) / 2 ))p"; }

echo "# Speed of the simulator"
echo
echo "Made by \`make bench\` on $(date -u +%Y-%m-%d), revision $($orrery version | head -1 | sed 's/orrery //'); $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)," \
     "$(nproc) processors, one thread used, $(gcc --version | head -1)."
echo "Case: \`$case_yaml\`, Llama-3-8B on eight replicas, sessions of four turns behind shared prefixes. Five runs, median."
echo
echo "| requests | wall s | requests/s | peak MB |"
echo "|---|---|---|---|"
for n in 10k 12k 100k 1M 10M; do
  k=5; [ $n = 10M ] && k=1
  rm -f build/bench.*; i=0
  while [ $i -lt $k ]; do
    $orrery simulate $case_yaml $one --workload.requests=$n > build/bench.json || [ $? -eq 1 ]
    field simulate_s < build/bench.json >> build/bench.s
    tr -d ' ,"' < build/bench.json | grep '^requests_per_s:' | tail -1 | cut -d: -f2 >> build/bench.r
    field peak_memory_bytes < build/bench.json >> build/bench.m
    i=$((i + 1))
  done
  printf '| %s | %.3g | %.4g | %.0f |\n' $n "$(median $k < build/bench.s)" "$(median $k < build/bench.r)" \
         "$(awk -v b="$(median $k < build/bench.m)" 'BEGIN { print b / 1e6 }')"
done
$orrery simulate $case_yaml $one --workload.requests=1M --out build/bench.h5 > build/bench.json || [ $? -eq 1 ]
printf '| 1M, all rows into a run file of %.0f MB | %.3g | %.4g | %.0f |\n' "$(awk -v b="$(wc -c < build/bench.h5)" 'BEGIN { print b / 1e6 }')" \
       "$(field simulate_s < build/bench.json)" "$(tr -d ' ,"' < build/bench.json | grep '^requests_per_s:' | tail -1 | cut -d: -f2)" \
       "$(awk -v b="$(field peak_memory_bytes < build/bench.json)" 'BEGIN { print b / 1e6 }')"
rm -f build/bench.h5
echo

count() { # instructions of a run
  valgrind --tool=callgrind --callgrind-out-file=build/bench.callgrind "$orrery" simulate "$1" --sim.threads=1 --sim.draws=0 --sim.replications=1 --workload.requests="$2" 2>&1 >/dev/null |
    sed -n 's/.*Collected : //p'
}
bad=0
echo "| case | instructions a request | limit |"
echo "|---|---|---|"
while read -r name file few many limit; do
  lo=$(count "$file" "$few"); hi=$(count "$file" "$many")
  got=$(( (hi - lo) / (many - few) ))
  printf '| %s | %s | %s |\n' "$name" "$got" "$limit"
  [ $((got * 100)) -le $((limit * 105)) ] || { echo "bench: $name: $got instructions a request, limit $limit" >&2; bad=1; }
done < tests/bench.limits
echo
echo "Queues of theory at heavy load (constant steps, means over 20 to 120 million requests):"
echo
ORRERY_LONG=1 "$run" sim_mean_waits_at_heavy 2>&1 | sed 's/^/    /'
echo
echo "# Speed of the engine"
echo
echo "\`tests/bench_engine\`: random weights; each figure against a limit of this machine measured in the same repetition."
echo "Bars are reported, not gated: the machine is shared."
echo
"$engine"
echo
echo "Communicators of the engine, one host; MPI where mpirun is there, its ranks on their own cores if there are enough:"
echo
ranks=$(dirname "$run")/ranks
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
over="mpirun --oversubscribe --bind-to none"
echo "| call | bytes | median us | least us | MB/s of the median |"
echo "|---|---|---|---|---|"
for n in 2 8; do
  "$ranks" bench $n
  command -v mpirun >/dev/null || continue
  # shellcheck disable=SC2086 # a command of several words
  if [ "$(nproc)" -ge $n ]; then mpirun --bind-to core -n $n "$ranks" bench; else $over -n $n "$ranks" bench; fi
done
echo
echo "An open engine of 4 ranks between requests:"
echo
"$ranks" idle 4 | sed 's/^/    /'
# shellcheck disable=SC2086
if command -v mpirun >/dev/null; then $over -n 4 "$ranks" wait | sort | sed 's/^/    /'; fi
echo
echo "Ranks beyond the cores: llama-25m, one thread a rank, 100 tokens at batch 1, best of three, tokens/s:"
echo
echo "| tp | pp | threads of one process | processes under mpirun |"
echo "|---|---|---|---|"
best() { # COMMAND...: the best rate of three runs
  for _ in 1 2 3; do
    "$@" --model=llama-25m --random-weights=1 --tokens=1,2,3 --max-new=100 --threads=1 2>&1 >/dev/null | sed -n 's/.*then \(.*\) tokens.*/\1/p'
  done | sort -g | tail -1
}
for division in "1 1" "2 1" "4 1" "8 1" "2 4"; do
  tp=${division% *} pp=${division#* } mpi=-
  # shellcheck disable=SC2086
  command -v mpirun >/dev/null && mpi=$(best $over -n $((tp * pp)) "$orrery" engine generate --tp=$tp --pp=$pp)
  echo "| $tp | $pp | $(best "$orrery" engine generate --tp=$tp --pp=$pp) | $mpi |"
done
exit $bad
