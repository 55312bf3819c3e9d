"""Writes a library that stands in for OpenSSL 1.0, libcurl 3 and the Python 2 API, which libmesos wants by name.

None of them is in Debian any more, and no path that a cluster without TLS takes calls them; one that does says so and
aborts. Usage: stubs.py LIBMESOS STUBS.c STUBS.map
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# Answers that their callers know how to report; without them a framework could abort an agent by a cached http URI.
ANSWERS = {
    "curl_global_init": "int curl_global_init(long flags) { (void)flags; return 0; }",
    "curl_easy_init": "void* curl_easy_init(void) { return 0; }",
    "curl_easy_cleanup": "void curl_easy_cleanup(void* handle) { (void)handle; }",
}


def wanted_symbols(library: str) -> dict[str, list[str]]:
    """Undefined symbols to provide, by symbol version."""
    listing = subprocess.run(["nm", "-D", "-u", library], check=True, capture_output=True, text=True).stdout
    wanted: dict[str, list[str]] = defaultdict(list)
    for line in listing.splitlines():
        name, _, version = line.split()[-1].partition("@")
        if version.startswith(("OPENSSL", "CURL")):
            wanted[version].append(name)
        elif re.match(r"_?Py", name):
            wanted["PYTHON_2"].append(name)
    return wanted


def main() -> None:
    """Writes both files."""
    library, source, script = sys.argv[1:]
    wanted = wanted_symbols(library)
    if not all(any(version.startswith(kind) for version in wanted) for kind in ("OPENSSL", "CURL", "PYTHON")):
        sys.exit(f"stubs.py: {library} is not the library of mesos.scheduler: it wants {sorted(wanted)}")
    lines = ["#include <stdio.h>", "#include <stdlib.h>"]
    lines += [
        ANSWERS.get(name)
        or f'void {name}(void) {{ fputs("{name}: not in this build of Mesos\\n", stderr); abort(); }}'
        for names in wanted.values()
        for name in names
    ]
    Path(source).write_text("\n".join(lines) + "\n")
    versions = (f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in wanted.items())
    Path(script).write_text("".join(versions))


if __name__ == "__main__":
    main()
