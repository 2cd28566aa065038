"""What nbdev makes of the notebooks for the docs, and what is done to it: sources under signatures, links that lead somewhere, mathematics as MathML.

Both sites are made from these pages, Quarto's and the plain preview."""
import ast, base64, gc, os, re, struct, unicodedata, warnings
from functools import cache
from html import escape, unescape
from pathlib import Path

import nbformat
import yaml
from latex2mathml.converter import convert
from execnb.nbio import mk_cell
from nbdev.config import get_config
from nbdev.processors import FilterDefaults
from nbdev.serve import proc_nbs

from make_readme import whole_numbers, with_address

ROOT = Path(__file__).parents[1]
OPEN = ("0", "2", "3", "4")   # tens of the notebooks whose code is open on the site; elsewhere it is folded

@cache
def config():
    "settings.ini, read once."
    return get_config(path=ROOT)

# --- the navigation

@cache
def sidebar():
    "What nbs/sidebar.yml says: notebooks, {text, href} and {section, contents}."
    return yaml.safe_load((ROOT / "nbs/sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]

def notebooks(contents):
    "All notebooks in (a part of) the sidebar, in order."
    for item in contents:
        if isinstance(item, str): yield item
        elif "section" in item: yield from notebooks(item["contents"])
        else: yield item["href"]

def section(name):
    "The notebooks of one section of the sidebar."
    return list(notebooks(next(item["contents"] for item in sidebar() if item.get("section") == name)))

# --- links

@cache
def patched():
    "Methods with a heading of their own, as `class.method` in lower case: those that `@patch` puts into a class. Others are in the class's own cell."
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "diffhpe").glob("*.py"))
    return {f"{c}.{f}".lower() for f, c in re.findall(r"def (\w+)\(\s*self ?: ?(\w+)", source)}

def whole_cells(text):
    "Markdown in whose tables a short cell that begins with a number, such as 77.2 ± 13.0 % (n = 2), is not broken over lines; a row's name may be."
    def cell(m): return re.sub(r"(?<=\de)-(?=\d)", "-\N{WORD JOINER}", m[0].replace(" ", "\N{NO-BREAK SPACE}"))
    def row(m): return m[1] + re.sub(r"(?<=\| )[*≤≥<>~≈+−-]*\d[^|`\[$]{0,23}(?= \|)", cell, m[2])
    return re.sub(r"^(\|[^|\n]*)(\|.*\|[ \t]*)$", row, text, flags=re.M)

def plain_links(text):
    """Markdown of a page in nbs/ with links that lead somewhere: from page to page without the address of the site, and to a file of the
    repository as `../file`, or, where GIT_URL names the repository's address, to the file there. Images of the repository are embedded.
    A link whose text nbdev made into a link of its own keeps that one alone: Markdown has no links in links."""
    text = re.sub(rf"\]\({re.escape(config().doc_baseurl)}/", "](", text)
    text = re.sub(r"\[\[(`[^`\]]+`)\]\(([^)]+)\)\]\([^)]+\)", r"[\1](\2)", text)
    text = re.sub(r"(\]\(\w+\.html#)(\w+)(\.\w+)\)", lambda m: m[0] if m[2] + m[3] in patched() else f"{m[1]}{m[2]})", text)
    text = re.sub(rf"\]\(/blob/{config().branch}/", "](../", text)
    def image(m): return f"{m[1]}data:image/png;base64,{base64.b64encode((ROOT / m[2]).read_bytes()).decode()})"
    text = re.sub(r"(!\[[^\]]*\]\()\.\./([^)\s]+\.png)\)", lambda m: image(m) if (ROOT / m[2]).exists() else m[0], text)
    text, home = with_address(whole_cells(whole_numbers(text))), os.environ.get("GIT_URL")
    return re.sub(r"\]\(\.\./", f"]({home}/blob/{config().branch}/", text) if home else text

def with_plain_links(cell):
    "nbdev's last step on a page's cell."
    if cell.cell_type == "markdown" and cell.source: cell.source = plain_links(cell.source)
    for o in cell.get("outputs", []):
        if "text/markdown" in o.get("data", {}): o["data"]["text/markdown"] = plain_links("".join(o["data"]["text/markdown"]))

# --- sources

def without_directives(source):
    return re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip("\n")

