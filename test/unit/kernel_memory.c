/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/btf.h"
#include "core/cleanup.h"
#include "core/kernel_memory.h"
#include "core/kernel_scan.h"
#include "core/kernel_vmas.h"
#include "mm/state.h"
#include "unit.h"

static void test_own_task(void **state)
{
	struct kernel_memory *k = NULL;
	char name[16] = "", unused[64];
	struct error e = {};
	uint64_t task;
	int at;

	if (kernel_memory_open(-EBADF, &k, &e) < 0)
		skip(); /* no privilege, or no types */
	assert_int_equal(kernel_task(k, getpid(), &task), 0);
	at = kernel_offset(k, "task_struct", "comm");
	assert_true(at > 0);
	assert_int_equal(prctl(PR_SET_NAME, "some-name"), 0);
	assert_int_equal(kernel_read(k, task + (uint64_t)at, name, sizeof(name)), 0);
	assert_string_equal(name, "some-name");
	/* a member of a member, one of an unnamed member, none */
	assert_int_equal(kernel_offset(k, "list_head", "prev"), 8);
	assert_true(kernel_offset(k, "task_struct", "tasks.prev") ==
		    kernel_offset(k, "task_struct", "tasks") + 8);
	assert_true(kernel_offset(k, "task_struct", "nonsense") < 0);
	assert_true(kernel_offset(k, "nonsense", "comm") < 0);
	assert_int_equal(kernel_size(k, "list_head"), 16);
	/* Where nothing is. */
	assert_true(kernel_read(k, 0, unused, sizeof(unused)) < 0);
	assert_true(kernel_read(k, 4096, unused, sizeof(unused)) < 0);
	assert_true(kernel_read(k, 0x123456789abcdef0, unused, sizeof(unused)) < 0);
	assert_true(kernel_task(k, 0x3ffffff, &task) < 0);
	kernel_memory_free(k);
}

static void count_names(void *arg, const uint64_t *v)
{
	unsigned int *found = arg;
	char name[8] = "";

	memcpy(name, &v[1], sizeof(name));
	*found += !memcmp(name, "several", 8) && !v[0] && !v[2];
}

static void *stay(void *arg)
{
	sem_wait(arg);
	return NULL;
}

struct only {
	uint64_t leader;
	unsigned int n, others;
};

static void count_threads(void *arg, const uint64_t *v)
{
	struct only *found = arg;

	found->n++;
	found->others += v[0] != found->leader;
}

/* Of all that there are, those of this process. */
static void check_only(struct kernel_memory *k)
{
	struct kernel_path paths[2] = {};
	struct only found = {};
	struct kernel_scan *s = NULL;

	assert_int_equal(kernel_task(k, getpid(), &found.leader), 0);
	kernel_path_add(k, &paths[0], "task_struct", "group_leader");
	kernel_path_add(k, &paths[1], "task_struct", "mm");
	assert_int_equal(kernel_scan_new_only(&s, k, paths, 2, found.leader), 0);
	assert_int_equal(kernel_scan_all(s, count_threads, &found), 0);
	assert_int_equal(found.n, 201);
	assert_int_equal(found.others, 0);
	kernel_scan_free(s);
	/* What is not there is not found. */
	assert_int_equal(kernel_scan_new_only(&s, k, paths, 2, found.leader + 1), 0);
	assert_int_equal(kernel_scan_all(s, count_threads, &found), -ESRCH);
	kernel_scan_free(s);
}

/* Of all threads at once; what is not there, or is reached by a pointer to nowhere, is 0. */
static void test_scan(void **state)
{
	struct kernel_path paths[3] = {};
	struct kernel_memory *k = NULL;
	struct kernel_scan *s = NULL;
	unsigned int found = 0;
	struct error e = {};
	pthread_t threads[200];
	sem_t end;

	if (kernel_memory_open(-EBADF, &k, &e) < 0)
		skip();
	assert_int_equal(prctl(PR_SET_NAME, "several"), 0);
	assert_int_equal(sem_init(&end, 0, 0), 0);
	for (int i = 0; i < 200; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, stay, &end), 0);
	kernel_path_add(k, &paths[0], "task_struct", "nonsense");
	kernel_path_add(k, &paths[0], "task_struct", "mm");
	kernel_path_add(k, &paths[1], "task_struct", "comm");
	kernel_path_add(k, &paths[2], "task_struct", "set_child_tid");
	kernel_path_add_offset(&paths[2], 1 << 20);
	assert_int_equal(kernel_scan_new(&s, k, paths, 3), 0);
	assert_int_equal(kernel_scan_process(s, getpid(), count_names, &found), 0);
	assert_int_equal(found, 201);
	assert_int_equal(kernel_scan_thread(s, getpid(), count_names, &found), 0);
	assert_int_equal(found, 202);
	assert_true(kernel_scan_process(s, 0x3ffffff, count_names, &found) < 0);
	check_only(k);
	for (int i = 0; i < 200; i++)
		sem_post(&end);
	for (int i = 0; i < 200; i++)
		pthread_join(threads[i], NULL);
	assert_true(kernel_enumerator(k, "PIDTYPE_SID") > 0);
	assert_true(kernel_enumerator(k, "PIDTYPE_NONSENSE") < 0);
	kernel_scan_free(s);
	kernel_memory_free(k);
}

