"""Lists the licences of everything that `pip install "crayon-sdk[...]"` brings, and says which do not fit Apache-2.0.

python docs/licences.py     a Markdown table; ends with 1 where a licence does not fit

What fits is a package that may be *used* by software under Apache-2.0: permissive licences, and those whose terms end
at the file or the library that they cover (MPL-2.0, LGPL). Nothing of any of them is copied into the wheel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata

# Parts of licence names and expressions, in small letters.
FITTING = re.compile(
    r"mit|bsd|apache|isc|psf|python software|zlib|cc0|unlicense|hpnd|bsl-1|boost|cnri|llvm|public domain"
    r"|mpl|mozilla|lgpl|lesser general"
)
UNFIT = re.compile(r"(?<!l)gpl|(?<!lesser )general public|affero|proprietary|commercial|non-?commercial|sspl|busl")
# The wheels of torch for Linux name these libraries of NVIDIA; its builds for processors alone do without them.
OF_THE_DRIVER = re.compile(r"nvidia-|cuda-")


def installed() -> dict[str, str]:
    """Normalised name of every distribution that the package and its extras need here, and the name it gives itself."""
    found: dict[str, str] = {}
    extras = metadata.metadata("crayon-sdk").get_all("Provides-Extra") or []
    waiting = [("crayon-sdk", extra) for extra in ("", *extras)]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a marker may exclude it, or an extra is not installed
        found[_normal(name)] = distribution.metadata["Name"]
        for line in distribution.requires or ():
            parts = re.match(r"([\w.-]+)(?:\[([\w,\s.-]+)\])?", line)
            of_extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", line)
            if parts is None or (of_extra and of_extra[1] != extra):
                continue
            for more in ("", *(parts[2] or "").replace(" ", "").split(",")):
                if (pair := (_normal(parts[1]), more)) not in seen:
                    seen.add(pair)
                    waiting.append(pair)
    return found


def licences() -> dict[str, str]:
    """Name and licence of each of them, by `pip-licenses`."""
    names = installed()
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--with-system", "--packages"]
    listed = json.loads(subprocess.run([*command, *names.values()], capture_output=True, check=True).stdout)  # noqa: S603
    return {each["Name"]: each["License"] for each in sorted(listed, key=lambda each: each["Name"].lower())}


def unfit(found: dict[str, str]) -> dict[str, str]:
    """Those whose licence is not known to fit."""
    return {
        name: licence
        for name, licence in found.items()
        if not OF_THE_DRIVER.match(name)
        and (UNFIT.search(licence.lower()) or not FITTING.search(licence.lower()))
        and _normal(name) != "crayon-sdk"
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Print the table."""
    found = licences()
    print("| package | licence |\n| --- | --- |")
    for name, licence in found.items():
        print(f"| {name} | {licence} |")
    bad = unfit(found)
    for name, licence in bad.items():
        print(f"does not fit Apache-2.0, or is not known to: {name}: {licence}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
