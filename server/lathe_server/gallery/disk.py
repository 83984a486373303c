"""What of a file that was made is on the disk, and what its disk lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Brings the names of the files in it to the disk: without, a power cut takes a new file that was synced itself.

    A folder that may be written and not read is left to the file system.

    Raises:
        OSError: that is not possible.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems of a network know no such thing
            raise
    finally:
        os.close(descriptor)


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
