"""The error that a user is meant to read, and which errors of the operating system mean what."""

from __future__ import annotations

import errno


class UserError(Exception):
    """Something the user can mend. The message is one sentence that names the file or sample and says what to do."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
