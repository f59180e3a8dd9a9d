#!/bin/sh
# tests/check.sh - static checks: layering, formatting, clang-tidy, shell scripts.
#
#     sh tests/check.sh [COMPILER FLAG...]
# Runs all, says what it found, exits 1 if anything. Silence after a heading is good.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

judge() { # NAME: what the check of that name left in the log is a finding
    [ -s "$log" ] || return 0
    cat "$log"
    echo "check: $1 has findings" >&2
    bad=1
}

echo "layers"
sh tests/layers.sh >"$log"
judge layers

echo "clang-format"
for f in main.c */*.[ch] */*.cu tests/fuzz/*.[ch]; do
    [ -f "$f" ] && { clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || echo "$f"; }
done >"$log"
[ -s "$log" ] && echo "$(wc -l <"$log") files are not as .clang-format has them:" && judge clang-format

# NVIDIA's headers are there or not
toolkit() { printf '#include <cuda_runtime_api.h>\n' | clang -E "$@" - >/dev/null 2>&1; }
needs_toolkit() { grep -q '<cuda_runtime_api.h>\|"engine/backend_cuda.h"' "$1"; }

echo "clang-tidy"
toolkit "$@" && there=1 || there=0
for f in main.c base/*.c model/*.c traces/*.c engine/*.c sim/*.c bench/*.c plots/*.c; do
    [ -f "$f" ] || continue
    [ $there = 0 ] && needs_toolkit "$f" && continue
    echo "$f"
done | xargs -P "$(nproc)" -I{} clang-tidy --quiet {} -- "$@" 2>/dev/null >"$log"
judge clang-tidy

echo "shell scripts"
if command -v shellcheck >/dev/null; then shellcheck -S warning .ci/*.sh .ci/run tests/*.sh tests/fuzz/*.sh >"$log"
else for f in .ci/*.sh .ci/run tests/*.sh tests/fuzz/*.sh; do sh -n "$f"; done 2>"$log"; fi
judge "shell scripts"
exit $bad
