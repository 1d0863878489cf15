/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_NS_XT_NAMES_H
#define REPRISE_NS_XT_NAMES_H

#include "core/error.h"

/*
 * Extensions of iptables, also in rules of nftables, all of whose state is in what the kernel tells
 * of them. Others are refused.
 */
int xt_match_check(const char *name, struct error *e) must_check;
int xt_target_check(const char *name, struct error *e) must_check;

#endif
