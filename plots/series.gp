# plots/series.gp - requests, KV memory, tokens and completions over time.
# Data: 1 begin of the bin, 2 running, 3 waiting, 4 KV blocks in use [%], 5 prompt tokens/s,
# 6 output tokens/s, 7 due/s, 8 done/s. SPDX-License-Identifier: Apache-2.0
fig_w = 840
fig_h = 880
load fig_common
high = 150
step = 188
left = 92; right = fig_w - 28
yt_px = 76
xt = ''
set xrange [0:x_end]
if (window_begin > 0) {
    set object 1 rectangle from graph 0, graph 0 to first window_begin, graph 1 behind \
        fc rgb PALE fillstyle solid noborder
}
if (window_end < x_end) {
    set object 2 rectangle from first window_end, graph 0 to graph 1, graph 1 behind \
        fc rgb PALE fillstyle solid noborder
}
set multiplot
set format x ''
top = 112; bottom = top + high; yt = 'requests'
set yrange [0:requests_top]
eval PANEL
eval key_line(1, right - 200, BLUE, '1', 0, 'running') . key_line(2, right - 95, VERMILION, SHORT_DASH, 0, 'waiting')
eval 'plot fig_data using 1:2 with steps lw 1.8 lc rgb BLUE, fig_data using 1:3 with steps lw 1.4 lc rgb VERMILION dt ' . SHORT_DASH
eval HEADLESS
top = top + step; bottom = top + high; yt = 'KV blocks in use [%]'
set yrange [0:kv_top]
eval PANEL
eval KEYLESS
plot fig_data using 1:4 with steps lw 1.8 lc rgb BLUE
top = top + step; bottom = top + high; yt = 'tokens/s'
set yrange [0:tokens_top]
eval PANEL
eval key_line(1, right - 200, ORANGE, '1', 0, 'prompt') . key_line(2, right - 95, BLUE, '1', 0, 'output')
plot fig_data using 1:5 with steps lw 1.2 lc rgb ORANGE, \
     fig_data using 1:6 with steps lw 1.8 lc rgb BLUE
set format x '%g'
top = top + step; bottom = top + high; yt = 'requests/s'
set yrange [0:rate_top]
xt = 'time from run start [' . x_unit . '], means over ' . bin
eval PANEL
eval key_line(1, right - 200, ORANGE, '1', 0, 'due') . key_line(2, right - 95, BLUE, '1', 0, 'done')
plot fig_data using 1:7 with steps lw 1.2 lc rgb ORANGE, \
     fig_data using 1:8 with steps lw 1.8 lc rgb BLUE
unset multiplot
