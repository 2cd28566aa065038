"""The package as users install it: `python tests/dist_check.py DIST`, after `python -m build --outdir DIST`.

Wheel and sdist are each installed into a fresh environment, and lift from a folder that knows nothing of the checkout; the sdist's
tests run from what it unpacks to. `--here` takes what these need from this environment, and nothing from the network.
"""
import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path

TESTS = ("test_repository.py", "test_export.py", "test_bvh.py")  # those of notebooks and trainings take long
LIFT = ("--size", "1920x1080", "--layout", "coco", "--out", "walk.npz", "--bvh", "walk.bvh", "--view", "walk.html")

def run(*command, code=0, **options):
    "The output of a command that ends with this code."
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != code: sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}, not {code}:\n{done.stdout}")
    return done.stdout

def install(package, folder, here):
    "The folder of programs of a fresh environment with the package."
    venv.create(folder, with_pip=True)
    python, more = folder/"bin/python", []
    if here:
        site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        Path(site, "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
        more = ["--no-deps", "--no-build-isolation"]
    told = run(python, "-m", "pip", "--disable-pip-version-check", "install", *more, package, env=plain())
    if "DEPRECATION" in told: sys.exit(f"pip is not content with {package}:\n{told}")
    return folder/"bin"

def plain(): return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}

def try_it(programs, folder):
    "What a user does first, and what works in a checkout only."
    folder.mkdir()
    say = dict(cwd=folder, env=plain())
    example = run(programs/"python", "-c", "from diffhpe.command import example_clip; print(example_clip())", **say).strip()
    assert str(programs.parent) in example, f"{example} is not in {programs.parent}"
    told = run(programs/"diffhpe_lift", example, *LIFT, **say)
    assert "300 frames" in told and {p.name for p in folder.iterdir()} == {"walk.npz", "walk.bvh", "walk.html"}, told
    run(programs/"diffhpe_import_bvh", "--help", **say)
    assert "no folder" in run(programs/"diffhpe_import_bvh", "nowhere", "data_3d_a.npz", code=1, **say)
    (folder/"grid.yaml").write_text("sections: {one: [{preset: smoke}]}")
    there = run(programs/"python", "-c", "import importlib.util as u; print(all(map(u.find_spec, ('yaml', 'filelock', 'pandas'))))", **say)
    if "True" in there: told = run(programs/"diffhpe_grid", "grid.yaml", code=2, **say)
    else: told = run(programs/"diffhpe_grid", "grid.yaml", code=1, **say)
    assert ("from a checkout of the repository" if "True" in there else "pip install 'diffhpe[experiments]'") in told, told

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path); parser.add_argument("--here", action="store_true")
    given = parser.parse_args()
    [wheel], [sdist] = given.dist.glob("*.whl"), given.dist.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for n, package in enumerate((wheel, sdist)):
            try_it(install(package.resolve(), folder/f"env{n}", given.here), folder/f"away{n}")
            print(f"{package.name} installs and lifts, {package.stat().st_size/1e6:.1f} MB", flush=True)
        with tarfile.open(sdist) as archive: archive.extractall(folder/"source", filter="data")
        [source] = (folder/"source").iterdir()
        tests = [f"tests/{name}" for name in TESTS]
        told = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=source, env=plain() | dict(PYTHONPATH=str(source)))
        print(f"the sdist's tests: {told.strip().splitlines()[-1]}")

if __name__ == "__main__": main()
