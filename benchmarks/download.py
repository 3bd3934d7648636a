"""What an install downloads, by system: the sizes of the wheels that a lock file of the package names.

    uv lock && python benchmarks/download.py uv.lock      # uv writes the lock from pyproject.toml, for all systems at once

The lock has PyPI's wheels. torch's CPU wheel for Linux lies on PyTorch's own index: its size is given with --cpu-torch.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

PYTHON = (3, 12)
SYSTEMS = {
    "Linux x86_64": ("linux", "Linux", "x86_64"),
    "Linux aarch64": ("linux", "Linux", "aarch64"),
    "macOS arm64": ("darwin", "Darwin", "arm64"),
}
OUT = Path(__file__).parent / "results" / "download.json"


def linux(machine: str) -> list[str]:
    return [f"manylinux_2_{minor}_{machine}" for minor in range(35, 4, -1)] + [f"manylinux2014_{machine}"]


class System:
    """Which wheels of a lock a system takes."""

    def __init__(self, lock: dict[str, Any], platform: str, system: str, machine: str) -> None:
        self.packages: dict[str, list[dict[str, Any]]] = {}
        for package in lock["package"]:
            self.packages.setdefault(package["name"], []).append(package)
        version = ".".join(map(str, PYTHON))
        self.environment = {
            "sys_platform": platform, "platform_system": system, "platform_machine": machine, "os_name": "posix",
            "python_version": version, "python_full_version": f"{version}.0", "implementation_name": "cpython",
            "platform_python_implementation": "CPython", "extra": "",
        }  # fmt: skip
        platforms = list(mac_platforms((14, 0), machine)) if system == "Darwin" else linux(machine)
        tags = [*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, platforms=platforms)]
        self.rank = {tag: i for i, tag in enumerate(tags)}

    def sizes(self, project: str, extras: tuple[str, ...]) -> dict[str, int]:
        """Bytes of each package's wheel (or source, where it has no wheel for this system)."""
        found: dict[str, int] = {}
        waiting = [{"name": project, "extra": list(extras)}]
        done = set()
        while waiting:
            asked = waiting.pop()
            package = next(p for p in self.packages[asked["name"]] if self._is_for(p.get("resolution-markers", ())))
            optional = package.get("optional-dependencies", {})
            for part in (None, *asked.get("extra", ())):
                if (asked["name"], part) not in done:
                    done.add((asked["name"], part))
                    needed = package.get("dependencies", []) if part is None else optional.get(part, [])
                    waiting += [one for one in needed if self._is_for([one["marker"]] if "marker" in one else ())]
            found[asked["name"]] = self._size(package)
        return {name: size for name, size in found.items() if name != project}

    def _is_for(self, markers: Any) -> bool:
        return not markers or any(Marker(marker).evaluate(self.environment) for marker in markers)

    def _size(self, package: dict[str, Any]) -> int:
        fitting = []
        for wheel in package.get("wheels", ()):
            tags = parse_wheel_filename(wheel["url"].rpartition("/")[2].replace("%2B", "+"))[3]
            ranks = [self.rank[tag] for tag in tags if tag in self.rank]
            fitting += [(min(ranks), wheel["size"])] if ranks else []
        return min(fitting)[1] if fitting else package.get("sdist", {}).get("size", 0)


def measured(sizes: dict[str, int]) -> dict[str, float]:
    """Megabytes, by what they are for."""
    cuda = sum(size for name, size in sizes.items() if name.startswith(("nvidia-", "cuda-", "triton")))
    parts = {"torch": sizes["torch"], "cuda": cuda, "rest": sum(sizes.values()) - sizes["torch"] - cuda}
    return {name: round(size / 1e6, 1) for name, size in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--cpu-torch", type=Path, metavar="WHEEL", help="torch's CPU wheel for Linux x86_64")
    parser.add_argument("--venv", type=Path, help="an environment that `make install` has made with torch's CPU build")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    lock = tomllib.loads(arguments.lock.read_text(encoding="utf-8"))
    result: dict[str, Any] = {
        "what": "megabytes to download, of the newest versions that fit pyproject.toml",
        "python": ".".join(map(str, PYTHON)),
        "torch": next(package["version"] for package in lock["package"] if package["name"] == "torch"),
        "systems": {},
    }
    for name, system in SYSTEMS.items():
        result["systems"][name] = {
            label: measured(System(lock, *system).sizes("reasonloop", extras))
            for label, extras in (("package", ()), ("with dev", ("dev",)))
        }
    if arguments.cpu_torch:
        result["cpu_torch_linux_x86_64"] = round(arguments.cpu_torch.stat().st_size / 1e6, 1)
    if arguments.venv:
        files = {path.stat().st_ino: path.stat().st_size for path in arguments.venv.rglob("*") if path.is_file()}
        result["installed_with_dev_linux_x86_64"] = round(sum(files.values()) / 1e6)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