def exported(cell):
    "The code of an exported cell, None for other cells and for cells of imports alone."
    known = getattr(cell, "directives_", None)           # nbdev has taken them out of a cell's source
    here = known if known is not None else re.findall(r"^#\|\s*(\w+)", cell.source, re.M)
    if cell.cell_type != "code" or not {"export", "exporti", "exports"} & set(here): return None
    code = without_directives(cell.source)
    return code if any(not isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.parse(code).body) else None

def signature(node, code):
    "The head of a function, or of a class with its fields or its `__init__`, as it is in the source; None where head and body share a line."
    lines, end = code.split("\n"), node.body[0].lineno - 1
    if isinstance(node, ast.ClassDef):
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        init = next((signature(n, code) for n in methods if n.name == "__init__"), None)
        last = methods[0].lineno - len(methods[0].decorator_list) - 1 if methods else node.end_lineno
        return "\n".join([lines[node.lineno - 1], init] if init else lines[node.lineno - 1:last]).rstrip()
    return "\n".join(lines[node.lineno - 1:end]).rstrip() if end >= node.lineno else None

def names(code):
    "The public functions and classes of a cell, by the name under which nbdev shows them: name → node."
    found = {}
    for node in ast.parse(code).body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): continue
        patch = any(ast.unparse(d).split("(")[0] in ("patch", "patch_to") for d in node.decorator_list)
        of = ast.unparse(node.args.args[0].annotation) if patch and node.args.args and node.args.args[0].annotation else None
        found[f"{of}.{node.name}" if of else node.name] = node
    return found

FENCE = re.compile(r"^```.*?\n(.*?)^```[ \t]*\n?", re.M | re.S)

def readable(code):
    "A signature as nbdev writes it, without links and without the places that types come from."
    code = re.sub(r"\[`([^`\]]+)`\]\([^)]*\)", r"\1", code)
    return re.sub(r"\b(?:__main__|torch\._C|collections\.abc|torch\.nn\.modules\.\w+|torch\.nn)\.", "", code)

class Sources:
    "Puts the code of each exported cell under its signature: open on the floors of the method, where it takes the signature's place, folded elsewhere."
    def __init__(self, nb):
        name = Path(nb.path_).name
        self.nb, self.open, self.done, self.home = nb, name[:2].isdigit() and name[0] in OPEN, set(), {}
        for i in range(len(nb.cells) - 1, -1, -1):
            if (code := exported(nb.cells[i])) is None: continue
            self.home |= {name: (code, node) for name, node in names(code).items()}
            # constants have no signature: their code is shown in their place
            if all(n.split(".")[-1].startswith("_") for n in names(code)): nb.cells.insert(i + 1, mk_cell(self.block(code), "markdown"))
        if name == "all_names.ipynb": nb.cells.append(mk_cell(all_names(), "markdown"))
        for i, cell in enumerate(nb.cells): cell.idx_ = i

    def block(self, code):
        "Code, open or folded."
        code = f"```python\n{code}\n```"
        return code if self.open else f"<details><summary>Code</summary>\n\n{code}\n\n</details>"

    def __call__(self, cell):
        if cell.cell_type != "code": return
        shown = re.search(r"show_doc\(([\w.]+)", cell.source)
        if not shown:
            if not cell.get("outputs") and refusals(cell.source): cell.source = folded(cell.source, "What is refused")
            return
        for o in cell.get("outputs", []):
            if "text/markdown" in o.get("data", {}):
                o["data"]["text/markdown"] = self.shown(shown[1], "".join(o["data"]["text/markdown"]))

    def shown(self, name, text):
        "nbdev's text about a name, with its code. A wrapped method loses its class in nbdev's heading."
        text = re.sub(r"^### .*$", f"### {name}", text, count=1, flags=re.M)
        if name not in self.home: return FENCE.sub(lambda m: m[0].replace(m[1], readable(m[1])), text, count=1)
        code, node = self.home[name]
        first, head = code not in self.done, signature(node, code)
        self.done.add(code)
        if self.open and first: return FENCE.sub("", text, count=1).rstrip() + f"\n\n{self.block(code)}\n"
        text = FENCE.sub(lambda m: f"```python\n{head}\n```\n" if head else m[0].replace(m[1], readable(m[1])), text, count=1)
        return text.rstrip() + (f"\n\n{self.block(code)}\n" if first else "\n")

