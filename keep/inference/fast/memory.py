"""Memory that the C library keeps between tensors."""

import ctypes


def keep_freed_memory(keep: bool = True) -> bool:
    """Let the C library reuse freed memory for the next tensors instead of returning it to the system.

    By default, glibc maps every tensor above 32 MiB anew, and the kernel clears its pages at first use: at 512×512 this
    takes a quarter of a CPU run. The setting applies to the process, so a program chooses it, not :func:`accelerate`.
    Memory use stays at its peak until the process ends.

    Args:
        keep: False restores glibc's default.

    Returns:
        whether the setting took effect: False if the C library is not glibc.
    """
    m_trim_threshold, m_mmap_threshold, m_mmap_max = -1, -3, -4  # malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        if keep:
            return bool(libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1))
        # The values that glibc adapts to once large blocks have been freed.
        settings = ((m_mmap_max, 65536), (m_mmap_threshold, 32 << 20), (m_trim_threshold, 64 << 20))
        done = all([libc.mallopt(name, value) for name, value in settings])
        libc.malloc_trim(0)
        return done
    except (OSError, AttributeError):
        return False
