# make                 ./orrery, optimised            make demo     install what is missing, simulate, report
# make test            set up, then all tests         make check    layering, format, clang build, static analysis
# make san             tests under ASan and UBSan     make golden   rewrite tests/golden (read the diff!)
# make bench           speed and instruction counts   make fuzz     short fuzz run of every reader
# make accuracy        rewrite tests/accuracy.md      make install  PREFIX=/usr/local [DESTDIR=]
# make help            this text                      make clean
CC      ?= gcc
SAN     ?= 0
PREFIX  ?= /usr/local
,       := ,
TAG     := $(if $(filter 1,$(SAN)),san,opt)$(if $(findstring clang,$(CC)),-clang)
B       := build/$(TAG)
# by name: with both Debian packages installed, plain `hdf5` may be the MPI build
PKG     := hdf5-serial gsl yaml-0.1 jansson libmd
WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
           -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings -Wformat=2 -Werror
OPT     := $(if $(filter 1,$(SAN)),-O1 -fsanitize=address$(,)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer,-O2) -g
CSTD    := -std=c17 -D_POSIX_C_SOURCE=200809L -D_XOPEN_SOURCE=700 -ffp-contract=off -I. \
           $(shell pkg-config --cflags $(PKG) 2>/dev/null)
LIBS    := $(shell pkg-config --libs $(PKG) 2>/dev/null) -lhdf5_hl -lm -lpthread
SRC     := $(wildcard base/*.c model/*.c traces/*.c engine/*.c sim/*.c bench/*.c plots/*.c)
OBJ     := $(SRC:%.c=$B/%.o)
PURE    := $(patsubst %.c,$B/%.o,$(filter-out sim/cmd_%,$(wildcard sim/*.c engine/sched*.c engine/kvpool.c)))
TEST    := $(patsubst %.c,$B/%.o,$(wildcard tests/*.c))
REV     := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)

orrery: $B/orrery
	@cp -f $< $@
$B/orrery: $(OBJ) $B/main.o
	$(CC) $(OPT) -o $@ $^ $(LIBS)
$B/tests/run: $(OBJ) $(TEST)
	$(CC) $(OPT) -o $@ $^ $(LIBS)
$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CSTD) $(WARN) $(OPT) $(CFLAGS) -MMD -MP -c -o $@ $<
$(PURE): CSTD += -include base/banned.h
$B/base/prov.o: CSTD += -DPROV_REVISION='"$(REV)"' -DPROV_FLAGS='"$(OPT)"'
$B/base/prov.o: $B/revision
$B/base/paths.o: CSTD += -DPATHS_PREFIX='"$(PREFIX)"'
$B/revision: FORCE
	@mkdir -p $(@D); echo '$(REV)' | cmp -s - $@ || echo '$(REV)' > $@

-include $(OBJ:.o=.d) $(TEST:.o=.d) $B/main.d
.PHONY: orrery FORCE
