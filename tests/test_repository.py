"The rules of the house that a program can check: floors, exported code, notebooks, README, pins, package data."
import ast, io, re, subprocess, sys, tarfile, tokenize, tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import nbformat, papermill, pytest, yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs_preview import notebooks, sidebar
from make_readme import readme

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
MODULES = sorted(p for p in (ROOT / "diffhpe").glob("*.py") if not p.name.startswith("_"))
by_name = dict(ids=lambda p: p.name)

@cache
def read(notebook):
    return nbformat.read(notebook, 4)

def code_cells(notebook):
    return [c for c in read(notebook).cells if c.cell_type == "code"]

def report(faults):
    "Fails with one line a fault."
    if faults: pytest.fail("\n".join(faults), pytrace=False)

# --- floors

def numbers():
    "Module -> number of the notebook that exports it; notebooks without a number (run_experiment) are exempt."
    found = {}
    for nb in NOTEBOOKS:
        names = re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(c.source for c in code_cells(nb)), re.M)
        if names and nb.name[:2].isdigit(): found[names[0]] = int(nb.name[:2])
    return found

def imported(source):
    "Modules of diffhpe that some source imports, wherever in it the import stands."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["diffhpe" if node.level else "", node.module]))
            names = [base] if "." in base else [f"{base}.{a.name}" for a in node.names]
        else: continue
        yield from (n.split(".")[1] for n in names if n.startswith("diffhpe."))

def may_import(importer, target):
    "Whether the notebook with one number may import from the other: downwards only, and 20s and 30s know neither the 10s nor each other."
    upper, lower = importer // 10, target // 10
    return target < importer and not (upper != lower and {upper, lower} <= {1, 2, 3} and upper > 1)

@pytest.mark.parametrize("importer, target, allowed", [(1, 0, True), (0, 1, False), (13, 12, True), (12, 13, False), (20, 4, True), (21, 20, True),
    (20, 14, False), (30, 10, False), (30, 22, False), (22, 30, False), (40, 22, True), (40, 34, True), (52, 18, True), (60, 52, True), (18, 20, False)])
def test_the_rule_of_the_floors(importer, target, allowed):
    assert may_import(importer, target) == allowed

def test_imports_are_seen():
    source = "import diffhpe.a\nfrom diffhpe.b import x\nfrom diffhpe import c\nfrom .d import y\ndef f():\n from . import e\n import torch, diffhpe"
    assert set(imported(source)) == set("abcde")

@pytest.mark.parametrize("module", MODULES, **by_name)
def test_module_imports_from_lower_floors(module):
    number = numbers()
    assert module.stem in number, f"no numbered notebook has `#| default_exp {module.stem}`"
    bad = [m for m in imported(module.read_text(encoding="utf-8")) if m in number and not may_import(number[module.stem], number[m])]
    report([f"{module.stem} ({number[module.stem]:02}) imports from {m} ({number[m]:02})" for m in bad])

def needed_by(start):
    "Modules of the package that one of them brings, itself included."
    found, todo = set(), [start]
    while todo:
        if (name := todo.pop()) in found: continue
        found.add(name); todo += [m for m in imported((ROOT/f"diffhpe/{name}.py").read_text(encoding="utf-8")) if m in numbers()]
    return found

@pytest.mark.parametrize("starts, extras", [(("lifter", "command", "detect"), ()), (None, ("plot", "experiments"))])
def test_third_party_imports_are_required(starts, extras):
    "Lifting needs the core alone; all else may need what the extras bring."
    names = {canonicalize_name(r.name) for key in ("requirements", *(f"{e}_requirements" for e in extras)) for r in requirements(key)}
    chosen = MODULES if starts is None else [ROOT/f"diffhpe/{m}.py" for m in sorted(set().union(*map(needed_by, starts)))]
    def nodes(tree): return ast.walk(tree) if starts is None else tree.body     # lifting imports the rest when it is asked for
    roots = {n.split(".")[0] for m in chosen for node in nodes(ast.parse(m.read_text(encoding="utf-8")))
             for n in ([a.name for a in node.names] if isinstance(node, ast.Import) else
                       [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])}
    dists = metadata.packages_distributions()
    missing = {r for r in roots - set(sys.stdlib_module_names) - {"diffhpe"} if not {canonicalize_name(d) for d in dists.get(r, [r])} & names}
    report([f"{r} is imported, and not among the requirements in settings.ini" for r in sorted(missing)])

