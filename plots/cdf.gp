# plots/cdf.gp - distribution of a latency, one curve per run, a line per limit of the SLO.
# Data: one block per run, columns latency, share [%]. SPDX-License-Identifier: Apache-2.0
fig_w = 840
below = n_run > 1 ? 20 * n_run + 8 : 0
fig_h = 492 + below
load fig_common
left = 84; right = fig_w - 32; top = 92; bottom = fig_h - 66 - below
xt = x_label; yt = 'share of requests due [%]'
eval PANEL
if (x_log) { set logscale x }
if (x_marks ne 'auto') { eval 'set xtics ' . x_marks }
set xrange [x_from:x_to]
set yrange [0:102]
set ytics 0, 10
do for [i = 1:n_slo] {
    at = x_log ? log(slo_x[i] / x_from) / log(x_to / x_from) : (slo_x[i] - x_from) / (x_to - x_from)
    eval sprintf('set arrow %d from slo_x[%d], graph 0 to slo_x[%d], graph 1 nohead lc rgb BLACK lw 1.4 dt %s front', i, i, i, LIMIT_DASH)
    text_y = (slo_high[i] ? 0.95 - (i - 1) * 0.06 : 0.05 + (i - 1) * 0.06)
    # above the curve to the left of the line, or below it to the right: clear of it if there is room
    if (slo_high[i] && at > 0.36) {
        set label i slo_text[i] at slo_x[i], graph text_y right offset character -0.8, 0 font middle front
    } else {
        set label i slo_text[i] at slo_x[i], graph text_y left offset character 0.8, 0 font middle front
    }
}
set key on noautotitle font small at screen rx(70), px(fig_h - 16 - 20 * n_run) left top Left reverse samplen 3 maxcols 1 \
    spacing 1.15
plot for [i = 1:n_run] fig_data index i - 1 using 1:2 with steps lw 2.2 dt DASH[i] lc rgb COLOUR[i] \
        notitle, \
     for [i = 1:(n_run > 1 ? n_run : 0)] fig_data index i - 1 using 1:2 every n_point[i] / 8 + 1::n_point[i] / 16 \
        with points pt MARK[i] ps 0.8 lc rgb COLOUR[i] notitle, \
     for [i = 1:n_run] NaN with linespoints lw 2.2 dt DASH[i] pt MARK[i] ps 0.8 lc rgb COLOUR[i] \
        title (n_run > 1 ? run_name[i] : '')
