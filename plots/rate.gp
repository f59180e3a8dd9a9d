# plots/rate.gp - latency, throughput and attainment of a sweep over the offered rate.
# Data: 1 offered, 2 finished, 3 goodput, 4-6 attainment and bounds [%], 7 TTFT p50, 8-10 p99 and
# bounds, 11 TPOT p50, 12-14 p99 and bounds, 15 overloaded. SPDX-License-Identifier: Apache-2.0
fig_w = 900
fig_h = 780
load fig_common
left1 = rx(84); right1 = rx(432); left2 = rx(532); right2 = rx(880)
top1 = fig_top; bottom1 = px(388); top2 = px(440); bottom2 = px(722)
set multiplot
set xrange [0:rate_max * 1.06]
set xlabel 'offered rate [requests/s]'
if (over_from == over_from) {
    set object 1 rectangle from over_from, graph 0 to graph 1, graph 1 behind fc rgb PALE \
        fillstyle solid noborder
}
set key top left Left reverse samplen 2.5 font small

# time to first token
set tmargin at screen top1; set bmargin at screen bottom1
set lmargin at screen left1; set rmargin at screen right1
if (over_from == over_from) {
    set label 1004 'grey: overloaded, the queue grows' at screen rx(880), px(722 + 46) right font small \
        tc rgb GREY
}
set ylabel 'TTFT [' . ttft_unit . ']'
if (ttft_log) { set logscale y; eval 'set ytics ' . ttft_marks }
set yrange [ttft_from:ttft_to]
if (ttft_slo == ttft_slo) { set arrow 1 from graph 0, first ttft_slo to graph 1, first ttft_slo \
    nohead lc rgb BLACK dt (8, 5) front }
plot fig_data using 1:9:10 with filledcurves fc rgb BAND notitle, \
     fig_data using 1:8:9:10 with yerrorbars lc rgb VERMILION pt 5 ps 0.8 notitle, \
     fig_data using 1:8 with linespoints lw 2 dt 2 pt 5 ps 0.8 lc rgb VERMILION title 'p99, interval', \
     fig_data using 1:7 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE title 'p50', \
     ttft_slo == ttft_slo ? ttft_from - 1 : NaN with lines lc rgb BLACK dt (8, 5) \
        title (ttft_slo == ttft_slo ? 'SLO' : '')
unset label 1001; unset label 1002; unset label 1003; unset label 1004
unset arrow 1; unset logscale y; set ytics autofreq

# time per output token
set lmargin at screen left2; set rmargin at screen right2
set ylabel 'TPOT [' . tpot_unit . ']'
if (tpot_log) { set logscale y; eval 'set ytics ' . tpot_marks }
set yrange [tpot_from:tpot_to]
if (tpot_slo == tpot_slo) { set arrow 1 from graph 0, first tpot_slo to graph 1, first tpot_slo \
    nohead lc rgb BLACK dt (8, 5) front }
plot fig_data using 1:13:14 with filledcurves fc rgb BAND notitle, \
     fig_data using 1:12:13:14 with yerrorbars lc rgb VERMILION pt 5 ps 0.8 notitle, \
     fig_data using 1:12 with linespoints lw 2 dt 2 pt 5 ps 0.8 lc rgb VERMILION title 'p99, interval', \
     fig_data using 1:11 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE title 'p50', \
     tpot_slo == tpot_slo ? tpot_from - 1 : NaN with lines lc rgb BLACK dt (8, 5) \
        title (tpot_slo == tpot_slo ? 'SLO' : '')
unset arrow 1; unset logscale y; set ytics autofreq

# throughput and goodput
set tmargin at screen top2; set bmargin at screen bottom2
set lmargin at screen left1; set rmargin at screen right1
set ylabel 'served [requests/s]'
set yrange [0:requests_max * 1.35]
plot x with lines lc rgb GREY dt 3 title 'all that is offered', \
     fig_data using 1:2 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE title 'throughput', \
     fig_data using 1:3 with linespoints lw 2 dt 2 pt 5 ps 0.8 lc rgb GREEN \
        title 'goodput (within the SLO)'

# attainment
set lmargin at screen left2; set rmargin at screen right2
set ylabel 'SLO attainment [%]'
set yrange [0:105]
set ytics 0, 20
set key bottom left
if (asked == asked) { set arrow 1 from graph 0, first asked to graph 1, first asked nohead \
    lc rgb BLACK dt (8, 5) front }
plot fig_data using 1:5:6 with filledcurves fc rgb BAND title 'interval', \
     fig_data using 1:4 with linespoints lw 2 pt 7 ps 0.8 lc rgb BLUE title 'requests within the SLO', \
     asked == asked ? -1 : NaN with lines lc rgb BLACK dt (8, 5) \
        title (asked == asked ? sprintf('asked: %.4g %%', asked) : '')
unset multiplot
