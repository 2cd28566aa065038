"""The docs site in _docs/: Quarto's where Quarto is installed, otherwise a plain preview of the same pages. `make docs` runs it.

nbdev turns the notebooks into pages first (in _proc/), in both cases. The order and the groups of the pages are those of nbs/sidebar.yml."""
import base64, gc, os, re, shutil, warnings
from functools import cache
from html import escape, unescape
from pathlib import Path

import nbformat, yaml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbdev.config import get_config
from nbdev.processors import FilterDefaults
from nbdev.quarto import nbdev_docs
from nbdev.serve import proc_nbs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

ROOT = Path(__file__).parents[1]
HINT = "docs: Quarto is not installed (the real site needs it: https://quarto.org/docs/get-started), so this is the plain preview: {page}"

# --- nbdev's part

@cache
def config():
    "settings.ini, read once."
    return get_config(path=ROOT)

@cache
def patched():
    "Methods with a heading of their own, as `class.method` in lower case: those that `@patch` puts into a class. Others are in the class's own cell."
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "diffhpe").glob("*.py"))
    return {f"{c}.{f}".lower() for f, c in re.findall(r"def (\w+)\(\s*self ?: ?(\w+)", source)}

def plain_links(text):
    """Markdown of a page in nbs/ with links that lead somewhere: from page to page without the address of the site, and to a file of the
    repository as `../file`, or, where GIT_URL names the repository's address, to the file there. Images of the repository are embedded."""
    text = re.sub(rf"\]\({re.escape(config().doc_baseurl)}/", "](", text)
    text = re.sub(r"(\]\(\w+\.html#)(\w+)(\.\w+)\)", lambda m: m[0] if m[2] + m[3] in patched() else f"{m[1]}{m[2]})", text)
    text = re.sub(rf"\]\(/blob/{config().branch}/", "](../", text)
    def image(m): return f"{m[1]}data:image/png;base64,{base64.b64encode((ROOT / m[2]).read_bytes()).decode()})"
    text = re.sub(r"(!\[[^\]]*\]\()\.\./([^)\s]+\.png)\)", lambda m: image(m) if (ROOT / m[2]).exists() else m[0], text)
    home = os.environ.get("GIT_URL")
    return re.sub(r"\]\(\.\./", f"]({home}/blob/{config().branch}/", text) if home else text

def with_plain_links(cell):
    "nbdev's last step on a page's cell."
    if cell.cell_type == "markdown" and cell.source: cell.source = plain_links(cell.source)
    for o in cell.get("outputs", []):
        if "text/markdown" in o.get("data", {}): o["data"]["text/markdown"] = plain_links("".join(o["data"]["text/markdown"]))

warnings.filterwarnings("ignore", "Found cells containing imports")
FilterDefaults.xtra_procs = lambda self: [with_plain_links]

def processed():
    "The notebooks as nbdev prepares them for the docs, by file name: exported code as `show_doc`, names linked. Quarto is not needed."
    os.chdir(ROOT)
    # runs exported cells and every cell with an import, no others: such a cell must not need what a lesson cell made
    folder = Path(proc_nbs(force=True, n_workers=0))
    gc.freeze()   # at exit, IPython collects garbage once for every notebook that was run: a quarter of a second each, if all is looked at
    return {p.name: nbformat.read(p, 4) for p in sorted(folder.glob("*.ipynb"))}

# --- a page

def front(nb):
    "Title, description and output-file of a page."
    return yaml.safe_load(nb.cells[0].source.strip().strip("-"))

def anchor(heading):
    "The id of a heading, by Pandoc's rule, which is Quarto's."
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", heading.lower()).strip())) or "section"

class Page(IPythonRenderer):
    "Markdown to HTML, with ids at the headings and links to notebooks as links to their pages."
    def __init__(self, files):
        super().__init__(escape=False)
        self.files, self.ids, self.sections = files, {}, []

    def heading(self, text, level, **attrs):
        name = unescape(re.sub("<[^>]+>", "", text)); id = anchor(name); n = self.ids[id] = self.ids.get(id, -1) + 1
        if n: id = f"{id}-{n}"
        if level == 2: self.sections.append((id, name))
        return f'<h{level} id="{escape(id)}">{text}</h{level}>\n'

    def link(self, text, url, title=None):
        name, _, place = url.partition("#")
        return super().link(text, self.files.get(name, name) + (f"#{place}" if place else ""), title)

    def block_math(self, body): return f'<span class="wide">{super().block_math(body)}</span>'

    def table(self, text): return f'<div class="wide"><table>\n{text}</table></div>\n'

    def markdown(self, text):
        # what Quarto reads behind a link: [source](...){target="_blank"}
        return MarkdownWithMath(renderer=self).render(re.sub(r"(\]\([^)\s]*\))\{[^}\n]*\}", r"\1", text))

    def output(self, o):
        if o.output_type == "error": return f"<pre>{escape(o.ename)}: {escape(o.evalue)}</pre>"
        if o.output_type == "stream": return f"<pre>{escape(o.text)}</pre>"
        data = o.data
        if "text/html" in data: return f'<div class="wide">{data["text/html"]}</div>'
        if "text/markdown" in data: return self.markdown(data["text/markdown"])
        if "image/svg+xml" in data: return data["image/svg+xml"]
        for kind in ("image/gif", "image/png", "image/jpeg"):
            if kind in data: return f'<img alt="figure" src="data:{kind};base64,{"".join(data[kind].split())}">'
        return f"<pre>{escape(data['text/plain'])}</pre>"

    def cell(self, cell):
        if cell.cell_type == "markdown": return self.markdown(cell.source)
        if cell.cell_type != "code": return ""
        code = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
        shown = code.strip() and not re.search(r"^#\|\s*echo:\s*false", cell.source, re.M)
        return (highlight(code, PythonLexer(), HtmlFormatter()) if shown else "") + \
            "".join(f'<div class="output">{self.output(o)}</div>' for o in cell.outputs)

