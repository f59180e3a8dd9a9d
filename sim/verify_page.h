/* sim/verify_page.h - the report of `orrery verify`: as a document, and as one JSON object.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SIM_VERIFY_PAGE_H
#define SIM_VERIFY_PAGE_H

#include <jansson.h>

#include "sim/verify.h"
#include "sim/verify_doc.h"

/* Fills d (its arena set, else empty): verdict, deficits and best alternatives first, then all the rest.
 * Nothing in it depends on the machine or the time of day. */
void verify_page(const struct verify_report *r, struct verify_doc *d);
/* Sections of it, in verify_page_plan.c: stages, communication, graph. */
void verify_page_plan(const struct verify_report *r, struct verify_doc *d);
/* What was read of a machine, in verify_page_env.c; nothing where the hardware is from the catalog. */
void verify_page_environment(const struct verify_report *r, struct verify_doc *d);
json_t *verify_json_environment(const struct topo *t);
json_t *verify_json(const struct verify_report *r); /* the caller's */

/* "llama-3-70b TP2-PP4-DP1, weights bf16, KV bf16, on 1 x dgx-h100" */
const char *verify_plan_text(const struct verify_case *c, struct arena *a);
/* A figure of a check for people: "40.2 GB", "8", "-". In a. */
const char *verify_figure(double v, const char *unit, struct arena *a);
extern const char verify_score_rule[];

#endif
