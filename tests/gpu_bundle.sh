#!/bin/sh
# tests/gpu_bundle.sh DIR: the libraries that DIR/orrery and DIR/tests/run need, beside them in DIR/lib, and Open MPI's launcher,
# where there is one, in DIR/bin: for `PREBUILT=1 B=DIR sh tests/gpu_check.sh` on a machine that has none of them and no network.
#
# Both programs look in DIR/lib by an RPATH. The C library and what is made with it stay behind: the other machine's must be as
# new as this one's. So do the driver and NVIDIA's libraries, which are looked for when a GPU is opened.
# SPDX-License-Identifier: Apache-2.0
set -eu
dir=${1:?which folder}
if [ ! -x "$dir/orrery" ] || [ ! -x "$dir/tests/run" ]; then echo "gpu_bundle.sh: no orrery or tests/run in '$dir'" >&2; exit 1; fi
rm -rf "${dir:?}/lib" "${dir:?}/bin" "${dir:?}/share" # else they would be found there
mkdir -p "$dir/lib"
# of the C library, and of the compiler, which every machine has
own='/\(ld-linux[^/]*\|lib\(c\|m\|dl\|rt\|pthread\|resolv\|util\|nsl\|anl\|BrokenLocale\|thread_db\|nss_[a-z]*\|gcc_s\|stdc++\|cuda\|nvidia-ml\)\)\.so'
libs_of() { ldd "$@" | sed -n 's/.* => \(\/[^ ]*\) (.*/\1/p' | sort -u | grep -v "$own"; }
missing=$(ldd "$dir/orrery" "$dir/tests/run" | sed -n 's/^[[:space:]]*\(.*\) => not found.*/\1/p' | sort -u | tr '\n' ' ')
[ -z "$missing" ] || { echo "gpu_bundle.sh: not found: $missing" >&2; exit 1; }

mpi=$(command -v mpirun || true)
plugins=
if [ -n "$mpi" ] && command -v ompi_info > /dev/null 2>&1; then
    plugins=$(ompi_info --path pkglibdir --parsable | sed -n 's/^path:pkglibdir://p')
    data=$(ompi_info --path pkgdatadir --parsable | sed -n 's/^path:pkgdatadir://p')
fi
mpi_libs=
if [ -n "$plugins" ] && [ -d "$plugins" ]; then
    mkdir -p "$dir/bin" "$dir/lib/openmpi" "$dir/share/openmpi"
    cp -fL "$mpi" "$dir/bin/orterun"
    cp -fL "$(command -v orted)" "$dir/bin/orted"
    # of one host: no networks' and no batch systems' plug-ins, which bring many libraries
    for f in "$plugins"/mca_*.so; do
        case $(basename "$f") in
        *_ucx.so | *_ofi.so | *_openib.so | *_psm.so | *_psm2.so | *_slurm.so | *_flux.so | *gridengine* | *_memheap_* | *_fs_* | *_io_* | *_fcoll_* | *_fbtl_* | *monitoring* | *_jsm.so) ;;
        *) cp -fL "$f" "$dir/lib/openmpi/" ;;
        esac
    done
    cp -fL "$data"/*.txt "$dir/share/openmpi/" 2> /dev/null || true
    libmpi=$(ldconfig -p | sed -n 's/.*libmpi\.so\.40 .*=> //p' | head -1)
    cp -fL "$libmpi" "$dir/lib/"
    mpi_libs=$(libs_of "$dir/bin/orterun" "$libmpi" "$dir"/lib/openmpi/*.so)
    # moved by its own variables
    cat > "$dir/bin/mpirun" << 'END'
#!/bin/sh
at=$(cd "$(dirname "$0")/.." && pwd)
export OPAL_PREFIX="$at" OPAL_LIBDIR="$at/lib" OPAL_PKGLIBDIR="$at/lib/openmpi" OPAL_PKGDATADIR="$at/share/openmpi"
export OPAL_BINDIR="$at/bin" OMPI_MCA_mca_base_component_path="$at/lib/openmpi" PMIX_INSTALL_PREFIX="$at"
export LD_LIBRARY_PATH="$at/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" OMPI_MCA_plm=isolated
exec "$at/bin/orterun" "$@"
END
    chmod +x "$dir/bin/mpirun"
fi
for f in $(libs_of "$dir/orrery" "$dir/tests/run") $mpi_libs; do
    case $f in "$dir"/*) ;; *) cp -fL "$f" "$dir/lib/" ;; esac
done
echo "  $dir: $(du -sm "$dir" | cut -f 1) MB; elsewhere: PREBUILT=1 B=$dir sh tests/gpu_check.sh"
