/* model/profile_file_in.h - figures of a device and a node as attributes; shared by
 * profile_file.c (writing) and profile_file_read.c. SPDX-License-Identifier: Apache-2.0 */
#ifndef MODEL_PROFILE_FILE_IN_H
#define MODEL_PROFILE_FILE_IN_H

#include <stddef.h>

#include "model/profile_file.h"

struct profile_figure {
    const char *name, *units;
    size_t at; /* of a double in struct hw */
};
extern const struct profile_figure profile_figures[]; /* ends with name NULL */
struct profile_count {
    const char *name;
    size_t at; /* of an int in struct hw */
};
extern const struct profile_count profile_counts[];
/* Texts of struct hw; never NULL after reading. */
extern const struct profile_count profile_texts[];
/* Figures of a law: in struct fit. */
extern const struct profile_figure profile_law_figures[];

/* The constants of a law; the common factor and the skews, which two of them have beside, are not
 * among them. */
struct profile_span {
    enum profile_id first, last;
};
extern const struct profile_span profile_spans[LAW_N];

/* Lower triangular factor of a covariance, both [PROFILE_BLOCK_MAX][PROFILE_BLOCK_MAX] of which n
 * by n count; false if it is none. */
bool profile_cholesky(int n, const double *cov, double *chol);

#endif
