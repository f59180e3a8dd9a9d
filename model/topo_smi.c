/* model/topo_smi.c - the text of `nvidia-smi topo -m`.
 *
 * A header names the columns (GPU0 ... NIC0 ... then affinities), a row per device follows; cells
 * are X, NV#, PIX, PXB, PHB, NODE, SYS (SOC in old drivers). Columns are parted by tabs, by blanks
 * where the text was pasted. The legend maps NIC numbers to names. A line "# cpu: {...}" (JSON:
 * model, physical_cores, logical_cores, numa_nodes) may stand above. SPDX-License-Identifier:
 * Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/doc.h"
#include "model/topo_in.h"

enum {
    MAX_DEVICE = TOPO_MAX_GPU + TOPO_MAX_NIC,
    MAX_LINE = 1 << 15,
    MAX_CELL = 64,
    MAX_CELLS = MAX_DEVICE + 8
};

struct table {
    struct topo_draft *d;
    const char *file;
    struct err *e;
    int line;      /* of the file, from 1 */
    bool has_numa; /* the header has a column NUMA Affinity */
    bool saw_header;
    int n_device, n_row;
    const char **device;    /* [n_device] names of the columns */
    int *gpu, *nic;         /* [n_device] number among GPUs or NICs, or -1 */
    bool *seen;             /* [n_device] its row was read */
    struct topo_pair *cell; /* [n_device][n_device]: kind and links alone */
    char text[MAX_CELLS][MAX_CELL];
};

/* ---- lines and cells */

/* Copies a line without terminal escapes (nvidia-smi underlines its header) and without the line
 * end. */
static int copy_line(struct table *t, const char *from, size_t n, char *out)
{
    size_t used = 0;
    if (n > MAX_LINE)
        return err_set(t->e, ST_USAGE, "%s:%d: a line of %zu bytes", t->file, t->line, n);
    for (size_t i = 0; i < n; i++) {
        if (from[i] == '\033' && i + 1 < n && from[i + 1] == '[') {
            for (i += 2; i < n && !isalpha((unsigned char)from[i]);) i++;
            continue;
        }
        if (from[i] != '\r') out[used++] = from[i];
    }
    out[used] = 0;
    return ST_OK;
}

/* Cells by tabs where there is one, each without blanks around; else words. Returns their number,
 * -1 too many. */
static int split(struct table *t, const char *line)
{
    bool tabs = strchr(line, '\t') != NULL;
    int n = 0;
    for (const char *p = line;;) {
        while (*p == ' ') p++;
        if (!*p && !tabs) return n;
        size_t len = strcspn(p, tabs ? "\t" : " "), keep = len;
        while (keep && p[keep - 1] == ' ') keep--;
        if (n == MAX_CELLS) return -1;
        snprintf(t->text[n++], MAX_CELL, "%.*s", keep < MAX_CELL ? (int)keep : MAX_CELL - 1, p);
        p += len;
        if (!*p) return n;
        p++;
    }
}

static bool numbered(const char *word, const char *stem)
{
    size_t n = strlen(stem);
    return strncmp(word, stem, n) == 0 && word[n] &&
           strspn(word + n, "0123456789") == strlen(word + n);
}

/* ---- header and rows */

static int header(struct table *t, int n)
{
    struct arena *a = t->d->a;
    int first = t->text[0][0] ? 0 : 1, gpus = 0, nics = 0;
    t->device = arena_array(a, (size_t)n, sizeof *t->device);
    t->gpu = arena_array(a, (size_t)n, sizeof *t->gpu);
    t->nic = arena_array(a, (size_t)n, sizeof *t->nic);
    for (int i = first; i < n; i++) {
        const char *w = t->text[i];
        if (strncmp(w, "CPU", 3) == 0 || !*w) break;
        bool is_gpu = numbered(w, "GPU");
        t->gpu[t->n_device] = is_gpu ? gpus++ : -1;
        t->nic[t->n_device] = is_gpu ? -1 : nics++;
        t->device[t->n_device++] = topo_text(a, w);
    }
    for (int i = 0; i < n; i++) t->has_numa |= strncmp(t->text[i], "NUMA", 4) == 0;
    if (gpus > TOPO_MAX_GPU || nics > TOPO_MAX_NIC)
        return err_set(t->e, ST_USAGE, "%s:%d: %d GPUs and %d NICs: at most %d and %d are read",
                       t->file, t->line, gpus, nics, TOPO_MAX_GPU, TOPO_MAX_NIC);
    for (int i = 0; i < t->n_device; i++) {
        for (int j = 0; j < i; j++)
            if (strcmp(t->device[i], t->device[j]) == 0)
                return err_set(t->e, ST_USAGE, "%s:%d: two columns are called %s", t->file, t->line,
                               t->device[i]);
        struct topo_gpu *g = t->gpu[i] >= 0 ? topo_add_gpu(t->d, -1) : NULL;
        struct topo_nic *c = t->nic[i] >= 0 ? topo_add_nic(t->d, -1) : NULL;
        if (g) g->index = topo_int(t->device[i] + 3, 10, 0, 9999, g->index);
        if (c) c->name = t->device[i];
    }
    size_t cells = (size_t)t->n_device;
    t->cell = arena_array(a, cells * cells, sizeof *t->cell);
    t->seen = arena_array(a, cells, sizeof *t->seen);
    t->saw_header = true;
    return ST_OK;
}

