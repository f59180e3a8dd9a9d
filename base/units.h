/* base/units.h - quantities as text: every number that a person types or reads carries its unit.
 *
 * Inside there is one base unit per quantity: seconds as double or nanoseconds as int64, bytes,
 * FLOP, tokens. Text needs a suffix (but for UNIT_RATIO and UNIT_COUNT, which are pure numbers):
 *     time         ns us ms s min h d           "500ms"
 *     rate         /s /min /h                   "8.5/s"
 *     bytes        B kB MB GB TB  KiB MiB GiB TiB   "80GB" (10^9), "64GiB" (2^30)
 *     bytes_per_s  as bytes, then /s            "900GB/s"
 *     flop_per_s   GFLOP/s TFLOP/s PFLOP/s      "989TFLOP/s"
 *     tokens       tok ktok Mtok                "1.2ktok"
 *     watt         W kW MW                      "700W"
 *     usd          USD kUSD MUSD                "30kUSD"
 *     usd_per_h    USD/h                        "2.95USD/h"
 * Bits do not exist here: they differ from bytes by one letter.
 * A number is [+-]digits[.digits][e[+-]digits]; hex, inf, nan, and blanks inside are refused.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum unit {
    UNIT_TIME, /* value in seconds */
    UNIT_RATE, /* per second */
    UNIT_BYTES,
    UNIT_BYTES_PER_S,
    UNIT_FLOP_PER_S,
    UNIT_TOKENS,
    UNIT_WATT,
    UNIT_USD,
    UNIT_USD_PER_H,
    UNIT_RATIO, /* a pure number; "%" is refused with a hint */
    UNIT_COUNT  /* an integer; "12" but also "10k" and "1M" */
};

/* Value of `text` in the base unit named above. Errors: ST_USAGE, the sentence says what was
 * expected with an example ("'6' has no unit; write 6/s or 6/min"). */
int units_parse(enum unit u, const char *text, double *out, struct err *e);
/* As above for UNIT_TIME, in ns, rounded to nearest; ST_USAGE when it exceeds 100 years. */
int units_parse_ns(const char *text, int64_t *out, struct err *e);

/* Short text that units_parse reads back to the same value within 1e-15 relative ("8.5/s",
 * "500ms", "1.5GiB" is written as bytes with a decimal prefix). Returns buf. */
char *units_text(enum unit u, double value, char *buf, size_t n);
/* As above for whole nanoseconds, exact: units_parse_ns reads back the same integer. */
char *units_text_ns(int64_t ns, char *buf, size_t n);

/* For people: three or four significant digits and a fitting prefix ("32.46 ms", "1.05 GB"). */
char *units_human(enum unit u, double value, char *buf, size_t n);
char *units_human_ns(double ns, char *buf, size_t n);
/* As a cell of a table: "-" for NAN, which is a value that there is none of. */
char *units_cell(enum unit u, double value, char *buf, size_t n);
char *units_cell_ns(double ns, char *buf, size_t n);
/* The ending of a noun that n is before: "" of 1, else "s". */
const char *units_s(int64_t n);
struct arena;
const char *units_cell_in(struct arena *a, enum unit u, double value);

#endif
