# plots/cdf.gp - distribution of a latency, one curve per run, a line per limit of the SLO.
# Data: one block per run, columns latency, share [%]. SPDX-License-Identifier: Apache-2.0
fig_w = 840
fig_h = 500 + (n_run > 1 ? 20 * n_run + 12 : 0)
load fig_common
set tmargin at screen fig_top
set lmargin at screen rx(84)
set rmargin at screen rx(fig_w - 32)
set bmargin at screen 1 - px(60 + (n_run > 1 ? 20 * n_run + 12 : 0))
if (x_log) { set logscale x }
if (x_marks ne 'auto') { eval 'set xtics ' . x_marks } else { set xtics autofreq }
set xrange [x_from:x_to]
set yrange [0:102]
set ytics 0, 10
set xlabel x_label
set ylabel 'share of requests due [%]'
do for [i = 1:n_slo] {
    at = x_log ? log(slo_x[i] / x_from) / log(x_to / x_from) : (slo_x[i] - x_from) / (x_to - x_from)
    set arrow i from slo_x[i], graph 0 to slo_x[i], graph 1 nohead lc rgb BLACK lw 1.4 dt (8, 5) front
    if (at > 0.6) {
        set label i slo_text[i] at slo_x[i], graph (slo_high[i] ? 0.97 : 0.05) + (i - 1) * 0.06 \
            right offset character -0.8, 0 front
    } else {
        set label i slo_text[i] at slo_x[i], graph (slo_high[i] ? 0.97 : 0.05) + (i - 1) * 0.06 \
            left offset character 0.8, 0 front
    }
}
if (n_run > 1) {
    set key at screen rx(70), 1 - px(14 + 20 * n_run) left top Left reverse samplen 3 font small \
        maxcols 1 spacing 1.15
}
plot for [i = 1:n_run] fig_data index i - 1 using 1:2 with steps lw 2.2 dt DASH[i] lc rgb COLOUR[i] \
        notitle, \
     for [i = 1:n_run] fig_data index i - 1 using 1:2 every 97::20 with points pt MARK[i] ps 0.8 \
        lc rgb COLOUR[i] notitle, \
     for [i = 1:n_run] NaN with linespoints lw 2.2 dt DASH[i] pt MARK[i] ps 0.8 lc rgb COLOUR[i] \
        title (n_run > 1 ? run_name[i] : '')
