"Package metadata. Everything is read from settings.ini: edit there, not here."
from configparser import ConfigParser
from pathlib import Path
import shlex

import setuptools

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
lib = cfg["lib_name"]
def wanted(extra): return shlex.split(cfg[f"{extra}_requirements"])

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
    package_data={lib: ["py.typed", "data/*", "weights/*.json", "weights/*/*", "weights/*/*/*"]},
    install_requires=shlex.split(cfg.get("requirements", "")),
    extras_require={extra: wanted(extra) for extra in ("plot", "experiments", "video", "detect", "hub")}
                   | {"dev": wanted("dev") + wanted("plot") + wanted("experiments")},
    entry_points={
        "console_scripts": shlex.split(cfg.get("console_scripts", "")),
        "nbdev": [f"{lib}={lib}._modidx:d"],  # lets nbdev link `names` in the docs
    },
)
