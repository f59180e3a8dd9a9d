/* base/pool.h - run n independent jobs on a few threads.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

/* Calls fn(arg, i) for i = 0..n-1, each once, on up to n_thread threads (1: in the caller). Jobs
 * are taken in order; results must not depend on which thread ran what. Returns after all have
 * ended. fn reports failure through arg. */
void pool_run(int n_thread, int n, void (*fn)(void *arg, int i), void *arg);
int pool_cpus(void); /* processors this process may use, at least 1 */

#endif
