# plots/rate.gp - latency, throughput and attainment of a sweep over the offered rate.
# Data: 1 offered, 2 finished, 3 goodput, 4-6 attainment and bounds [%], 7 TTFT p50, 8-10 p99 and
# bounds, 11 TPOT p50, 12-14 p99 and bounds, 15 overloaded. SPDX-License-Identifier: Apache-2.0
fig_w = 900
fig_h = 820
load fig_common
set multiplot
set xrange [0:rate_max * 1.06]
xt = 'offered rate [requests/s]'
if (over_from == over_from) {
    set object 1 rectangle from first over_from, graph 0 to graph 1, graph 1 behind fc rgb PALE \
        fillstyle solid noborder
}
set label 1004 'bars and bands: intervals' . (over_from == over_from ? '; grey: overloaded, the queue grows' : '') \
    at screen rx(884), px(66) right font small tc rgb GREY
SLO_LINE = 'set arrow 1 from graph 0, first slo to graph 1, first slo nohead lc rgb BLACK dt ' . LIMIT_DASH . ' front'

# time to first token
left = 84; right = 434; top = 122; bottom = 392
slo = ttft_slo; yt = 'TTFT [' . ttft_unit . ']'
eval PANEL
LATENCY_KEY = key_line(1, left, BLUE, '1', 7, 'p50') . key_line(2, left + 90, VERMILION, '2', 5, 'p99')
eval LATENCY_KEY . (slo == slo ? key_line(3, left + 180, BLACK, LIMIT_DASH, 0, 'SLO') : '')
if (ttft_log) { set logscale y; eval 'set ytics ' . ttft_marks }
set yrange [ttft_from:ttft_to]
if (slo == slo) { eval SLO_LINE }
plot fig_data using 1:9:10 with filledcurves fc rgb BAND, \
     fig_data using 1:8:9:10 with yerrorbars lc rgb VERMILION pt 5 ps 0.8, \
     fig_data using 1:7 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE, \
     fig_data using 1:8 with linespoints lw 2 dt 2 pt 5 ps 0.8 lc rgb VERMILION
eval HEADLESS
eval KEYLESS
unset label 1004; unset arrow 1; unset logscale y; set ytics autofreq

# time per output token
left = 534; right = 884
slo = tpot_slo; yt = 'TPOT [' . tpot_unit . ']'
eval PANEL
LATENCY_KEY = key_line(1, left, BLUE, '1', 7, 'p50') . key_line(2, left + 90, VERMILION, '2', 5, 'p99')
eval LATENCY_KEY . (slo == slo ? key_line(3, left + 180, BLACK, LIMIT_DASH, 0, 'SLO') : '')
if (tpot_log) { set logscale y; eval 'set ytics ' . tpot_marks }
set yrange [tpot_from:tpot_to]
if (slo == slo) { eval SLO_LINE }
plot fig_data using 1:13:14 with filledcurves fc rgb BAND, \
     fig_data using 1:12:13:14 with yerrorbars lc rgb VERMILION pt 5 ps 0.8, \
     fig_data using 1:11 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE, \
     fig_data using 1:12 with linespoints lw 2 dt 2 pt 5 ps 0.8 lc rgb VERMILION
unset arrow 1; unset logscale y; set ytics autofreq
eval KEYLESS

# throughput and goodput
left = 84; right = 434; top = 494; bottom = 758
yt = 'served [requests/s]'
eval PANEL
eval key_line(1, left, GREY, '3', 0, 'offered') . key_line(2, left + 110, BLUE, '1', 7, 'finished') . \
    key_line(3, left + 220, GREEN, '2', 5, 'goodput')
set yrange [0:requests_max > 0 ? requests_max * 1.15 : 1]
plot x with lines lc rgb GREY dt 3 lw 1.6, \
     fig_data using 1:2 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE, \
     fig_data using 1:3 with linespoints lw 2 dt 2 pt 5 ps 0.8 lc rgb GREEN

# attainment
left = 534; right = 884
yt = 'SLO attainment [%]'
eval PANEL
eval KEYLESS
slo = asked
eval key_box(1, left, BAND, 'solid 1', 'interval') . key_line(2, left + 110, BLUE, '1', 7, 'attained') . \
    (slo == slo ? key_line(3, left + 220, BLACK, LIMIT_DASH, 0, sprintf('asked: %.4g %%', slo)) : '')
set yrange [0:105]
set ytics 0, 20
if (slo == slo) { eval SLO_LINE }
plot fig_data using 1:5:6 with filledcurves fc rgb BAND, \
     fig_data using 1:4 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE
unset multiplot
