# plots/common.gp - what all figures share: terminal, colours, fonts, title lines.
#
# Set before: fig_w, fig_h (picture in pixels of the SVG; a PNG has twice as many each way) and what
# the program writes into `args`: fig_format, fig_out, fig_title, fig_sub1, fig_sub2.
# Colours: Okabe and Ito, "Color Universal Design", 2008; dashes, marks and hatching tell the same
# apart in grey print. SPDX-License-Identifier: Apache-2.0
set encoding utf8
if (fig_format eq 'png') {
    set terminal pngcairo noenhanced rounded size 2 * fig_w, 2 * fig_h font 'sans-serif,11.5' \
        fontscale 1.85 linewidth 2.2 pointscale 2.6 dashlength 0.8 background '#ffffff'
} else {
    set terminal svg noenhanced rounded size fig_w, fig_h font 'sans-serif,15' linewidth 1.15 \
        dashlength 1.3 background '#ffffff' name 'orrery'
}
set output fig_out
BLUE = '#0072B2'; VERMILION = '#D55E00'; GREEN = '#009E73'; SKY = '#56B4E9'
ORANGE = '#E69F00'; PINK = '#CC79A7'; BLACK = '#000000'; GREY = '#666666'; PALE = '#ECECEC'
BAND = '#C9DDEC'
array COLOUR[8] = [BLUE, VERMILION, GREEN, BLACK, ORANGE, SKY, PINK, GREY]
array DASH[8] = [1, 2, 4, 3, 5, 1, 2, 4]
array MARK[8] = [7, 5, 9, 4, 13, 6, 8, 11]
# Dashes of one's own are drawn to another scale in a PNG, and round ends take a line's width of gaps.
LIMIT_DASH = fig_format eq 'png' ? '(20, 18)' : '(8, 5)'
SHORT_DASH = fig_format eq 'png' ? '(14, 16)' : '(4, 4)'
px(y) = 1 - y / (1. * fig_h)            # screen height of y pixels from the top
rx(x) = x / (1. * fig_w)
png = fig_format eq 'png'
small = png ? ',9.6' : ',12.5'
middle = png ? ',10.6' : ',13.8'
large = png ? ',14.5' : ',19'
set label 1001 fig_title at screen rx(16), px(24) left font large
set label 1002 fig_sub1 at screen rx(16), px(48) left font small tc rgb GREY
set label 1003 fig_sub2 at screen rx(16), px(66) left font small tc rgb GREY
HEADLESS = 'unset label 1001; unset label 1002; unset label 1003'
# A panel between the pixels left, right, top and bottom, with its axis labels xt and yt at fixed
# distances: gnuplot's own depend on guesses about the width of marks.
yt_px = 64
PANEL = 'set lmargin at screen rx(left); set rmargin at screen rx(right);' . \
    'set tmargin at screen px(top); set bmargin at screen px(bottom);' . \
    'set label 1010 yt at screen rx(left - yt_px), graph 0.5 center rotate by 90 font middle;' . \
    'set label 1011 xt at graph 0.5, screen px(bottom + 46) center font middle'
set style line 100 lc rgb '#DDDDDD' lw 0.8 dt 1
set grid back ls 100
set border 3 lw 1 lc rgb '#333333'
set tics nomirror out scale 0.6 font middle
set xtics offset 0, 0.2
set key off
# Legend above a panel, entry i at pixel x: gnuplot guesses the width of its own and lets it overlap.
# Widths differ a little, as lines of one colour and width in a row are drawn with the dashes of the first.
key_text(i, x, text) = sprintf("set label %d '%s' at screen %.5f, %.5f left font small; ", \
    500 + i, text, rx(x), px(top - 16))
key_line(i, x, lc, dt, pt, text) = sprintf("set arrow %d from screen %.5f, %.5f to screen %.5f, %.5f " . \
    "nohead lc rgb '%s' lw %g dt %s; ", 500 + i, rx(x), px(top - 16), rx(x + 30), px(top - 16), lc, 2 - 0.01 * i, dt) . \
    (pt ? sprintf("set label %d '' at screen %.5f, %.5f point pt %d ps 0.8 lc rgb '%s'; ", 600 + i, \
        rx(x + 15), px(top - 16), pt, lc) : '') . key_text(i, x + 37, text)
key_box(i, x, fc, style, text) = sprintf("set object %d rectangle from screen %.5f, %.5f to screen " . \
    "%.5f, %.5f fc rgb '%s' fillstyle %s border rgb '#333333' lw 0.5; ", 500 + i, rx(x), px(top - 22), \
    rx(x + 26), px(top - 10), fc, style) . key_text(i, x + 33, text)
KEYLESS = 'do for [k = 501:505] { unset arrow k; unset label k; unset label k + 100; unset object k }'
