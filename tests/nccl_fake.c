/* tests/nccl_fake.c - see nccl_fake.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/nccl_fake.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"

enum op_kind {
    OP_KERNEL,
    OP_COPY,
    OP_RECORD,
    OP_WAIT,
    OP_SUM,
    OP_GATHER,
    OP_TELL,
    OP_SEND,
    OP_RECV
};
enum { MAX_STREAMS = 64, MAX_CLIQUES = 64, MAX_MEMORY = 64, INVALID_USAGE = 5 };

struct event {
    int64_t issued, done; /* times it was recorded */
};

struct op {
    enum op_kind kind;
    const void *in;
    void *out;
    size_t n; /* floats or bytes */
    int root;
    struct nccl_comm *c;
    struct event *event;
    int64_t version;
    void (*fn)(void *);
    const bool *gate;
};

struct stream {
    int rank;
    bool side, there;
    struct op *op;
    size_t n, at, room;
};

struct clique {
    struct nccl_id id;
    int n, came;
    struct nccl_comm *member[NCCL_FAKE_RANKS];
};

struct nccl_comm {
    struct clique *of;
    int rank, device, polls;
    bool used, final;
};

struct device {
    struct gpu g;
    int rank, n_memory;
    struct stream *queue;
    void *memory[MAX_MEMORY];
    int (*watch)(void *arg, int64_t waited_ns, struct err *e);
    void *watch_arg;
};

struct nccl_fake nccl_fake;
static struct {
    struct rng draw;
    uint64_t n_draw;
    int rank; /* in use */
    struct stream stream[MAX_STREAMS];
    struct clique clique[MAX_CLIQUES];
    struct device device[NCCL_FAKE_RANKS];
    int n_id;
} s;

/* ---- running */

static struct op *head(struct stream *q)
{
    return q->at < q->n ? &q->op[q->at] : NULL;
}

/* The operation of another rank of the clique, if that has come to it. */
static struct stream *at_call(const struct nccl_comm *c)
{
    for (int i = 0; i < MAX_STREAMS && c; i++) {
        struct op *o = head(&s.stream[i]);
        if (o && o->kind >= OP_SUM && o->c == c) return &s.stream[i];
    }
    return NULL;
}

static bool can_run(const struct op *o)
{
    if (o->kind == OP_KERNEL) return !o->gate || *o->gate;
    if (o->kind == OP_WAIT) return o->event->done >= o->version;
    if (o->kind < OP_SUM || !o->c) return true;
    for (int r = 0; r < o->c->of->n; r++)
        if (!at_call(o->c->of->member[r])) return false;
    return true;
}

/* Ranks are added from another first one for each element, as a ring does. */
static void sum(struct op *const *o, int n)
{
    float *out = mem_zalloc(o[0]->n, sizeof *out);
    for (size_t i = 0; i < o[0]->n; i++) {
        size_t first = i * (size_t)n / o[0]->n;
        for (int r = 0; r < n; r++)
            out[i] += ((const float *)o[(first + (size_t)r) % (size_t)n]->in)[i];
    }
    for (int r = 0; r < n; r++) memcpy(o[r]->out, out, o[0]->n * sizeof *out);
    free(out);
}

static void together(struct op *const *o, int n)
{
    if (o[0]->kind == OP_SUM) sum(o, n);
    for (int r = 0; r < n; r++) {
        bool takes = r == 1 && o[0]->kind == OP_SEND && o[1]->kind == OP_RECV;
        nccl_fake.misuses += o[r]->n != o[0]->n || (o[r]->kind != o[0]->kind && !takes);
        if (o[0]->kind == OP_TELL) memmove(o[r]->out, o[o[0]->root]->in, o[0]->n);
        for (int k = 0; k < n && o[0]->kind == OP_GATHER; k++)
            memcpy((char *)o[r]->out + (size_t)k * o[0]->n, o[k]->in, o[0]->n);
    }
    if (o[0]->kind == OP_SEND) memcpy(o[1]->out, o[0]->in, o[0]->n);
}

static void run_together(const struct nccl_comm *c)
{
    struct op *o[NCCL_FAKE_RANKS] = { 0 };
    struct stream *q[NCCL_FAKE_RANKS];
    for (int r = 0; r < c->of->n; r++) {
        q[r] = at_call(c->of->member[r]);
        o[r] = head(q[r]);
    }
    together(o, c->of->n);
    for (int r = 0; r < c->of->n; r++) q[r]->at++;
}

