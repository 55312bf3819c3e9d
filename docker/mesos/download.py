"""Fetches Apache Mesos's own `mesos.scheduler` archive from the Python package index that pip is set up with.

pip itself refuses the archive, a bdist_dumb one. Usage: download.py VERSION TARGET
"""

import os
import subprocess
import sys
from pathlib import Path

import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT, NoSuchProjectError, PyPISimple

PROJECT = "mesos.scheduler"
TIMEOUT_S = 60.0


def pip_settings() -> dict[str, str]:
    """What pip's files and PIP_ variables say, the variables last: {"index-url": ..., "cert": ...}."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings: dict[str, str] = {}
    for priority in ("global.", "install.", "download.", ":env:."):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(priority) and value.strip("'\""):  # pip, too, takes an empty setting for none
                settings[name.removeprefix(priority)] = value.strip().strip("'\"")
    return settings


def main() -> None:
    """Downloads the archive beside TARGET and moves it there; pypi-simple compares it with the index's digest."""
    version, target = sys.argv[1], Path(sys.argv[2])
    filename = f"{PROJECT}-{version}.linux-x86_64.tar.gz"
    settings = pip_settings()
    session = requests.Session()
    if certificates := settings.get("cert"):
        session.verify = certificates
    if proxy := settings.get("proxy"):
        session.proxies = {"http": proxy, "https": proxy}
    tried = []
    endpoints = [settings.get("index-url", PYPI_SIMPLE_ENDPOINT), *settings.get("extra-index-url", "").split()]
    for endpoint in endpoints:
        if not endpoint.startswith(("http://", "https://")):
            continue
        tried.append(endpoint)
        with PyPISimple(endpoint=endpoint, session=session) as index:
            try:
                packages = index.get_project_page(PROJECT, timeout=TIMEOUT_S).packages
            except NoSuchProjectError:
                continue
            for package in packages:
                if package.filename == filename:
                    beside = target.with_suffix(f".{os.getpid()}")
                    index.download_package(package, path=beside, timeout=TIMEOUT_S)
                    os.replace(beside, target)
                    return
    sys.exit(f"download.py: no {filename} on {' or '.join(tried)}: set PIP_INDEX_URL to an index that has it")


if __name__ == "__main__":
    try:
        main()
    except requests.RequestException as error:
        sys.exit(f"download.py: {error}")
