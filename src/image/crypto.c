/* SPDX-License-Identifier: Apache-2.0 */
#include "image/crypto.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>

static int result;

static void begin(void)
{
	result = sodium_init() < 0 ? -EIO : 0;
}

/*
 * sodium_init() takes a lock whenever it is called. A process that is forked while another thread
 * holds that would wait for it without end: so it is called once, and whoever forks has waited for
 * that.
 */
int crypto_ready(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, begin);
	return result;
}
