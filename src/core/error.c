/* SPDX-License-Identifier: Apache-2.0 */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct error_code_info infos[] = {
	[ERROR_NONE] = {"", "", ""},
#define ERROR_CODE(symbol, name_, advice_, explanation_) [symbol] = {name_, advice_, explanation_},
#include "core/error_codes.def"
#undef ERROR_CODE
};

const struct error_code_info *error_code_info(enum error_code code)
{
	if ((unsigned int)code >= ERROR_CODE_COUNT)
		code = E_INTERNAL;
	return &infos[code];
}

enum error_code error_code_by_name(const char *name)
{
	for (int i = ERROR_NONE + 1; i < ERROR_CODE_COUNT; i++)
		if (!strcmp(infos[i].name, name))
			return i;
	return ERROR_NONE;
}

static int negative(int err)
{
	if (err == 0)
		return -EIO;
	return err > 0 ? -err : err;
}

/* Records code and errno; false if an inner cause is there already, which then stays. */
static bool begin(struct error *e, int err, enum error_code code)
{
	if (!e || e->code != ERROR_NONE)
		return false;
	e->code = (unsigned int)code < ERROR_CODE_COUNT && code != ERROR_NONE ? code : E_INTERNAL;
	/* Where nothing else can go wrong: no defect of ours. */
	if (e->code == E_INTERNAL && err == -ENOMEM)
		e->code = E_NO_MEMORY;
	e->err = err;
	e->text[0] = '\0';
	return true;
}

int error_set(struct error *e, int err, enum error_code code, const char *fmt, ...)
{
	va_list ap;

	err = negative(err);
	if (!begin(e, err, code))
		return err;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return err;
}

int error_errno(struct error *e, int err, enum error_code code, const char *fmt, ...)
{
	const char *reason;
	size_t n;
	va_list ap;

	err = negative(err);
	if (!begin(e, err, code))
		return err;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	/* Neither translated nor kept in a static buffer, as strerror() is. */
	reason = strerrordesc_np(-err);
	if (reason)
		snprintf(e->text + n, sizeof(e->text) - n, ": %s", reason);
	else
		snprintf(e->text + n, sizeof(e->text) - n, ": error %d", -err);
	return err;
}

int error_object(struct error *e, int err, const char *fmt, ...)
{
	char inner[sizeof(e->object)];
	va_list ap;
	size_t n;

	err = negative(err);
	if (!e)
		return err;
	memcpy(inner, e->object, sizeof(inner));
	va_start(ap, fmt);
	vsnprintf(e->object, sizeof(e->object), fmt, ap);
	va_end(ap);
	n = strlen(e->object);
	if (inner[0])
		snprintf(e->object + n, sizeof(e->object) - n, ", %s", inner);
	return err;
}

void error_clear(struct error *e)
{
	if (e)
		*e = (struct error){};
}

struct out {
	char *p;
	size_t left; /* including the terminator */
};

/* One line stays one line and a terminal is left alone, whatever a file or a command is called. */
static void put(struct out *o, const char *s)
{
	for (; *s; s++) {
		unsigned char c = *s;
		char escaped[5];
		size_t n = 1;

		if (c < 0x20 || c == 0x7f)
			n = (size_t)snprintf(escaped, sizeof(escaped), "\\x%02x", c);
		else
			escaped[0] = (char)c;
		if (n >= o->left)
			break;
		memcpy(o->p, escaped, n);
		o->p += n;
		o->left -= n;
	}
	*o->p = '\0';
}

void error_format(const struct error *e, char *buf, size_t size)
{
	const struct error_code_info *info = error_code_info(e->code);
	struct out o = {buf, size};

	if (!size)
		return;
	*buf = '\0';
	if (e->code == ERROR_NONE)
		return;
	/* The code at the end is what scripts match: it has its room even when the text fills the
	 * buffer. */
	if (size > 64)
		o.left -= strlen(info->name) + 3;
	if (e->object[0]) {
		put(&o, e->object);
		put(&o, ": ");
	}
	put(&o, e->text);
	if (info->advice[0]) {
		put(&o, strstr(e->text, "; ") ? ", or " : "; ");
		put(&o, info->advice);
	}
	if (size > 64)
		o.left += strlen(info->name) + 3;
	put(&o, " [");
	put(&o, info->name);
	put(&o, "]");
}

int problems_add(struct problems *p, struct error *e)
{
	struct error *v;

	/* Room is doubled at each power of two. */
	if ((p->n & (p->n - 1)) == 0) {
		v = reallocarray(p->v, p->n ? p->n * 2 : 1, sizeof(*v));
		if (!v)
			return -ENOMEM;
		p->v = v;
	}
	p->v[p->n++] = *e;
	error_clear(e);
	return 0;
}

void problems_free(struct problems *p)
{
	free(p->v);
	p->v = NULL;
	p->n = 0;
}