# --- exported code

def public(tree, prefix=""):
    "Every public function, class and method of a module, with its qualified name."
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield prefix + node.name, node
            # forward and backward of an autograd Function are called by autograd alone: the class says what they do
            if isinstance(node, ast.ClassDef) and "Function" not in map(ast.unparse, node.bases): yield from public(node, f"{prefix}{node.name}.")

def undocumented(source):
    "Public names without docstring, and parameters without a comment on a line of their own."
    comments = {t.start[0] for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
    for name, node in public(ast.parse(source)):
        if not ast.get_docstring(node): yield f"{name} has no docstring"
        if isinstance(node, ast.ClassDef): continue
        a = node.args
        method = "." in name or any(ast.unparse(d) in ("patch", "patch_to") for d in node.decorator_list)
        lines = {}
        for arg, default in [*zip([*a.posonlyargs, *a.args][::-1], [*a.defaults[::-1], *[None] * 99]), *zip(a.kwonlyargs, a.kw_defaults),
                             (a.vararg, None), (a.kwarg, None)]:
            if arg and not (arg.arg in ("self", "cls") and method): lines.setdefault((default or arg).end_lineno, []).append(arg.arg)
        for line, args in lines.items():
            if line not in comments or len(args) > 1: yield f"{name}({', '.join(args)}): no comment on a line of its own"

def test_undocumented_names_are_seen():
    source = '''
class A:
    "A."
    def __init__(self, p): pass
    def f(self,
        x, # (J, 3)
        y={"a":
           1}, # a dict
        *, z=2,
    ): "F."
    def g(self): pass
def h(x, y): # two
    "H."
def _i(x): pass
@patch
def k(self:A): "K."
def j(x): # (J, 3)
    "J."
'''
    assert [s.split(":")[0] for s in undocumented(source)] == ["A.f(z)", "A.g has no docstring", "h(y, x)"]

@pytest.mark.parametrize("module", MODULES, **by_name)
def test_public_names_are_documented(module):
    report(list(undocumented(module.read_text(encoding="utf-8"))))

AXIS = r"(?:\.\.\.|[\w'.*/×+-][\w'.*/×+ -]*)"
SHAPE = rf"\((?:\.\.\.|{AXIS},(?: {AXIS},)*(?: {AXIS})?)?\)"
UNIT = r"\b(m|mm|px|metres|millimetres|normalised|units?|axes|coordinates)\b"

def shapeless(source):
    "Parameters that are arrays or tensors and whose comment names no shape; poses and keypoints whose comment names no unit."
    comments = {t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
    for name, node in public(ast.parse(source)):
        if isinstance(node, ast.ClassDef): continue
        a = node.args
        for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]:
            kind = ast.unparse(arg.annotation) if arg.annotation else ""
            if not re.search(r"\b(ndarray|Tensor)\b", kind) or re.search("Mapping|dict|Callable", kind): continue
            # the comment of undocumented(): on the line where the parameter, or its default, ends
            comment = next((comments[n] for n in range(arg.lineno, node.body[0].lineno) if n in comments), "")
            if re.search(r"\b(like \w|shape|not used)", comment): continue
            if not re.search(SHAPE, comment): yield f"{name}({arg.arg}): no shape such as (..., J, 3) in its comment {comment}"
            elif arg.arg in ("pose", "poses", "keypoints") and not re.search(UNIT, comment): yield f"{name}({arg.arg}): no unit such as metres or px in its comment {comment}"

def test_missing_shapes_and_units_are_seen():
    source = """
def f(
    x:Tensor, # (..., L, J), any unit
    y:np.ndarray=None, # like x
    z:Tensor=(1,
        2), # noise
    poses:np.ndarray|None=None, # (F, 17, 3)
    keypoints:Tensor=0, # (B, L, J, 2), normalised screen coordinates
    w:Mapping[str, Tensor]=0, # by name
    pose=0, # the first (really)
    u:Tensor=0, # ()
    v:Tensor=0, # (...) or (B, 2J, 1 or 3)
    t:Tensor=0, # a (very) good one
): "F."
"""
    assert [s.split(":")[0] for s in shapeless(source)] == ["f(z)", "f(poses)", "f(t)"]

@pytest.mark.parametrize("module", MODULES, **by_name)
def test_arrays_have_shapes(module):
    report(list(shapeless(module.read_text(encoding="utf-8"))))

def test_nothing_leaks_from_a_notebook():
    "Undefined names, unused imports (what only the notebook knows or uses), docstrings with a backslash that lack their r: see ruff.toml."
    r = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."],
                       cwd=ROOT, capture_output=True, text=True)
    report([r.stdout + r.stderr] if r.returncode else [])