static bool cell_kind(const char *w, struct topo_pair *p)
{
    static const struct {
        const char *word;
        enum topo_link kind;
    } words[] = { { "X", TOPO_SELF },  { "PIX", TOPO_PIX },    { "PXB", TOPO_PXB },
                  { "PHB", TOPO_PHB }, { "NODE", TOPO_NODE },  { "SYS", TOPO_SYS },
                  { "SOC", TOPO_SYS }, { "N/A", TOPO_UNKNOWN } };
    if (strncmp(w, "NV", 2) == 0) {
        int n = topo_int(w + 2, 10, 1, TOPO_MAX_LINKS, 0);
        *p = (struct topo_pair){ .kind = TOPO_NVLINK, .pcie = TOPO_UNKNOWN, .n_nvlink = n };
        return n > 0;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(w, words[i].word) != 0) continue;
        *p = (struct topo_pair){ .kind = words[i].kind, .pcie = words[i].kind };
        return true;
    }
    return false;
}

/* The columns behind the matrix. Blanks hide an empty CPU affinity: a lone number may then be
 * either column. */
static void affinity(struct table *t, int row, int first, int n, bool tabs)
{
    int numa = -1, rest = n - first;
    if (t->gpu[row] < 0 || !t->has_numa) return;
    if (tabs ? rest >= 2 : rest >= 2 && strcmp(t->text[first + 1], "N/A") != 0)
        numa = topo_int(t->text[first + 1], 10, 0, 4095, -1);
    t->d->t->gpu[t->gpu[row]].numa = numa;
}

static int row(struct table *t, int n, bool tabs)
{
    int r = 0;
    while (r < t->n_device && strcmp(t->device[r], t->text[0]) != 0) r++;
    if (r == t->n_device)
        return err_set(t->e, ST_USAGE, "%s:%d: a row '%s', but no column of that name", t->file,
                       t->line, t->text[0]);
    if (t->seen[r])
        return err_set(t->e, ST_USAGE, "%s:%d: a second row %s", t->file, t->line, t->text[0]);
    if (n < 1 + t->n_device)
        return err_set(t->e, ST_USAGE, "%s:%d: the row %s has %d cells, the header %d", t->file,
                       t->line, t->text[0], n - 1, t->n_device);
    for (int k = 0; k < t->n_device; k++) {
        struct topo_pair *p = &t->cell[r * t->n_device + k];
        bool known = cell_kind(t->text[1 + k], p);
        if (!known || (p->kind == TOPO_SELF) != (k == r))
            return err_set(t->e, ST_USAGE, "%s:%d: %s to %s: '%s'%s", t->file, t->line,
                           t->device[r], t->device[k], t->text[1 + k],
                           known ? " belongs on the diagonal and there alone"
                                 : " is none of X, NV1 to NV18, PIX, PXB, PHB, NODE, SYS, N/A");
    }
    affinity(t, r, 1 + t->n_device, n, tabs);
    t->seen[r] = true;
    t->n_row++;
    return ST_OK;
}

/* ---- the lines around the matrix */

/* "  NIC0: mlx5_0" of the legend. */
static void legend(struct table *t, const char *line)
{
    char word[MAX_CELL], name[MAX_CELL];
    if (sscanf(line, " %63[A-Za-z0-9_]: %63s", word, name) != 2) return;
    for (int i = 0; i < t->n_device; i++)
        if (t->nic[i] >= 0 && strcmp(t->device[i], word) == 0)
            t->d->t->nic[t->nic[i]].name = topo_text(t->d->a, name);
}

static void comment(struct table *t, const char *line)
{
    struct topo *o = t->d->t;
    struct doc *d;
    const char *json = strstr(line, "cpu:");
    if (!json || doc_parse_json(t->d->a, t->file, json + 4, strlen(json + 4), &d, NULL) != ST_OK)
        return;
    const struct doc *m = doc_get(d, "model"), *c = doc_get(d, "physical_cores");
    const struct doc *l = doc_get(d, "logical_cores"), *u = doc_get(d, "numa_nodes");
    if (m && m->kind == DOC_SCALAR) o->cpu_model = topo_text(t->d->a, m->text);
    o->n_core = c && c->kind == DOC_SCALAR ? topo_int(c->text, 10, 1, 1 << 20, 0) : 0;
    o->n_thread = l && l->kind == DOC_SCALAR ? topo_int(l->text, 10, 1, 1 << 20, 0) : 0;
    o->n_numa = u && u->kind == DOC_SCALAR ? topo_int(u->text, 10, 1, 4096, 0) : 0;
}

