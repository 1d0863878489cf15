/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_KERNEL_FEASIBLE_H
#define REPRISE_KERNEL_FEASIBLE_H

#include "model/checkpoint.h"

/*
 * Can a restart make this tree, with its sessions and with what processes share? All of it has been
 * looked at. What it cannot make is refused (E_TASK_STATE) before there is an image of it.
 */
int tree_check_feasible(struct checkpoint *c, struct error *e) must_check;

#endif
