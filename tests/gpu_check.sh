#!/bin/sh
# tests/gpu_check.sh [--rehearse]: checks and measures the engine on this machine's NVIDIA GPU, unattended, in 9 minutes at most.
#
# Parts: build, device, kernels against f64, logits against the CPU, two ranks, compute-sanitizer, microbenchmarks, calibration,
# validation. What the machine lacks is skipped and counted, with the reason; each part has a time of its own, and what would not
# end in time is ended. Files go to $OUT (./gpu-out); the table comes last, its last line is "N passed, N failed, N skipped".
# KEEP=1 copies the profile to scenarios/hardware; PREBUILT=1 takes what is in $B (build/gpu) as it is: of `make gpu-bundle`, where
# the machine has no headers or libraries to build with. Without a GPU nothing is built. Exit status: 0, 1 when a check failed.
# --rehearse: the same on the processors, with small models: it tries this script and says nothing about a GPU.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/.." || exit 1
rehearse=0 device=cuda
case ${1:-} in
'') ;;
--rehearse) rehearse=1 device=cpu ;;
*) echo "gpu_check.sh: no option '$1'" >&2; exit 2 ;;
esac
out=${OUT:-./gpu-out} limit_s=${GPU_CHECK_LIMIT_S:-525}
t0=$(date +%s)
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
: > "$out/checks.txt"; : > "$out/figures.txt"
rm -f "$out"/bench.h5* "$out/profile.h5" "$out"/[mp].*.h5 # of an earlier check: they would pass for this one's
B=${B:-build/gpu}
parts="build device kernels logits ranks sanitizer microbenchmarks calibration validation"

exec 3>&1 4>&2
spent() { echo $(($(date +%s) - t0)); }
left() { echo $((limit_s - $(spent))); }
say() { echo "[$(spent) s] $*"; }
check() { # passed|failed|skipped PART WHAT
    c_verdict=$1 c_part=$2; shift 2
    echo "$c_verdict $c_part $*" >> "$out/checks.txt"
    echo "  $c_verdict: $c_part: $*"
}
count() { grep -c "^$1 " "$out/checks.txt"; }
finish() { # the table, last
    trap - INT TERM
    exec >&3 2>&4 # a signal may have come while a command's output went to a file
    [ -n "${watchdog:-}" ] && kill "$watchdog" 2> /dev/null
    [ -n "${w_pid:-}" ] && kill "$w_pid" 2> /dev/null # timeout ends its command with it
    [ -n "${dmon:-}" ] && kill "$dmon" 2> /dev/null
    echo
    [ $rehearse -eq 1 ] && echo "REHEARSAL on the processors: no figure here is a GPU's."
    echo "checks"
    sed 's/^/  /' "$out/checks.txt"
    echo "figures (median of the runs; each beside the ceiling measured with it)"
    if [ -s "$out/figures.txt" ]; then sed 's/^figure /  /' "$out/figures.txt"; else echo "  not measured"; fi
    echo "met $(grep -c ': met$' "$out/figures.txt"), missed $(grep -c ': missed$' "$out/figures.txt")," \
        "not measured $(grep -c ': not measured$' "$out/figures.txt"); $(spent) s; files in $out"
    echo "$(count passed) passed, $(count failed) failed, $(count skipped) skipped"
    [ "$(count failed)" -eq 0 ] && exit 0
    exit 1
}
skip_rest() { # WHY: all parts without a check yet
    for p in $parts; do grep -q "^[a-z]* $p " "$out/checks.txt" || check skipped "$p" "$*"; done
    finish
}
trap 'check failed all "interrupted, or out of time"; skip_rest "not reached"' INT TERM

# A command's end, at most S seconds from now and never past the limit. 124: it was ended. Waited for from beside: a shell tends to
# signals during a wait, not during a command, which may hang in the driver where no signal ends it.
within() { # S COMMAND...
    w_s=$1; shift
    [ "$(left)" -lt "$w_s" ] && w_s=$(left)
    [ "$w_s" -lt 1 ] && return 124
    timeout -k 5 "$w_s" "$@" 3>&- 4>&- & # else one that does not end would hold this script's output open
    w_pid=$!
    wait $w_pid; w_rc=$?
    w_pid=
    return $w_rc
}
enough() { # PART S: whether so much time is left; else the part is skipped
    [ "$(left)" -ge "$2" ] && return 0
    check skipped "$1" "$(left) s are left, it takes $2"
    return 1
}
reason() { # FILE: its last sentence
    sed -n 's/^orrery[ a-z]*: //p' "$1" | tail -1 | cut -c 1-300 | grep . || tail -1 "$1" | cut -c 1-300
}