static void run_head(struct stream *q)
{
    struct op *o = head(q);
    if (o->kind >= OP_SUM && o->c) {
        run_together(o->c);
        return;
    }
    if (o->kind == OP_KERNEL) o->fn(o->out);
    if (o->kind == OP_COPY && o->n) memmove(o->out, o->in, o->n);
    if (o->kind == OP_RECORD) o->event->done = o->version;
    q->at++;
}

static bool run_one(void)
{
    struct stream *can[MAX_STREAMS];
    int n = 0, n_liked = 0;
    for (int i = 0; i < MAX_STREAMS; i++)
        if (head(&s.stream[i]) && can_run(head(&s.stream[i]))) can[n++] = &s.stream[i];
    if (n == 0) return false;
    for (int i = 0; i < n && nccl_fake.order != NCCL_FAKE_ANY; i++)
        if (can[i]->side == (nccl_fake.order == NCCL_FAKE_SIDE_FIRST)) can[n_liked++] = can[i];
    if (n_liked > 0) n = n_liked;
    run_head(can[(size_t)(rng_unit(s.draw, s.n_draw++) * n)]);
    return true;
}

bool nccl_fake_run(void)
{
    while (run_one()) {}
    for (int i = 0; i < MAX_STREAMS; i++)
        if (head(&s.stream[i])) return false;
    return true;
}

bool nccl_fake_idle(int rank, bool side)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        if (s.stream[i].rank == rank && s.stream[i].side == side && head(&s.stream[i]))
            return false;
    return true;
}

static void issue(struct stream *q, struct op o)
{
    if (q->n == q->room) {
        q->room = q->room ? 2 * q->room : 64;
        q->op = mem_resize(q->op, q->room, sizeof *q->op);
    }
    q->op[q->n++] = o;
}

/* ---- streams and events */

static int stream_priorities(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return NCCL_API_CU_OK;
}

static int stream_new(void **out, unsigned flags, int priority)
{
    (void)flags, (void)priority;
    for (int i = 0; i < MAX_STREAMS; i++) {
        if (s.stream[i].there) continue;
        s.stream[i] = (struct stream){ .rank = s.rank, .side = true, .there = true };
        *out = &s.stream[i];
        nccl_fake.alive++;
        return NCCL_API_CU_OK;
    }
    return 2;
}

static int stream_free(void *p)
{
    struct stream *q = p;
    free(q->op);
    *q = (struct stream){ 0 };
    nccl_fake.alive--;
    return NCCL_API_CU_OK;
}

static int stream_wait(void *p, void *event, unsigned flags)
{
    struct event *ev = event;
    (void)flags;
    if (!nccl_fake.no_waits)
        issue(p, (struct op){ .kind = OP_WAIT, .event = ev, .version = ev->issued });
    return NCCL_API_CU_OK;
}

static int event_new(void **out, unsigned flags)
{
    (void)flags;
    *out = mem_zalloc(1, sizeof(struct event));
    nccl_fake.alive++;
    return NCCL_API_CU_OK;
}

static int event_free(void *event)
{
    for (int i = 0; i < MAX_STREAMS; i++) /* as on a device, those under way keep it */
        for (struct op *o = head(&s.stream[i]); o && o < s.stream[i].op + s.stream[i].n; o++)
            if (o->event == event) *o = (struct op){ .kind = OP_COPY };
    free(event);
    nccl_fake.alive--;
    return NCCL_API_CU_OK;
}

static int event_record(void *event, void *stream)
{
    struct event *ev = event;
    if (nccl_fake.cu_result) return nccl_fake.cu_result;
    issue(stream, (struct op){ .kind = OP_RECORD, .event = ev, .version = ++ev->issued });
    return NCCL_API_CU_OK;
}

static int event_query(void *event)
{
    const struct event *ev = event;
    nccl_fake.queries++;
    run_one();
    return ev->done >= ev->issued ? NCCL_API_CU_OK : NCCL_API_CU_NOT_READY;
}

static int cu_error(int result, const char **text)
{
    *text = result == 2 ? "out of memory" : "an illegal memory access was encountered";
    return NCCL_API_CU_OK;
}

/* ---- NCCL */

static int get_version(int *code)
{
    *code = nccl_fake.version;
    return NCCL_API_OK;
}

static int unique_id(struct nccl_id *id)
{
    memset(id, 0, sizeof *id);
    memcpy(id->bytes, &(int){ ++s.n_id }, sizeof(int));
    return NCCL_API_OK;
}