@pytest.mark.parametrize("notebook", NOTEBOOKS, **by_name)
def test_exported_cells_are_short(notebook):
    exported = [c.source.strip().splitlines() for c in code_cells(notebook) if re.search(r"^#\|\s*export", c.source, re.M)]
    code = [[s for s in lines if not s.startswith("#|")] for lines in exported]
    report([f"{len(lines)} lines (at most 40): {lines[0]}" for lines in code if len(lines) > 40])

# --- notebooks

RUN = ROOT / "nbs/run_experiment.ipynb"

def test_run_experiment_takes_parameters():
    assert RUN.exists(), "nbs/run_experiment.ipynb, papermill's notebook, is not there"
    tagged = [c for c in code_cells(RUN) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, "papermill needs exactly one cell with the tag `parameters`"
    assert {"occ", "dataset", "data_dir", "preset", "model", "seed", "results_dir"} <= set(papermill.inspect_notebook(str(RUN)))

def texts(cell):
    "What a cell's outputs say, embedded images aside."
    for o in cell.get("outputs", []):
        if o.output_type == "stream": yield o.text
        for kind, data in o.get("data", {}).items():
            if kind.startswith("text/") or kind == "image/svg+xml": yield re.sub(r"base64,[\w+/=\s]+", "", data)

BAR = re.compile(r"\d%\|[\s#█▏▎▍▌▋▊▉]*\||\d\s?(it/s|s/it)\b")
HOME = r"/(?:home|root|Users|work|mnt)/\w"
MACHINE = re.compile(rf"(?<![\w.]){HOME}|(?<![\w.])/(?:tmp|opt|usr|var|private)/\w|site-packages|\b[A-Z]:\\\w")

@pytest.mark.parametrize("text, bar, path", [(" 40%|████      | 2/5 [00:01<00:01, 1.9it/s]", True, False), ("100%|##########| 5/5", True, False), ("41 % | of", False, False),
    ("File /root/x.py", False, True), ("'/tmp/a'", False, True), ("C:\\Users", False, True), ("mm/frame and left/right, results/tmp/x", False, False)])
def test_bars_and_paths_are_seen(text, bar, path):
    assert (bool(BAR.search(text)), bool(MACHINE.search(text))) == (bar, path)

@pytest.mark.parametrize("notebook", NOTEBOOKS, **by_name)
def test_notebook_is_fit_to_keep(notebook):
    spec = read(notebook).metadata.get("kernelspec", {})
    assert (spec.get("name"), spec.get("language")) == ("python3", "python"), f"kernelspec is {spec}"
    assert notebook.stat().st_size < 1_000_000, "1 MB or more: smaller figures?"
    for cell in read(notebook).cells:
        for o in cell.get("outputs", []):
            assert o.output_type != "error", f"{o.get('ename')}: {o.get('evalue')}"
            assert "application/vnd.jupyter.widget-view+json" not in o.get("data", {}), f"a widget in the output of: {cell.source[:80]}"
        assert not re.search(rf"(?<![\w.:/]){HOME}", cell.source), f"a machine's path in: {cell.source[:80]}"
        for text in texts(cell):
            assert not BAR.search(text), f"a progress bar in the output of: {cell.source[:80]}"
            assert not MACHINE.search(text), f"a machine's path ({MACHINE.search(text)[0]}...) in the output of: {cell.source[:80]}"

@pytest.mark.parametrize("notebook", NOTEBOOKS, **by_name)
def test_the_title_stands_alone(notebook):
    "The docs site turns the title's cell into the page's header and drops whatever else is in it."
    title = next((c.source for c in read(notebook).cells if c.cell_type == "markdown"), "")
    assert title.startswith("# "), "the first markdown cell is not `# name`"
    more = [s for s in title.splitlines()[1:] if s and not re.match(r"> |- (skip_exec|skip_showdoc|order|hide): ", s)]
    report([f"belongs into a cell of its own, below the title: {s[:80]}" for s in more[:1]])

def test_nothing_is_unpickled():
    files = [p for d in ("nbs", "diffhpe", "tests") for p in (ROOT / d).rglob("*") if p.suffix in (".py", ".ipynb") and ".ipynb_checkpoints" not in p.parts]
    bad = [str(p.relative_to(ROOT)) for p in files if re.search(r"allow_pickle\s*=\s*(True|1)", p.read_text(encoding="utf-8"))]
    report([f"{p}: numpy.load would run whatever a file says" for p in bad])

# --- README, pins, package data

def test_readme_is_made_from_the_index():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme(), "run make readme"

def places(page):
    "The anchors of a Markdown file's headings, by GitHub's rule."
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}

