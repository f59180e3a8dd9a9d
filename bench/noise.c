/* bench/noise.c - see noise.h. SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* ru_nivcsw */
#include "bench/noise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/progress.h"

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
}

static void add_usage(int who, struct noise_count *c)
{
    struct rusage u;
    if (getrusage(who, &u) != 0) return;
    c->own_s += seconds(u.ru_utime) + seconds(u.ru_stime);
    if (who == RUSAGE_SELF) c->switches = (double)u.ru_nivcsw;
}

/* cpu  user nice system idle iowait irq softirq steal ... in 1 / _SC_CLK_TCK s */
void noise_count(struct noise_count *c)
{
    enum { USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL, N_FIELD };
    double v[N_FIELD] = { 0 }, tick = (double)sysconf(_SC_CLK_TCK);
    *c = (struct noise_count){ .wall_s = 1e-9 * (double)clock_mono_ns() };
    add_usage(RUSAGE_SELF, c);
    add_usage(RUSAGE_CHILDREN, c);
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return;
    char line[256];
    if (fgets(line, sizeof line, f) && strncmp(line, "cpu ", 4) == 0) {
        char *at = line + 4;
        for (int i = 0; i < N_FIELD; i++) v[i] = strtod(at, &at);
        c->busy_s = (v[USER] + v[NICE] + v[SYSTEM] + v[IRQ] + v[SOFTIRQ]) / tick;
        c->steal_s = v[STEAL] / tick;
    }
    fclose(f);
}

/* About half a millisecond that no compiler takes out. */
static double spin_s(void)
{
    enum { ROUNDS = 200000 };
    volatile uint64_t sink;
    uint64_t x = 88172645463325252u;
    int64_t t0 = clock_mono_ns();
    for (int i = 0; i < ROUNDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    sink = x;
    (void)sink;
    return 1e-9 * (double)(clock_mono_ns() - t0);
}

void noise_init(struct noise *n)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    *n = (struct noise){ .cpus = cpus > 1 ? (int)cpus : 1, .spin_best_s = INFINITY };
    for (int i = 0; i < 5; i++) n->spin_best_s = fmin(n->spin_best_s, spin_s());
    noise_count(&n->last);
}

static double at_least_0(double x)
{
    return x > 0 ? x : 0;
}

bool noise_judge(struct noise *n, const struct noise_count *now, double spin_ratio)
{
    const struct noise_count *was = &n->last;
    double wall = now->wall_s - was->wall_s, all = wall * n->cpus;
    if (wall <= 0) return false;
    n->steal_ratio = fmin(1, at_least_0(now->steal_s - was->steal_s) / all);
    double others_s = now->busy_s - was->busy_s - (now->own_s - was->own_s);
    n->others_ratio = at_least_0(others_s - n->helpers * wall) / all;
    n->switches_per_s = at_least_0(now->switches - was->switches) / wall;
    n->spin_ratio = spin_ratio;
    n->last = *now;
    n->worst_steal = fmax(n->worst_steal, n->steal_ratio);
    n->worst_others = fmax(n->worst_others, n->others_ratio);
    return n->steal_ratio > NOISE_STEAL || n->others_ratio > NOISE_OTHERS ||
           n->switches_per_s > NOISE_SWITCHES || spin_ratio > NOISE_SPIN;
}

bool noise_look(struct noise *n, struct points_noise *out)
{
    struct noise_count now;
    double load = 0, spin = spin_s();
    if (spin < n->spin_best_s) n->spin_best_s = spin;
    if (getloadavg(&load, 1) != 1) load = 0;
    noise_count(&now);
    bool busy = noise_judge(n, &now, spin / n->spin_best_s);
    out->load = load;
    out->steal_ratio = n->steal_ratio;
    out->spin_s = spin;
    return busy;
}
