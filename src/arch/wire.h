/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_ARCH_WIRE_H
#define REPRISE_ARCH_WIRE_H

/*
 * What the agent reads: its header stands AGENT_HEADER_AT bytes behind the
 * beginning of its code, followed by the calls and then the data.
 */
#define AGENT_HEADER_AT	 4096
#define WIRE_NCALLS	 0
#define WIRE_CALLS	 8
#define WIRE_DATA	 16
#define WIRE_SIGNAL	 24
#define WIRE_TAIL_IP	 32
#define WIRE_TAIL_SP	 40
#define WIRE_UNMAP_AT	 48
#define WIRE_UNMAP_LEN	 56
#define WIRE_SIGINFO	 64
#define WIRE_HEADER_SIZE 192
#define WIRE_CALL_NR	 0
#define WIRE_CALL_ARGS	 8
#define WIRE_CALL_KINDS	 56
#define WIRE_CALL_MUST	 62
#define WIRE_CALL_COMPAT 63
#define WIRE_CALL_RESULT 64
#define WIRE_CALL_SIZE	 72
#define WIRE_KIND_DATA	 1
#define WIRE_KIND_RESULT 2

#ifndef __ASSEMBLER__

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

struct agent_header {
	uint64_t ncalls;
	uint64_t calls, data; /* addresses */
	uint64_t signal;
	/* How a live task goes on by itself. tail_ip 0: it does not, it waits for its end. */
	uint64_t tail_ip, tail_sp;
	uint64_t unmap_at, unmap_len;
	uint8_t siginfo[128];
};

struct batch_wire_call {
	int64_t nr;
	uint64_t args[6];
	uint8_t kinds[6]; /* 0, WIRE_KIND_DATA: add the address of the data, WIRE_KIND_RESULT: of
			     call args[i] */
	uint8_t must, compat;
	int64_t result;
};

static_assert(sizeof(struct agent_header) == WIRE_HEADER_SIZE, "as in agent.S");
static_assert(offsetof(struct agent_header, signal) == WIRE_SIGNAL, "as in agent.S");
static_assert(offsetof(struct agent_header, tail_ip) == WIRE_TAIL_IP, "as in agent.S");
static_assert(offsetof(struct agent_header, unmap_at) == WIRE_UNMAP_AT, "as in agent.S");
static_assert(offsetof(struct agent_header, siginfo) == WIRE_SIGINFO, "as in agent.S");
static_assert(sizeof(struct batch_wire_call) == WIRE_CALL_SIZE, "as in agent.S");
static_assert(offsetof(struct batch_wire_call, kinds) == WIRE_CALL_KINDS, "as in agent.S");
static_assert(offsetof(struct batch_wire_call, must) == WIRE_CALL_MUST, "as in agent.S");
static_assert(offsetof(struct batch_wire_call, compat) == WIRE_CALL_COMPAT, "as in agent.S");
static_assert(offsetof(struct batch_wire_call, result) == WIRE_CALL_RESULT, "as in agent.S");

#endif
#endif
