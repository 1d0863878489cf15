/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/vma.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

const char *vma_kind_name(uint32_t kind)
{
	static const char *const names[] = {
		[VMA_ANON] = "anonymous",      [VMA_FILE] = "file",
		[VMA_VVAR] = "vvar",	       [VMA_VDSO] = "vdso",
		[VMA_DROPPABLE] = "droppable", [VMA_HUGE_ANON] = "hugetlb",
		[VMA_SYSV] = "sysv",
	};

	if (kind == VMA_IO_URING)
		return "io_uring";
	if (kind == VMA_AIO)
		return "aio";
	if (kind == VMA_PACKET)
		return "packet ring";
	if (kind == VMA_BPF_MAP)
		return "BPF map";
	return kind >= VMA_ANON && kind <= VMA_SYSV ? names[kind] : "unknown";
}

/*
 * The two-letter names of VmFlags, after show_smap_vma_flags() in fs/proc/task_mmu.c (up to 6.18,
 * all architectures). What is not in this list makes a mapping unknown, and so refused.
 */
#define LETTERS(a, b) [((a) - 'a') * 26 + ((b) - 'a')]
static const uint8_t letter_bits[26 * 26] = {
	LETTERS('r', 'd') = 1,	LETTERS('w', 'r') = 2,	LETTERS('e', 'x') = 3,
	LETTERS('s', 'h') = 4,	LETTERS('m', 'r') = 5,	LETTERS('m', 'w') = 6,
	LETTERS('m', 'e') = 7,	LETTERS('m', 's') = 8,	LETTERS('g', 'd') = 9,
	LETTERS('p', 'f') = 10, LETTERS('l', 'o') = 11, LETTERS('i', 'o') = 12,
	LETTERS('s', 'r') = 13, LETTERS('r', 'r') = 14, LETTERS('d', 'c') = 15,
	LETTERS('d', 'e') = 16, LETTERS('l', 'f') = 17, LETTERS('a', 'c') = 18,
	LETTERS('n', 'r') = 19, LETTERS('h', 't') = 20, LETTERS('s', 'f') = 21,
	LETTERS('w', 'f') = 22, LETTERS('d', 'd') = 23, LETTERS('s', 'd') = 24,
	LETTERS('m', 'm') = 25, LETTERS('h', 'g') = 26, LETTERS('n', 'h') = 27,
	LETTERS('m', 'g') = 28, LETTERS('u', 'm') = 29, LETTERS('u', 'w') = 30,
	LETTERS('u', 'i') = 31, LETTERS('s', 's') = 32, LETTERS('s', 'l') = 33,
	LETTERS('d', 'p') = 34, LETTERS('g', 'u') = 35, LETTERS('a', 'r') = 36,
	LETTERS('b', 't') = 37, LETTERS('m', 't') = 38, LETTERS('d', 'w') = 39,
	LETTERS('n', 'l') = 40,
};

/* A bit of its own for each pair that is known, 0 for others. */
static uint64_t letters_bit(const char *two)
{
	unsigned int a = (unsigned int)(two[0] - 'a'), b = (unsigned int)(two[1] - 'a');

	if (a >= 26 || b >= 26 || !letter_bits[a * 26 + b])
		return 0;
	return 1ull << letter_bits[a * 26 + b];
}

bool vma_has(const struct vma *v, const char *letters)
{
	return v->letters & letters_bit(letters);
}

void vma_forget(struct vma *v, const char *letters)
{
	v->letters &= ~letters_bit(letters);
}

/* A number of at most 64 bits; NULL if there is none, or it is larger. */
static const char *number(const char *s, unsigned int base, uint64_t *ret)
{
	uint64_t n = 0;
	const char *begin = s;

	for (;; s++) {
		unsigned int digit;

		if (*s >= '0' && *s <= '9')
			digit = (unsigned int)(*s - '0');
		else if (base == 16 && *s >= 'a' && *s <= 'f')
			digit = (unsigned int)(*s - 'a') + 10;
		else
			break;
		if (__builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, digit, &n))
			return NULL;
	}
	*ret = n;
	return s == begin ? NULL : s;
}

static const char *number_and(const char *s, unsigned int base, char after, uint64_t *ret)
{
	s = s ? number(s, base, ret) : NULL;
	return s && *s == after ? s + 1 : NULL;
}

static const char *protection(const char *s, struct vma *v)
{
	static const char set[] = "rwx";
	static const uint32_t bits[] = {PROT_READ, PROT_WRITE, PROT_EXEC};

	for (int i = 0; i < 3; i++) {
		if (s[i] == set[i])
			v->prot |= bits[i];
		else if (s[i] != '-')
			return NULL;
	}
	if (s[3] != 'p' && s[3] != 's')
		return NULL;
	v->shared = s[3] == 's';
	return s[4] == ' ' ? s + 5 : NULL;
}

