/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that may not become executable: the promise is kept. */
#include "harness.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#define SET_MDWE 65
#define GET_MDWE 66

int main(void)
{
	char *at;

	test_init();
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (prctl(SET_MDWE, 1, 0, 0, 0))
		test_skip("this kernel has no such promise");
	test_wait();
	CHECK_EQUAL(prctl(GET_MDWE, 0, 0, 0, 0), 1 + !!test_break(1));
	CHECK(mprotect(at, 4096, PROT_READ | PROT_EXEC) < 0 && errno == EACCES);
	test_pass();
}
