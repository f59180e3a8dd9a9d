/* base/prov.h - where a result comes from: tool version, revision, compiler, machine, time, hashes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PROV_H
#define BASE_PROV_H

#include "base/err.h"
#include "base/h5.h"

struct prov {
    const char *version, *revision, *compiler, *flags; /* of the build */
    char host_sha[17]; /* first 16 hex digits of sha256(hostname): no name leaves the machine */
    char cpu[96], kernel[96];
    char created_utc[32]; /* ISO 8601 */
    char run_uuid[37];    /* random, version 4 */
    char *command;        /* argv joined, quoted where needed; owned by prov */
};

void prov_collect(struct prov *p, int argc, char *const *argv);
void prov_release(struct prov *p);
/* Root and /provenance attributes: schema_name, schema_version, Conventions CF-1.10, title, source,
 * history, created_utc, run_uuid, compiler, host, cpu, kernel, command. */
int prov_write(const struct prov *p, h5 *f, const char *schema, const char *schema_version,
               const char *title, struct err *e);

/* sha256 as 64 hex digits, of a file or of bytes (libmd). */
int prov_sha256_file(const char *path, char out[65], struct err *e);
void prov_sha256(const void *bytes, size_t n, char out[65]);

const char *prov_version(void);  /* "0.1.0" */
const char *prov_revision(void); /* git revision, "-dirty" appended; "unknown" outside git */
const char *prov_cuda(void);     /* "CUDA 13.0 (sm_75 sm_80)": built in, for these; or "no CUDA" */

#endif
