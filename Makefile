# make             ./orrery, optimised           make demo       install what is missing, simulate, report
# make test        set up, build, all tests      make tests      the same without setting up
# make check       layers, format, clang, lint   make san        the tests under ASan and UBSan
# make tsan        the ranks under TSan
# make golden      rewrite tests/golden          make fuzz       every reader, FUZZ_S=10 seconds each
# make bench       speed, instruction counts     make accuracy   rewrite tests/accuracy.md
# make validate    predict the bundled engine on this machine, and how far off; QUICK=1, MINUTES=14
# make gpu-check   check and measure an NVIDIA GPU, 9 minutes; files in $OUT or gpu-out; KEEP=1: its profile
# make gpu-bundle  what gpu-check needs on a machine without the libraries, in build/opt/bundle
# make deps        install missing packages      make install    PREFIX=/usr/local [DESTDIR=]
# make uninstall   the reverse of install        make clean      make help: this text
# CC=clang, SAN=1, CFLAGS=... make other builds, B=dir says where, V=1 prints commands.
# CUDA=0|1: without or with NVIDIA GPUs; 1 where nvcc is found. CUDA_ARCH="80 90a": for these only.
ifeq ($(origin CC),default)
CC       := gcc
endif
SAN      ?= 0
PREFIX   ?= /usr/local
FUZZ_S   ?= 10
TAG_0    := opt
TAG_1    := san
TAG_fuzz := fuzz
TAG_thread := tsan
B        := build/$(TAG_$(SAN))$(if $(findstring clang,$(CC)),-clang)
# by name: with both Debian packages installed, plain `hdf5` may be the MPI build
PKG      := hdf5-serial gsl yaml-0.1 jansson libmd hwloc expat
WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings -Wformat=2 -Werror
CHECKED  := -O1 -fno-sanitize-recover=undefined -fno-omit-frame-pointer -fsanitize=address,undefined
OPT_0    := -O2
OPT_1    := $(CHECKED)
OPT_thread := -O1 -fno-omit-frame-pointer -fsanitize=thread
OPT_fuzz := $(CHECKED) -fsanitize=fuzzer-no-link
OPT      := $(OPT_$(SAN)) -g
# headers only: the library is loaded by `orrery engine` when mpirun or srun has started it
MPI      := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I ompi-c 2>/dev/null))
CSTD     := -std=c17 -D_POSIX_C_SOURCE=200809L -D_XOPEN_SOURCE=700 -ffp-contract=off -I. \
            $(shell pkg-config --cflags $(PKG) 2>/dev/null) $(MPI)
