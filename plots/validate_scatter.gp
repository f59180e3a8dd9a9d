# plots/validate_scatter.gp - predicted against measured, one panel per quantity, wedges of 10 and
# 20 %. Data: one block per panel, columns measured, predicted, floor lo, floor hi, calibrated, noise
# floor known (both 0 or 1), where the floor leaves the frame (1 left, 2 right, 3 both; its ends are
# then the point itself). SPDX-License-Identifier: Apache-2.0
fig_w = 900
fig_h = 120 + 380 * ((n_panel + 1) / 2)
load fig_common
set multiplot
if (n_past) {
    set label 1004 'arrow: the noise goes on past the frame' at screen rx(884), px(66) right font small tc rgb GREY
}
# from a point to the edge of the frame on side s, where its floor leaves it there
past_x(side, s) = int(side) & s ? 1 : NaN
set style arrow 1 head nofilled size screen 0.008, 20 lw 1.2 lc rgb BLUE
set style arrow 2 head nofilled size screen 0.008, 20 lw 1.2 lc rgb ORANGE
set logscale xy
set format xy '%g'
yt_px = 70
do for [i = 1:n_panel] {
    left = (i - 1) % 2 ? 540 : 92
    right = left + 330
    top = 122 + 380 * ((i - 1) / 2)
    bottom = top + 290
    xt = 'measured ' . panel_name[i]; yt = 'predicted ' . panel_name[i]
    eval PANEL
    if (i == 1) {
        eval key_line(1, 92, GREY, '1', 0, 'equal') . key_line(2, 182, GREY, '2', 0, '10 and 20 % off') . \
            (n_held ? key_line(3, 345, BLUE, '1', 7, 'held out, noise') : '') . \
            (n_used ? key_line(4, 498, ORANGE, '1', 5, 'calibrated the prediction') : '') . \
            (n_open ? key_text(5, 720, 'hollow: noise unknown') : '')
    }
    eval 'set xtics ' . panel_marks[i]
    eval 'set ytics ' . panel_marks[i]
    set xrange [panel_lo[i]:panel_hi[i]]
    set yrange [panel_lo[i]:panel_hi[i]]
    plot x with lines lw 1.4 lc rgb GREY, 1.1 * x with lines lw 1 dt 2 lc rgb GREY, \
         x / 1.1 with lines lw 1 dt 2 lc rgb GREY, 1.2 * x with lines lw 1 dt 3 lc rgb GREY, \
         x / 1.2 with lines lw 1 dt 3 lc rgb GREY, \
         fig_data index i - 1 using 1:($5 == 0 && $6 == 1 ? $2 : NaN):3:4 with xerrorbars lw 1.2 lc rgb BLUE pt 7 ps 0.8, \
         fig_data index i - 1 using 1:($5 == 1 && $6 == 1 ? $2 : NaN):3:4 with xerrorbars lw 1.2 lc rgb ORANGE pt 5 ps 0.8, \
         for [k = 0:1] fig_data index i - 1 using ($1 * past_x($7, 1)):($5 == k ? $2 : NaN):(panel_lo[i] - $1):(0) with vectors as 1 + k, \
         for [k = 0:1] fig_data index i - 1 using ($1 * past_x($7, 2)):($5 == k ? $2 : NaN):(panel_hi[i] - $1):(0) with vectors as 1 + k, \
         fig_data index i - 1 using 1:($5 == 0 && $6 == 0 ? $2 : NaN) with points lw 1.6 lc rgb BLUE pt 6 ps 0.9, \
         fig_data index i - 1 using 1:($5 == 1 && $6 == 0 ? $2 : NaN) with points lw 1.6 lc rgb ORANGE pt 4 ps 0.9
    eval HEADLESS
    eval KEYLESS
    unset label 1004
}
unset multiplot