/* "7f6b4cbc6000-7f6b4cbc8000 r--p 00031000 fe:00 332383      /usr/lib/ld.so" */
static int parse_header(char *line, struct vma *v)
{
	const char *s = number_and(line, 16, '-', &v->start);
	uint64_t dev_major, dev_minor;

	s = number_and(s, 16, ' ', &v->end);
	s = s ? protection(s, v) : NULL;
	s = number_and(s, 16, ' ', &v->offset);
	s = number_and(s, 16, ':', &dev_major);
	s = number_and(s, 16, ' ', &dev_minor);
	s = s ? number(s, 10, &v->ino) : NULL;
	if (!s || (*s && *s != ' ') || dev_major > UINT32_MAX || dev_minor > UINT32_MAX)
		return -EINVAL;
	v->dev_major = (uint32_t)dev_major;
	v->dev_minor = (uint32_t)dev_minor;
	while (*s == ' ')
		s++;
	v->name = s;
	return v->start < v->end ? 0 : -EINVAL;
}

static int parse_letters(const char *s, struct vma *v)
{
	while (*s) {
		uint64_t bit;

		if (*s == ' ') {
			s++;
			continue;
		}
		if (!s[1])
			return -EINVAL;
		bit = letters_bit(s);
		v->letters |= bit;
		if (s[0] == '?' && s[1] == '?')
			v->unnamed++;
		else if (!bit && !v->strange)
			v->strange = s;
		s += 2;
	}
	return 0;
}

/* "Anonymous:             8 kB" and the like; what is not needed is passed over. */
static int parse_field(const char *line, struct vma *v)
{
	const char *colon = strchr(line, ':');
	uint64_t *to = NULL, n;
	size_t len;

	if (!colon)
		return -EINVAL;
	len = (size_t)(colon - line);
#define IS(name) (len == sizeof(name) - 1 && memcmp(line, name, sizeof(name) - 1) == 0)
	if (IS("VmFlags"))
		return parse_letters(colon + 1, v);
	if (IS("KernelPageSize"))
		to = &v->page_size;
	else if (IS("Anonymous"))
		to = &v->anonymous_kb;
	else if (IS("AnonHugePages"))
		to = &v->huge_kb;
	else if (IS("Swap"))
		to = &v->swap_kb;
	else if (IS("Shared_Clean") || IS("Shared_Dirty"))
		to = &v->shared_kb;
	else if (!IS("ProtectionKey"))
		return 0;
#undef IS
	for (colon++; *colon == ' ';)
		colon++;
	if (!number(colon, 10, &n))
		return -EINVAL;
	if (to == &v->shared_kb)
		v->shared_kb += n;
	else if (to)
		*to = n;
	else
		v->pkey = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
	return 0;
}

/*
 * Headers begin with a hexadecimal digit in lower case, all other lines with a capital letter. The
 * name of a file cannot break this: the kernel prints a newline in it as \012.
 */
int vma_parse(char *text, struct vma_list *ret)
{
	struct vma *v = NULL;

	while (*text) {
		char *next = strchr(text, '\n');
		int r;

		if (!next)
			return -EINVAL;
		*next++ = '\0';
		if (*text >= 'A' && *text <= 'Z') {
			r = v ? parse_field(text, v) : -EINVAL;
		} else {
			uint64_t below = v ? v->end : 0;

			v = vec_push(&ret->vmas);
			if (!v)
				return -ENOMEM;
			r = parse_header(text, v);
			if (r >= 0 && v->start < below)
				r = -EINVAL;
		}
		if (r < 0)
			return r;
		text = next;
	}
	return 0;
}

void vma_name_locks(struct vma_list *l)
{
	vec_for_each (v, &l->vmas)
		if (v->unnamed == 1 && vma_has(v, "lo")) {
			v->letters |= letters_bit("lf");
			v->unnamed = 0;
		}
}

void vma_list_free(struct vma_list *l)
{
	vec_free(&l->vmas);
	free(l->text);
	l->text = NULL;
}

static const struct {
	const char *letters;
	const char *why;
} refused_letters[] = {
	{"pf", "is memory of a device (raw page frames)"},
	{"io", "is memory of a device"},
	{"mm", "is memory of a device (mixed)"},
	{"ui", "is registered with userfaultfd for minor faults"},
	{"ss", "is a shadow stack"},
	{"sf", "is mapped with MAP_SYNC"},
	{"ar", "has flags of another architecture"},
	{"bt", "has flags of another architecture"},
	{"mt", "has flags of another architecture"},
	{"dw", "has flags that are not known"},
	{"nl", "is a non-linear file mapping"},
};

static int refuse(struct error *e, const char *why)
{
	return error_set(e, -EOPNOTSUPP, E_VMA_KIND, "%s", why);
}