# ---- is there a GPU: what the kernel shows, not what a program says

smi() { timeout 5 nvidia-smi "$@" 2> /dev/null; }
if [ $rehearse -eq 0 ] && [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then
    if smi -L | grep -q '^GPU '; then
        why="nvidia-smi lists a GPU, but the kernel has no device of its driver (/dev/nvidiactl): no NVIDIA GPU can be used here"
    else
        why="no NVIDIA GPU here: the kernel has no device of its driver (/dev/nvidiactl)"
    fi
    echo "$why"
    for p in $parts; do echo "skipped $p $why" >> "$out/checks.txt"; done
    echo "0 passed, 0 failed, $(count skipped) skipped"
    exit 0
fi
(
    trap 'kill $!; exit' TERM # the sleep too
    sleep $((limit_s + 8)) 3>&- 4>&- &
    wait $!
    kill -TERM $$
    sleep 5 3>&- 4>&- & # a command that hangs in the driver ends by no signal, nor does a shell that has it in the foreground
    wait $!
    check failed all "out of time, in a command that no signal ends"
    (skip_rest "not reached")
    kill -KILL $$
) > /dev/null 2>&1 &
watchdog=$!

# ---- CUDA's libraries that Python packages brought (nvidia/*/lib), where the machine has them nowhere else

found() { # LIBRARY: whether a program finds it
    ldconfig -p 2> /dev/null | grep -q "[[:space:]]$1" && return 0
    for f_dir in $(echo "${LD_LIBRARY_PATH:-}" | tr ':' ' ') "${CUDA_HOME:-/usr/local/cuda}/lib64" /usr/local/cuda/lib64; do
        ls "$f_dir/$1"* > /dev/null 2>&1 && return 0
    done
    return 1
}
python_libs() { # the folders, joined by ':'
    for l_py in python3 python; do
        command -v $l_py > /dev/null 2>&1 || continue
        timeout 20 $l_py -c 'import glob, os, site, sys
at = list(sys.path) + site.getsitepackages() + [site.getusersitepackages()]
print(":".join(sorted({d for p in at if p for d in glob.glob(os.path.join(p, "nvidia", "*", "lib"))})))' 2> /dev/null && return
    done
}

say "build"
nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2> /dev/null)
cuda=1
[ $rehearse -eq 1 ] && cuda=0
if [ $cuda -eq 1 ] && [ -z "$nvcc" ] && [ "${PREBUILT:-0}" != 1 ]; then skip_rest "no nvcc on this machine: the GPU's code cannot be compiled"; fi
cc=$(smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d ' .')
major=$([ -n "$nvcc" ] && "$nvcc" --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
if [ $cuda -eq 1 ] && ! { found "libcublasLt.so${major:+.$major}" && found libnccl.so.2; }; then
    libs=$(python_libs)
    [ -n "$libs" ] && LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libs" && export LD_LIBRARY_PATH && echo "  libraries of Python packages: $libs"
fi
arch=
case $cc in
90) arch=90a ;;
[0-9]*) "$nvcc" --list-gpu-code 2> /dev/null | grep -q "sm_$cc\$" && arch=$cc ;;
esac
# shellcheck disable=SC2086 # none or one word
if [ "${PREBUILT:-0}" = 1 ]; then
    if within 10 "$B/orrery" version > /dev/null 2>&1 && [ -x "$B/tests/run" ]; then check skipped build "PREBUILT=1: $B as it is"
    else check failed build "PREBUILT=1, but $B/orrery or $B/tests/run does not run here"; skip_rest "nothing to run"; fi
elif within 300 make --no-print-directory -j"$(nproc)" CUDA=$cuda ${arch:+CUDA_ARCH=$arch} B="$B" "$B/orrery" "$B/tests/run" > "$out/build.txt" 2>&1; then
    check passed build "$(spent) s${arch:+, for sm_$arch}: $(timeout 10 "$B/orrery" version 2> /dev/null | tr '\n' ' ' | cut -c 1-120)"
