#!/bin/sh
# tests/validate.sh ORRERY [--quick] [--dir=DIR] [--out=FILE.md] [--join=FILE.md] [--html=FILE.html]: measures this machine, calibrates,
# predicts the bundled engine on configurations that calibration has not seen (tests/validate.list), and compares.
#
#   1. A/A: one configuration again and again, in two arms by turns; its throughput is the capacity that loads refer to
#   2. by rounds, so that a drift of the machine falls on all of them: for every (model, threads, ranks) `orrery bench --suite=model`
#      and `orrery engine run` of its configurations, side by side; steal and other work are watched during each run, the speed
#      of memory and processors before and after
#   3. `orrery calibrate` from the benchmarks and the runs declared for it
#   4. `orrery simulate` of every configuration, `orrery validate` of all
# Everything is kept under DIR (build/validate); a run file that is there already is measured again. Exit status: that of
# `orrery validate` (0 accurate, 1 not, 3 inconclusive), 2 usage, 5 when a step failed. At most about 15 minutes (quick: 2) on two
# processors: rounds follow each other until then, the last one may stay in pieces. Of each configuration and benchmark disturbed
# repetitions are left out, and counted, as long as three remain. SPDX-License-Identifier: Apache-2.0
set -u
orrery=${1:?usage: validate.sh ORRERY [--quick] [--dir=DIR] [--out=FILE.md] [--join=FILE.md] [--html=FILE.html]}
shift
case $orrery in /*) ;; *) orrery=$PWD/$orrery ;; esac # ranks may start elsewhere
quick=0 dir=build/validate out='' join='' html='' no_link=''
for a; do
    case $a in
    --quick) quick=1 ;;
    --dir=*) dir=${a#*=} ;;
    --out=*) out=${a#*=} ;;
    --join=*) join=${a#*=} ;;
    --html=*) html=${a#*=} ;;
    *) echo "validate.sh: no option '$a'" >&2; exit 2 ;;
    esac
done
list=${VALIDATE_LIST:-tests/validate.list}
limit_s=${VALIDATE_LIMIT_S:-840} rounds=${VALIDATE_ROUNDS:-9} n_aa=6 bench_time=10ms # rounds: at most
[ $quick -eq 1 ] && { limit_s=${VALIDATE_LIMIT_S:-100}; n_aa=4; }
t0=$(date +%s)
cpus=$(nproc)
mkdir -p "$dir/m" "$dir/p" "$dir/bench" "$dir/aa" "$dir/disturbed" || exit 5
rm -f "$dir"/disturbed/*.h5 "$dir"/m/*.h5 "$dir"/p/*.h5 "$dir"/bench/*.h5 "$dir"/bench/*.csv "$dir"/aa/*.h5 "$dir"/*.h5 "$dir/noise" "$dir/failed"
: > "$dir/noise"; : > "$dir/failed"; : > "$dir/speed"
spent() { echo $(($(date +%s) - t0)); }
say() { echo "[$(spent) s] $*" >&2; }

mpi=
if command -v mpirun > /dev/null 2>&1; then
    mpi="mpirun --oversubscribe --bind-to none"
    [ "$(id -u)" -eq 0 ] && mpi="$mpi --allow-run-as-root"
fi
link_rate=200mbit
ranks_are() { # thread|mpi|link RANKS: how N ranks are started
    case $1 in
    mpi) if [ -n "$mpi" ] && [ "$2" -gt 1 ]; then echo "$mpi -n $2"; fi ;;
    link) echo "sh tests/validate_link.sh $link_rate" ;;
    esac
}
rows() { # of the list: configurations of this run
    awk -v quick=$quick '!/^[#@]/ && NF >= 11 && (!quick || $3 == "q")' "$list"
}

# ---- a run, and what else the machine did meanwhile

cpu_ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8, $9 }' /proc/stat; } # busy, stolen
own_ticks() { # FILE: of what `times` wrote there, the processes that this shell has waited for
    awk -v hz="$(getconf CLK_TCK)" 'NR == 2 { gsub(/s/, ""); split($1, u, "m"); split($2, s, "m")
        printf "%d\n", hz * (u[1] * 60 + u[2] + s[1] * 60 + s[2]) }' "$1"
}
probe() { # what neighbours on the host leave: GB/s at which all processors together write zeros to memory, and rounds of a loop they make a us
    p_i=0
    while [ $p_i -lt "$cpus" ]; do
        LC_ALL=C dd if=/dev/zero of=/dev/null bs=128M count=3 2>&1 | sed -n 's/^\([0-9]*\) bytes.* copied, \([0-9.e-]*\) s.*/\1 \2/p' &
        p_i=$((p_i + 1))
    done | awk '{ bytes += $1; if ($2 > s) s = $2 } END { printf "%.2f ", (s > 0 ? 1e-9 * bytes / s : 0) }'
    p_i=0 p_from=$(date +%s.%N)
    while [ $p_i -lt "$cpus" ]; do
        awk 'BEGIN { while (i < 1000000) i++; print "" }' &
        p_i=$((p_i + 1))
    done > "$dir/loops"
    wait
    echo "$p_from $(date +%s.%N)" | awk '{ printf "%.1f\n", 1 / ($2 - $1) }'
}
watched() { # NAME COMMAND...: notes the share of the processors that others took, and the memory's speed before or after it
    w_name=$1 w_speed=$(cat "$dir/speed"); shift
    times > "$dir/times.0" # not in a subshell, whose times are its own
    set_before=$(cpu_ticks) at=$(date +%s.%N)
    "$@" > "$dir/last.out" 2> "$dir/last.err"; rc=$?
    times > "$dir/times.1"
    w_end="$(date +%s.%N) $set_before $(cpu_ticks)"
    probe > "$dir/speed"
    echo "$w_name $at $w_end $(own_ticks "$dir/times.0") $(own_ticks "$dir/times.1") $w_speed $(cat "$dir/speed")" |
        awk -v cpus="$cpus" -v hz="$(getconf CLK_TCK)" '{ all = ($3 - $2) * cpus * hz
            other = $6 - $4 - ($9 - $8); if (other < 0) other = 0
            printf "%s %.4f %.4f %.2f %.1f\n", $1, ($7 - $5) / all, other / all, $10 < $12 ? $10 : $12,
                $11 < $13 ? $11 : $13 }' >> "$dir/noise"
    return $rc
}
engine() { # NAME OUT.h5 model scenario threads tp pp ranks options...
    e_name=$1 to=$2 e_model=$3 e_scenario=$4 e_threads=$5 e_tp=$6 e_pp=$7 e_how=$8
    shift 8
    # shellcheck disable=SC2046 # words
    watched "$e_name" $(ranks_are "$e_how" $((e_tp * e_pp))) "$orrery" engine run "scenarios/validate/$e_scenario.yaml" --model="$e_model" \
        --threads="$e_threads" --strategy.tp="$e_tp" --strategy.pp="$e_pp" --out="$to" --json "$@"
    rc=$?
    [ $rc -le 1 ] && [ -f "$to" ]
}
# memory or the processors were slower than usual, a hypervisor took more than 2 % of the processors or other work more than 5 %;
# ranks behind the link are started by daemons, whose processor time cannot be told from other work
is_busy='($4 < .75 * memory || $5 < .8 * loop || $1 !~ /link/ && ($2 > .02 || $3 > .05))'
speeds() { awk -v k="$1" '{ print $k }' "$dir/noise" | sort -g; } # of memory: 4, of the loop: 5, rising
usual() { speeds "$1" | awk '{ x[NR] = $1 } END { print x[int(NR * 3 / 4 + .5)] + 0 }'; } # upper quartile
usuals() { echo "-v memory=$(usual 4) -v loop=$(usual 5)"; }
field() { tr -d ' ,"' < "$dir/last.out" | sed -n "s/^$1://p" | head -1; }
last_error() { sed -n 's/^orrery [a-z]*: //p' "$dir/last.err" | head -1 | tr -d '"\\' | cut -c 1-200; }

