/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_TEST_UNIT_H
#define REPRISE_TEST_UNIT_H

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
