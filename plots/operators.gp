# plots/operators.gp - step time by operator class, and how busy the stages are.
# Data: block 0 (row, class, share [%]), block 1 (stage, busy [%], bubble [%]).
# SPDX-License-Identifier: Apache-2.0
fig_w = 900
rows = n_class > 2 * n_stage ? n_class : 2 * n_stage
row_px = rows <= 8 ? 38 : rows <= 16 ? 28 : rows <= 40 ? 16 : 9
top = 122
fig_h = top + row_px * (rows < 6 ? 6 : rows) + 66
bottom = fig_h - 66
load fig_common
set multiplot
set ytics scale 0
unset grid
set grid xtics back ls 100
set style fill solid 1 border rgb '#333333'

left = 112; right = 452
xt = 'share of step time [%]'; yt = ''
eval PANEL
set xrange [0:112]
set xtics 0, 20, 100
set yrange [n_class - 0.4:-0.6]
plot fig_data index 0 using (0):1:(0):3:($1 - 0.3):($1 + 0.3):ytic(2) with boxxyerror lw 0.8 fc rgb BLUE, \
     fig_data index 0 using 3:1:(sprintf('%.1f', $3)) with labels left offset character 0.5, 0 font small
eval HEADLESS

left = 552; right = 872
xt = 'share of the window [%]'; yt = 'pipeline stage'
yt_px = 44
eval PANEL
eval key_box(1, left, BLUE, 'solid 1', 'busy') . key_box(2, left + 85, '#444444', 'pattern 4', 'bubble: idle with work')
set yrange [(n_stage < 3 ? 3 : n_stage) - 0.4:-0.6]
unset ytics
if (n_stage <= 16) { set ytics 0, 1, n_stage - 1 scale 0 nomirror font middle } else { set ytics 0, 8, n_stage - 1 scale 0 nomirror font middle }
set format y '%.0f'
plot fig_data index 1 using (0):1:(0):2:($1 - 0.38):($1 - 0.02) with boxxyerror lw 0.8 fc rgb BLUE, \
     fig_data index 1 using (0):1:(0):3:($1 + 0.02):($1 + 0.38) with boxxyerror lw 0.8 fc rgb '#444444' \
        fillstyle pattern 4, \
     fig_data index 1 using 2:($1 - 0.2):(n_stage <= 16 ? sprintf('%.0f', $2) : '') with labels left \
        offset character 0.5, 0 font small, \
     fig_data index 1 using 3:($1 + 0.2):(n_stage <= 16 ? sprintf('%.0f', $3) : '') with labels left \
        offset character 0.5, 0 font small
unset multiplot
