/* base/prov.c - what the build and the machine say about themselves, and SHA-256 by libmd.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/prov.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sha2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/doc.h"
#include "base/rng.h"

#ifndef PROV_REVISION
#define PROV_REVISION "unknown"
#endif
#ifndef PROV_FLAGS
#define PROV_FLAGS "unknown"
#endif
#ifndef PROV_CUDA
#define PROV_CUDA "no CUDA"
#endif
#ifdef __clang__
#define PROV_COMPILER __VERSION__ /* clang puts its name into the version, gcc does not */
#else
#define PROV_COMPILER "gcc " __VERSION__
#endif

const char *prov_version(void)
{
    return "0.1.0";
}

const char *prov_revision(void)
{
    return PROV_REVISION;
}

const char *prov_cuda(void)
{
    return PROV_CUDA;
}

static void hex(const uint8_t *bytes, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    out[2 * n] = 0;
}

void prov_sha256(const void *bytes, size_t n, char out[65])
{
    SHA2_CTX c;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256Init(&c);
    SHA256Update(&c, bytes, n);
    SHA256Final(digest, &c);
    hex(digest, sizeof digest, out);
}

int prov_sha256_file(const char *path, char out[65], struct err *e)
{
    enum { BLOCK = 1 << 16 };
    SHA2_CTX c;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    int st = ST_OK;
    struct stat info;
    struct err why = { 0 };
    int fd = doc_open(path, &why);
    if (fd < 0) return err_set(e, why.status, "%s", why.text);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) { /* it can be read once only */
        close(fd);
        return err_set(e, ST_IO, "cannot read %s again: it is not a regular file", path);
    }
    FILE *f = fdopen(fd, "rb");
    if (!f) {
        close(fd);
        return err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    }
    uint8_t *block = mem_alloc(BLOCK);
    SHA256Init(&c);
    for (size_t n; (n = fread(block, 1, BLOCK, f)) > 0;) SHA256Update(&c, block, n);
    if (ferror(f)) st = err_set(e, ST_IO, "cannot read %s: %s", path, strerror(errno));
    SHA256Final(digest, &c);
    if (st == ST_OK) hex(digest, sizeof digest, out);
    free(block);
    fclose(f);
    return st;
}

/* Model name of the first processor; the machine type where /proc does not give one. */
static void cpu_name(char *out, size_t n)
{
    struct utsname u;
    char line[512];
    snprintf(out, n, "%s", uname(&u) == 0 ? u.machine : "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        value += 1 + strspn(value + 1, " \t");
        value[strcspn(value, "\n")] = 0;
        snprintf(out, n, "%s", value);
        break;
    }
    fclose(f);
}

static void make_uuid(char out[37])
{
    uint8_t b[16];
    char h[33];
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, b, sizeof b) != (ssize_t)sizeof b) {
        struct timespec t; /* no random device: clock and pid still tell runs apart */
        clock_gettime(CLOCK_REALTIME, &t);
        uint64_t half[2];
        half[0] = mix_pair((uint64_t)t.tv_sec, (uint64_t)t.tv_nsec);
        half[1] = mix_pair(half[0], (uint64_t)getpid());
        memcpy(b, half, sizeof b);
    }
    if (fd >= 0) close(fd);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* version 4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* variant of RFC 4122 */
    hex(b, sizeof b, h);
    snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", h, h + 8, h + 12, h + 16, h + 20);
}

/* Appends one word, in single quotes when a shell would take it apart. */
static char *quote_into(char *to, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_@%+=:,./-";
    size_t n = strlen(word);
    if (n > 0 && strspn(word, plain) == n) {
        memcpy(to, word, n);
        return to + n;
    }
    *to++ = '\'';
    for (const char *p = word; *p; p++) {
        if (*p == '\'') {
            memcpy(to, "'\\''", 4);
            to += 4;
        } else {
            *to++ = *p;
        }
    }
    *to++ = '\'';
    return to;
}

static char *join_command(int argc, char *const *argv)
{
    size_t cap = 1;
    for (int i = 0; i < argc; i++)
        cap += 4 * strlen(argv[i]) + 3; /* "'\\''" per byte, quotes, blank */
    char *text = mem_alloc(cap), *to = text;
    for (int i = 0; i < argc; i++) {
        if (i) *to++ = ' ';
        to = quote_into(to, argv[i]);
    }
    *to = 0;
    return text;
}

void prov_collect(struct prov *p, int argc, char *const *argv)
{
    char host[256] = "", sha[65];
    struct utsname u;
    struct tm tm;
    time_t now = time(NULL);
    *p = (struct prov){ .version = prov_version(),
                        .revision = prov_revision(),
                        .compiler = PROV_COMPILER,
                        .flags = PROV_FLAGS };
    if (gethostname(host, sizeof host - 1) != 0) host[0] = 0;
    prov_sha256(host, strlen(host), sha);
    memcpy(p->host_sha, sha, sizeof p->host_sha - 1);
    cpu_name(p->cpu, sizeof p->cpu);
    if (uname(&u) == 0) snprintf(p->kernel, sizeof p->kernel, "%.31s %.50s", u.sysname, u.release);
    if (gmtime_r(&now, &tm))
        strftime(p->created_utc, sizeof p->created_utc, "%Y-%m-%dT%H:%M:%SZ", &tm);
    make_uuid(p->run_uuid);
    p->command = join_command(argc, argv);
}

void prov_release(struct prov *p)
{
    free(p->command);
    *p = (struct prov){ 0 };
}

int prov_write(const struct prov *p, h5 *f, const char *schema, const char *schema_version,
               const char *title, struct err *e)
{
    static const char *const object[] = { "/", "/provenance" };
    char source[160];
    int st = h5_group(f, "/provenance", "tool, build, machine and command of this file", e);
    size_t n = strlen(p->created_utc) + strlen(p->command) + 2;
    char *history = mem_alloc(n);
    snprintf(history, n, "%s %s", p->created_utc, p->command);
    snprintf(source, sizeof source, "orrery %s, revision %s", p->version, p->revision);
    const char *const attr[][2] = {
        { "schema_name", schema },
        { "schema_version", schema_version },
        { "Conventions", "CF-1.10" },
        { "title", title },
        { "source", source },
        { "history", history },
        { "created_utc", p->created_utc },
        { "run_uuid", p->run_uuid },
        { "compiler", p->compiler },
        { "compiler_flags", p->flags },
        { "host", p->host_sha },
        { "cpu", p->cpu },
        { "kernel", p->kernel },
        { "command", p->command },
    };
    for (size_t o = 0; o < 2; o++)
        for (size_t i = 0; i < sizeof attr / sizeof attr[0] && st == ST_OK; i++)
            st = h5_attr_text(f, object[o], attr[i][0], attr[i][1], e);
    free(history);
    return st;
}
