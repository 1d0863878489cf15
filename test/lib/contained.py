# SPDX-License-Identifier: Apache-2.0
"""What tests of containers have in common."""

import json
import os

from case import Failed, Skipped


def begin(case):
    case.environment['REPRISE_DIR'] = os.path.join(case.directory, 'containers')


def expect(case, result, out=None, code=0):
    if result[0] != code:
        raise Failed('exit status %d: %s' % (result[0], result[2]))
    if out is not None and result[1] != out:
        raise Failed('printed %r, not %r' % (result[1], out))


def listed(case):
    code, out, err = case.reprise('ps', '--json')
    if code:
        raise Failed('ps: %s' % err)
    return {c['name']: c for c in json.loads(out)['containers']}


def needs_controllers(case):
    """Groups that can be limited: not where whoever started us was given none."""
    code, _, err = case.reprise('run', '--rm', '--memory', '100M', '--pids', '50', '--cpus', '1',
                                '--', 'true')
    if code and 'hands down' in err:
        raise Skipped('no controllers are handed down to us')
