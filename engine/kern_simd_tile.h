/* engine/kern_simd_tile.h - the frame of every matmul tile: accumulators from c and back to it.
 *
 * mr and nv (rows, vectors of 16 columns) are constants where these are inlined, so that loops over
 * them unroll and accumulators are registers. SPDX-License-Identifier: Apache-2.0 */

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { PANEL = KERN_PANEL };

#define FOR_ROWS_AND_VECS UNROLL for (int r = 0; r < mr; r++) UNROLL for (int v = 0; v < nv; v++)

/* A prefetch of any address is harmless: it cannot fault. */
KEEP void fetch_ahead(const char *next)
{
    __builtin_prefetch(next, 0, 3);
    __builtin_prefetch(next + 64, 0, 3);
}

KEEP void begin(v16 acc[][2], const struct kern_tile *t, int col, int mr, int nv)
{
    FOR_ROWS_AND_VECS acc[r][v] = t->cont ? v_load(t->c + r * t->ldc + col + v * 16) : v_zero();
}

KEEP void finish(v16 acc[][2], const struct kern_tile *t, int col, int mr, int nv)
{
    FOR_ROWS_AND_VECS v_store(t->c + r * t->ldc + col + v * 16, acc[r][v]);
}
