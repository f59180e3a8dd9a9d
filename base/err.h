/* base/err.h - statuses, and the one sentence that goes with a failure.
 *
 * A function that can fail returns an `enum status` as int (ST_OK is 0) and, when it fails, writes
 * one sentence into the caller's struct err. The first failure wins: a later err_set on the same
 * struct is ignored, so clean-up paths cannot hide the cause. Only main.c turns statuses into exit
 * codes. A wrong argument from our own code is an assert; a wrong file or flag is a status.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum status {
    ST_OK = 0,
    ST_USAGE,  /* wrong option, scenario, trace or import file, or none of that name: exit 2 */
    ST_RANGE,  /* a value outside its meaning, found while computing: exit 2 */
    ST_IO,     /* reading or writing failed: exit 5 */
    ST_DEVICE, /* a device or communicator failed: exit 5 */
    ST_STOPPED /* the user interrupted (Ctrl-C): exit 130 */
};

struct err {
    int status;     /* of the sentence in text; ST_OK while text is empty */
    char text[760]; /* one line, no newline, UTF-8 */
};

/* Writes the sentence unless e already holds one, and returns `status`, so that a failure reads
 *     return err_set(e, ST_USAGE, "%s:%d: ...", path, line);
 * e may be NULL: the caller wants the status only. Control bytes in the formatted text are replaced
 * by '?', so hostile input cannot drive the terminal. Text too long is cut and ends in "...". */
int err_set(struct err *e, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " in front of the sentence already in e (for example the file it happened in). */
void err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *e);

/* "cannot WHAT PATH: why", why being that of errno `number`: ST_USAGE where nothing has that name, which
 * is the command line's or the scenario's mistake, else ST_IO. */
int err_file(struct err *e, const char *what, const char *path, int number);

#endif
