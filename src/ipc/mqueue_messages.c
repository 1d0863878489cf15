/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a POSIX queue. There is no way to look at them but to receive them,
 * and a message that was received may be lost if we are killed before it is sent back. So they are
 * read where the kernel keeps them (ipc/mqueue.c): a tree of priorities, each with a list of
 * messages.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "ipc/mqueue.h"

#define PAGE	  4096u
#define DEPTH_MAX 64
#define DATA_MAX  (1u << 24) /* HARD_MSGSIZEMAX */

struct layout {
	int f_inode, i_ino, vfs_inode, curmsgs, tree, notify_value;
	int cookie, sock, skb_data;
	int leaf_node, leaf_list, leaf_priority, right, left;
	int m_list, m_type, m_ts, next, head_size;
};

static int read_layout(struct kernel_memory *k, struct layout *l)
{
	const struct kernel_place members[] = {
		{&l->f_inode, "file", "f_inode"},
		{&l->i_ino, "inode", "i_ino"},
		{&l->vfs_inode, "mqueue_inode_info", "vfs_inode"},
		{&l->curmsgs, "mqueue_inode_info", "attr.mq_curmsgs"},
		{&l->cookie, "mqueue_inode_info", "notify_cookie"},
		{&l->sock, "mqueue_inode_info", "notify_sock"},
		{&l->skb_data, "sk_buff", "data"},
		{&l->tree, "mqueue_inode_info", "msg_tree.rb_node"},
		{&l->notify_value, "mqueue_inode_info", "notify.sigev_value"},
		{&l->leaf_node, "posix_msg_tree_node", "rb_node"},
		{&l->leaf_list, "posix_msg_tree_node", "msg_list"},
		{&l->leaf_priority, "posix_msg_tree_node", "priority"},
		{&l->right, "rb_node", "rb_right"},
		{&l->left, "rb_node", "rb_left"},
		{&l->m_list, "msg_msg", "m_list"},
		{&l->m_type, "msg_msg", "m_type"},
		{&l->m_ts, "msg_msg", "m_ts"},
		{&l->next, "msg_msg", "next"},
	};

	l->head_size = kernel_size(k, "msg_msg");
	int r = kernel_places(k, members, sizeof(members) / sizeof(members[0]));

	if (r < 0)
		return r;
	return l->head_size > 0 ? 0 : -ENOENT;
}

struct walk {
	struct kernel_memory *k;
	struct layout l;
	Reprise__Mqueue *msg;
	size_t room;
	struct scratch *s;
};

static uint64_t pointer(struct walk *w, uint64_t at, int offset)
{
	return kernel_pointer(w->k, at + (uint64_t)offset);
}

/* The struct mqueue_inode_info of a descriptor of ours; what is there must be what is known of it.
 */
static int find_queue(struct walk *w, int fd, uint64_t *ret)
{
	struct mq_attr_kernel attr;
	uint64_t at, ino;
	struct stat st;
	int r;

	if (mqueue_attr(fd, &attr) < 0 || fstat(fd, &st) < 0)
		return -errno;
	r = read_layout(w->k, &w->l);
	if (r >= 0)
		r = kernel_file(w->k, fd, &at);
	if (r < 0)
		return r == -ENOMEM ? r : -EOPNOTSUPP;
	at = pointer(w, at, w->l.f_inode);
	ino = pointer(w, at, w->l.i_ino);
	at -= (uint64_t)w->l.vfs_inode;
	if (ino != st.st_ino || pointer(w, at, w->l.curmsgs) != (uint64_t)attr.curmsgs)
		return -EFAULT;
	w->room = (size_t)attr.curmsgs;
	*ret = at;
	return 0;
}

/* The first page holds the head as well, the further ones a pointer to the next. */
static int read_data(struct walk *w, uint64_t at, uint8_t *to, size_t len)
{
	size_t part = len < PAGE - (size_t)w->l.head_size ? len : PAGE - (size_t)w->l.head_size;
	uint64_t next = pointer(w, at, w->l.next);
	int r = part ? kernel_read(w->k, at + (uint64_t)w->l.head_size, to, part) : 0;

	while (r >= 0 && part < len) {
		size_t more = len - part < PAGE - 8 ? len - part : PAGE - 8;

		r = kernel_read(w->k, next + 8, to + part, more);
		next = pointer(w, next, 0);
		part += more;
	}
	return r;
}

