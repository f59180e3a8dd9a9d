/* base/rooms.c - see rooms.h. SPDX-License-Identifier: Apache-2.0 */
#include "base/rooms.h"

#include <assert.h>
#include <string.h>

void rooms_init(struct rooms *r, size_t size, int64_t least, struct arena *a)
{
    *r = (struct rooms){ .arena = a, .size = size };
    while (((int64_t)1 << r->least_log2) < least || (size << r->least_log2) < sizeof(void *))
        r->least_log2++;
}

int rooms_log2(const struct rooms *r, int64_t n)
{
    int log2 = r->least_log2;
    while (((int64_t)1 << log2) < n) log2++;
    assert(log2 <= ROOMS_MAX_LOG2);
    return log2;
}

void *rooms_take(struct rooms *r, int log2)
{
    void *room = r->spare[log2];
    assert(log2 >= r->least_log2 && log2 <= ROOMS_MAX_LOG2);
    if (!room) return arena_array(r->arena, (size_t)1 << log2, r->size);
    memcpy(&r->spare[log2], room, sizeof(void *));
    return room;
}

void rooms_give(struct rooms *r, void *room, int log2)
{
    memcpy(room, &r->spare[log2], sizeof(void *));
    r->spare[log2] = room;
}
