/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_MODEL_RECORD_H
#define REPRISE_MODEL_RECORD_H

#include "image/image.h"

/* Types of the state records, one per kind of object. Numbers are for ever. */
enum record_type {
	RECORD_TREE = FRAME_STATE_FIRST,
	RECORD_PROCESS = 257,
	RECORD_TASK = 258,
	RECORD_SIGHAND = 259,
	RECORD_MM = 260,
	RECORD_FILES = 261,
	RECORD_FS = 262,
	RECORD_FILE = 263,
	RECORD_INODE = 264,
	RECORD_PIPE = 265,
	RECORD_SEM_SET = 270,
	RECORD_SEM_UNDO = 271,
	RECORD_MSG_QUEUE = 272,
	RECORD_IPC_LIMITS = 273,
	RECORD_MQUEUE = 274,
	RECORD_SHM_SEGMENT = 275,
	RECORD_CONTAINER = 360,
	RECORD_LAYER = 361,
	RECORD_NAMESPACE = 790,
	RECORD_CLOCKS = 875,
	RECORD_COMPAT_VDSO = 950,
	RECORD_MOUNT = 1531,
	/* 280-299: src/fs; 300-339: src/net; 362-: src/ns */
};

/* Order of the state part: what is referred to stands before what refers to it. */

#endif
