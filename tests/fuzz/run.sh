#!/bin/sh
# tests/fuzz/run.sh - runs fuzz targets, one after the other, for a few seconds each.
#
#     sh tests/fuzz/run.sh BUILD SECONDS TARGET...
# Starts from tests/fuzz/corpus/TARGET; what is new goes to BUILD/corpus/TARGET, what fails to
# BUILD/fuzz/TARGET-crash-... SPDX-License-Identifier: Apache-2.0
set -u
build=$1 seconds=$2
shift 2
bad=0
for t; do
    new=$build/corpus/$t log=$build/fuzz/$t.log
    mkdir -p "$new" "tests/fuzz/corpus/$t"
    if "$build/fuzz/$t" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -detect_leaks=1 \
        -artifact_prefix="$build/fuzz/$t-" -print_final_stats=1 "$new" "tests/fuzz/corpus/$t" >"$log" 2>&1; then
        echo "fuzz $t: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
    else
        tail -n 60 "$log"
        echo "fuzz $t: FAILED, see $log"
        bad=1
    fi
done
exit $bad
