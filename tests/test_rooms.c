/* tests/test_rooms.c - recycled arrays: nobody else's, and no more of them than were in use at once.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/rooms.h"

#include <string.h>

#include "base/rng.h"
#include "tests/test.h"

TEST(rooms_fit_what_is_asked)
{
    struct arena a;
    struct rooms byte, word;
    arena_init(&a);
    rooms_init(&byte, 1, 1, &a);
    rooms_init(&word, 4, 32, &a);
    CHECK_INT(byte.least_log2, 3); /* a pointer fits */
    CHECK_INT(rooms_log2(&byte, 0), 3);
    CHECK_INT(rooms_log2(&byte, 9), 4);
    CHECK_INT(rooms_log2(&word, 1), 5);
    CHECK_INT(rooms_log2(&word, 32), 5);
    CHECK_INT(rooms_log2(&word, 33), 6);
    CHECK_INT(rooms_log2(&word, (INT64_C(1) << 31) - 1), 31);
    arena_release(&a);
}

/* Random sizes come and go; each is filled with its number, which it keeps while it is out. The arena
 * grows by no more than the most that was out at a time, size by size. */
TEST(rooms_are_kept_apart_and_used_again)
{
    enum { N = 50, STEPS = 20000, LOG2 = 11 };
    struct rng draw = rng_stream(5, "test.rooms");
    struct arena a;
    struct rooms r;
    struct {
        int32_t *at;
        int log2;
    } out[N] = { 0 };
    int now[LOG2 + 1] = { 0 }, most[LOG2 + 1] = { 0 };
    size_t bytes = 0;
    arena_init(&a);
    rooms_init(&r, sizeof(int32_t), 4, &a);
    for (int i = 0; i < STEPS; i++) {
        int k = (int)rng_below(draw, (uint64_t)(2 * i), N);
        if (out[k].at) {
            bool kept = true;
            for (int32_t j = 0; j < 1 << out[k].log2; j++) kept &= out[k].at[j] == k;
            CHECK(kept);
            rooms_give(&r, out[k].at, out[k].log2);
            now[out[k].log2]--;
            out[k].at = NULL;
            continue;
        }
        int log2 = rooms_log2(&r, (int64_t)rng_below(draw, (uint64_t)(2 * i + 1), 1 << LOG2) + 1);
        out[k].log2 = log2;
        out[k].at = rooms_take(&r, log2);
        for (int32_t j = 0; j < 1 << log2; j++) out[k].at[j] = k;
        if (++now[log2] > most[log2]) most[log2] = now[log2];
    }
    for (int i = 0; i <= LOG2; i++) bytes += (size_t)most[i] << i << 2;
    CHECK_INT(a.total_bytes, bytes);
    arena_release(&a);
}