# --- the navigation

def sidebar():
    "What nbs/sidebar.yml says: notebooks, {text, href} and {section, contents}."
    return yaml.safe_load((ROOT / "nbs/sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]

def notebooks(contents):
    "All notebooks in (a part of) the sidebar, in order."
    for item in contents:
        if isinstance(item, str): yield item
        elif "section" in item: yield from notebooks(item["contents"])
        else: yield item["href"]

def menu(contents, here, files, titles):
    "The sidebar as nested lists. Of the groups inside a group only the one with this page is open."
    def entry(item, deep):
        if isinstance(item, dict) and "section" in item:
            is_open = " open" if not deep or here in notebooks(item["contents"]) else ""
            return f"<li><details{is_open}><summary>{escape(item['section'])}</summary>{items(item['contents'], True)}</details></li>"
        name = item if isinstance(item, str) else item["href"]
        text = titles.get(name, name) if isinstance(item, str) else item["text"]
        current = ' aria-current="page"' if name == here else ""
        return f'<li><a href="{files.get(name, name)}"{current}>{escape(text)}</a></li>'
    def items(contents, deep): return f"<ul>{''.join(entry(i, deep) for i in contents)}</ul>"
    return items(contents, False)

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="preview.css">
<script>MathJax = {{tex: {{inlineMath: [["$", "$"]]}}}}</script>
<script async src="https://cdn.jsdelivr.net/npm/mathjax@3/es5/tex-chtml-full.js"></script>
</head>
<body>
<header><a href="index.html">{site}</a><label for="menu">Menu</label></header>
<input type="checkbox" id="menu" aria-label="Menu">
<nav class="pages">{menu}</nav>
<main>
<h1>{title}</h1>
<div class="description">{description}</div>
{body}
<nav class="neighbours">{neighbours}</nav>
</main>
<nav class="sections">{sections}</nav>
<script>document.querySelector("[aria-current]")?.scrollIntoView({{block: "nearest"}})</script>
</body>
</html>
"""

def preview(out):
    "Writes the plain site into a folder, and gives its pages: notebook → (processed notebook, file name, HTML)."
    nbs, out = processed(), ROOT / out
    shutil.rmtree(out, ignore_errors=True); out.mkdir()
    (out / "preview.css").write_text((ROOT / "tests/docs_preview.css").read_text() + HtmlFormatter().get_style_defs(".highlight"))
    contents = sidebar(); order = [n for n in notebooks(contents) if n in nbs]
    files, titles = ({n: front(nb)[key] for n, nb in nbs.items()} for key in ("output-file", "title"))
    pages = {}
    for name, nb in nbs.items():
        page = Page(files); body = "\n".join(page.cell(c) for c in nb.cells[1:])
        i = order.index(name) if name in order else -1
        sides = [("prev", order[i - 1] if i > 0 else None), ("next", order[i + 1] if 0 <= i < len(order) - 1 else None)]
        html = TEMPLATE.format(
            title=escape(titles[name]), site=escape(config().title), description=page.markdown(front(nb).get("description", "")), body=body,
            menu=menu(contents, name, files, titles), sections="".join(f'<a href="#{id}">{escape(text)}</a>' for id, text in page.sections),
            neighbours="".join(f'<a rel="{rel}" href="{files[n]}">{escape(titles[n])}</a>' for rel, n in sides if n))
        (out / files[name]).write_text(html, encoding="utf-8")
        pages[name] = nb, files[name], html
    return pages

if __name__ == "__main__":
    if shutil.which("quarto"):
        os.chdir(ROOT)
        nbdev_docs.__wrapped__(n_workers=0)
    else:
        preview("_docs")
        print(HINT.format(page="_docs/index.html"))
