# plots/operators.gp - step time by operator class, and how busy the stages are.
# Data: block 0 (row, class, share [%]), block 1 (stage, busy [%], bubble [%]).
# SPDX-License-Identifier: Apache-2.0
fig_w = 900
rows = n_class > 2 * n_stage ? n_class : 2 * n_stage
row_px = rows <= 8 ? 40 : rows <= 16 ? 30 : rows <= 40 ? 16 : 9
fig_h = 112 + row_px * (rows < 6 ? 6 : rows) + 84
load fig_common
set multiplot
set tmargin at screen px(116)
set bmargin at screen 1 - px(72)
set border 3
set ytics scale 0
unset grid
set grid xtics back ls 100
set style fill solid 1 border rgb '#333333'

set lmargin at screen rx(112)
set rmargin at screen rx(452)
set xrange [0:112]
set xtics 0, 20, 100
set yrange [n_class - 0.4:-0.6]
set xlabel 'share of step time [%]'
plot fig_data index 0 using (0):1:(0):3:($1 - 0.3):($1 + 0.3):ytic(2) with boxxyerror lw 0.8 fc rgb BLUE, \
     fig_data index 0 using 3:1:(sprintf('%.1f', $3)) with labels left offset character 0.5, 0 font small
unset label 1001; unset label 1002; unset label 1003

set lmargin at screen rx(552)
set rmargin at screen rx(872)
set yrange [n_stage - 0.4:-0.6]
unset ytics
if (n_stage <= 16) { set ytics 1 scale 0 } else { set ytics 8 scale 0 }
set format y '%.0f'
set ylabel 'pipeline stage'
set xlabel 'share of the window [%]'
set key at graph 0, 1.06 left center horizontal Left reverse samplen 1.5 font small
plot fig_data index 1 using (0):1:(0):2:($1 - 0.38):($1 - 0.02) with boxxyerror lw 0.8 fc rgb BLUE \
        title 'busy', \
     fig_data index 1 using (0):1:(0):3:($1 + 0.02):($1 + 0.38) with boxxyerror lw 0.8 fc rgb ORANGE \
        fillstyle pattern 4 title 'idle with work (bubble)', \
     fig_data index 1 using 2:($1 - 0.2):(n_stage <= 16 ? sprintf('%.0f', $2) : '') with labels left \
        offset character 0.5, 0 font small, \
     fig_data index 1 using 3:($1 + 0.2):(n_stage <= 16 ? sprintf('%.0f', $3) : '') with labels left \
        offset character 0.5, 0 font small
unset multiplot
