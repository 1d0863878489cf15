/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_ERROR_H
#define REPRISE_CORE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Errors: every fallible function returns 0 (or a count) or a negative errno
 * and leaves one human sentence in the operation's struct error. The innermost
 * function that knows the cause calls error_set(); callers that know the object
 * put it in front with error_object(). What reaches the user is one line:
 *
 *	<object>: <sentence>; <advice> [<code>]
 *
 * A sentence may end with advice of its own, behind a semicolon: that of the code is another way
 * then ("; try again, or close it").
 *
 * The advice and the longer explanation belong to the code (error_codes.def),
 * so that a code always means the same thing.
 */
enum error_code {
	ERROR_NONE = 0,
#define ERROR_CODE(symbol, name, advice, explanation) symbol,
#include "core/error_codes.def"
#undef ERROR_CODE
	ERROR_CODE_COUNT,
};

struct error_code_info {
	const char *name;	 /* stable, as printed: "pid-gone" */
	const char *advice;	 /* short imperative, may be "" */
	const char *explanation; /* paragraph for `reprise explain` */
};

/* Never NULL for a valid code. */
const struct error_code_info *error_code_info(enum error_code code);
/* ERROR_NONE if there is no such name. */
enum error_code error_code_by_name(const char *name);

#define ERROR_TEXT_MAX 1024

struct error {
	enum error_code code; /* ERROR_NONE while nothing went wrong */
	int err;	      /* the negative errno that was returned */
	char object[ERROR_TEXT_MAX / 2];
	char text[ERROR_TEXT_MAX];
};

/*
 * Records the cause; a second call on the same error keeps the first cause
 * (innermost wins). Returns err, so that `return error_set(e, -EIO, ...)` works;
 * err == 0 is turned into -EIO, since success is never an error. `e` may be NULL.
 */
int error_set(struct error *e, int err, enum error_code code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));

/* Same, with ": <strerror>" added to the sentence. */
int error_errno(struct error *e, int err, enum error_code code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5), cold));

/* Puts an object ("task 4242 (redis-server)") in front of those recorded so far. Returns err. */
int error_object(struct error *e, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4), cold));

/* Forgets what was recorded, for a caller that recovers from the failure. */
void error_clear(struct error *e);

/* Writes "<object>: <sentence>; <advice> [<code>]" into buf; always terminated. */
void error_format(const struct error *e, char *buf, size_t size);

/*
 * A list of everything that stands in the way, for check and for a checkpoint
 * that is refused. Each entry is a complete struct error.
 */
struct problems {
	struct error *v;
	size_t n;
};

/* Takes a copy of *e and clears it. Returns 0 or -ENOMEM. */
int problems_add(struct problems *p, struct error *e);
void problems_free(struct problems *p);

#define must_check __attribute__((warn_unused_result))

/* A result that is ignored on purpose; `why` is for the reader. */
#define ignore(call, why)                      \
	do {                                   \
		__auto_type _ignored = (call); \
		(void)_ignored;                \
		(void)sizeof(why);             \
	} while (0)

#endif
