/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CORE_KABI_H
#define REPRISE_CORE_KABI_H

#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>

/*
 * Kernel interfaces that are newer than the headers of the oldest distribution
 * we build on. Sorted by the kernel header that defines them. Sizes are part
 * of the interface, hence the assertions. What is here says nothing about the
 * running kernel: probe.
 */

/* asm-generic/socket.h */
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* 6.16 */
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04 /* 6.5 */
#endif

/* linux/bpf.h: enum bpf_map_type, enum bpf_attach_type */
#define BPF_MAP_OF_CGROUPS	32	   /* BPF_MAP_TYPE_CGRP_STORAGE, 6.2 */
#define BPF_MAP_ARENA		33	   /* BPF_MAP_TYPE_ARENA, 6.9 */
#define BPF_SEGV_ON_FAULT	(1u << 17) /* BPF_F_SEGV_ON_FAULT, BPF_F_NO_USER_CONV: 6.9 */
#define BPF_NO_USER_CONV	(1u << 18)
#define BPF_AT_TCX_INGRESS	46 /* BPF_TCX_INGRESS, 6.6 */
#define BPF_AT_TCX_EGRESS	47
#define BPF_AT_UNIX_CONNECT	49 /* BPF_CGROUP_UNIX_CONNECT, 6.7 */
#define BPF_AT_UNIX_SENDMSG	50
#define BPF_AT_UNIX_RECVMSG	51
#define BPF_AT_UNIX_GETPEERNAME 52
#define BPF_AT_UNIX_GETSOCKNAME 53

/* linux/eventpoll.h, whose own names are not in those of libc (6.9) */
struct epoll_busy_params {
	uint32_t busy_poll_usecs;
	uint16_t busy_poll_budget;
	uint8_t prefer_busy_poll;
	uint8_t pad;
};
static_assert(sizeof(struct epoll_busy_params) == 8, "size is part of the interface");
#ifndef EPIOCSPARAMS
#define EPIOCSPARAMS _IOW(0x8A, 0x01, struct epoll_busy_params)
#define EPIOCGPARAMS _IOR(0x8A, 0x02, struct epoll_busy_params)
#endif

/* linux/fanotify.h */
#ifndef FAN_PRE_ACCESS
#define FAN_PRE_ACCESS 0x00100000 /* 6.14 */
#endif

/* linux/fcntl.h */
#define KERNEL_EXECVE_CHECK 0x10000 /* AT_EXECVE_CHECK (6.14) */
#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17 /* real and effective uid that F_SETOWN has recorded */
#endif
#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY 1027 /* 6.10: 1 if both descriptors are the same open file */
#endif

/* linux/fs.h, whose own names cannot be used beside those of sys/mount.h (6.7) */
struct pagemap_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};
struct pagemap_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};
static_assert(sizeof(struct pagemap_scan_arg) == 96, "size is part of the interface");
#define PAGEMAP_SCAN_CMD      _IOWR('f', 16, struct pagemap_scan_arg)
#define PAGEMAP_WP_MATCHING   (1 << 0) /* flags */
#define PAGEMAP_CHECK_WPASYNC (1 << 1)
#define PAGEMAP_IS_WPALLOWED  (1 << 0)
#define PAGEMAP_IS_WRITTEN    (1 << 1)
#define PAGEMAP_IS_FILE	      (1 << 2)
#define PAGEMAP_IS_PRESENT    (1 << 3)
#define PAGEMAP_IS_SWAPPED    (1 << 4)
#define PAGEMAP_IS_PFNZERO    (1 << 5)
#define PAGEMAP_IS_GUARD      (1 << 8) /* 6.16 */

/* linux/inotify.h */
#ifndef INOTIFY_IOC_SETNEXTWD
#define INOTIFY_IOC_SETNEXTWD _IOW('I', 0, int32_t) /* 4.17 */
#endif

