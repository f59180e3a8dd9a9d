# plots/ranks.gp - where the time of each rank goes, stacked shares.
# Data: rank, name, compute, communication, wait, host [%]. SPDX-License-Identifier: Apache-2.0
fig_w = 900
row_px = n_rank <= 8 ? 38 : n_rank <= 16 ? 28 : n_rank <= 40 ? 18 : 13
top = 122
fig_h = top + row_px * (n_rank < 2 ? 2 : n_rank) + 66
load fig_common
left = 212; right = fig_w - 40; bottom = fig_h - 66
xt = x_label; yt = ''
eval PANEL
unset grid
set grid xtics back ls 100
if (n_rank <= 16) { set ytics scale 0 font middle } else { set ytics scale 0 font small }
set border 1
set xrange [0:100]
set xtics 0, 20, 100
set yrange [(n_rank < 2 ? 2 : n_rank) - 0.4:-0.6]
EDGE = '#333333'; HATCH = '#8A4B00'; WAIT = '#F8DDA4'
eval key_box(1, left, BLUE, 'solid 1', 'compute') . key_box(2, left + 120, SKY, 'solid 1', 'communication') . \
    key_box(3, left + 280, WAIT, 'solid 1', '') . \
    key_box(4, left + 280, HATCH, 'transparent pattern 4', 'wait') . \
    key_box(5, left + 370, '#444444', 'solid 1', 'host')
thick = 0.36
# the share inside its part where there is room for it
share(v) = v >= 6 ? sprintf('%.0f', v) : ''
plot fig_data using (0):1:(0):3:($1 - thick):($1 + thick):ytic(2) with boxxyerror lw 0.4 fc rgb BLUE \
        fillstyle solid 1 border rgb EDGE, \
     fig_data using 3:1:3:($3 + $4):($1 - thick):($1 + thick) with boxxyerror lw 0.4 fc rgb SKY \
        fillstyle solid 1 border rgb EDGE, \
     fig_data using ($3 + $4):1:($3 + $4):($3 + $4 + $5):($1 - thick):($1 + thick) with boxxyerror lw 0.4 \
        fc rgb WAIT fillstyle solid 1 border rgb EDGE, \
     fig_data using ($3 + $4):1:($3 + $4):($3 + $4 + $5):($1 - thick):($1 + thick) with boxxyerror lw 0.4 \
        fc rgb HATCH fillstyle transparent pattern 4 border rgb EDGE, \
     fig_data using ($3 + $4 + $5):1:($3 + $4 + $5):($3 + $4 + $5 + $6):($1 - thick):($1 + thick) \
        with boxxyerror lw 0.4 fc rgb '#444444' fillstyle solid 1 border rgb EDGE, \
     fig_data using ($3 / 2):1:(share($3)) with labels center font small tc rgb '#FFFFFF', \
     fig_data using ($3 + $4 / 2):1:(share($4)) with labels center font small, \
     fig_data using ($3 + $4 + $5 + $6 / 2):1:(share($6)) with labels center font small tc rgb '#FFFFFF'
