"Package metadata. Everything is read from settings.ini: edit there, not here."
from configparser import ConfigParser
from pathlib import Path
import shlex

import setuptools

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
lib = cfg["lib_name"]

setuptools.setup(
    name=lib,
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    url=cfg["git_url"] or None,
    keywords=cfg["keywords"].split(),
    python_requires=">=" + cfg["min_python"],
    packages=setuptools.find_packages(include=[lib, lib + ".*"]),
    package_data={lib: ["py.typed", "data/*", "weights/*/*", "weights/*/*/*"]},
    install_requires=shlex.split(cfg.get("requirements", "")),
    extras_require={extra: shlex.split(cfg.get(f"{extra}_requirements", "")) for extra in ("dev", "experiments", "plot", "video", "detect", "hub")},
    entry_points={
        "console_scripts": shlex.split(cfg.get("console_scripts", "")),
        "nbdev": [f"{lib}={lib}._modidx:d"],  # lets nbdev link `names` in the docs
    },
)
