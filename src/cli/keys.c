/* SPDX-License-Identifier: Apache-2.0 */
/* Options about signed and encrypted images, and what they name. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/keys.h"

#define KEY_FILE_MAX 65536

/* A small text file, to be freed. -1 to go on, else the exit status. */
static int read_text(struct cli *cli, const char *path, char **ret)
{
	char *text = calloc(1, KEY_FILE_MAX + 1);
	FILE *f = text ? fopen(path, "re") : NULL;
	int err;

	if (!f) {
		err = -errno;
		free(text);
		return own_error(cli, "key", err, "cannot open the key %s: %s", path,
				 strerrordesc_np(-err));
	}
	if (fread(text, 1, KEY_FILE_MAX, f) == KEY_FILE_MAX || ferror(f)) {
		fclose(f);
		free(text);
		return own_error(cli, "key", -EINVAL, "%s is no key", path);
	}
	fclose(f);
	*ret = text;
	return -1;
}

/* One of several is enough to be told of. */
static void look_who_reads(struct keys *k, const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077))
		k->exposed = path;
}

static int read_secret_key(struct cli *cli, struct keys *k, const char *path, char **ret)
{
	int r = read_text(cli, path, ret);

	/* A public key is no secret, wherever it was given. */
	if (r < 0 && strstr(*ret, "-secret:"))
		look_who_reads(k, path);
	return r;
}

void keys_warn(const struct cli *cli, const struct keys *k)
{
	if (!k->exposed || cli->quiet || cli->json)
		return;
	fputs("reprise: warning: what is secret in ", stderr);
	print_escaped(stderr, k->exposed);
	fputs(" may be read by others than its owner (chmod 600)\n", stderr);
}

static int add(struct cli *cli, struct keys *secret, const char **list, size_t *n, const char *path)
{
	char *text;
	int r;

	if (*n + 1 >= KEYS_MAX)
		return usage_error(cli, "too many keys");
	r = secret ? read_secret_key(cli, secret, path, &text) : read_text(cli, path, &text);
	if (r < 0)
		list[(*n)++] = text;
	return r;
}

static int passphrase(struct cli *cli, struct keys *k, const char *path)
{
	int r = read_text(cli, path, &k->passphrase);

	if (r >= 0)
		return r;
	look_who_reads(k, path);
	k->passphrase[strcspn(k->passphrase, "\r\n")] = '\0';
	if (!*k->passphrase)
		return own_error(cli, "key", -EINVAL, "the pass phrase in %s is empty", path);
	return -1;
}

int key_option(struct cli *cli, struct keys *k, int c)
{
	switch (c) {
	case OPT_SIGN:
		return read_secret_key(cli, k, optarg, &k->sign);
	case OPT_ENCRYPT:
		return add(cli, NULL, k->recipients, &k->n_recipients, optarg);
	case OPT_TRUST:
		return add(cli, NULL, k->trust, &k->n_trust, optarg);
	case OPT_IDENTITY:
		return add(cli, k, k->identities, &k->n_identities, optarg);
	case OPT_PASSPHRASE_FILE:
		return passphrase(cli, k, optarg);
	default:
		return 0;
	}
}

const struct reprise_seal_options *keys_to_seal(struct keys *k)
{
	if (!k->sign && !k->n_recipients && !k->passphrase)
		return NULL;
	k->seal = (struct reprise_seal_options){
		.size = sizeof(k->seal),
		.sign = k->sign,
		.recipients = k->recipients,
		.passphrase = k->passphrase,
	};
	return &k->seal;
}

int keys_open(struct cli *cli, struct keys *k, int fd, int *ret_fd)
{
	const struct reprise_open_options opt = {
		.size = sizeof(opt),
		.trust = k->n_trust ? k->trust : NULL,
		.identities = k->identities,
		.passphrase = k->passphrase,
	};
	struct reprise_error e = {};

	keys_warn(cli, k);
	*ret_fd = fd;
	if (!k->n_trust && !k->n_identities && !k->passphrase && reprise_is_sealed(fd) <= 0)
		return -1;
	if (reprise_open_begin(fd, &opt, &k->opening, ret_fd, &e) < 0)
		return library_error(cli, &e);
	close(fd);
	return -1;
}

bool keys_explain(struct keys *k, int fd, struct reprise_error *e)
{
	struct reprise_opening *opening = k->opening;
	struct reprise_error why = {};

	if (!opening)
		return false;
	close(fd);
	k->opening = NULL;
	if (reprise_open_end(opening, &why) >= 0)
		return false;
	*e = why;
	return true;
}
