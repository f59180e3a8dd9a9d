# plots/gantt.gp - what each pipeline stage computes when.
# Data: block 0 rows (number, name, busy share), blocks 1 to 3 spans of decode, prefill and mixed
# batches (begin, end, row). SPDX-License-Identifier: Apache-2.0
fig_w = 980
row_px = n_row <= 8 ? 40 : n_row <= 16 ? 28 : 20
fig_h = 92 + row_px * n_row + 96
load fig_common
set tmargin at screen fig_top
set bmargin at screen 1 - px(86)
set lmargin at screen rx(142)
set rmargin at screen rx(fig_w - 76)
set xrange [0:x_end]
set yrange [n_row - 0.4:-0.6]
set xlabel x_label
set border 1
unset grid
set grid xtics back ls 100
set ytics scale 0
set label 10 'busy' at graph 1.015, screen px(84) left font small tc rgb GREY
do for [r = 1:n_row / n_stage - 1] {
    set arrow 100 + r from graph 0, first r * n_stage - 0.5 to graph 1, first r * n_stage - 0.5 nohead \
        lc rgb '#333333' lw 1
}
set key at screen rx(142), 1 - px(18) left center Left reverse horizontal samplen 2 width 2
thick = 0.4
plot fig_data index 0 using (-1):1:ytic(2) with points pt 0 notitle, \
     fig_data index 0 using (x_end):1:3 with labels left offset character 0.8, 0 font small notitle, \
     fig_data index 1 using 1:3:1:2:($3 - thick):($3 + thick) with boxxyerror lw 0.4 \
        fc rgb SKY fillstyle solid 1 border rgb '#003355' title 'decode', \
     fig_data index 2 using 1:3:1:2:($3 - thick):($3 + thick) with boxxyerror lw 0.4 \
        fc rgb VERMILION fillstyle pattern 1 border rgb '#552200' title 'prefill', \
     fig_data index 3 using 1:3:1:2:($3 - thick):($3 + thick) with boxxyerror lw 0.4 \
        fc rgb ORANGE fillstyle pattern 5 border rgb '#553300' title 'mixed (prefill and decode)'