else
    why=$(grep -i -m 1 'error\|not installed' "$out/build.txt" || tail -1 "$out/build.txt")
    case $why in *"not installed"*) why="$why; or, elsewhere, make gpu-bundle CUDA_ARCH=${arch:-...}, and here PREBUILT=1 B=its folder" ;; esac
    check failed build "$why"
    skip_rest "nothing was built"
fi
orrery=$PWD/$B/orrery
case $B in /*) orrery=$B/orrery ;; esac

# ---- the device

say "device"
{
    smi; smi -q -d CLOCK,POWER,TEMPERATURE,MEMORY,ECC; smi topo -m
    echo; cat /proc/driver/nvidia/version 2> /dev/null
    [ -n "$nvcc" ] && "$nvcc" --version
    timeout 10 "$orrery" version
} > "$out/device.txt" 2>&1
# A client that stays: without one, and without NVIDIA's persistence daemon, the driver takes the device down when a program ends and
# up again, for seconds, when the next one begins; there are a hundred.
dmon=
if [ $rehearse -eq 0 ] && [ -n "$(smi -L)" ]; then
    nvidia-smi dmon -d 5 -s pucm > "$out/dmon.txt" 2>&1 3>&- 4>&- &
    dmon=$!
fi
weights=bf16
case $cc in 7?) weights=f16 ;; esac
small="--strategy.weights=$weights --strategy.kv=$weights --model=llama-25m --max_batch=64tok --max_ctx=256tok --max_seqs=4"
# shellcheck disable=SC2086
if within 60 "$orrery" bench --device=$device --suite=model $small --kv_cache=64MB --dry_run > "$out/points.csv" 2> "$out/last.err"; then
    check passed device "$(smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader | tr '\n' ';')"
else
    check failed device "$(reason "$out/last.err")"
    skip_rest "the GPU cannot be used"
fi
memory=$(smi --query-gpu=memory.total --format=csv,noheader,nounits | head -1)
[ $rehearse -eq 1 ] && memory=0
memory=${memory:-0}
gpus=$(smi -L | grep -c '^GPU ')
share=
[ "$gpus" -lt 2 ] && share=--share_device=yes
host=--exchange=host
[ $rehearse -eq 1 ] && share= && host=

# ---- kernels: the tests that run on the CPU's image of a GPU, on the GPU itself

say "kernels"
tests_of() { # PART S FILES...: their counts
    t_part=$1 t_s=$2; shift 2
    ORRERY_TEST_GPU=$device ORRERY_BIN=$orrery within "$t_s" "$B/tests/run" "$@" > "$out/$t_part.txt" 2>&1
    t_rc=$?
    t_last=$(grep ' passed, ' "$out/$t_part.txt" | tail -1)
    if [ $t_rc -eq 0 ] && [ -n "$t_last" ]; then check passed "$t_part" "$t_last"
    elif [ $t_rc -ge 124 ]; then check failed "$t_part" "not done after $t_s s"
    else check failed "$t_part" "${t_last:-no result}: $(sed -n 's/^FAILED *\([^ ]*\).*/\1/p' "$out/$t_part.txt" | tr '\n' ' ')"; fi
}
if enough kernels 20; then tests_of kernels 170 test_cuda.c test_gpu_kern.c test_gpu_attn.c test_backend_gpu.c; fi

# ---- logits of the engine, on the device and on the processors

