# plots/common.gp - what all figures share: terminal, colours, fonts, title lines.
#
# Set before: fig_w, fig_h (picture in pixels of the SVG; a PNG has twice as many each way) and what
# the program writes into `args`: fig_format, fig_out, fig_title, fig_sub1, fig_sub2.
# Colours: Okabe and Ito, "Color Universal Design", 2008; dashes, marks and hatching tell the same
# apart in grey print. SPDX-License-Identifier: Apache-2.0
set encoding utf8
if (fig_format eq 'png') {
    set terminal pngcairo noenhanced rounded size 2 * fig_w, 2 * fig_h font 'sans-serif,11.5' \
        fontscale 1.85 linewidth 2.2 pointscale 1.9 dashlength 1.6 background '#ffffff'
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
px(y) = 1 - y / (1. * fig_h)            # screen height of y pixels from the top
rx(x) = x / (1. * fig_w)
small = ',12.5'
if (fig_format eq 'png') { small = ',9.6' }
large = fig_format eq 'png' ? ',14.5' : ',19'
set label 1001 fig_title at screen rx(16), px(24) left font large
set label 1002 fig_sub1 at screen rx(16), px(48) left font small tc rgb GREY
set label 1003 fig_sub2 at screen rx(16), px(66) left font small tc rgb GREY
fig_top = px(92)
set style line 100 lc rgb '#DDDDDD' lw 0.8 dt 1
set grid back ls 100
set border 3 lw 1 lc rgb '#333333'
set tics nomirror out scale 0.6
set key noautotitle
