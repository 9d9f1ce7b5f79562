"""Find the videos and images in a folder tree by file name. Opens no file."""

from __future__ import annotations

import os
from pathlib import Path

from vaectl.errors import UsageError
from vaectl.video.container import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from vaectl.video.sequence import sequence_of


def find_videos(root: Path) -> list[Path]:
    """Return all videos and images below `root`, by extension, sorted. Hidden files and folders are skipped.

    Symbolic links are followed, each real folder once. If `root` is a file or names numbered images, only `root` is
    returned. Raises UsageError if `root` does not exist, cannot be listed, or contains no video or image.
    """
    if not root.exists() and sequence_of(root) is None:
        raise UsageError(f"{root}: no such file or folder", "check the path")
    return [root / name for name in find_names(root)] if root.is_dir() else [root]


def find_names(root: Path) -> list[str]:
    """Like `find_videos`, but return strings relative to `root` with forward slashes. For trees of millions of files.

    Raises like `find_videos`.
    """
    found: list[list[str]] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: the folder cannot be listed ({error.strerror})", "check its permissions")

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refuse):
        status = Path(folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        parents = Path(folder).relative_to(root).parts
        found += [[*parents, name] for name in files if not name.startswith(".") and name.lower().endswith(_EXTENSIONS)]
    if not found:
        raise UsageError(f"{root}: no videos or images in this folder", f"supported are {' '.join(_EXTENSIONS)}")
    return ["/".join(parts) for parts in sorted(found)]


_EXTENSIONS = VIDEO_EXTENSIONS + IMAGE_EXTENSIONS
