/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_OPERATION_FEATURES_H
#define REPRISE_OPERATION_FEATURES_H

#include "operation/operation.h"

/* What the running kernel offers: probed, never guessed from its version. */
int features_list(char **text) must_check;
/* Reports what is missing without which nothing works; returns how many. */
int features_check(struct report *rep) must_check;

#endif
