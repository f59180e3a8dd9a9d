/* tests/engine_ref.h - the slow twin of the CPU backend: plain loops over plain arrays.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ENGINE_REF_H
#define TESTS_ENGINE_REF_H

#include "engine/backend.h"

struct backend *engine_ref_open(void);

#endif