def folded(source, summary): return f'#| code-fold: true\n#| code-summary: "{summary}"\n{source}'

def statements(source):
    "What a cell says, parsed; nothing where it is no Python."
    try: return ast.parse(without_directives(source)).body
    except SyntaxError: return []

def refusals(source):
    "Whether a lesson shows what is refused, and but for preparations nothing else."
    def calls(node): return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func)
    def refuses(node): return all(map(refuses, node.body)) if isinstance(node, ast.For) else calls(node) == "test_fail"
    def prepares(node): return isinstance(node, ast.Assign) or calls(node) and not calls(node).startswith("test_")
    body = statements(source); refused = list(map(refuses, body))
    return 2*sum(refused) > len(body) and all(r or prepares(node) for r, node in zip(refused, body))

class Results:
    """Pages of results say what came out, not how it was drawn: code that shows a picture or a table is left out, other code is folded. A cell of
    parameters stays, and so does a cell that says itself whether its code is to be seen (`#| echo:`, `#| code-fold:`)."""
    def __init__(self, nb): self.here = Path(nb.path_).name in section("Results")
    def __call__(self, cell):
        if not self.here or cell.cell_type != "code" or re.search(r"^#\|\s*(echo|code-fold):", cell.source, re.M): return
        if "parameters" in cell.metadata.get("tags", []): return
        if shows(cell): cell.source = f"#| echo: false\n{cell.source}"
        else:
            body = statements(cell.source)
            cell.source = folded(cell.source, "Imports" if body and isinstance(body[0], (ast.Import, ast.ImportFrom)) else "Code")

def shows(cell):
    "Whether a cell shows a picture, a table or a sentence."
    return any(kind in ("text/markdown", "text/html") or kind.startswith("image/") for o in cell.get("outputs", []) for kind in o.get("data", {}))

def all_names():
    "Every public name of the package with its first sentence, for the page of all names."
    rows = []
    for path in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        page = re.sub(r"^\d+_", "", path.stem)
        for c in nbformat.read(path, 4).cells:
            code = exported(c)
            for name, node in (names(code) if code else {}).items():
                if name.split(".")[-1].startswith("_"): continue
                text = (ast.get_docstring(node) or "").split("\n")[0].replace("|", "\\|").replace("\\\\|", "\\|")
                rows.append((name.lower(), f"| [`{name}`]({page}.html#{name.lower()}) | [{page}]({page}.html) | {text} |"))
    rows = [row for _, row in sorted(rows)]
    return "\n".join([f"{len(rows)} functions, classes and methods with an entry of their own.\n", "| name | module | what it is |", "|---|---|---|", *rows])

# --- descriptions of figures