/* linux/io_uring.h */
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* 6.6 */
#endif
#define URING_OFF_PBUF_RING	  0x80000000ull /* IORING_OFF_PBUF_RING, 6.4; then the group */
#define URING_OFF_PBUF_SHIFT	  16
#define URING_OFF_PBUF_GROUPS	  (1u << 11) /* that fit in (IORING_OFF_MMAP_MASK) */
#define URING_SETUP_NO_MMAP	  (1U << 14) /* IORING_SETUP_NO_MMAP, 6.5 */
#define URING_SETUP_HYBRID_IOPOLL (1U << 17) /* IORING_SETUP_HYBRID_IOPOLL, 6.13 */
#define URING_SETUP_CQE_MIXED	  (1U << 18) /* IORING_SETUP_CQE_MIXED, 6.18 */
#ifndef IORING_ENTER_REGISTERED_RING
#define IORING_ENTER_REGISTERED_RING (1U << 4) /* 5.18 */
#endif
#define IORING_REGISTER_CLOCK_NR 29	   /* 6.12 */
#define URING_REGISTER_NAPI	 27	   /* IORING_REGISTER_NAPI, 6.9 */
#define URING_MSG_FLAGS_PASS	 (1U << 1) /* IORING_MSG_RING_FLAGS_PASS, 6.3 */
#define URING_OP_READ_MULTISHOT	 49	   /* 6.7 */
#define URING_OP_WAITID		 50	   /* 6.7 */
#define URING_OP_FUTEX_WAIT	 51	   /* 6.7 */
#define URING_OP_FUTEX_WAITV	 53	   /* 6.7 */
#define URING_OP_EPOLL_WAIT	 59	   /* 6.15 */
struct uring_clock_register {
	uint32_t clock, reserved[3];
};
static_assert(sizeof(struct uring_clock_register) == 16, "part of the request");
struct uring_napi { /* struct io_uring_napi */
	uint32_t timeout_us;
	uint8_t prefer, opcode, pad[2];
	uint32_t tracking, reserved;
};
static_assert(sizeof(struct uring_napi) == 16, "part of the request");

/* linux/memfd.h */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* 6.3 */
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* 6.3 */
#endif

/* linux/mman.h, asm-generic/mman-common.h */
#define KERNEL_CACHESTAT 451 /* 6.5 */
struct kernel_cachestat_range {
	uint64_t off, len;
};
struct kernel_cachestat {
	uint64_t nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted;
};
static_assert(sizeof(struct kernel_cachestat) == 40, "size is part of the interface");
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08 /* 6.11 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* 6.1 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* 6.13 */
#endif

/* linux/magic.h */
#ifndef SECRETMEM_MAGIC
#define SECRETMEM_MAGIC 0x5345434d /* 5.14 */
#endif
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446 /* 6.9 */
#endif

/* linux/lsm.h (6.8) */
#define KERNEL_SYS_LSM_LIST_MODULES 461
#define KERNEL_LSM_ID_SELINUX	    101
#define KERNEL_LSM_ID_SMACK	    102
#define KERNEL_LSM_ID_APPARMOR	    104
#define KERNEL_LSM_ID_LANDLOCK	    110
#define KERNEL_LSM_ID_IPE	    113 /* the last that is known */

/* linux/mount.h, linux/nsfs.h, linux/stat.h: of mounts. Some headers have parts of it. */
#define KERNEL_SYS_STATMOUNT	     457		       /* 6.8 */
#define KERNEL_STATX_MNT_ID_UNIQUE   0x00004000U	       /* 6.8 */
#define KERNEL_NS_GET_MNTNS_ID	     _IOR(0xb7, 0x5, uint64_t) /* 6.11 */
#define KERNEL_NS_GET_PID_FROM_PIDNS _IOR(0xb7, 0x6, int)      /* 6.11 */
#define KERNEL_STATMOUNT_UIDMAP	     0x00002000U	       /* 6.15 */
#define KERNEL_STATMOUNT_GIDMAP	     0x00004000U
struct kernel_mnt_id_req {
	uint32_t size, spare;
	uint64_t mnt_id, param, mnt_ns_id;
};
static_assert(sizeof(struct kernel_mnt_id_req) == 32, "the second version, of 6.11");
struct kernel_statmount {
	uint32_t size, options;
	uint64_t mask;
	uint8_t others[136];
	uint32_t uidmap_num, uidmap, gidmap_num, gidmap; /* where in `strings` */
	uint8_t later[344];
	char strings[];
};
static_assert(sizeof(struct kernel_statmount) == 512, "size is part of the interface");

/* linux/pidfd.h */
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* 6.9 */
#endif
#ifndef PIDFD_GET_INFO
struct pidfd_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid, tgid, ppid;
	uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
	int32_t exit_code;
};
static_assert(sizeof(struct pidfd_info) == 64, "first version of struct pidfd_info");
#define PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info) /* 6.13 */
#endif
#ifndef PIDFD_INFO_EXIT
#define PIDFD_INFO_EXIT (1UL << 3) /* 6.15 */
#endif

/* linux/timerfd.h */
#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t) /* 3.17 */
#endif

/* linux/prctl.h */
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65 /* 6.3 */
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67 /* 6.4 */
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS	77 /* 6.15 */
#define PR_TIMER_CREATE_RESTORE_IDS_GET 2
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41 /* 5.17 */
#define PR_SET_VMA_ANON_NAME 0
#endif

/* linux/userfaultfd.h */
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* 6.7 */
#endif

/* asm/unistd.h */
#ifndef __NR_mseal
#define __NR_mseal 462 /* 6.10 */
#endif

/* linux/ptrace.h */
#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#ifndef PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211 /* 6.4 */
struct ptrace_sud_config {
	uint64_t mode, selector, offset, len;
};
static_assert(sizeof(struct ptrace_sud_config) == 32, "part of the request");
#endif

#endif