@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    "Links of the pages that GitHub shows; those of the docs site are checked by tests/docs_check.py."
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)", text)
    links += [(image, "") for image in re.findall(r'\b(?:src|srcset)="(?![a-z]+:)([^"\s]+)"', text)]
    broken = [link for link, _ in links if not (ROOT / link).exists()]
    broken += [f"{link}#{place}" for link, place in links if place and (link or page).endswith(".md") and (ROOT / (link or page)).exists() and place not in places(link or page)]
    report([f"{page} links to {link}, which is not there" for link in broken])

def test_every_notebook_is_in_the_sidebar():
    listed, there = list(notebooks(sidebar())), {p.name for p in NOTEBOOKS if p.name[0] not in "._"}
    report([f"nbs/{n} is not in nbs/sidebar.yml, the navigation of the docs site: add it to its section there" for n in sorted(there - set(listed))]
         + [f"nbs/sidebar.yml lists {n}, which is not in nbs/: take it out" for n in listed if n not in there]
         + [f"nbs/sidebar.yml lists {n} more than once" for n in sorted({n for n in listed if listed.count(n) > 1})])

@pytest.mark.parametrize("workflow", sorted((ROOT / ".github/workflows").glob("*.yml")), **by_name)
def test_workflow_runs_targets_that_exist(workflow):
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for step in [s for job in jobs.values() for s in job["steps"]]:
        if "uses" in step: assert re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step["uses"]), f"{step['uses']}: no version such as @v4"
        else:
            make = re.fullmatch(r'make ([\w-]+)( \w+=("[^"]*"|\S+))*', step["run"])
            assert make, f"not a call of make with one target: {step['run']}"
            assert make[1] in targets, f"the Makefile has no target {make[1]}"

def requirements(key):
    return [Requirement(r) for r in re.search(rf"^{key} = (.*)$", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)[1].split()]

def test_users_are_not_held_to_old_versions():
    for r in requirements("requirements"):
        assert all(s.operator in (">=", "!=") for s in r.specifier), f"{r} caps the version"

def pins():
    lines = [s for s in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if s and not s.startswith("#")]
    for s in lines: assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( ; .+)?", s), f"constraints.txt: not an exact pin: {s}"
    here = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()]
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in here}

def test_all_that_is_installed_is_pinned():
    "Walks from diffhpe[dev] through all it brings; what only the CUDA build of torch brings, torch pins itself."
    pinned, todo, seen = pins(), sum(map(requirements, ("requirements", "plot_requirements", "experiments_requirements", "dev_requirements")), []), set()
    while todo:
        r = todo.pop(); name = canonicalize_name(r.name)
        if (name, *sorted(r.extras)) in seen or re.match(r"(nvidia|cuda|triton)\b", name): continue
        seen.add((name, *sorted(r.extras)))
        assert name in pinned, f"{name} is not in constraints.txt"
        found = metadata.distribution(name)
        assert found.version.split("+")[0] == pinned[name], f"{name} {found.version} is installed, {pinned[name]} pinned"
        more = map(Requirement, found.requires or [])
        todo += [m for m in more if not m.marker or any(m.marker.evaluate({"extra": e}) for e in ["", *r.extras])]

