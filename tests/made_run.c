/* tests/made_run.c - see made_run.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/made_run.h"

#include "base/prov.h"

int made_origin(run *r, const char *title, const char *yaml, struct err *e)
{
    struct prov p;
    char program[] = "orrery", arg[] = "<test>", *argv[] = { program, arg };
    prov_collect(&p, 2, argv);
    int st = prov_write(&p, run_h5(r), "orrery-run", "1.0.0", title, e);
    prov_release(&p);
    if (st == ST_OK && yaml) st = h5_group(run_h5(r), "/scenario", "what was asked", e);
    if (st == ST_OK && yaml)
        st = h5_text(run_h5(r), "/scenario/yaml", yaml, "effective scenario", e);
    return st;
}

int made_end(run *r, int st, struct err *e)
{
    if (st == ST_OK) return run_commit(r, e);
    run_abort(r);
    return st;
}