LIBS     := $(shell pkg-config --libs $(PKG) 2>/dev/null) -lhdf5_hl -lm -lpthread
# NVIDIA's toolkit: kernels by nvcc, the runtime linked in, libraries loaded when a GPU is opened, so
# that the program starts everywhere. Sanitizers and clang build without.
NVCC     := $(firstword $(and $(CUDA_HOME),$(wildcard $(CUDA_HOME)/bin/nvcc)) \
            $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA     ?= $(if $(NVCC),1,0)
ifneq ($(SAN)$(findstring clang,$(CC)),0)
override CUDA := 0
endif
CUDA_ARCH ?= 75 80 86 89 90a 100
# sources that stand for one another, and tests that read the toolkit's headers
CUDA_0   := engine/backend_cuda_none.c
CUDA_1   := engine/backend_cuda_rt.c engine/backend_cuda_mm.c
CUDA_T   := tests/test_cuda_rt.c tests/test_cuda_mm.c tests/fake_cudart.c tests/fake_cublaslt.c
ifneq ($(NVCC),)
NVCC_DRY := $(NVCC) --dryrun -E -x cu /dev/null 2>&1
CUDA_I   := $(patsubst %,-isystem %,$(shell $(NVCC_DRY) | sed -n 's/.*[^_]INCLUDES="-I\([^"]*\)".*/\1/p'))
endif
ifeq ($(CUDA),1)
$(if $(NVCC),,$(error CUDA=1 needs nvcc, in PATH, $$CUDA_HOME/bin or /usr/local/cuda/bin))
CUDA_L   := $(shell $(NVCC_DRY) | sed -n 's/.*LIBRARIES= *//p' | tr -d '"') -lcudart_static -ldl -lrt
CUDA_REL := $(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
CUDA_ALL := $(patsubst sm_%,%,$(shell $(NVCC) --list-gpu-code))
CUDA_SM  := $(foreach a,$(CUDA_ARCH),$(if $(filter $(a:%a=%),$(CUDA_ALL)),$a))
$(if $(strip $(CUDA_SM)),,$(error CUDA_ARCH "$(CUDA_ARCH)": $(NVCC) knows $(CUDA_ALL)))
CUDA_PTX := $(patsubst %a,%,$(lastword $(CUDA_SM)))
CUDA_SAY := CUDA $(CUDA_REL) ($(CUDA_SM:%=sm_%))
NVFLAGS  := -std=c++17 -O3 -I. --threads 0 -Werror all-warnings -Xcompiler -fno-exceptions,-fno-threadsafe-statics,-Wall,-Wextra,-Werror \
            $(foreach a,$(CUDA_SM),-gencode arch=compute_$a,code=sm_$a) \
            -gencode arch=compute_$(CUDA_PTX),code=compute_$(CUDA_PTX) $(NVCCFLAGS)
CU       := $(patsubst %.cu,$B/%.cu.o,$(wildcard engine/*.cu))
LIBS     += $(CUDA_L)
endif
SRC      := $(filter-out $(CUDA_$(if $(filter 1,$(CUDA)),0,1)) $(if $(MPI),engine/comm_mpi_none.c,engine/comm_mpi.c),\
            $(wildcard base/*.c model/*.c traces/*.c engine/*.c sim/*.c bench/*.c plots/*.c))
OBJ      := $(CU) $(SRC:%.c=$B/%.o)
PURE     := $(patsubst %.c,$B/%.o,$(filter-out sim/cmd_%,$(wildcard sim/*.c engine/sched*.c engine/kv[pm]*.c engine/router.c)))
ACC      := $(patsubst %.c,$B/%.o,$(wildcard tests/accuracy*.c))
SPEED    := $B/tests/bench_engine.o
RANKS    := $B/tests/ranks.o
TEST     := $(filter-out $(ACC) $(SPEED) $(RANKS),$(patsubst %.c,$B/%.o,\
            $(filter-out $(if $(CU),,$(CUDA_T)),$(wildcard tests/*.c))))
FUZZ     := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
REV      := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
Q        := $(if $V,,@)
# sub-makes see packages that were just installed; -j unless the caller chose; B=x becomes x-san, x-clang
SUB       = $(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
BESIDE    = $(if $(findstring command,$(origin B)),B=$B-$1)
export ORRERY_BIN := $B/orrery

orrery: $B/orrery
	@cp -f $< $@
$B/orrery: $(OBJ) $B/main.o
	$Qecho '  link $@'; $(CC) $(OPT) -o $@ $^ $(LIBS)
$B/tests/run: $(OBJ) $(TEST)
	$Qecho '  link $@'; $(CC) $(OPT) -o $@ $^ $(LIBS)
$B/tests/ranks: $(OBJ) $(RANKS) $B/tests/comm_check.o $B/tests/engine_env.o
	$Qecho '  link $@'; $(CC) $(OPT) -o $@ $^ $(LIBS)
$B/tests/accuracy: $(OBJ) $(ACC)
	$Qecho '  link $@'; $(CC) $(OPT) -o $@ $^ $(LIBS)
$B/tests/bench_engine: $(OBJ) $(SPEED) $B/tests/alloc.o
	$Qecho '  link $@'; $(CC) $(OPT) -o $@ $^ $(LIBS)
$(FUZZ:%=$B/fuzz/%): $B/fuzz/%: $(filter $B/base/% $B/model/% $B/traces/%,$(OBJ)) $B/tests/fuzz/fuzz_%.o
	@mkdir -p $(@D)
	$Qecho '  link $@'; $(CC) $(OPT) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$B/%.o: %.c
	@mkdir -p $(@D)
	$Qecho '  $(CC) $<'; $(CC) $(CSTD) $(WARN) $(OPT) $(CFLAGS) -MMD -MP -c -o $@ $<
$B/%.cu.o: %.cu
	@mkdir -p $(@D)
	$Qecho '  nvcc $<'; $(NVCC) $(NVFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $<

# what a build was made with: objects follow when it changes
stamp     = @mkdir -p $(@D); echo '$1' | cmp -s - $@ || echo '$1' > $@
$(PURE): CSTD += -include base/banned.h
$B/base/prov.o: CSTD += -DPROV_REVISION='"$(REV)"' -DPROV_FLAGS='"$(strip $(OPT) $(CFLAGS))"'
$B/base/prov.o: CSTD += -DPROV_CUDA='"$(or $(CUDA_SAY),no CUDA)"'
$B/engine/backend_cuda_rt.o: CSTD += -DBACKEND_CUDA_ARCH='"$(CUDA_SM:%=sm_%)"'
$(patsubst %.c,$B/%.o,$(CUDA_1) $(CUDA_T)): CSTD += $(CUDA_I)
$B/base/paths.o: CSTD += -DPATHS_PREFIX='"$(PREFIX)"'
$B/base/prov.o: $B/revision $B/cuda
$(CU) $(patsubst %.c,$B/%.o,$(CUDA_1) $(CUDA_T)): $B/cuda
$B/base/paths.o: $B/prefix
$(OBJ) $(TEST) $(ACC) $(SPEED) $(RANKS) $(FUZZ:%=$B/tests/fuzz/fuzz_%.o) $B/main.o: $B/flags $(if $(shell pkg-config --exists $(PKG) 2>/dev/null || echo no),absent)
$B/revision: FORCE ; $(call stamp,$(REV))
# said in every build that could have it
$B/cuda: FORCE
	$(if $(filter 0,$(SAN)$(findstring clang,$(CC))),@echo '  $(or $(CUDA_SAY),$(if $(NVCC),CUDA=0: without CUDA,no nvcc: without CUDA))')
	$(call stamp,$(CUDA_SAY) $(CUDA_I) $(CUDA_L) $(NVFLAGS))
$B/prefix: FORCE   ; $(call stamp,$(PREFIX))
$B/flags: FORCE    ; $(call stamp,$(shell $(CC) -dumpfullversion -dumpversion 2>/dev/null) $(CC) $(CSTD) $(WARN) $(OPT) $(CFLAGS))
absent:
	@echo 'A compiler, pkg-config or one of $(PKG) is not installed: run "make deps"' >&2; exit 1

deps:
	@sh .ci/setup.sh test
demo:
	@sh .ci/setup.sh demo
	@$(SUB) orrery
	@mkdir -p demo
	./orrery simulate scenarios/llama3-70b-tp2pp4.yaml --out=demo/run.h5
	./orrery report demo/run.h5 --out=demo/report.html
	@echo 'The run is demo/run.h5 (HDF5), the report demo/report.html'
test:
	@sh .ci/setup.sh test
	@$(SUB) tests
tests: $B/tests/run $B/tests/ranks $B/orrery
	@./$B/tests/run
golden: $B/tests/run $B/orrery
	./$B/tests/run --write-golden
# libpciaccess, which hwloc may load, keeps what it has allocated
san:
	@ORRERY_TEST_SLOW=5 HWLOC_PLUGINS_BLACKLIST=hwloc_pci.so $(SUB) SAN=1 $(call BESIDE,san) tests
tsan:
	@ORRERY_TEST_SLOW=10 $(SUB) SAN=thread $(call BESIDE,tsan) tsan-run
tsan-run: $B/tests/run $B/tests/ranks $B/orrery
	@./$B/tests/run test_comm test_engine.c mpi_2_ranks mpi_a_killed test_pool
fuzz:
	@$(SUB) SAN=fuzz CC=clang $(call BESIDE,fuzz) fuzz-run
fuzz-run: $(FUZZ:%=$B/fuzz/%)
	@sh tests/fuzz/run.sh $B $(FUZZ_S) $(FUZZ)
bench: orrery $B/tests/run $B/tests/ranks $B/tests/bench_engine
	sh tests/bench.sh ./orrery $B/tests/run $B/tests/bench_engine > $B/bench.md && mv $B/bench.md tests/bench.md
# measures, calibrates, predicts, compares: 15 minutes, or MINUTES, the more the less noise; QUICK=1: 2, and nothing in tests/ is touched
validate: orrery
	sh tests/validate.sh ./orrery --dir=build/validate --html=build/validate/report.html $(if $(QUICK),--quick,--out=tests/validation.md --join=tests/accuracy.md) $(if $(MINUTES),--minutes=$(MINUTES))
gpu-check:
	@sh tests/gpu_check.sh
# by RPATH, which the libraries' own libraries are found by too
BUNDLE   := -s -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib:$$ORIGIN/../lib'
gpu-bundle: $(OBJ) $(TEST) $B/main.o
	@mkdir -p $B/bundle/tests
	$Qecho '  link $B/bundle'; $(CC) $(OPT) $(BUNDLE) -o $B/bundle/orrery $(OBJ) $B/main.o $(LIBS)
	$Q$(CC) $(OPT) $(BUNDLE) -o $B/bundle/tests/run $(OBJ) $(TEST) $(LIBS)
	@sh tests/gpu_bundle.sh $B/bundle
accuracy: $B/tests/accuracy $B/orrery
	{ ./$< && echo && sed 's/^#/##/' tests/validation.md; } > $B/accuracy.md && mv $B/accuracy.md tests/accuracy.md
check:
	@$(SUB) CC=clang $(call BESIDE,clang) objects
	@sh tests/check.sh $(CSTD) $(CUDA_I)
objects: $(OBJ) $(TEST) $(ACC) $(SPEED) $(RANKS) $B/main.o

SHARE    := $(DESTDIR)$(PREFIX)/share
install: orrery
	install -D -m 755 orrery $(DESTDIR)$(PREFIX)/bin/orrery
	find scenarios plots -type f ! -name '*.[ch]' -exec install -D -m 644 {} $(SHARE)/orrery/{} \;
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions
	./orrery man > $(SHARE)/man/man1/orrery.1
	./orrery completion bash > $(SHARE)/bash-completion/completions/orrery
	./orrery completion zsh > $(SHARE)/zsh/site-functions/_orrery
uninstall:
	rm -rf $(SHARE)/orrery
	rm -f $(DESTDIR)$(PREFIX)/bin/orrery $(SHARE)/man/man1/orrery.1 \
	  $(SHARE)/bash-completion/completions/orrery $(SHARE)/zsh/site-functions/_orrery
help:
	@sed -n '/^[^#]/q; s/^# \{0,1\}//p' Makefile
clean:
	rm -rf build orrery demo

-include $(OBJ:.o=.d) $(TEST:.o=.d) $(RANKS:.o=.d) $(ACC:.o=.d) $(SPEED:.o=.d) $B/main.d $(FUZZ:%=$B/tests/fuzz/fuzz_%.d)
.PHONY: orrery absent deps demo test tests golden san tsan tsan-run fuzz fuzz-run bench validate gpu-check gpu-bundle accuracy check objects install \
        uninstall help clean FORCE
