# plots/gantt.gp - what each pipeline stage computes when.
# Data: block 0 rows (number, name, busy share), blocks 1 to 3 spans of decode, prefill and mixed
# batches (begin, end, row). SPDX-License-Identifier: Apache-2.0
fig_w = 980
row_px = n_row <= 8 ? 40 : n_row <= 16 ? 28 : 22
fig_h = 120 + row_px * n_row + 66
load fig_common
left = 142; right = fig_w - 76; top = 120; bottom = fig_h - 66
xt = x_label; yt = ''
eval PANEL
set xrange [0:x_end]
set yrange [n_row - 0.5:-0.5]
set border 1
unset grid
set grid xtics back ls 100
set ytics scale 0
set label 10 'busy' at screen rx(right + 11), px(top - 14) left font small tc rgb GREY
do for [r = 1:n_row / n_stage - 1] {
    set arrow r from graph 0, first r * n_stage - 0.5 to graph 1, first r * n_stage - 0.5 nohead \
        lc rgb '#333333' lw 1
}
# decode: light and plain; prefill: dark; mixed: both at once, hatched on light ground
array FILL[3] = ['#56B4E9', '#B34700', '#F8DDA4']
EDGE = '#333333'; HATCH = '#8A4B00'
eval key_box(1, left, FILL[1], 'solid 1', 'decode') . key_box(2, left + 110, FILL[2], 'solid 1', 'prefill') . \
    key_box(3, left + 220, FILL[3], 'solid 1', '') . \
    key_box(4, left + 220, HATCH, 'transparent pattern 4', 'mixed (prefill and decode)')
thick = 0.4
plot fig_data index 0 using (-1):1:ytic(2) with points pt 0, \
     fig_data index 0 using (x_end):1:3 with labels left offset character 0.8, 0 font small, \
     for [k = 1:3] fig_data index k using 1:3:1:2:($3 - thick):($3 + thick) with boxxyerror lw 0.4 \
        fc rgb FILL[k] fillstyle solid 1 border rgb EDGE, \
     fig_data index 3 using 1:3:1:2:($3 - thick):($3 + thick) with boxxyerror lw 0.4 \
        fc rgb HATCH fillstyle transparent pattern 4 border rgb EDGE