static int init(struct nccl_comm **out, int n, struct nccl_id id, int rank, struct nccl_config *g)
{
    struct clique *q = NULL;
    if (g->blocking != 0 || g->magic != 0xcafebeefU || g->size != sizeof *g) return 4;
    if (nccl_fake.init_result[s.rank]) return nccl_fake.init_result[s.rank];
    for (int i = 0; i < MAX_CLIQUES && !q; i++)
        if (s.clique[i].n == 0 || memcmp(&s.clique[i].id, &id, sizeof id) == 0) q = &s.clique[i];
    if (!q || (q->n && (q->n != n || q->member[rank]))) return INVALID_USAGE;
    struct nccl_comm *c = mem_zalloc(1, sizeof *c);
    q->id = id;
    q->n = n;
    q->came++;
    q->member[rank] = c;
    *c = (struct nccl_comm){ .of = q, .rank = rank, .device = s.rank };
    *out = c;
    nccl_fake.alive++;
    return NCCL_API_IN_PROGRESS;
}

static bool under_way(const struct nccl_comm *c)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        for (struct op *o = head(&s.stream[i]); o && o < s.stream[i].op + s.stream[i].n; o++)
            if (o->c == c) return true;
    return false;
}

static int async_error(struct nccl_comm *c, int *result)
{
    *result = nccl_fake.async_result[c->device];
    if (c->final) run_one();
    if (*result == NCCL_API_OK &&
        (c->of->came < c->of->n || c->polls > 0 || (c->final && under_way(c))))
        *result = NCCL_API_IN_PROGRESS;
    if (c->polls > 0) c->polls--;
    return NCCL_API_OK;
}

/* What waits for c goes on, as kernels do that see the flag. */
static void leave(struct nccl_comm *c)
{
    for (int i = 0; i < MAX_STREAMS; i++)
        for (struct op *o = head(&s.stream[i]); o && o < s.stream[i].op + s.stream[i].n; o++)
            if (o->c == c) *o = (struct op){ .kind = OP_COPY };
    c->of->member[c->rank] = NULL;
    free(c);
    nccl_fake.alive--;
}

/* Aborts come from threads of their own. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

static int abort_comm(struct nccl_comm *c)
{
    pthread_mutex_lock(&lock);
    while (nccl_fake.recorded) pthread_cond_wait(&moved, &lock);
    leave(c);
    nccl_fake.aborts++;
    pthread_mutex_unlock(&lock);
    return NCCL_API_OK;
}

void nccl_fake_forget(void)
{
    pthread_mutex_lock(&lock);
    nccl_fake.recorded = false;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static int finalize(struct nccl_comm *c)
{
    c->final = true;
    return NCCL_API_IN_PROGRESS;
}

static int destroy(struct nccl_comm *c)
{
    nccl_fake.misuses += !c->final || under_way(c);
    leave(c);
    nccl_fake.destroyed++;
    return NCCL_API_OK;
}

static const char *error_string(int result)
{
    return result == 2                 ? "unhandled system error"
           : result == NCCL_API_REMOTE ? "remote process exited"
                                       : "invalid usage";
}

static const char *last_error(struct nccl_comm *c)
{
    (void)c;
    return nccl_fake.last_error ? nccl_fake.last_error : "";
}

static int call(struct stream *q, struct nccl_comm *c, struct op o)
{
    int result = nccl_fake.call_result[c->device];
    if (c->of->came < c->of->n || c->polls > 0 || q->rank != c->device) {
        nccl_fake.misuses++;
        return INVALID_USAGE;
    }
    if (result) return result;
    o.c = c;
    issue(q, o);
    if (!c->used) c->polls = nccl_fake.busy_polls;
    c->used = true;
    return c->polls > 0 ? NCCL_API_IN_PROGRESS : NCCL_API_OK;
}

static int all_reduce(const void *in, void *out, size_t n, int type, int op, struct nccl_comm *c,
                      void *stream)
{
    if (type != NCCL_API_F32 || op != NCCL_API_SUM) return 4;
    return call(stream, c, (struct op){ .kind = OP_SUM, .in = in, .out = out, .n = n });
}

static int all_gather(const void *in, void *out, size_t n, int type, struct nccl_comm *c,
                      void *stream)
{
    if (type != NCCL_API_UINT8) return 4;
    return call(stream, c, (struct op){ .kind = OP_GATHER, .in = in, .out = out, .n = n });
}

static int broadcast(const void *in, void *out, size_t n, int type, int root, struct nccl_comm *c,
                     void *stream)
{
    if (type != NCCL_API_UINT8) return 4;
    return call(stream, c,
                (struct op){ .kind = OP_TELL, .in = in, .out = out, .n = n, .root = root });
}

static int send(const void *in, size_t n, int type, int to, struct nccl_comm *c, void *stream)
{
    if (type != NCCL_API_UINT8 || to != 1 || c->rank != 0) return 4;
    return call(stream, c, (struct op){ .kind = OP_SEND, .in = in, .n = n });
}

static int recv(void *out, size_t n, int type, int from, struct nccl_comm *c, void *stream)
{
    if (type != NCCL_API_UINT8 || from != 0 || c->rank != 1) return 4;
    return call(stream, c, (struct op){ .kind = OP_RECV, .out = out, .n = n });
}

const struct nccl_api nccl_fake_api = {
    .version = get_version,
    .unique_id = unique_id,
    .init = init,
    .finalize = finalize,
    .destroy = destroy,
    .abort = abort_comm,
    .async_error = async_error,
    .error_string = error_string,
    .last_error = last_error,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .send = send,
    .recv = recv,
    .stream_priorities = stream_priorities,
    .stream_new = stream_new,
    .stream_free = stream_free,
    .stream_wait = stream_wait,
    .event_new = event_new,
    .event_free = event_free,
    .event_record = event_record,
    .event_query = event_query,
    .cu_error = cu_error,
};

/* ---- devices, time */

