# plots/validate_residual.gp - time of a step by operator class, predicted minus measured, of every
# configuration. Data: row, name, then one column per class [% of the measured step].
# SPDX-License-Identifier: Apache-2.0
fig_w = 900
row_px = n_row <= 12 ? 34 : n_row <= 30 ? 22 : 15
top = 122
fig_h = top + row_px * (n_row < 5 ? 5 : n_row) + 66
bottom = fig_h - 66
load fig_common
left = 232; right = 872
xt = 'predicted minus measured [% of the measured step]'; yt = ''
eval PANEL
array FILL[3] = [BLUE, ORANGE, GREEN]
eval key_box(1, left, BLUE, 'solid 1', 'compute') . key_box(2, left + 110, ORANGE, 'solid 1', 'communication') . \
    key_box(3, left + 260, GREEN, 'solid 1', 'host')
unset grid
set grid xtics back ls 100
set style fill solid 1 border rgb '#333333'
set yrange [n_row - 0.4:-0.6]
set ytics scale 0 font small
set arrow 1 from 0, graph 0 to 0, graph 1 nohead lc rgb BLACK lw 1.2 front
set xrange [x_lo:x_hi]
plot for [k = 1:3] fig_data using (0):1:(0):(column(k + 2)):($1 - 0.36 + 0.24 * (k - 1)):($1 - 0.14 + 0.24 * (k - 1)):ytic(2) \
    with boxxyerror lw 0.6 fc rgb FILL[k]
