/* plots/verdict.h - the answer in words: does it hold the SLO, by how much, how sure, what limits
 * it. SPDX-License-Identifier: Apache-2.0 */
#ifndef PLOTS_VERDICT_H
#define PLOTS_VERDICT_H

#include <stdio.h>

#include "plots/source.h"

enum verdict { VERDICT_NONE, VERDICT_HELD, VERDICT_MISSED };

/* Held: attainment is at least what was asked; none without an SLO or without requests, and none
 * of a run that ended early: who had not finished by then is not among its requests. */
enum verdict verdict_of(struct source *s);
/* A block with the answer for a run, for a sweep. heading: names the file, where there are several.
 */
void verdict_run(FILE *f, struct source *s, bool heading);
void verdict_sweep(FILE *f, struct source *s, bool heading);

#endif
