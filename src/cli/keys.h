/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPRISE_CLI_KEYS_H
#define REPRISE_CLI_KEYS_H

#include "cli/cli.h"

#define KEYS_MAX 64

/* Far from the numbers of the commands' own options. */
enum { OPT_SIGN = 1000, OPT_ENCRYPT, OPT_TRUST, OPT_IDENTITY, OPT_PASSPHRASE_FILE };

struct keys {
	char *sign, *passphrase;
	const char *recipients[KEYS_MAX], *trust[KEYS_MAX], *identities[KEYS_MAX];
	size_t n_recipients, n_trust, n_identities;
	const char *exposed; /* a file with a secret that others may read */
	struct reprise_seal_options seal;
	struct reprise_opening *opening;
};

/* clang-format off */
#define SEAL_OPTIONS                                             \
	{ "sign", required_argument, NULL, OPT_SIGN },           \
	{ "encrypt", required_argument, NULL, OPT_ENCRYPT },     \
	{ "passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE }
#define OPEN_OPTIONS                                             \
	{ "trust", required_argument, NULL, OPT_TRUST },         \
	{ "identity", required_argument, NULL, OPT_IDENTITY },   \
	{ "passphrase-file", required_argument, NULL, OPT_PASSPHRASE_FILE }
/* clang-format on */
#define OPEN_HELP                                                                               \
	"  --trust KEY         take nothing but what is signed by this key (its public file)\n" \
	"  --identity KEY      secret key that opens an encrypted image\n"                      \
	"  --passphrase-file F pass phrase that opens it: the first line of F\n"

/* Takes an option of the two lists: -1 to go on, 0 if it is another one, else the exit status. */
int key_option(struct cli *cli, struct keys *k, int c);
/* Of secrets that others may read. keys_open() does it itself. */
void keys_warn(const struct cli *cli, const struct keys *k);
/* For a checkpoint; NULL when neither signed nor encrypted. Points into k. */
const struct reprise_seal_options *keys_to_seal(struct keys *k);
/* *ret_fd takes the place of fd, which is closed where that is another one. -1 to go on. */
int keys_open(struct cli *cli, struct keys *k, int fd, int *ret_fd);
/*
 * After a call that read the image, good or bad: closes fd where it led to an envelope, and
 * says whether something was wrong with that. *e is overwritten then.
 */
bool keys_explain(struct keys *k, int fd, struct reprise_error *e);

#endif