static int one_line(struct table *t, const char *line)
{
    const char *p = line + strspn(line, " \t");
    if (!*p) return ST_OK;
    if (*p == '#') {
        if (!t->saw_header) comment(t, p);
        return ST_OK;
    }
    if (t->saw_header && t->n_row == t->n_device) {
        legend(t, line);
        return ST_OK;
    }
    int n = split(t, line);
    if (n < 0)
        return err_set(t->e, ST_USAGE, "%s:%d: more than %d columns", t->file, t->line, MAX_CELLS);
    if (t->saw_header) return row(t, n, strchr(line, '\t') != NULL);
    if (numbered(t->text[0], "GPU") || (n > 1 && !t->text[0][0] && numbered(t->text[1], "GPU")))
        return header(t, n);
    return err_set(t->e, ST_USAGE,
                   "%s:%d: '%.40s': neither XML nor the header of `nvidia-smi topo -m` "
                   "(GPU0 GPU1 ...)",
                   t->file, t->line, p);
}

/* ---- the whole */

static int symmetric(struct table *t)
{
    for (int i = 0; i < t->n_device; i++) {
        if (!t->seen[i])
            return err_set(t->e, ST_USAGE, "%s:%d: the row of %s is missing", t->file, t->line,
                           t->device[i]);
        for (int j = 0; j < i; j++) {
            const struct topo_pair *x = &t->cell[i * t->n_device + j],
                                   *y = &t->cell[j * t->n_device + i];
            if (!t->seen[j] || (x->kind == y->kind && x->n_nvlink == y->n_nvlink)) continue;
            return err_set(t->e, ST_USAGE, "%s: %s to %s is not what %s to %s is", t->file,
                           t->device[i], t->device[j], t->device[j], t->device[i]);
        }
    }
    return ST_OK;
}

/* Links to all peers together, beyond what any board has: a switch shares them. */
static void find_switches(struct topo *o)
{
    for (int i = 0; i < o->n_gpu; i++) {
        int sum = 0, most = 0;
        for (int j = 0; j < o->n_gpu; j++) {
            int n = o->pair[i * o->n_gpu + j].n_nvlink;
            sum += n;
            most = n > most ? n : most;
        }
        bool shared = sum > TOPO_MAX_LINKS;
        o->gpu[i].n_nvlink = shared ? most : sum;
        for (int j = 0; shared && j < o->n_gpu; j++)
            if (o->pair[i * o->n_gpu + j].n_nvlink)
                o->pair[i * o->n_gpu + j].switched = o->pair[j * o->n_gpu + i].switched = true;
    }
}

static void fill(struct table *t)
{
    struct topo *o = t->d->t;
    size_t n = (size_t)o->n_gpu;
    o->pair = arena_array(t->d->a, n * n, sizeof *o->pair);
    for (int k = 0; k < o->n_nic; k++)
        o->nic[k].to_gpu = arena_array(t->d->a, n, sizeof *o->nic[k].to_gpu);
    for (int i = 0; i < t->n_device; i++) {
        if (t->gpu[i] < 0) continue;
        for (int j = 0; j < t->n_device; j++) {
            const struct topo_pair *p = &t->cell[i * t->n_device + j];
            if (t->gpu[j] >= 0)
                o->pair[t->gpu[i] * o->n_gpu + t->gpu[j]] = *p;
            else
                o->nic[t->nic[j]].to_gpu[t->gpu[i]] = p->kind;
        }
    }
    find_switches(o);
    int top = -1;
    for (int i = 0; i < o->n_gpu; i++) top = o->gpu[i].numa > top ? o->gpu[i].numa : top;
    if (o->n_numa == 0 && top >= 0) {
        o->n_numa = top + 1;
        topo_note(o, t->d->a,
                  "at least %d NUMA nodes, going by the GPUs; memory, processor and NIC rates "
                  "are not in this format",
                  o->n_numa);
    }
    o->knows_nvlink = true;
}

int topo_parse_smi(struct topo_draft *d, const char *file, const char *text, size_t n,
                   struct err *e)
{
    struct table *t = arena_alloc(d->a, sizeof *t);
    char *line = arena_alloc(d->a, MAX_LINE + 1);
    *t = (struct table){ .d = d, .file = file, .e = e };
    int st = ST_OK;
    for (const char *p = text, *end = text + n; p < end && st == ST_OK;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((stop ? stop : end) - p);
        t->line++;
        if ((st = copy_line(t, p, len, line)) == ST_OK) st = one_line(t, line);
        p += len + 1;
    }
    if (st != ST_OK) return st;
    if (!t->saw_header) return err_set(e, ST_USAGE, "%s: no topology in it", file);
    if ((st = symmetric(t)) != ST_OK) return st;
    fill(t);
    return ST_OK;
}
