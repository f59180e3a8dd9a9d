/* base/json.h - JSON output: an object built with jansson and printed with one style.
 *
 * Numbers are finite or null (NAN has no JSON form); int64 stays exact. Keys keep insertion order.
 * Dotted paths make nested objects: json_put_f64(j, "latency.ttft.mean_ns", x).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/stat.h"

void json_put_f64(json_t *j, const char *path, double v);
void json_put_i64(json_t *j, const char *path, int64_t v);
void json_put_text(json_t *j, const char *path,
                   const char *v); /* NULL -> null; bytes that are no UTF-8 become '?' */
void json_put_bool(json_t *j, const char *path, bool v);
void json_put(json_t *j, const char *path, json_t *stolen);
struct doc;
json_t *json_of_doc(const struct doc *d);  /* its scalars stay text */
void json_print(const json_t *j, FILE *f); /* indent 2, newline at the end */

#endif