static int gpu_alloc(struct gpu *g, size_t bytes, void **out, struct err *e)
{
    struct device *d = (struct device *)g;
    if (nccl_fake.no_memory || d->n_memory == MAX_MEMORY)
        return err_set(e, ST_DEVICE, "%zu bytes of device memory, 0 are free", bytes);
    *out = d->memory[d->n_memory++] = mem_zalloc(bytes ? bytes : 1, 1);
    return ST_OK;
}

static int gpu_put(struct gpu *g, void *to, const void *from, size_t bytes, struct err *e)
{
    (void)e;
    issue(((struct device *)g)->queue,
          (struct op){ .kind = OP_COPY, .in = from, .out = to, .n = bytes });
    return ST_OK;
}

static void gpu_watch(struct gpu *g, int (*fn)(void *, int64_t, struct err *), void *arg)
{
    ((struct device *)g)->watch = fn;
    ((struct device *)g)->watch_arg = arg;
}

int nccl_fake_ask(int rank, int64_t waited_ns, struct err *e)
{
    const struct device *d = &s.device[rank];
    return d->watch ? d->watch(d->watch_arg, waited_ns, e) : -1;
}

static void *gpu_queue(struct gpu *g)
{
    return ((struct device *)g)->queue;
}

static const struct gpu_ops gpu_ops = { .name = "fake",
                                        .alloc = gpu_alloc,
                                        .put = gpu_put,
                                        .get = gpu_put,
                                        .watch = gpu_watch,
                                        .queue = gpu_queue };

static int64_t fake_now(void *arg)
{
    (void)arg;
    return nccl_fake.now_ns += 10000;
}

static void fake_nap(void *arg, int64_t ns)
{
    (void)arg;
    nccl_fake.now_ns += ns;
}

const struct nccl_clock nccl_fake_clock = { fake_now, fake_nap, NULL };

void nccl_fake_use(int rank)
{
    s.rank = rank;
}

struct gpu *nccl_fake_gpu(int rank)
{
    return &s.device[rank].g;
}

void nccl_fake_kernel(int rank, void (*fn)(void *), void *arg, const bool *gate)
{
    issue(s.device[rank].queue,
          (struct op){ .kind = OP_KERNEL, .fn = fn, .out = arg, .gate = gate });
}

void nccl_fake_open(uint64_t seed)
{
    memset(&s, 0, sizeof s);
    nccl_fake = (struct nccl_fake){ .version = 22809, .now_ns = 1 };
    s.draw = rng_child(rng_stream(11, "nccl"), seed);
    for (int r = 0; r < NCCL_FAKE_RANKS; r++) {
        void *queue;
        s.rank = r;
        stream_new(&queue, 0, 0);
        s.device[r] = (struct device){ .g = { .ops = &gpu_ops }, .rank = r, .queue = queue };
        s.device[r].queue->side = false;
    }
    nccl_fake.alive = 0;
}

void nccl_fake_close(void)
{
    for (int r = 0; r < NCCL_FAKE_RANKS; r++)
        for (int i = 0; i < s.device[r].n_memory; i++) free(s.device[r].memory[i]);
    for (int i = 0; i < MAX_STREAMS; i++) free(s.stream[i].op);
}
