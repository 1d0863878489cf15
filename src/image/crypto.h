/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_IMAGE_CRYPTO_H
#define REPRISE_IMAGE_CRYPTO_H

#include "core/error.h"

/*
 * Before anything of libsodium is used: it chooses implementations for this processor. Also before
 * a fork() in a program that may have threads, whose child may use it.
 */
int crypto_ready(void) must_check;

#endif