def plain(text):
    "Markdown as the words that are read."
    text = re.sub(r"```.*?```|\$\$.*?\$\$", " ", text, flags=re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\s+", " ", re.sub(r"^\s*(?:[-*]|\d+\.|#+)\s+|[`*]|^\|.*$", "", text, flags=re.M)).strip()

def cut(text, most=240):
    "The beginning of a text, whole sentences where they fit."
    if len(text) <= most: return text
    ends = [m.end() for m in re.finditer(r"[.:;!?](?=\s)", text[:most])]
    return text[:ends[-1]].strip() if ends else text[:most].rsplit(" ", 1)[0] + " …"

class Descriptions:
    "Gives a figure the words before it as its description, where its cell has no `#| fig-alt:`."
    def __init__(self, nb): self.nb, self.said, self.heading = nb, "", ""
    def __call__(self, cell):
        if cell.cell_type == "markdown":
            heading = re.findall(r"^#+ (.*)$", cell.source, re.M)
            self.heading = plain(heading[-1]) if heading else self.heading
            words = plain(re.sub(r"^#+ .*$|^---$", "", cell.source.split("</details>")[-1], flags=re.M))
            self.said = cut(words) or self.said
        elif any(k.startswith("image/") for o in cell.get("outputs", []) for k in o.get("data", {})):
            if not re.search(r"^#\|\s*fig-alt:", cell.source, re.M):
                text = f"{self.heading}: {self.said}" if self.heading else self.said
                cell.source = f"#| fig-alt: {yaml_text(text or 'figure')}\n{cell.source}"

def yaml_text(text): return '"' + text.replace("\\", "\\\\").replace('"', "'") + '"'

# --- large figures

PHONE = 450   # pixels: a wider figure, made smaller, has letters that can't be read on a phone

def size(output):
    "Width and height at which a picture is shown, in pixels; None: it is no whole PNG or GIF."
    for kind, layout, at in (("image/png", ">II", 16), ("image/gif", "<HH", 6)):
        if kind in output.get("data", {}):
            said = output.get("metadata", {}).get(kind, {})
            head = base64.b64decode("".join(output["data"][kind].split())[:64])
            if {"width", "height"} <= set(said): return said["width"], said["height"]
            return struct.unpack_from(layout, head, at) if len(head) >= at + struct.calcsize(layout) else None

def large_figures(cell):
    "Marks figures that a phone shows in full size, to be moved sideways: strips, diagrams, matrices side by side."
    if any(shown and shown[0] > PHONE for shown in map(size, cell.get("outputs", []))):
        cell.source = f"#| classes: large\n{cell.source}"

# --- mathematics

TAG = re.compile(r"\\tag\{([^}]*)\}")

VARIANTS = {"bold": "BOLD", "script": "SCRIPT", "double-struck": "DOUBLE-STRUCK", "bold-italic": "BOLD ITALIC", "fraktur": "FRAKTUR"}

def lettered(m):
    "A letter of a certain kind as the sign that Unicode has for it: browsers ignore all values of `mathvariant` but one."
    letter = unescape(m[2])
    try: name = unicodedata.name(letter)
    except TypeError: return m[0]
    for form in (f"MATHEMATICAL {VARIANTS[m[1]]} {{}}", f"{VARIANTS[m[1]]} {{}}"):
        try: return f"<mi>{unicodedata.lookup(form.format(re.sub('^(LATIN|GREEK) | LETTER', '', name)))}</mi>"
        except KeyError: continue
    return m[0]

@cache
def mathml(tex, block=False):
    "A formula as MathML, which browsers draw without a script and without a network; its number stands outside, so that it is never out of sight."
    tags = TAG.findall(tex)
    tex = re.sub(r"\\[lr]?Vert\b", r"\\|", TAG.sub("", tex)).strip()
    tex = re.sub(r"\{aligned\}", "{align*}", tex)
    math = re.sub(r"\s*\n\s*", " ", convert(tex, display="block" if block else "inline"))
    if (lost := re.search(r">(&|\\\w+)<", math)): raise ValueError(f"{lost[1]} is not understood in the formula {tex!r}")
    math = re.sub(rf'<m[in] mathvariant="({"|".join(VARIANTS)})">([^<]+)</m[in]>', lettered, math)
    if not block: return math
    number = f'<span class="number">({escape(", ".join(tags))})</span>' if tags else ""
    return f'<span class="equation"><span class="wide">{math}</span>{number}</span>'

MATH = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^\s$](?:[^$\n]|\n(?!\n))*?)(?<!\s)\$(?![\w$])", re.S)

def with_mathml(cell):
    "For Quarto: formulas as raw HTML, since what Pandoc makes of them needs a script or loses the numbers."
    def put(text): return MATH.sub(lambda m: m[0] if m["code"] else f"`{mathml(m['block'] or m['inline'], bool(m['block']))}`{{=html}}", text)
    if cell.cell_type == "markdown" and cell.source: cell.source = put(cell.source)
    for o in cell.get("outputs", []):
        if "text/markdown" in o.get("data", {}): o["data"]["text/markdown"] = put(o["data"]["text/markdown"])

warnings.filterwarnings("ignore", "Found cells containing imports")
STEPS = [Sources, Results, Descriptions, large_figures, with_plain_links]
FilterDefaults.xtra_procs = lambda self: STEPS

def processed():
    "The notebooks as nbdev prepares them for the docs, by file name: exported code as `show_doc`, names linked. Quarto is not needed."
    os.chdir(ROOT)
    # runs exported cells and every cell with an import, no others: such a cell must not need what a lesson cell made
    folder = Path(proc_nbs(force=True, n_workers=0))
    gc.freeze()   # at exit, IPython collects garbage once for every notebook that was run: a quarter of a second each, if all is looked at
    return {p.name: nbformat.read(p, 4) for p in sorted(folder.glob("*.ipynb"))}
