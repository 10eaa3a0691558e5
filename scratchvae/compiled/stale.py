"""Throws away kernels on disk that were compiled from other sources.

Numba looks at the one file a kernel stands in. A kernel that has inlined a function of another file would be taken from
the cache after that other file has changed, and run the old code with the new arguments.
"""

import hashlib
from contextlib import suppress
from pathlib import Path


def drop_stale_kernels(folder: Path) -> None:
    """Empty the folder's kernel cache unless it was filled from the sources that stand there now."""
    cache = folder / "__pycache__"
    stamp = cache / "kernels.stamp"
    sources = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()
    with suppress(OSError):  # a folder that cannot be written holds no cache of ours either
        if stamp.is_file() and stamp.read_text() == sources:
            return
        for kernel in [*cache.glob("*.nbi"), *cache.glob("*.nbc")]:
            kernel.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(sources)


drop_stale_kernels(Path(__file__).parent)
