"""The machine a measurement was made on: what it is, and how busy it was."""

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from scratchvae.engine import processors

PACKAGES = ("numpy", "numba", "llvmlite", "torch", "jax", "jaxlib", "tensorflow-cpu", "tensorflow", "scratchvae")


@cache
def describe_machine() -> dict:
    """Processor, processors this process may use, memory in gigabytes, system, versions, and the load when this is
    first asked: before a benchmark, whose own load it would be afterwards."""
    return {
        "processor": processor_name(),
        "processors": processors(),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def processor_name() -> str:
    """The name the system gives, with its family and model: virtual machines often hide the name."""
    fields = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    widths = [flag for flag in ("avx2", "avx512f") if flag in fields.get("flags", "").split()]
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}; {', '.join(widths)})"


def installed_versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def is_installed(module: str) -> bool:
    return find_spec(module) is not None


def warn_if_busy(say) -> None:
    """To be called first. Others' work on the same processors is the largest error of all these measurements."""
    load = describe_machine()["load_average"]
    if load > 0.5:
        say(f"load average {load}: something else is running, and every number below suffers")