static int read_message(struct walk *w, uint64_t at, uint32_t priority)
{
	Reprise__MqueueMessage *m =
		scratch_message(w->s, Reprise__MqueueMessage, reprise__mqueue_message__init);
	uint64_t len = pointer(w, at, w->l.m_ts);

	if (w->msg->n_messages == w->room || len > DATA_MAX ||
	    pointer(w, at, w->l.m_type) != priority)
		return -EFAULT;
	if (!m)
		return -ENOMEM;
	m->priority = priority;
	m->data.len = len;
	m->data.data = scratch_alloc(w->s, len + 1);
	if (!m->data.data)
		return -ENOMEM;
	w->msg->messages[w->msg->n_messages++] = m;
	return read_data(w, at, m->data.data, len);
}

static int read_leaf(struct walk *w, uint64_t leaf)
{
	uint64_t head = leaf + (uint64_t)w->l.leaf_list, at = kernel_pointer(w->k, head);
	int priority, r = kernel_read(w->k, leaf + (uint64_t)w->l.leaf_priority, &priority,
				      sizeof(priority));

	while (r >= 0 && at != head) {
		r = at ? read_message(w, at - (uint64_t)w->l.m_list, (uint32_t)priority) : -EFAULT;
		at = kernel_pointer(w->k, at);
	}
	return r;
}

/* The highest priority is at the right. */
static int read_tree(struct walk *w, uint64_t node, int depth)
{
	int r;

	if (!node)
		return 0;
	if (depth > DEPTH_MAX)
		return -EFAULT;
	r = read_tree(w, pointer(w, node, w->l.right), depth + 1);
	if (r >= 0)
		r = read_leaf(w, node - (uint64_t)w->l.leaf_node);
	return r < 0 ? r : read_tree(w, pointer(w, node, w->l.left), depth + 1);
}

int mqueue_messages(struct kernel_memory *k, int fd, Reprise__Mqueue *msg, struct scratch *s,
		    struct error *e)
{
	struct walk w = {.k = k, .msg = msg, .s = s};
	uint64_t queue = 0;
	int r = find_queue(&w, fd, &queue);

	if (r >= 0) {
		msg->messages = scratch_alloc(s, (w.room + 1) * sizeof(*msg->messages));
		r = msg->messages ? read_tree(&w, pointer(&w, queue, w.l.tree), 0) : -ENOMEM;
	}
	if (r >= 0 && msg->n_messages != w.room)
		r = -EFAULT;
	return r < 0 ? error_errno(e, r, E_IPC_STATE, "its messages cannot be read") : 0;
}

int mqueue_notify_value(struct kernel_memory *k, int fd, uint64_t *ret, struct error *e)
{
	struct walk w = {.k = k};
	uint64_t queue = 0;
	int r = find_queue(&w, fd, &queue);

	if (r >= 0)
		r = kernel_read(k, queue + (uint64_t)w.l.notify_value, ret, sizeof(*ret));
	return r < 0 ? error_errno(e, r, E_IPC_STATE, "its notification cannot be read") : 0;
}

int mqueue_notify_thread(struct kernel_memory *k, int fd, uint8_t *cookie, size_t len,
			 uint64_t *ret_sock, struct error *e)
{
	struct walk w = {.k = k};
	uint64_t queue = 0;
	int r = find_queue(&w, fd, &queue);

	if (r >= 0) {
		uint64_t skb = pointer(&w, queue, w.l.cookie);

		*ret_sock = pointer(&w, queue, w.l.sock);
		r = kernel_read(k, pointer(&w, skb, w.l.skb_data), cookie, len);
	}
	return r < 0 ? error_errno(e, r, E_IPC_STATE, "its notification cannot be read") : 0;
}