static bool begins(const char *s, const char *with)
{
	return strncmp(s, with, strlen(with)) == 0;
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), m = strlen(with);

	return n >= m && strcmp(s + n - m, with) == 0;
}

static int classify_bracket(struct vma *v, struct error *e)
{
	if (strcmp(v->name, "[vdso]") == 0) {
		v->kind = VMA_VDSO;
	} else if (strcmp(v->name, "[vvar]") == 0 || strcmp(v->name, "[vvar_vclock]") == 0) {
		v->kind = VMA_VVAR;
	} else if (strcmp(v->name, "[vsyscall]") == 0) {
		v->kind = VMA_IGNORED;
	} else if (strcmp(v->name, "[heap]") == 0 || begins(v->name, "[stack") ||
		   begins(v->name, "[anon:")) {
		v->kind = VMA_ANON;
	} else if (begins(v->name, "[anon_shmem:")) {
		v->kind = VMA_FILE;
	} else {
		return refuse(e, "is a special mapping of the kernel that is not known");
	}
	return 0;
}

static int classify_file(struct vma *v, struct error *e)
{
	if (begins(v->name, "anon_inode:[io_uring]")) {
		v->kind = VMA_IO_URING;
		return v->shared ? 0 : refuse(e, "is a private copy of a ring of io_uring");
	}
	if (begins(v->name, "/[aio]")) {
		v->kind = VMA_AIO;
		return v->shared ? 0 : refuse(e, "is a private copy of a ring of io_setup()");
	}
	if (begins(v->name, "socket:[")) { /* it turns out later which kind of socket */
		v->kind = VMA_PACKET;
		return v->shared ? 0 : refuse(e, "is a private copy of memory of a socket");
	}
	if (begins(v->name, "anon_inode:bpf-map")) {
		v->kind = VMA_BPF_MAP; /* never private (bpf_map_mmap()) */
		return v->shared ? 0 : refuse(e, "is a private copy of a BPF map");
	}
	if (begins(v->name, "anon_inode:[perf_event]"))
		return refuse(e, "is the buffer of a performance counter");
	if (begins(v->name, "/secretmem"))
		return refuse(e, "is secret memory (memfd_secret), which the kernel hides");
	if (v->name[0] != '/')
		return refuse(
			e,
			"is memory of another kernel interface (packet socket, driver or the like)");
	if (begins(v->name, "/SYSV") && ends(v->name, " (deleted)") && v->shared)
		v->kind = VMA_SYSV;
	else if (vma_has(v, "ht") && !v->shared && begins(v->name, "/anon_hugepage"))
		v->kind = VMA_HUGE_ANON;
	else
		v->kind = VMA_FILE;
	return 0;
}

static uint32_t flags_of(const struct vma *v)
{
	static const struct {
		char letters[3];
		uint32_t flag;
	} table[] = {
		{"gd", VMA_GROWSDOWN},	{"lo", VMA_LOCKED},	{"lf", VMA_LOCKONFAULT},
		{"dc", VMA_DONTFORK},	{"wf", VMA_WIPEONFORK}, {"dd", VMA_DONTDUMP},
		{"sr", VMA_SEQUENTIAL}, {"rr", VMA_RANDOM},	{"hg", VMA_HUGEPAGE},
		{"nh", VMA_NOHUGEPAGE}, {"mg", VMA_MERGEABLE},	{"nr", VMA_NORESERVE},
		{"sl", VMA_SEALED},
	};
	uint32_t flags = v->shared ? VMA_SHARED : 0;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (vma_has(v, table[i].letters))
			flags |= table[i].flag;
	/* the kernel sets VM_ACCOUNT with write permission, and never takes it back */
	if (!v->shared && !(v->prot & PROT_WRITE) && vma_has(v, "ac"))
		flags |= VMA_ACCOUNTED;
	return flags;
}

/* Made of pages of the kernel, as its io_uring_mmap() has done at all times. */
static bool of_ring(const struct vma *v)
{
	return vma_of_ring(v->kind) || v->kind == VMA_AIO;
}

static int check_letters(const struct vma *v, struct error *e)
{
	if (v->strange)
		return error_set(e, -EOPNOTSUPP, E_VMA_KIND,
				 "has the flag \"%.2s\", which is not known", v->strange);
	if (v->unnamed)
		return refuse(e, "has a flag without a name, which is not known");
	for (size_t i = 0; i < sizeof(refused_letters) / sizeof(refused_letters[0]); i++)
		if (vma_has(v, refused_letters[i].letters) && !of_ring(v))
			return refuse(e, refused_letters[i].why);
	/* set by drivers and by hugetlbfs alone */
	if (vma_has(v, "de") && !vma_has(v, "ht") && !of_ring(v))
		return refuse(e, "may not be expanded, which only memory of drivers is");
	if (v->end > USER_SPACE_END)
		return refuse(e, "lies above 128 TiB (five-level page tables)");
	return 0;
}