# ---- 1. the same again and again

say "A/A: $n_aa runs in two arms; $cpus processors, load average $(cut -d ' ' -f 1 /proc/loadavg)"
probe > /dev/null # the first touches memory that is cold
probe > "$dir/speed"
i=1
while [ $i -le $n_aa ]; do
    engine "aa.$i" "$dir/aa/$i.h5" llama-25m chat 1 1 1 thread || { say "the A/A run failed: $(last_error)"; exit 5; }
    field requests_per_s >> "$dir/aa.rates.$$"
    i=$((i + 1))
done
capacity_25m=$(sort -g "$dir/aa.rates.$$" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')
rm -f "$dir/aa.rates.$$"
capacity_110m=
if rows | awk '$4 == "llama-110m" && $10 != "burst" { n++ } END { exit !n }'; then
    engine pilot.110m "$dir/aa/110m.h5" llama-110m chat 1 1 1 thread --workload.requests=16 && capacity_110m=$(field requests_per_s)
fi
awk '$3 > .2 { n++ } END { exit n < NR / 2 }' "$dir/noise" &&
    say "other work takes a fifth of the processors or more: stop it, or expect noise, not a judgement"
say "$(printf 'capacity of one thread: llama-25m %.1f requests/s' "${capacity_25m:-0}")${capacity_110m:+$(printf ', llama-110m %.2f requests/s' "$capacity_110m")}"
rate_of() { # MODEL LOAD: options of the load
    [ "$2" = burst ] && return
    case $1 in llama-25m) c=$capacity_25m ;; *) c=$capacity_110m ;; esac
    echo "--workload.arrivals=poisson --workload.rate=$(awk -v c="$c" -v l="$2" 'BEGIN { printf "%.4f", c * l / 100 }')/s"
}

