# plots/validate_residual.gp - time of a step by operator class, predicted minus measured, of every
# configuration. Data: row, name, then GEMM, attention, other, communication, host, and compute in place
# of the first three where a run kept no operators [% of the measured step].
# SPDX-License-Identifier: Apache-2.0
fig_w = 900
row_px = n_row <= 12 ? 44 : n_row <= 30 ? 28 : 18
top = 122
fig_h = top + row_px * (n_row < 5 ? 5 : n_row) + 66
bottom = fig_h - 66
load fig_common
left = 232; right = 872
xt = 'predicted minus measured [% of the measured step]'; yt = ''
eval PANEL
array FILL[6] = [BLUE, SKY, PINK, ORANGE, GREEN, GREY]
array FROM[6] = [0, 1, 2, 3, 4, 0]
array SLOTS[6] = [1, 1, 1, 1, 1, 3]
divided = n_coarse < n_row
if (divided) {
    eval key_box(1, left - 90, BLUE, 'solid 1', 'GEMM') . key_box(2, left + 5, SKY, 'solid 1', 'attention') . \
        key_box(3, left + 120, PINK, 'solid 1', 'other')
}
eval key_box(4, left + 210, ORANGE, 'solid 1', 'communication') . key_box(5, left + 355, GREEN, 'solid 1', 'host')
if (n_coarse) { eval key_box(6, left + 435, GREY, 'solid 1', 'compute: operators not kept') }
unset grid
set grid xtics back ls 100
set style fill solid 1 border rgb '#333333'
set yrange [n_row - 0.4:-0.6]
set ytics scale 0 font small
set arrow 1 from 0, graph 0 to 0, graph 1 nohead lc rgb BLACK lw 1.2 front
set xrange [x_lo:x_hi]
series = (divided ? '1 2 3 ' : '') . '4 5' . (n_coarse ? ' 6' : '')
y0(row, k) = row - 0.4 + 0.16 * FROM[k]
# a box of no value is none: its place is undefined, as its length alone would not be enough
plot for [k in series] fig_data using (0 * column(k + 2)):1:(0):(column(k + 2)):(y0($1, int(k))):(y0($1, int(k)) + 0.16 * SLOTS[int(k)]):ytic(2) \
    with boxxyerror lw 0.6 fc rgb FILL[int(k)]
