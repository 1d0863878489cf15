/* SPDX-License-Identifier: Apache-2.0 */
/* Options that limit what a container may use. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

int parse_size(struct cli *cli, const char *option, const char *s, uint64_t *ret)
{
	static const char units[] = "KMGT";
	unsigned int shift = 0;
	char number[32];
	size_t len = strspn(s, "0123456789");
	const char *unit = s[len] ? strchr(units, s[len] & ~0x20) : NULL;
	long n;

	if (unit)
		shift = 10 * (unsigned int)(unit - units + 1);
	snprintf(number, sizeof(number), "%.*s", (int)len, s);
	if (len > 18 || (s[len] && (!unit || s[len + 1])) ||
	    parse_number(number, 1, 1L << 52, &n) < 0 || (uint64_t)n >> (62 - shift))
		return usage_error(cli, "%s takes bytes, as 512M or 2G, not '%s'", option, s);
	*ret = (uint64_t)n << shift;
	return -1;
}

int parse_cpus(struct cli *cli, const char *s, uint64_t *ret)
{
	char *end;
	double n = strtod(s, &end);

	/* Less than a thousandth of a period the kernel does not take. */
	if (end == s || *end || !(n >= 0.01) || n > 10000)
		return usage_error(cli, "--cpus takes a number of processors, as 0.5, not '%s'", s);
	*ret = (uint64_t)(n * 1000 + 0.5);
	return -1;
}