# ---- 2. benchmarks and runs

can_bench=1
"$orrery" help bench > /dev/null 2>&1 || { can_bench=0; say "this build has no 'bench': no profile can be made"; }
rows > "$dir/rows"
if grep -q ' link ' "$dir/rows" && ! sh tests/validate_link.sh $link_rate true > /dev/null 2> "$dir/link.err"; then
    no_link=$(sed 's/.*: //; s/["\\]//g' "$dir/link.err" | tail -1)
    say "no slow link: $no_link"
fi
absent() { # RANKS TP PP THREADS: says why this machine cannot run it; else nothing
    if [ $(($2 * $3 * $4)) -gt "$cpus" ]; then
        echo "$(($2 * $3)) ranks of $4 thread on $cpus processors share them, which no profile describes; not measured"
    elif [ "$1" = link ] && [ -n "$no_link" ]; then
        echo "no slow link on this machine: $no_link"
    fi
}
key_of() { # MODEL THREADS TP PP RANKS OPTIONS: the profile that a configuration is predicted with
    case " $6" in *weights=int8*) w=-int8 ;; *) w='' ;; esac
    [ "$5" = link ] && w=$w-link
    echo "$1$w-${2}t-tp$3pp$4"
}
bench() { # NAME OUT.h5 KEY model threads tp pp ranks
    weights=f32 batch=256tok
    case $3 in *int8*) weights=int8 ;; *link*) batch=64tok ;; esac
    # shellcheck disable=SC2046
    watched "$1" $(ranks_are "$8" $(($6 * $7))) "$orrery" bench --suite=model --model="$4" --threads="$5" --strategy.tp="$6" \
        --strategy.pp="$7" --strategy.weights=$weights --strategy.kv=f32 --max_batch=$batch --max_ctx=512tok --max_seqs=16 \
        --runs=1 --run_time=$bench_time --out="$2"
}
late() { [ "$1" -gt 1 ] && [ "$(spent)" -gt $((limit_s * 14 / 15)) ]; }
measure_key() { # ROUND: one repetition of the benchmark of the configurations in key.rows
    read -r _ _ _ model _ threads tp pp how _ _ more < "$dir/key.rows"
    file=$dir/bench/$key.$1.h5
    [ $can_bench -eq 1 ] && [ -z "$(absent "$how" "$tp" "$pp" "$threads")" ] || return
    if late "$1"; then return; fi
    bench "bench.$key.$1" "$file" "$key" "$model" "$threads" "$tp" "$pp" "$how" ||
        { say "bench $key: $(last_error)"; echo "bench.$key $(last_error)" >> "$dir/failed"; }
}
measure_runs() { # ROUND: one run of each configuration in key.rows
    while read -r name _ _ model scenario threads tp pp how load _ more <&3; do
        [ -z "$(absent "$how" "$tp" "$pp" "$threads")" ] || continue
        if late "$1"; then left_out=$((left_out + 1)); continue; fi
        file=$dir/m/$name.$1.h5
        # shellcheck disable=SC2046,SC2086
        engine "$name.$1" "$file" "$model" "$scenario" "$threads" "$tp" "$pp" "$how" $(rate_of "$model" "$load") $more ||
            { say "run $name: $(last_error)"; echo "run.$name $(last_error)" >> "$dir/failed"; }
    done 3< "$dir/key.rows"
}
while read -r name use set model scenario threads tp pp how load group more; do
    echo "$(key_of "$model" "$threads" "$tp" "$pp" "$how" "$more") $name $use $set $model $scenario $threads $tp $pp $how $load $group $more"
