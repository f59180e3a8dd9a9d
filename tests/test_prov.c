/* tests/test_prov.c - hashes by their published answers, the command line, the attributes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "base/prov.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/test.h"

TEST(prov_sha256_known_answers)
{
    char hex[65]; /* FIPS 180-4 examples */
    prov_sha256("abc", 3, hex);
    CHECK_TEXT(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    prov_sha256("", 0, hex);
    CHECK_TEXT(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    FILE *f = fopen(test_path("a"), "w");
    for (int i = 0; i < 1000000; i++) fputc('a', f);
    fclose(f);
    struct err e = { 0 };
    CHECK_OK(prov_sha256_file(test_path("a"), hex, &e), &e);
    CHECK_TEXT(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    CHECK_INT(prov_sha256_file(test_path("none"), hex, &e), ST_USAGE);
    CHECK_HAS(e.text, "No such file");
    err_clear(&e);
    CHECK_INT(prov_sha256_file(test_dir(), hex, &e), ST_USAGE);
}

TEST(prov_collects_and_writes)
{
    char *argv[] = { (char[]){ "orrery" }, (char[]){ "simulate" }, (char[]){ "it's a.yaml" },
                     (char[]){ "" } };
    struct prov p, q;
    struct err e = { 0 };
    prov_collect(&p, 4, argv);
    prov_collect(&q, 0, argv);
    CHECK_TEXT(p.command, "orrery simulate 'it'\\''s a.yaml' ''");
    CHECK_TEXT(q.command, "");
    CHECK(strlen(p.run_uuid) == 36 && p.run_uuid[14] == '4' && strcmp(p.run_uuid, q.run_uuid) != 0);
    CHECK(strchr("89ab", p.run_uuid[19]) != NULL);
    CHECK(strlen(p.created_utc) == 20 && p.created_utc[10] == 'T' && p.created_utc[19] == 'Z');
    CHECK(strlen(p.host_sha) == 16 && p.cpu[0] && p.kernel[0]);
    CHECK_TEXT(prov_version(), "0.1.0");

    h5 *f = h5_create(test_path("p.h5"), &e);
    if (!CHECK(f != NULL)) return;
    CHECK_OK(prov_write(&p, f, "orrery-run", "1.0.0", "a test", &e), &e);
    CHECK_OK(h5_commit(f, &e), &e);
    struct arena a;
    arena_init(&a);
    char *text = NULL;
    f = h5_open(test_path("p.h5"), &e);
    CHECK(f && h5_read_attr_text(f, "/", "Conventions", &a, &text, &e) == ST_OK);
    CHECK_TEXT(text, "CF-1.10");
    CHECK(f && h5_read_attr_text(f, "/provenance", "command", &a, &text, &e) == ST_OK);
    CHECK_TEXT(text, p.command);
    h5_close(f);
    arena_release(&a);
    prov_release(&p);
    prov_release(&q);
}
