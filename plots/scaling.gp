# plots/scaling.gp - throughput against the number of GPUs, beside ideal scaling.
# Data: 1 GPUs, 2 output, 3-4 bounds, 5 ideal, 6 of ideal [%], 7 limited by the load, 8 strategy.
# SPDX-License-Identifier: Apache-2.0
fig_w = 900
fig_h = 510
load fig_common
set multiplot
xt = devices
if (gpus_max > 8 * gpus_min) {
    set logscale x 2
    set xrange [gpus_min / 1.3:gpus_max * 1.3]
} else {
    set xrange [0:gpus_max * 1.1]
}
eval 'set xtics ' . gpu_marks

left = 96; right = 526; top = 122; bottom = fig_h - 66
yt = 'output [tokens/s]'
yt_px = 78
eval PANEL
eval key_line(1, left, GREY, '2', 0, 'ideal') . key_line(2, left + 100, BLUE, '1', 7, 'output, interval') . \
    (n_limited ? key_line(3, left + 250, BLUE, '1', 6, 'as much as is offered') : '')
set yrange [0:(out_max > per_gpu * gpus_max ? out_max : per_gpu * gpus_max) * 1.1]
set format y '%.0f'
plot per_gpu * x with lines lw 1.4 dt 2 lc rgb GREY, \
     fig_data using 1:2:3:4 with yerrorbars lc rgb BLUE pt 7 ps 0.1, \
     fig_data using 1:2 with lines lw 2 lc rgb BLUE, \
     fig_data using 1:($7 == 0 ? $2 : NaN) with points pt 7 ps 1.1 lc rgb BLUE, \
     fig_data using 1:($7 == 1 ? $2 : NaN) with points pt 7 ps 1.1 lc rgb '#ffffff', \
     fig_data using 1:($7 == 1 ? $2 : NaN) with points pt 6 ps 1.1 lw 1.6 lc rgb BLUE
eval HEADLESS
eval KEYLESS

left = 640; right = 880
yt = 'of ideal scaling [%]'
yt_px = 64
eval PANEL
set yrange [0:(ratio_max > 100 ? ratio_max : 100) * 1.5]
plot 100 with lines lw 1.4 dt 2 lc rgb GREY, \
     fig_data using 1:6 with lines lw 2 lc rgb BLUE, \
     fig_data using 1:($7 == 0 ? $6 : NaN) with points pt 7 ps 1.1 lc rgb BLUE, \
     fig_data using 1:($7 == 1 ? $6 : NaN) with points pt 7 ps 1.1 lc rgb '#ffffff', \
     fig_data using 1:($7 == 1 ? $6 : NaN) with points pt 6 ps 1.1 lw 1.6 lc rgb BLUE, \
     fig_data using 1:6:8 with labels rotate by 90 left offset character 0, 0.9 font small
unset multiplot
