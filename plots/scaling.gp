# plots/scaling.gp - throughput against the number of GPUs, beside ideal scaling.
# Data: 1 GPUs, 2 output, 3-4 bounds, 5 ideal, 6 of ideal [%], 7 limited by the load, 8 strategy.
# SPDX-License-Identifier: Apache-2.0
fig_w = 900
fig_h = 500
load fig_common
set multiplot
set tmargin at screen fig_top
set bmargin at screen 1 - px(66)
set lmargin at screen rx(96)
set rmargin at screen rx(520)
set xlabel 'GPUs'
set xtics 1
if (gpus_max > 12) {
    set logscale x 2
    set xrange [gpus_min / 1.3:gpus_max * 1.3]
    set xtics autofreq
} else {
    set xrange [0:gpus_max + gpus_max * 0.08]
    set xtics (gpus_max > 8 ? 2 : 1)
}
set key top left Left reverse samplen 2.5 font small
set ylabel 'output [tokens/s]'
most = out_max > per_gpu * gpus_max ? out_max : per_gpu * gpus_max
set yrange [0:most * 1.3]
set format y '%.0f'
plot per_gpu * x with lines lw 1.4 dt 2 lc rgb GREY title sprintf('ideal: %.4g tokens/s a GPU', per_gpu), \
     fig_data using 1:2:3:4 with yerrorbars lc rgb BLUE pt 7 ps 0.1 notitle, \
     fig_data using 1:2 with lines lw 2 lc rgb BLUE notitle, \
     fig_data using 1:($7 == 0 ? $2 : NaN) with points pt 7 ps 1.1 lc rgb BLUE title 'output, interval', \
     fig_data using 1:($7 == 1 ? $2 : NaN) with points pt 7 ps 1.1 lc rgb '#ffffff' notitle, \
     fig_data using 1:($7 == 1 ? $2 : NaN) with points pt 6 ps 1.1 lw 1.6 lc rgb BLUE \
        title (n_limited ? 'finishes all that is offered' : '')
unset label 1001; unset label 1002; unset label 1003
set lmargin at screen rx(640)
set rmargin at screen rx(876)
set ylabel 'of ideal scaling [%]'
set yrange [0:*]
set key off
plot 100 with lines lw 1.4 dt 2 lc rgb GREY notitle, \
     fig_data using 1:6 with lines lw 2 lc rgb BLUE notitle, \
     fig_data using 1:($7 == 0 ? $6 : NaN) with points pt 7 ps 1.1 lc rgb BLUE notitle, \
     fig_data using 1:($7 == 1 ? $6 : NaN) with points pt 7 ps 1.1 lc rgb '#ffffff' notitle, \
     fig_data using 1:($7 == 1 ? $6 : NaN) with points pt 6 ps 1.1 lw 1.6 lc rgb BLUE notitle, \
     fig_data using 1:6:8 with labels rotate by 90 left offset character 0, 0.9 font small notitle
unset multiplot