done < "$dir/rows" > "$dir/keyed.rows"

round=1 left_out=0
while [ $round -le 2 ] || ! late $round; do
    [ $round -le "$rounds" ] || break
    begin=$(spent)
    for key in $(awk '!seen[$1]++ { print $1 }' "$dir/keyed.rows"); do
        sed -n "s/^$key //p" "$dir/keyed.rows" > "$dir/key.rows"
        # a benchmark next to the runs it predicts, before them and after them by turns: a drift of the machine falls on both
        [ $((round % 2)) -eq 0 ] || measure_key $round
        measure_runs $round
        [ $((round % 2)) -eq 1 ] || measure_key $round
    done
    say "round $round: $(($(spent) - begin)) s"
    round=$((round + 1))
done

# of every name the repetitions that were not disturbed, and three at least: the least disturbed
# shellcheck disable=SC2046
awk $(usuals) '{ m = $4 / memory; l = $5 / loop
    name = $1; sub(/\.[0-9]+$/, "", name); print name, '"$is_busy"', (m < l ? m : l) - 10 * $2 - 10 * $3, $1 }' "$dir/noise" |
    sort -k 1,1 -k 2,2n -k 3,3rg | awk '$1 != last { n = 0; last = $1 } ++n > 3 && $2 { print $4 }' |
    while read -r name; do
        case $name in
        aa.* | pilot.*) continue ;;
        bench.*) file=bench/${name#bench.} ;;
        *) file=m/$name ;;
        esac
        if [ -f "$dir/$file.h5" ]; then mv "$dir/$file.h5" "$dir/disturbed/$name.h5"; fi
    done

# ---- 3. profiles, from benchmarks and declared runs only

for key in $(awk '!seen[$1]++ { print $1 }' "$dir/keyed.rows"); do
    files=$(ls "$dir/bench/$key".*.h5 2> /dev/null)
    [ -n "$files" ] || continue
    while read -r name use _ model _ threads tp pp how _ _ more <&3; do
        # the host's work between steps does not depend on the strategy: runs of TP1 tell it for all of the model
        of=$(key_of "$model" "$threads" "$tp" "$pp" "$how" "$more")
        case $key in "$of") ;; "${of%-tp1pp1}"-*) ;; *-link-*) [ "$key" = "${of%%-[0-9]*}-link-1t-${key##*-}" ] || continue ;; *) continue ;; esac
        [ "$use" = cal ] || continue
        for f in "$dir"/m/"$name".*.h5; do [ -f "$f" ] && files="$files $f"; done
    done 3< "$dir/rows"
    # shellcheck disable=SC2086
    if ! watched "calibrate.$key" "$orrery" calibrate $files --out="$dir/$key.h5"; then
        say "calibrate $key: $(last_error)"
        echo "profile.$key $(last_error)" >> "$dir/failed"
    fi
    cp "$dir/last.out" "$dir/calibrate.$key.txt"
done

# ---- 4. predictions, and the comparison

manifest=$dir/manifest.yaml
{
    echo "title: predicted and measured on $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $cpus processors"
    printf 'aa: {a: ['; i=1; while [ $i -le $n_aa ]; do printf '%saa/%d.h5' "$([ $i -gt 1 ] && echo ', ')" $i; i=$((i + 2)); done
    printf '], b: ['; i=2; while [ $i -le $n_aa ]; do printf '%saa/%d.h5' "$([ $i -gt 2 ] && echo ', ')" $i; i=$((i + 2)); done
    echo ']}'
    echo 'cases:'
} > "$manifest"
while read -r name use _ model scenario threads tp pp how load group more <&3; do
    key=$(key_of "$model" "$threads" "$tp" "$pp" "$how" "$more")
    profile=$dir/$key.h5 why=$(absent "$how" "$tp" "$pp" "$threads")
    if [ -n "$why" ]; then
        :
    elif [ ! -f "$profile" ]; then
        why="no profile: $(sed -n "s/^profile.$key //p; s/^bench.$key //p" "$dir/failed" | head -1)"
    else
        # shellcheck disable=SC2046,SC2086
        "$orrery" simulate "scenarios/validate/$scenario.yaml" --model="$model" --hardware.name="$profile" --hardware.profile="$profile" \
            --strategy.tp="$tp" --strategy.pp="$pp" --out="$dir/p/$name.h5" $(rate_of "$model" "$load") $more \
            > "$dir/last.out" 2> "$dir/last.err"
        [ $? -le 1 ] && [ -f "$dir/p/$name.h5" ] || why="simulate: $(last_error)"
    fi
    runs=$(cd "$dir" && ls m/"$name".*.h5 2> /dev/null | tr '\n' ',' | sed 's/,$//; s/,/, /g')
    word=held-out; [ "$use" = cal ] && word=calibrated
    if [ -n "$why" ]; then
        echo "  - {name: $name, refused: \"$why\"${runs:+, measured: [$runs]}}"
    elif [ -n "$runs" ]; then
        echo "  - {name: $name, use: $word, group: $group, predicted: p/$name.h5, measured: [$runs]}"
    else
        echo "  - {name: $name, refused: \"it was not measured: $(sed -n "s/^run.$name //p" "$dir/failed" | head -1)\"}"
    fi >> "$manifest"