struct own {
	uint64_t file, inode;
	int fd;
	unsigned int n, empty;
};

static void find_file(void *arg, const uint64_t *v)
{
	struct own *own = arg;

	if (v[0] == own->file && (int)v[1] == own->fd && v[2] == own->inode)
		own->n++;
}

static void find_mapping(void *arg, const uint64_t *v)
{
	struct own *own = arg;

	own->n += v[0] == own->file && v[1] == own->inode;
	own->empty += v[0] == 0;
}

/* What a process has open, and mapped: from the object itself, and from a value before. */
static void test_objects(void **state)
{
	struct kernel_path files[3] = {{.from = KERNEL_FROM_OBJECT},
				       {.from = KERNEL_FROM_NUMBER},
				       {.from = KERNEL_FROM_OBJECT}};
	struct kernel_path maps[2] = {{.from = KERNEL_FROM_OBJECT},
				      {.from = KERNEL_FROM_VALUE, .value = 0}};
	struct kernel_memory *k = NULL;
	struct kernel_scan *s = NULL;
	struct own own = {};
	struct error e = {};
	int offset;
	char *at;

	if (kernel_memory_open(-EBADF, &k, &e) < 0)
		skip();
	own.fd = memfd_create("own", 0);
	assert_int_equal(ftruncate(own.fd, 3 * 4096), 0);
	assert_int_equal(kernel_file(k, own.fd, &own.file), 0);
	offset = kernel_offset(k, "file", "f_inode");
	assert_int_equal(kernel_of_file(k, own.fd, &offset, 1, &own.inode, sizeof(own.inode)), 0);
	kernel_path_add(k, &files[2], "file", "f_inode");
	assert_int_equal(kernel_scan_new_over(&s, k, KERNEL_FILES, files, 3), 0);
	assert_int_equal(kernel_scan_process(s, getpid(), find_file, &own), 0);
	assert_int_equal(own.n, 1);
	kernel_scan_free(s);
	/* Three mappings of one file beside each other are told once, each time anew. */
	at = mmap(NULL, 3 * 4096, PROT_READ, MAP_SHARED, own.fd, 0);
	assert_true(at != MAP_FAILED);
	assert_int_equal(mprotect(at + 4096, 4096, PROT_NONE), 0);
	kernel_path_add(k, &maps[0], "vm_area_struct", "vm_file");
	kernel_path_add(k, &maps[1], "file", "f_inode");
	assert_int_equal(kernel_scan_new_over(&s, k, KERNEL_MAPPINGS, maps, 2), 0);
	for (unsigned int i = 1; i <= 2; i++) {
		assert_int_equal(kernel_scan_process(s, getpid(), find_mapping, &own), 0);
		assert_int_equal(own.n, 1 + i);
		assert_int_equal(own.empty, 0);
	}
	kernel_scan_free(s);
	munmap(at, 3 * 4096);
	close(own.fd);
	kernel_memory_free(k);
}

#define PIECES 400