def test_data_and_weights_are_installed(tmp_path):
    "What setup.py would put into a wheel is all that is in diffhpe/."
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path, "build_py", "-d", tmp_path / "lib"], cwd=ROOT, check=True, capture_output=True)
    def files(folder): return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert files(tmp_path / "lib/diffhpe") == files(ROOT / "diffhpe")

def test_the_sdist_can_run_its_tests(tmp_path):
    "What an sdist would hold is all that the tests look at; tests/dist_check.py builds it and runs them."
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path, "sdist", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive: held = {n.partition("/")[2] for n in archive.getnames()}
    parts = ("*", "tests/**/*", "nbs/*", "grids/*", ".github/**/*", "diffhpe/**/*", "results/*/metrics.json", "results/figures/*.png")
    needed = {str(p.relative_to(ROOT)) for part in parts for p in ROOT.glob(part) if p.is_file()
              and not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts) and p.name != ".git"}
    assert needed - held == set() and {"pyproject.toml", "setup.py", "settings.ini"} <= held

def test_pip_knows_how_to_build_it():
    "In pyproject.toml, and nothing else there: metadata has one home."
    said = tomllib.loads((ROOT/"pyproject.toml").read_text(encoding="utf-8"))
    assert set(said) == {"build-system"} and said["build-system"]["build-backend"] == "setuptools.build_meta"

def test_the_data_page_is_of_the_present_embedded_set():
    from diffhpe.datasets import embedded_motion
    page = (ROOT/"nbs/data.ipynb").read_text()
    assert f"`{embedded_motion()[1][:12]}`" in page, "nbs/data.ipynb shows another version of the embedded set; run it again"


def test_the_names_that_most_users_need():
    import diffhpe
    for name in ("Lifter", "DiffHPE", "MixSTE", "GraphLifter", "load_dataset", "load_checkpoint", "load_released", "Experiment"):
        assert callable(getattr(diffhpe, name)) and name in dir(diffhpe)
    with pytest.raises(AttributeError, match="module 'diffhpe' has no attribute 'Lifters'"): diffhpe.Lifters
    alone = subprocess.run([sys.executable, "-c", "import diffhpe, sys; print('torch' in sys.modules)"], capture_output=True, text=True)
    assert alone.stdout.strip() == "False"                                            # nothing is imported before it is asked for


def test_the_citation_is_of_this_version():
    import yaml
    import diffhpe
    found = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    assert found["version"] == diffhpe.__version__ and found["preferred-citation"]["year"] == 2023
    headings = [line for line in (ROOT/"CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## Not released yet", f"## {diffhpe.__version__}"]

WIDTH = 120

@pytest.mark.parametrize("notebook", NOTEBOOKS, **by_name)
def test_lines_fit_the_page(notebook):
    "At most 120 columns; only the rows of Markdown tables, addresses and descriptions of figures cannot be broken."
    whole = dict(markdown=re.compile(r"\s*\||.*https?://\S{60,}"), code=re.compile(r"#\| fig-alt: "))
    report([f"{c.id}: {len(s)} columns: {s[:90]}…" for c in read(notebook).cells for s in c.source.splitlines()
            if len(s) > WIDTH and not (c.cell_type in whole and whole[c.cell_type].match(s))])

LONG = ("synthetic", "plot") # a body's motion, and all figures

@pytest.mark.parametrize("module", [m for m in MODULES if m.stem not in LONG], **by_name)
def test_modules_are_small(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400, "more than 400 lines: which of its ideas is another notebook's?"

def test_no_public_name_stands_twice():
    homes = {}
    for module in MODULES:
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                for name in ast.literal_eval(node.value): homes.setdefault(name, []).append(module.stem)
    report([f"{name} stands in {' and in '.join(found)}" for name, found in homes.items() if len(found) > 1])

def test_the_public_contract_stands():
    from diffhpe.datasets import load_dataset
    from diffhpe.models import DiffHPE, MixSTE, load_checkpoint, load_released
    from diffhpe.metrics import mpjpe, p_mpjpe, segment_std, symmetry_gap
    from diffhpe.occlusion import OCCLUSIONS
    assert all(map(callable, (load_dataset, mpjpe, p_mpjpe, segment_std, symmetry_gap, DiffHPE, MixSTE, load_checkpoint, load_released)))
    assert set(OCCLUSIONS) >= {"none", "random", "random_leg_arm", "consecutive_leg", "consecutive_frames"}