done 3< "$dir/rows"

# ranks behind the link are started by daemons, whose processor time is not this shell's
grep -v -e '^calibrate' -e link "$dir/noise" > "$dir/noise.runs"
n_run=$(wc -l < "$dir/noise.runs")
# shellcheck disable=SC2046
n_busy=$(awk $(usuals) "$is_busy"' { n++ } END { print n + 0 }' "$dir/noise.runs")
span() { speeds "$1" | awk '{ x[NR] = $1 } END { print x[1] " .. " x[NR] }'; }
cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)
ranks='threads (no mpirun)'
[ -n "$mpi" ] && ranks=MPI
{
    echo "Made by \`tests/validate.sh$([ $quick -eq 1 ] && echo ' --quick')\` on $(date -u +%Y-%m-%d), revision" \
         "$("$orrery" version | head -1 | sed 's/.*revision //'); $cpu, $cpus processors," \
         "$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo), ranks over $ranks; $(spent) s." \
         "Calibrated on: $(awk '$2 == "cal" { printf "%s%s", n++ ? ", " : "", $1 }' "$dir/rows")."
    n_out=$(ls "$dir/disturbed" | wc -l)
    [ "$n_out" -gt 0 ] && echo "$n_out repetitions of runs and benchmarks were disturbed and are left out: they are in DIR/disturbed." \
        "Three of each are kept at least, the least disturbed."
    [ "$left_out" -gt 0 ] && echo "$left_out runs of later rounds did not fit into $limit_s s."
    if [ "$n_busy" -gt $((n_run / 4)) ]; then
        echo "NOISY MACHINE: $n_busy of $n_run runs were disturbed" \
             "$(awk '{ if ($2 > s) s = $2; if ($3 > o) o = $3 }
                     END { printf "(at most %.0f %% and %.0f %%)", 100 * s, 100 * o }' "$dir/noise.runs");" \
             "the figures below are those of a busy machine."
    else
        echo "Noise watch: $n_busy of $n_run runs were disturbed."
    fi
    echo "Disturbed: a hypervisor took more than 2 % of the processors, other work more than 5 %, or, looked at before and after each run," \
        "memory took writes at less than 75 % of the usual $(usual 4) GB/s ($(span 4)) or a loop made less than 80 % of the usual" \
        "$(usual 5) rounds a us ($(span 5))."
    [ -s "$dir/failed" ] && { echo; echo "Failed:"; sed 's/^/- /' "$dir/failed"; }
    echo
} > "$dir/head.md"
"$orrery" validate "$manifest" --out="$dir/table.md" > "$dir/result.txt"; rc=$?
cat "$dir/head.md" "$dir/result.txt"
if [ $rc -eq 2 ] || [ $rc -ge 5 ]; then exit 5; fi
if [ -n "$html" ]; then
    "$orrery" validate "$manifest" --out="$html" > /dev/null || [ $? -le 3 ] || exit 5
fi
if [ -n "$out" ]; then
    { echo "# Predicted and measured: the bundled engine on this machine"; echo; cat "$dir/head.md" "$dir/table.md"; } \
        > "$out.part" && mv "$out.part" "$out" || exit 5
fi
if [ -n "$out" ] && [ -n "$join" ]; then # as the last section of a larger document
    { sed '/^## Predicted and measured: the bundled engine/,$d' "$join" | awk 'NF { while (n-- > 0) print ""; n = 0; print; next } { n++ }'
        echo; sed 's/^#/##/' "$out"; } > "$join.part" &&
        mv "$join.part" "$join" || exit 5
fi
say "done; everything is in $dir"
exit $rc
