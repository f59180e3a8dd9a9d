#!/bin/sh
# .ci/setup.sh - installs what is missing on Debian 12+ and Ubuntu 22.04+, and nothing else.
#
#     sh .ci/setup.sh demo|test
# demo: what building and running needs; test: also what the tests, `make check` and `make fuzz` need.
# Each thing is looked for first, however it was installed, so a prepared machine needs no network.
# As root or with passwordless sudo it calls apt-get; else it prints the command and exits 1.
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/.." || exit 1
missing=

need() { # PACKAGE TEST...: PACKAGE is missing unless the command TEST... succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
has() { command -v "$1"; }
has_lib() { pkg-config --exists "$1"; }
# the sanitizers' and the fuzzer's runtimes are packaged apart from clang, or not, by release
has_runtime() { find "$(clang -print-resource-dir)/lib" -name 'libclang_rt.fuzzer*' | grep -q .; }
has_python() { # NAME...: all modules are there for the interpreter that the tests call
    /usr/bin/python3 -c 'import importlib.util as u, sys
sys.exit(any(u.find_spec(m) is None for m in sys.argv[1:]))' "$@"
}

look() {
    missing=
    need gcc has gcc
    need libc6-dev test -e /usr/include/stdio.h
    need make has make
    need pkg-config has pkg-config
    need libhdf5-dev has_lib hdf5-serial
    need libgsl-dev has_lib gsl
    need libyaml-dev has_lib yaml-0.1
    need libjansson-dev has_lib jansson
    need libmd-dev has_lib libmd
    need libhwloc-dev has_lib hwloc
    need libexpat1-dev has_lib expat
    need gnuplot-nox has gnuplot
    if has nvcc || [ -x /usr/local/cuda/bin/nvcc ]; then need g++ has g++; fi >/dev/null
    [ "$1" = demo ] && return
    need python3-h5py has_python h5py
    need python3-xarray has_python xarray
    need python3-netcdf4 has_python netCDF4
    need libopenmpi-dev has_lib ompi-c
    need openmpi-bin has mpirun
    need valgrind has valgrind
    need clang has clang
    has_runtime >/dev/null 2>&1 || missing="$missing $(runtime_package)"
    need llvm has llvm-symbolizer
    need clang-format has clang-format
    need clang-tidy has clang-tidy
    need librsvg2-bin has rsvg-convert
    need netcdf-bin has ncdump
    need hdf5-tools has h5dump
}

# libclang-rt-N-dev of the clang that is or would be installed; before 15 also part of libclang-common
runtime_package() {
    for p in "libclang-rt-$(clang -dumpversion 2>/dev/null | cut -d. -f1)-dev" libclang-rt-dev; do
        apt-cache show "$p" >/dev/null 2>&1 && echo "$p" && return
    done
    echo libclang-common-14-dev
}

case ${1-} in
demo | test) look "$1" ;;
*) echo "use: sh .ci/setup.sh demo|test" >&2; exit 2 ;;
esac
[ -z "$missing" ] && exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    sudo -n true 2>/dev/null || as_root=none
fi
if [ "$as_root" = none ] || ! has apt-get >/dev/null; then
    echo "These packages are missing; as an administrator, run:" >&2
    echo "    apt-get install --no-install-recommends$missing" >&2
    [ "$1" = test ] && echo "\`make tests\` runs without them what it can." >&2
    exit 1
fi

install() {
    # shellcheck disable=SC2086 # words: an optional sudo, a list of packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
}
echo "Installing$missing" >&2
if ! install; then
    $as_root apt-get update -q >&2
    look "$1" # package lists may have been empty: names are chosen again
    install || { echo "apt-get could not install$missing" >&2; exit 1; }
fi
look "$1"
[ -z "$missing" ] && exit 0
echo "Installed, but still not found:$missing" >&2
exit 1
