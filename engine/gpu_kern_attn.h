/* engine/gpu_kern_attn.h - what the attention kernels and their launch agree on: macros, which serve
 * host and device alike. chunk: pieces of 64 dims that a kernel is made for, 1, 2 or 4.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_GPU_KERN_ATTN_H
#define ENGINE_GPU_KERN_ATTN_H

#define ATTN_LOG2E 1.44269504088896340736f

/* Of a decode or prefill, so many blocks are to fit on a multiprocessor at once: up to 168 of 65536
 * registers for each thread. */
enum { ATTN_WARPS = 4, ATTN_THREADS = 32 * ATTN_WARPS, ATTN_RESIDENT = 3 };

#define ATTN_CHUNK(dim) ((dim) == 64 ? 1 : (dim) <= 128 ? 2 : 4)

/* Query heads of a KV head that a block of a decode takes together. */
#define ATTN_PACK(group, dim) ((group) > 8 && ((dim) == 64 || (dim) == 128) ? 16 : 8)
#define ATTN_PACK_F32(dim)    ((dim) > 128 ? 4 : 8)

/* Prefill: pieces of 32 dims of the queries that registers hold, bytes of the rest in shared memory,
 * bytes of struct attn_tile, keys in a buffer, elements from row to row of keys and of values. */
#define ATTN_Q_HELD(chunk)  ((chunk) == 1 ? 2 : (chunk) == 2 ? 3 : 0)
#define ATTN_Q_BYTES(chunk) ((2 * (chunk)-ATTN_Q_HELD(chunk)) * 32 * 64 * 2)
#define ATTN_TILE_BYTES     48
#define ATTN_KEYS(chunk)    (64 / (chunk))
#define ATTN_K_LD(chunk)    ((chunk)*64 + 32)
#define ATTN_V_LD(chunk)    (((chunk) > 2 ? 2 : (chunk)) * 64 + 8)

#endif