static void test_mappings(void **state)
{
	struct kernel_vmas before = {}, after = {};
	struct kernel_memory *k = NULL;
	const struct kernel_vma *x, *y;
	struct error e = {};
	char *at;

	if (kernel_memory_open(-EBADF, &k, &e) < 0)
		skip();
	at = mmap(NULL, PIECES * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(at, MAP_FAILED);
	for (int i = 0; i < PIECES; i += 2)
		assert_int_equal(mprotect(at + i * 4096, 4096, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(kernel_vmas_read(k, getpid(), &before), 0);
	assert_int_equal(madvise(at + 8 * 4096, 4096, MADV_DONTFORK), 0);
	assert_int_equal(kernel_vmas_read(k, getpid(), &after), 0);
	for (int i = 0; i < PIECES; i++) {
		x = kernel_vmas_find(&before, (uintptr_t)at + (unsigned int)i * 4096);
		y = kernel_vmas_find(&after, (uintptr_t)at + (unsigned int)i * 4096);
		assert_non_null(x);
		assert_non_null(y);
		assert_int_equal(x->end, x->start + 4096);
		assert_true((x->flags == y->flags) == (i != 8));
	}
	assert_null(kernel_vmas_find(&after, (uintptr_t)at + 1));
	assert_true(kernel_vmas_read(k, 0x3ffffff, &after) < 0);
	kernel_vmas_free(&before);
	kernel_vmas_free(&after);
	munmap(at, PIECES * 4096);
	kernel_memory_free(k);
}

/* smaps has two letters for each flag of the kernel: of all that we have mapped. */
static void test_letters(void **state)
{
	void *at = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	_cleanup_(close_fd) int proc_fd = open("/proc", O_PATH | O_CLOEXEC);
	_cleanup_(vma_list_free) struct vma_list maps = {};
	struct kernel_vmas flags = {};
	struct kernel_memory *k = NULL;
	struct error e = {};
	int n = 0;

	(void)state;
	if (kernel_memory_open(-EBADF, &k, &e) < 0)
		skip();
	assert_int_equal(mlock2(at, 4096, MLOCK_ONFAULT), 0);
	assert_int_equal(madvise((char *)at + 8192, 4096, MADV_DONTFORK), 0);
	assert_int_equal(vmas_read(proc_fd, getpid(), "smaps", &maps, &e), 0);
	assert_int_equal(kernel_vmas_read(k, getpid(), &flags), 0);
	vec_for_each (v, &maps.vmas) {
		const struct kernel_vma *x = kernel_vmas_find(&flags, v->start);

		if (x && x->end == v->end) {
			assert_true(vma_agrees(v, x->flags));
			n++;
		}
	}
	assert_true(n >= 10);
	kernel_vmas_free(&flags);
	munmap(at, 4 * 4096);
	kernel_memory_free(k);
}

static void test_nonsense(void **state)
{
	const size_t sizes[] = {0, 1, 23, 24, 1000};
	struct btf *b = NULL;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		unsigned char *data = malloc(sizes[i] + 1);

		memset(data, 0xeb, sizes[i]);
		assert_true(btf_new(&b, NULL, data, sizes[i], false) < 0);
		assert_null(b);
	}
}

static struct btf *make_types(const struct btf *base, const uint32_t *types, uint32_t types_len,
			      const char *names, uint32_t names_len)
{
	const struct btf_header head = {.magic = BTF_MAGIC,
					.version = 1,
					.hdr_len = sizeof(head),
					.type_len = types_len,
					.str_off = types_len,
					.str_len = names_len};
	const size_t size = sizeof(head) + types_len + names_len;
	char *data = malloc(size);
	struct btf *b = NULL;

	memcpy(data, &head, sizeof(head));
	memcpy(data + sizeof(head), types, types_len);
	memcpy(data + sizeof(head) + types_len, names, names_len);
	assert_int_equal(btf_new(&b, base, data, size, false), 0);
	return b;
}

/* Numbers of the types and places of the names of a module go on where those of the kernel end. */
static void test_module(void **state)
{
	static const char base_names[] = "\0int\0one\0x", module_names[] = "two\0y";
	const uint32_t structure = BTF_KIND_STRUCT << 24, two = sizeof(base_names);
	/* int; struct one { int x; }, x at bit 32 */
	const uint32_t base_types[] = {1, BTF_KIND_INT << 24, 4, 32, 5, structure | 1, 8, 9, 1, 32};
	/* struct two { struct one y; struct one *x; }, at bits 64 and 128 */
	const uint32_t module_types[] = {two, structure | 2,	  24, two + 4, 2, 64, 9, 4, 128,
					 0,   BTF_KIND_PTR << 24, 2};
	struct btf *base =
		make_types(NULL, base_types, sizeof(base_types), base_names, sizeof(base_names));
	struct btf *module = make_types(base, module_types, sizeof(module_types), module_names,
					sizeof(module_names));
	int size = 0;

	assert_int_equal(btf_structure(base, "two"), -ENOENT);
	assert_int_equal(btf_structure(module, "one"), 2);
	assert_int_equal(btf_structure(module, "two"), 3);
	assert_int_equal(btf_size(module, 3), 24);
	assert_int_equal(btf_member(module, 3, "y.x", &size), 12);
	assert_int_equal(size, 4);
	assert_int_equal(btf_member(module, 3, "x", &size), 16);
	assert_int_equal(size, 8);
	assert_int_equal(btf_member(module, 3, "y.y", &size), -ENOENT);
	assert_int_equal(btf_offset(module, 2, "x"), 4);
	btf_free(module);
	btf_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_own_task), cmocka_unit_test(test_scan),
		cmocka_unit_test(test_objects),	 cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_letters),	 cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_module),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
