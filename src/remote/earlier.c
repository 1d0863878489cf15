/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "arch/arch.h"
#include "remote/survey.h"

/*
 * A tree may be stopped several times in short order. Each stop turns a sleep with a time-out into
 * a restart_syscall(2), which hides what it was, and lets it begin anew as far as can be seen from
 * outside; so what the stop before has found out is handed on.
 */

int earlier_note(struct freezer *f)
{
	f->earlier.n = 0;
	vec_for_each (p, &f->processes)
		vec_for_each (t, &p->threads) {
			struct earlier_sleep *s;
			long nr;

			if (!t->cpu ||
			    arch_call_result(&t->cpu->regs) != -ARCH_ERESTART_RESTARTBLOCK)
				continue;
			nr = arch_call_nr(&t->cpu->regs);
			if (arch_is_restart_syscall(nr))
				nr = t->cpu->restarted_nr;
			if (nr < 0)
				continue;
			s = vec_push(&f->earlier);
			if (!s)
				return -ENOMEM;
			*s = (struct earlier_sleep){t->tid, nr, arch_ip(&t->cpu->regs),
						    arch_sp(&t->cpu->regs), t->asleep_since};
		}
	return 0;
}

/* A call that ended since, and another one in its place, would not be restarted again. */
void earlier_apply(const struct freezer *f, struct frozen_thread *t)
{
	if (!arch_is_restart_syscall(arch_call_nr(&t->cpu->regs)))
		return;
	vec_for_each (s, &f->earlier) {
		if (s->tid != t->tid || s->ip != arch_ip(&t->cpu->regs) ||
		    s->sp != arch_sp(&t->cpu->regs))
			continue;
		t->cpu->restarted_nr = s->nr;
		t->asleep_since = s->asleep_since;
	}
}