generate() { # TO DEVICE MODEL OPTIONS...
    g_to=$1 g_device=$2 g_model=$3; shift 3
    within 60 "$orrery" engine generate --device="$g_device" --model="$g_model" --tokens=1,5,9,2,7,11,3,8,4 --max-new=8 \
        --json --logits=yes "$@" > "$out/$g_to.json" 2> "$out/last.err"
}
# Largest difference over the largest value, of all tokens' logits where the tokens are the same, else of the first's.
compare() { # A B: prints it, and whether the tokens are equal
    awk 'function rows(file, tok, x,    line, at, n, row) {
            while ((getline line < file) > 0) {
                if (line ~ /"tokens": \[/) at = 1
                else if (line ~ /"logits": \[/) at = 2
                else if (at == 2 && line ~ /^ *\[/) { row++; n = 0 }
                else if (at && line ~ /^ *-?[0-9]/) { gsub(/[ ,]/, "", line)
                    if (at == 1) tok[++tok[0]] = line
                    else x[row, ++n] = line + 0 }
                else if (line ~ /^  \]/) at = 0
            }
            return n }
        BEGIN { n = rows(ARGV[1], ta, a); m = rows(ARGV[2], tb, b)
            if (!n || n != m) { print "nan no"; exit }
            for (i = 1; i <= ta[0]; i++) { if (ta[i] != tb[i]) break }
            last = i > ta[0] ? ta[0] : i
            for (r = 1; r <= last; r++) for (i = 1; i <= n; i++) {
                d = a[r, i] - b[r, i]; if (d < 0) d = -d; v = a[r, i] < 0 ? -a[r, i] : a[r, i]
                if (d > off) off = d
                if (v > top) top = v }
            printf "%.3g %s\n", off / (top + 1e-30), last == ta[0] ? "yes" : "no" }' "$out/$1.json" "$out/$2.json"
}
alike() { # PART NAME LIMIT MODEL "OPTIONS OF BOTH" "OPTIONS OF THE DEVICE"
    a_name=$2
    # shellcheck disable=SC2086
    if ! generate "$a_name.cpu" cpu "$4" $5; then check skipped "$1" "$a_name: on the processors: $(reason "$out/last.err")"; return; fi
    # shellcheck disable=SC2086
    if ! generate "$a_name.dev" $device "$4" $5 $6; then
        case $(reason "$out/last.err") in
        *head*|*"compute capability"*|*NCCL*installed*|*libnccl*) check skipped "$1" "$a_name: $(reason "$out/last.err")" ;;
        *) check failed "$1" "$a_name: $(reason "$out/last.err")" ;;
        esac
        return
    fi
    a_off=$(compare "$a_name.cpu" "$a_name.dev")
    rm -f "$out/$a_name.cpu.json" "$out/$a_name.dev.json"
    if echo "$a_off $3" | awk '{ exit !($1 == $1 + 0 && $1 <= $3) }'; then
        check passed "$1" "$a_name: off by ${a_off% *} of the largest logit, limit $3; the same tokens: ${a_off#* }"
    else check failed "$1" "$a_name: off by ${a_off% *} of the largest logit, limit $3"; fi
}
say "logits"
f32="--weights=f32 --kv_dtype=f32" bf16="--weights=bf16 --kv_dtype=bf16"
if enough logits 15; then
    for c in tests/golden/engine/*/; do alike logits "$(basename "$c")" 0.002 "${c%/}" "$f32" ""; done
    alike logits llama-25m-f32 0.002 llama-25m "--random-weights=1 $f32" ""
    alike logits llama-110m-f32 0.002 llama-110m "--random-weights=1 $f32" ""
    alike logits llama-110m-bf16 0.05 llama-110m "--random-weights=1 $bf16" ""
fi

# ---- two ranks: a GPU each, or one together; through the host, and over NCCL

say "ranks"
mpi=
mpirun=$(command -v "$B/bin/mpirun" || command -v mpirun)
if [ -n "$mpirun" ]; then
    mpi="$mpirun --oversubscribe --bind-to none -n 2"
    [ "$(id -u)" -eq 0 ] && mpi="$mpi --allow-run-as-root"
fi
if enough ranks 20; then
    for d in "--tp=2" "--pp=2"; do
        alike ranks "llama-25m${d#-}-host" 0.002 llama-25m "--random-weights=1 $f32" "$d $share $host"
        if [ $rehearse -eq 0 ] && [ "$gpus" -ge 2 ]; then
            alike ranks "llama-25m${d#-}-nccl" 0.002 llama-25m "--random-weights=1 $f32" "$d --exchange=nccl"
        elif [ $rehearse -eq 0 ] && [ -n "$mpi" ]; then # processes: threads that share a GPU need NCCL to be told early
            single=$orrery
            printf '#!/bin/sh\ncase " $* " in *" --device=cuda "*) exec %s %s "$@" ;; *) exec %s "$@" ;; esac\n' "$mpi" "$single" "$single" > "$out/two"
            chmod +x "$out/two"; orrery=$out/two
            alike ranks "llama-25m${d#-}-nccl-shared" 0.002 llama-25m "--random-weights=1 $f32" "$d $share --exchange=nccl"
            orrery=$single; rm -f "$out/two"
        elif [ $rehearse -eq 0 ]; then
            check skipped ranks "llama-25m${d#-}-nccl: one GPU and no mpirun for two processes on it"
        fi
    done
fi

# ---- compute-sanitizer

say "sanitizer"
san=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" 2> /dev/null)
if [ $rehearse -eq 1 ] || [ -z "$san" ]; then check skipped sanitizer "no compute-sanitizer on this machine"
else
    n_san=0
    for t in test_gpu_kern.c "gpu_attn_decode_of_bf16 gpu_attn_prefill_of_bf16"; do
        enough sanitizer 30 || break
        n_san=$((n_san + 1))
        # shellcheck disable=SC2086
        ORRERY_TEST_GPU=cuda within 50 "$san" --tool memcheck --target-processes all --error-exitcode 9 "$B/tests/run" $t \
            > "$out/sanitizer$n_san.txt" 2>&1
        rc=$?
        if [ $rc -eq 0 ]; then check passed sanitizer "memcheck of $t: $(grep ' passed, ' "$out/sanitizer$n_san.txt" | tail -1)"
        elif [ $rc -ge 124 ]; then check skipped sanitizer "memcheck of $t: not done after 50 s"
        elif grep -q 'Device not supported' "$out/sanitizer$n_san.txt"; then
            check skipped sanitizer "compute-sanitizer does not support this device here"; break
        else check failed sanitizer "$(grep -m 1 'ERROR SUMMARY\|Invalid\|=========' "$out/sanitizer$n_san.txt")"; fi
    done
fi

# ---- microbenchmarks of the largest model that the other parts need

models="llama-3.2-1b"
main=llama-3.2-1b size="--max_batch=2048tok --max_ctx=8192tok --max_seqs=64 --kv_cache=1GB" scenario=gpu requests=64
[ "$memory" -ge 22000 ] && { models="$models llama-3-8b"; main=llama-3-8b; size="--max_batch=2048tok --max_ctx=8192tok --max_seqs=64 --kv_cache=3GB"; }
[ "$memory" -ge 79000 ] && models="$models qwen2.5-32b"
if [ $rehearse -eq 1 ]; then
    models="llama-25m" main=llama-25m scenario=chat weights=f32 requests=10
    size="--max_batch=64tok --max_ctx=256tok --max_seqs=16 --kv_cache=64MB"
fi
say "microbenchmarks of $main"
suite=full storage=--storage=$out
[ $rehearse -eq 1 ] && suite=model storage= # which measures none, and refuses the option
bench=$out/bench.h5
benchmarks() { # S OPTIONS...
    b_s=$1; shift
    # shellcheck disable=SC2086
    within "$b_s" "$orrery" bench --device=$device --suite=$suite --model=$main $size --strategy.weights=$weights --strategy.kv=$weights \
        ${share:+$share --exchange=host} --run_time=10ms ${storage:+"$storage"} --out="$bench" "$@" > "$out/bench.txt" 2> "$out/bench.err"
    rc=$?
}
if enough microbenchmarks 40; then
    benchmarks 150 --runs=2
    # the first round may be whole: one run is what the model needs, two tell its noise
    if [ ! -f "$bench" ] && [ -f "$bench.journal.csv" ]; then benchmarks 30 --runs=1 --resume; fi
    grep '^figure ' "$out/bench.txt" > "$out/figures.txt"
    if [ $rc -eq 0 ]; then check passed microbenchmarks "$(grep ' samples of ' "$out/bench.txt" | cut -c 1-100)"
    elif [ $rc -eq 4 ]; then check failed microbenchmarks "$(reason "$out/bench.err")"
    else check failed microbenchmarks "status $rc: $(reason "$out/bench.err")"; fi
fi

# ---- calibration: from the benchmarks and one measured run

engine() { # TO MODEL OPTIONS...: 90 s, of a large model 180 s
    e_to=$1 e_model=$2 e_s=90; shift 2
    case $e_model in *32b) e_s=180 ;; esac
    within $e_s "$orrery" engine run "scenarios/validate/$scenario.yaml" --device=$device --model="$e_model" --random_weights=1 \
        --strategy.weights=$weights --strategy.kv=$weights --workload.requests=$requests --json --out="$out/m.$e_to.h5" "$@" \
        > "$out/last.out" 2> "$out/last.err"
    rc=$?
    [ $rc -le 1 ] && [ -f "$out/m.$e_to.h5" ]
}
field() { tr -d ' ,"' < "$out/last.out" | sed -n "s/^$1://p" | head -1; }
blocks() { case $1 in *32b) echo --policy.kv_blocks=1024 ;; esac; }
say "calibration"
profile='' name=$(smi --query-gpu=name --format=csv,noheader | head -1 | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
if [ -f "$bench" ] && enough calibration 30; then
    runs=
    if engine $main.cal $main; then runs=$out/m.$main.cal.h5; else echo "the run for host times: $(reason "$out/last.err")"; fi
    # shellcheck disable=SC2086
    if within 60 "$orrery" calibrate "$bench" $runs --out="$out/profile.h5" > "$out/calibrate.txt" 2> "$out/last.err"; then
        profile=$out/profile.h5
        check passed calibration "$(grep -c 'law\|table' "$out/calibrate.txt") lines in calibrate.txt"
    else check failed calibration "$(reason "$out/last.err")"; fi
elif ! grep -q ' calibration ' "$out/checks.txt"; then check skipped calibration "no benchmarks"; fi

# ---- validation: offline and open loop, each model with random weights

say "validation"
cases=
predict() { # NAME MODEL OPTIONS...
    p_name=$1 p_model=$2; shift 2
    within 60 "$orrery" simulate "scenarios/validate/$scenario.yaml" --model="$p_model" --hardware.name="$profile" \
        --hardware.profile="$profile" --strategy.weights=$weights --strategy.kv=$weights --workload.requests=$requests \
        --out="$out/p.$p_name.h5" "$@" > "$out/last.out" 2> "$out/last.err"
    [ -f "$out/p.$p_name.h5" ]
}
validate_one() { # NAME MODEL OPTIONS...: measured and predicted, a case of the manifest
    v_name=$1 v_model=$2; shift 2
    # shellcheck disable=SC2046
    if ! engine "$v_name" "$v_model" $(blocks "$v_model") "$@"; then
        [ $rc -ge 124 ] && check skipped validation "$v_name: not done in its time" && return 1
        check failed validation "$v_name: the engine: $(reason "$out/last.err")"; return 1
    fi
    rate=$(field requests_per_s)
    # shellcheck disable=SC2046
    if ! predict "$v_name" "$v_model" $(blocks "$v_model") "$@"; then
        check failed validation "$v_name: the simulator: $(reason "$out/last.err")"; return 1
    fi
    cases="$cases
  - {name: $v_name, use: held-out, group: $v_name, predicted: p.$v_name.h5, measured: [m.$v_name.h5]}"
}
if [ -z "$profile" ]; then check skipped validation "no profile"
else
    n_aa=0
    while [ $n_aa -lt 4 ] && [ "$(left)" -gt 40 ]; do
        engine "aa$n_aa" "${models%% *}" && n_aa=$((n_aa + 1)) || break
    done
    for m in $models; do
        need=25
        case $m in *32b) need=70 ;; esac
        enough validation $need || continue
        rate='' began=$(spent)
        validate_one "$m-offline" "$m" || continue
        took=$(($(spent) - began))
        if [ -n "$rate" ] && [ "$(left)" -gt $((2 * took + 20)) ]; then # the same again, at less than the rate
            validate_one "$m-60" "$m" --workload.arrivals=poisson --workload.rate="$(awk -v r="$rate" 'BEGIN { printf "%.4f", 0.6 * r }')/s"
        fi
    done
    if [ $n_aa -lt 2 ]; then aa=; else aa="aa: {a: [m.aa0.h5$([ $n_aa -gt 2 ] && echo ', m.aa2.h5')], b: [m.aa1.h5$([ $n_aa -gt 3 ] && echo ', m.aa3.h5')]}"; fi
    if [ -n "$cases" ]; then
        printf 'title: predicted and measured, %s\n%s\ncases:%s\n' "${name:-rehearsal}" "$aa" "$cases" > "$out/manifest.yaml"
        within 60 "$orrery" validate "$out/manifest.yaml" > "$out/validation.txt" 2> "$out/last.err"
        case $? in
        0) check passed validation "accurate; validation.txt" ;;
        1) check failed validation "outside its bars; validation.txt" ;;
        3) check skipped validation "inconclusive: the machine was too noisy to tell; validation.txt" ;;
        *) check failed validation "$(reason "$out/last.err")" ;;
        esac
        sed -n 1,40p "$out/validation.txt"
    fi
fi

if [ "${KEEP:-0}" = 1 ] && [ $rehearse -eq 0 ] && [ -n "$profile" ] && [ -n "$name" ]; then
    cp "$profile" "scenarios/hardware/$name.profile.h5" && echo "kept: scenarios/hardware/$name.profile.h5"
fi
[ "$(left)" -lt 1 ] && say "out of time"
finish