static int classify_nameless(struct vma *v, struct error *e)
{
	if (v->ino != 0 || v->shared)
		return refuse(e, "has no name, but belongs to a file");
	v->kind = VMA_ANON;
	return 0;
}

int vma_classify(struct vma *v, struct error *e)
{
	int r;

	if (v->name[0] == '[')
		r = classify_bracket(v, e);
	else if (v->name[0])
		r = classify_file(v, e);
	else
		r = classify_nameless(v, e);
	if (r < 0 || v->kind == VMA_IGNORED)
		return r;
	v->flags = flags_of(v);
	if (v->kind == VMA_VVAR || v->kind == VMA_VDSO)
		return 0; /* made by the kernel: device flags are what they have to have */
	if (v->kind == VMA_ANON && (v->ino != 0 || v->shared))
		return refuse(e, "is named like anonymous memory, but belongs to a file");
	if (vma_has(v, "dp"))
		v->kind = VMA_DROPPABLE;
	if (vma_has(v, "ht") && v->kind != VMA_FILE && v->kind != VMA_HUGE_ANON &&
	    v->kind != VMA_SYSV)
		return refuse(e, "consists of huge pages in a way that is not known");
	return check_letters(v, e);
}

/* ---- records ---- */

const Reprise__Vma *mm_vma_at(const Reprise__Mm *mm, uint64_t address)
{
	size_t low = bisect(mm->n_vmas, i, mm->vmas[i]->end > address);

	return low < mm->n_vmas && mm->vmas[low]->start <= address ? mm->vmas[low] : NULL;
}

static bool same_backing(const Reprise__Vma *a, const Reprise__Vma *b)
{
	/* cannot be changed afterwards; advice on huge pages can, but not be taken back */
	const uint64_t kept = VMA_GROWSDOWN | VMA_NORESERVE | VMA_HUGEPAGE | VMA_NOHUGEPAGE;

	if (a->kind != b->kind || !vma_keeps_pages(a) || !vma_keeps_pages(b))
		return false;
	if (a->kind == VMA_HUGE_ANON || a->page_size || b->page_size)
		return false; /* pages of other sizes are not followed */
	if ((a->flags & kept) != (b->flags & kept))
		return false;
	return a->inode == b->inode &&
	       (a->inode == 0 || a->offset - a->start == b->offset - b->start);
}

static bool same_mapping(const Reprise__Vma *a, const Reprise__Vma *b)
{
	const uint64_t kept = VMA_SHARED | VMA_NORESERVE;

	if (same_backing(a, b))
		return true;
	if (a->kind == VMA_DROPPABLE && b->kind == VMA_DROPPABLE)
		return true;
	/* each is mapped when the rings are there; a fork leaves no context of asynchronous I/O */
	if (vma_of_ring(a->kind) || a->kind == VMA_AIO)
		return false;
	if (vma_keeps_pages(a) || a->kind != b->kind || (a->flags & kept) != (b->flags & kept))
		return false;
	return a->inode == b->inode && a->offset - a->start == b->offset - b->start &&
	       a->write_open == b->write_open && a->page_size == b->page_size;
}

static int common(const Reprise__Mm *a, const Reprise__Mm *b,
		  bool (*same)(const Reprise__Vma *a, const Reprise__Vma *b), struct span_vec *ret)
{
	size_t i = 0, j = 0;

	while (i < a->n_vmas && j < b->n_vmas) {
		const Reprise__Vma *x = a->vmas[i], *y = b->vmas[j];
		uint64_t start = x->start > y->start ? x->start : y->start;
		uint64_t end = x->end < y->end ? x->end : y->end;

		if (start < end && same(x, y)) {
			struct span *s = vec_push(ret);

			if (!s)
				return -ENOMEM;
			*s = (struct span){start, end};
		}
		if (x->end <= y->end)
			i++;
		if (y->end <= x->end)
			j++;
	}
	return 0;
}

int mm_alike(const Reprise__Mm *a, const Reprise__Mm *b, struct span_vec *ret)
{
	return common(a, b, same_backing, ret);
}

int mm_keepable(const Reprise__Mm *a, const Reprise__Mm *b, struct span_vec *ret)
{
	return common(a, b, same_mapping, ret);
}

/* A range that crosses from one span into an adjoining one is held too. */
bool spans_hold(const struct span_vec *spans, uint64_t start, uint64_t end)
{
	size_t low = bisect(spans->n, i, spans->v[i].end > start);

	for (; low < spans->n && spans->v[low].start <= start; low++) {
		if (end <= spans->v[low].end)
			return true;
		start = spans->v[low].end;
	}
	return false;
}
