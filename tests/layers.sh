#!/bin/sh
# tests/layers.sh: prints every include that breaks the layering; silence is good.
# The rule: base <- model <- traces <- engine (pure part) <- sim; each may include what stands to its left.
pure="engine/sched engine/kvpool. engine/kvmap. engine/batch.h engine/router."
for f in */*.c */*.h */*.cu; do
  [ -f "$f" ] || continue
  case $f in
    base/*)   ok="base/" ;;
    model/*)  ok="model/ base/" ;;
    traces/*) ok="traces/ model/ base/" ;;
    engine/sched*|engine/kvpool.*|engine/kvmap.*|engine/router.*|engine/batch.h) ok="$pure traces/ model/ base/" ;;
    engine/*) ok="engine/ base/ model/arch.h traces/run.h" ;;
    sim/*)    ok="sim/ $pure traces/ model/ base/" ;;
    bench/*)  ok="bench/ plots/ engine/ sim/ traces/ model/ base/" ;;
    plots/*)  ok="plots/ traces/ base/" ;;
    *) continue ;;
  esac
  sed -n 's|^ *# *include "\([^"]*\)".*|\1|p' "$f" | while read -r p; do
    for o in $ok; do case $p in "$o"*) continue 2 ;; esac; done
    echo "$f includes $p"
  done
done
