# plots/series.gp - requests, KV memory, tokens and completions over time.
# Data: 1 begin of the bin, 2 running, 3 waiting, 4 KV blocks in use [%], 5 prompt tokens/s,
# 6 output tokens/s, 7 due/s, 8 done/s. SPDX-License-Identifier: Apache-2.0
fig_w = 840
fig_h = 860
load fig_common
high = 150
gap = 38
set lmargin at screen rx(92)
set rmargin at screen rx(fig_w - 28)
set xrange [0:x_end]
set key at graph 1, 1.17 right center horizontal Right samplen 2.5 font small
set yrange [0:*]
if (window_begin > 0) {
    set object 1 rectangle from graph 0, graph 0 to first window_begin, graph 1 behind \
        fc rgb PALE fillstyle solid noborder
}
if (window_end < x_end) {
    set object 2 rectangle from first window_end, graph 0 to graph 1, graph 1 behind \
        fc rgb PALE fillstyle solid noborder
}
top(i) = px(108 + i * (high + gap))
bottom(i) = px(108 + i * (high + gap) + high)
set multiplot
set format x ''
set tmargin at screen top(0); set bmargin at screen bottom(0)
set ylabel 'requests'
plot fig_data using 1:2 with steps lw 1.8 lc rgb BLUE title 'running', \
     fig_data using 1:3 with steps lw 1.8 dt 2 lc rgb VERMILION title 'waiting'
unset label 1001; unset label 1002; unset label 1003
set tmargin at screen top(1); set bmargin at screen bottom(1)
set ylabel 'KV blocks in use [%]'
plot fig_data using 1:4 with steps lw 1.8 lc rgb BLUE
set tmargin at screen top(2); set bmargin at screen bottom(2)
set ylabel 'tokens/s'
plot fig_data using 1:6 with steps lw 1.8 lc rgb BLUE title 'output', \
     fig_data using 1:5 with steps lw 1.4 dt 2 lc rgb ORANGE title 'prompt'
set format x '%g'
set xlabel 'time from run start [' . x_unit . '], means over ' . bin
set tmargin at screen top(3); set bmargin at screen bottom(3)
set ylabel 'requests/s'
plot fig_data using 1:8 with steps lw 1.8 lc rgb BLUE title 'done', \
     fig_data using 1:7 with steps lw 1.4 dt 2 lc rgb ORANGE title 'due'
unset multiplot
