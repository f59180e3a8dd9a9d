#!/bin/sh
# tests/validate.sh ORRERY [--quick | --minutes=N] [--dir=DIR] [--out=FILE.md] [--join=FILE.md] [--html=FILE.html]: measures this machine, calibrates,
# predicts the bundled engine on configurations that calibration has not seen (tests/validate.list), and compares.
#
#   1. A/A: one configuration again and again, in two arms by turns; its throughput is the capacity that loads refer to
#   2. by rounds, some five, so that what neighbours on the host do falls on all of them: for every (model, threads, ranks)
#      `orrery bench --suite=model` and `orrery engine run` of its configurations, side by side; steal and other work are watched
#   3. `orrery calibrate` from the benchmarks and the runs declared for it; and from each round's alone, which tells how much the
#      predictions depend on when they were measured
#   4. `orrery simulate` of every configuration, `orrery validate` of all
# Everything is kept under DIR (build/validate); a run file that is there already is measured again. Exit status: that of
# `orrery validate` (0 accurate, 1 not, 3 inconclusive), 2 usage, 5 when a step failed. At most about 15 minutes (quick: 2; --minutes
# says others) on two processors: rounds follow each other until then, the last one may stay in pieces. More rounds make the noise
# floors narrower. Of each configuration and benchmark disturbed repetitions are left out, and counted, as long as three remain.
# SPDX-License-Identifier: Apache-2.0
set -u
orrery=${1:?usage: validate.sh ORRERY [--quick | --minutes=N] [--dir=DIR] [--out=FILE.md] [--join=FILE.md] [--html=FILE.html]}
shift
case $orrery in /*) ;; *) orrery=$PWD/$orrery ;; esac # ranks may start elsewhere
quick=0 minutes='' dir=build/validate out='' join='' html='' no_link=''
for a; do
    case $a in
    --quick) quick=1 ;;
    --minutes=*) minutes=${a#*=} ;;
    --dir=*) dir=${a#*=} ;;
    --out=*) out=${a#*=} ;;
    --join=*) join=${a#*=} ;;
    --html=*) html=${a#*=} ;;
    *) echo "validate.sh: no option '$a'" >&2; exit 2 ;;
    esac
done
list=${VALIDATE_LIST:-tests/validate.list}
limit_s=${VALIDATE_LIMIT_S:-840} rounds=${VALIDATE_ROUNDS:-24} n_aa=16 bench_time=10ms # rounds: at most
[ $quick -eq 1 ] && { limit_s=${VALIDATE_LIMIT_S:-100}; n_aa=8; }
case $minutes in
'') ;;
[1-9] | [1-9][0-9] | [1-9][0-9][0-9]) limit_s=$((minutes * 60)) ;;
*) echo "validate.sh: --minutes is 1 .. 999, not '$minutes'" >&2; exit 2 ;;
esac
t0=$(date +%s)
cpus=$(nproc)
mkdir -p "$dir/m" "$dir/p" "$dir/again" "$dir/bench" "$dir/aa" "$dir/disturbed" || exit 5
rm -f "$dir"/disturbed/*.h5 "$dir"/again/*.h5 "$dir"/m/*.h5 "$dir"/p/*.h5 "$dir"/bench/*.h5 "$dir"/bench/*.csv "$dir"/aa/*.h5 "$dir"/*.h5 "$dir/noise" "$dir/failed"
: > "$dir/noise"; : > "$dir/failed"
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
# NAME COMMAND...: notes the shares of the processors that a hypervisor and others took, and whether that disturbed it: by what a run
# says of its own serving, else more than 2 % and 5 %. Ranks behind the link are started by daemons, whose processor time is not ours
watched() {
    w_name=$1; shift
    times > "$dir/times.0" # not in a subshell, whose times are its own
    w_before=$(cpu_ticks) w_at=$(date +%s.%N)
    "$@" > "$dir/last.out" 2> "$dir/last.err"; rc=$?
    times > "$dir/times.1"
    echo "$w_name $w_at $(date +%s.%N) $w_before $(cpu_ticks) $(own_ticks "$dir/times.0") $(own_ticks "$dir/times.1")" |
        awk -v cpus="$cpus" -v hz="$(getconf CLK_TCK)" -v own="$(field disturbed)" '{ all = ($3 - $2) * cpus * hz
            other = $6 - $4 - ($9 - $8); if (other < 0 || $1 ~ /link/) other = 0
            steal = ($7 - $5) / all; other /= all
            disturbed = own != "" ? own == "true" : steal > .02 || other > .05
            printf "%s %.4f %.4f %d\n", $1, steal, other, disturbed }' >> "$dir/noise"
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
field() { tr -d ' ,"' < "$dir/last.out" | sed -n "s/^$1://p" | head -1; }
last_error() { sed -n 's/^orrery [a-z]*: //p' "$dir/last.err" | head -1 | tr -d '"\\' | cut -c 1-200; }

# ---- 1. the same again and again

say "A/A: $n_aa runs in two arms; $cpus processors, load average $(cut -d ' ' -f 1 /proc/loadavg)"
i=1
while [ $i -le $n_aa ]; do
    engine "aa.$i" "$dir/aa/$i.h5" llama-25m chat 1 1 1 thread || { say "the A/A run failed: $(last_error)"; exit 5; }
    field requests_per_s >> "$dir/aa.rates.$$"
    i=$((i + 1))
done
capacity_25m=$(sort -g "$dir/aa.rates.$$" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')
aa_scatter=$(awk '{ x = log($1); n++; s += x; q += x * x } END { printf "%.1f", 100 * sqrt((q - s * s / n) / (n - 1)) }' "$dir/aa.rates.$$")
rm -f "$dir/aa.rates.$$"
capacity_110m=
if rows | awk '$4 == "llama-110m" && $10 != "burst" { n++ } END { exit !n }'; then
    engine pilot.110m "$dir/aa/110m.h5" llama-110m chat 1 1 1 thread --workload.requests=16 --policy.max_batch_tokens=128tok && capacity_110m=$(field requests_per_s)
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
    if [ $(($2 * $3 * $4)) -gt $((2 * cpus)) ]; then
        echo "$(($2 * $3)) ranks of $4 thread are too many for $cpus processors"
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
    weights=f32 batch=256tok ctx=256tok # as long as `chat` becomes
    case $3 in llama-25m-?t-tp1pp1) ctx=512tok ;; esac
    case $3 in *int8*) weights=int8 batch=128tok ;; *110m*) batch=128tok ;; *link*) batch=64tok ;; esac # as the policies of the list
    case $4 in llama-25m) kv_cache=143MB ;; llama-110m) kv_cache=175MB ;; *) kv_cache=105MB ;; esac # what the loads need
    # shellcheck disable=SC2046
    watched "$1" $(ranks_are "$8" $(($6 * $7))) "$orrery" bench --suite=model --model="$4" --threads="$5" --strategy.tp="$6" \
        --strategy.pp="$7" --strategy.weights=$weights --strategy.kv=f32 --max_batch=$batch --max_ctx=$ctx --max_seqs=16 --kv_cache=$kv_cache \
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
        for try in 1 2; do # a disturbed one once more, at once
            # shellcheck disable=SC2046,SC2086
            engine "$name.$1" "$file" "$model" "$scenario" "$threads" "$tp" "$pp" "$how" $(rate_of "$model" "$load") $more ||
                { say "run $name: $(last_error)"; echo "run.$name $(last_error)" >> "$dir/failed"; break; }
            [ $try -eq 1 ] && tail -1 "$dir/noise" | grep -q ' 1$' || break
            mv "$file" "$dir/m/$name.${1}b.h5" # a repetition of its own: which ones are kept is seen at the end
            sed -i "\$ s/^$name.$1 /$name.${1}b /" "$dir/noise"
        done
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
while read -r name steal other disturbed; do
    case $name in bench.*) file=bench/${name#bench.} ;; *) file=m/$name ;; esac
    if [ -f "$dir/$file.h5" ]; then echo "${name%.*} $disturbed $steal $other $name $file"; fi
done < "$dir/noise" | awk '{ print $1, $2, $3 + $4, $5, $6 }' | sort -k 1,1 -k 2,2n -k 3,3g |
    awk '$1 != last { n = 0; last = $1 } ++n > 3 && $2 { print $4, $5 }' |
    while read -r name file; do mv "$dir/$file.h5" "$dir/disturbed/$name.h5"; done

# ---- 3. profiles, from benchmarks and declared runs only: of all repetitions, and of each by itself

calibrate() { # NAME ROUND|'*' KEY: the profile DIR/NAME.h5 from that round's benchmark and declared runs, or from all
    files=''
    for f in "$dir/bench/$3".$2.h5; do [ -f "$f" ] && files="$files $f"; done
    [ -n "$files" ] || return 1
    runs='' declared=''
    while read -r name use _ model _ threads tp pp how _ _ more <&3; do
        # the host's work between steps does not depend on the strategy: runs of TP1 tell it for all of the model; not behind the
        # link, whose ranks are hosts by themselves
        of=$(key_of "$model" "$threads" "$tp" "$pp" "$how" "$more")
        case $3 in "$of") ;; "${of%-tp1pp1}"-*) ;; *) continue ;; esac
        [ "$use" = cal ] || continue
        declared=yes
        for f in "$dir/m/$name".$2.h5 "$dir/m/$name.${2}b.h5"; do [ -f "$f" ] && runs="$runs $f"; done
    done 3< "$dir/rows"
    # a round whose declared run was left out would give another kind of profile
    if [ "$2" != '*' ] && [ -n "$declared" ] && [ -z "$runs" ]; then return 1; fi
    files="$files$runs"
    # shellcheck disable=SC2086
    "$orrery" calibrate $files --out="$dir/$1.h5" > "$dir/last.out" 2> "$dir/last.err"
}
for key in $(awk '!seen[$1]++ { print $1 }' "$dir/keyed.rows"); do
    calibrate "$key" '*' "$key"; rc=$?
    [ -n "$files" ] || continue
    if [ $rc -ne 0 ]; then
        say "calibrate $key: $(last_error)"
        echo "profile.$key $(last_error)" >> "$dir/failed"
    fi
    cp "$dir/last.out" "$dir/calibrate.$key.txt"
    i=1
    while [ $i -lt $round ]; do
        calibrate "again/$key.$i" $i "$key" # where it does not: fewer predictions again
        i=$((i + 1))
    done
done

# ---- 4. predictions, and the comparison

simulate() { # PROFILE NAME OPTIONS...: the configuration that was read last, to DIR/NAME.h5
    s_profile=$1 s_name=$2; shift 2
    "$orrery" simulate "scenarios/validate/$scenario.yaml" --model="$model" --hardware.name="$s_profile" --hardware.profile="$s_profile" \
        --strategy.tp="$tp" --strategy.pp="$pp" --out="$dir/$s_name.h5" "$@" > "$dir/last.out" 2> "$dir/last.err"
    [ $? -le 1 ] && [ -f "$dir/$s_name.h5" ]
}
manifest=$dir/manifest.yaml
{
    printf 'aa: {a: ['; i=1; while [ $i -le $n_aa ]; do printf '%saa/%d.h5' "$([ $i -gt 1 ] && echo ', ')" $i; i=$((i + 2)); done
    printf '], b: ['; i=2; while [ $i -le $n_aa ]; do printf '%saa/%d.h5' "$([ $i -gt 2 ] && echo ', ')" $i; i=$((i + 2)); done
    echo ']}'
    echo 'cases:'
} > "$manifest.cases"
while read -r name use _ model scenario threads tp pp how load group more <&3; do
    key=$(key_of "$model" "$threads" "$tp" "$pp" "$how" "$more")
    profile=$dir/$key.h5 why=$(absent "$how" "$tp" "$pp" "$threads") again=''
    if [ -n "$why" ]; then
        :
    elif [ ! -f "$profile" ]; then
        why="no profile: $(sed -n "s/^profile.$key //p; s/^bench.$key //p" "$dir/failed" | head -1)"
    else
        # shellcheck disable=SC2046,SC2086
        simulate "$profile" "p/$name" $(rate_of "$model" "$load") $more || why="simulate: $(last_error)"
        for f in "$dir/again/$key".*.h5; do
            [ -f "$f" ] || continue
            i=${f%.h5} i=${i##*.}
            # shellcheck disable=SC2046,SC2086
            simulate "$f" "again/p.$name.$i" $(rate_of "$model" "$load") $more && again="$again${again:+, }again/p.$name.$i.h5"
        done
        case $again in *,*) again=", again: [$again]" ;; *) again='' ;; esac # one says nothing of scatter
    fi
    runs=$(cd "$dir" && ls m/"$name".*.h5 2> /dev/null | tr '\n' ',' | sed 's/,$//; s/,/, /g')
    word=held-out; [ "$use" = cal ] && word=calibrated
    if [ -n "$why" ]; then
        echo "  - {name: $name, refused: \"$why\"${runs:+, measured: [$runs]}}"
    elif [ -n "$runs" ]; then
        echo "  - {name: $name, use: $word, group: $group, predicted: p/$name.h5$again, measured: [$runs]}"
    else
        echo "  - {name: $name, refused: \"it was not measured: $(sed -n "s/^run.$name //p" "$dir/failed" | head -1)\"}"
    fi >> "$manifest.cases"
done 3< "$dir/rows"

n_run=$(wc -l < "$dir/noise")
n_busy=$(awk '$4 { n++ } END { print n + 0 }' "$dir/noise")
cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)
ranks='threads (no mpirun)'
[ -n "$mpi" ] && ranks=MPI
{
    echo "Made by \`tests/validate.sh$([ $quick -eq 1 ] && echo ' --quick')${minutes:+ --minutes=$minutes}\` on $(date -u +%Y-%m-%d), revision" \
         "$("$orrery" version | head -1 | sed 's/.*revision //'); $cpu, $cpus processors," \
         "$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo), ranks over $ranks; $((round - 1)) rounds, $(spent) s."
    echo "Calibrated on the runs: $(awk '$2 == "cal" { printf "%s%s", n++ ? ", " : "", $1 }' "$dir/rows"). Of the other" \
         "configurations no run entered a prediction, but each (model, threads, strategy, link) has a benchmark of its own: operators," \
         "messages and whole steps inside an engine so divided, in batches and contexts as the loads', next to the runs."
    n_out=$(ls "$dir/disturbed" | wc -l)
    [ "$n_out" -gt 0 ] && echo "$n_out repetitions of runs and benchmarks were disturbed and are left out: they are in $dir/disturbed." \
        "Three of each are kept at least, the least disturbed."
    [ "$left_out" -gt 0 ] && echo "$left_out runs of later rounds did not fit into $limit_s s."
    noisy=
    [ "$n_busy" -gt $((n_run / 4)) ] && noisy="other work or a hypervisor disturbed many; "
    awk -v s="$aa_scatter" 'BEGIN { exit !(s > 5) }' && noisy="${noisy}equal runs differ by more than 5 %; "
    [ -n "$noisy" ] && printf 'NOISY MACHINE: %sthe figures below are those of a busy machine.\n' "$noisy"
    echo "Noise watch: the same run again and again scatters by $aa_scatter % (limit 5 %); $n_busy of $n_run runs and benchmarks were" \
        "disturbed. At most a hypervisor took $(awk '$2 > s { s = $2 } END { printf "%.0f", 100 * s }' "$dir/noise") % of the" \
        "processors (limit 2 %) and other work $(awk '$3 > o { o = $3 } END { printf "%.0f", 100 * o }' "$dir/noise") % (limit 5 %);" \
        "or they took a run's processors away for moments."
    [ -s "$dir/failed" ] && sed 's/^/Failed: /' "$dir/failed"
} > "$dir/head.txt"
{
    echo "title: predicted and measured on $cpu, $cpus processors"
    echo 'notes:'
    sed 's/[\\"]/\\&/g; s/.*/  - "&"/' "$dir/head.txt"
    cat "$manifest.cases"
} > "$manifest"
"$orrery" validate "$manifest" --out="$dir/table.md"; rc=$?
if [ $rc -eq 2 ] || [ $rc -ge 5 ]; then exit 5; fi
if [ -n "$html" ]; then
    "$orrery" validate "$manifest" --out="$html" > /dev/null || [ $? -le 3 ] || exit 5
fi
if [ -n "$out" ]; then
    { echo "# Predicted and measured: the bundled engine on this machine"; echo; cat "$dir/table.md"; } \
        > "$out.part" && mv "$out.part" "$out" || exit 5
fi
if [ -n "$out" ] && [ -n "$join" ]; then # as the last section of a larger document
    { sed '/^## Predicted and measured: the bundled engine/,$d' "$join" | awk 'NF { while (n-- > 0) print ""; n = 0; print; next } { n++ }'
        echo; sed 's/^#/##/' "$out"; } > "$join.part" &&
        mv "$join.part" "$join" || exit 5
fi
say "done; everything is in $dir"
exit $rc
