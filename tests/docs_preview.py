"""The docs site in _docs/: Quarto's where Quarto is installed, otherwise a plain preview of the same pages. `make docs` runs it.

nbdev turns the notebooks into pages first (in _proc/), in both cases. The order and the groups of the pages are those of nbs/sidebar.yml."""
import json, os, re, shutil
from html import escape, unescape

import yaml
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbdev.quarto import nbdev_docs
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from docs_pages import ROOT, STEPS, config, mathml, notebooks, processed, sidebar, size, with_mathml, without_directives

HINT = "docs: Quarto is not installed (the real site needs it: https://quarto.org/docs/get-started), so this is the plain preview: {page}"

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

    def block_math(self, body): return mathml(body, True)

    def inline_math(self, body): return mathml(body)

    def table(self, text): return f'<div class="wide"><table>\n{text}</table></div>\n'

    def markdown(self, text):
        # what Quarto reads behind a link: [source](...){target="_blank"}
        return MarkdownWithMath(renderer=self).render(re.sub(r"(\]\([^)\s]*\))\{[^}\n]*\}", r"\1", text))

    def output(self, o, alt="figure"):
        if o.output_type == "error": return f"<pre>{escape(o.ename)}: {escape(o.evalue)}</pre>"
        if o.output_type == "stream": return f"<pre>{escape(o.text)}</pre>"
        data = o.data
        if "text/html" in data: return f'<div class="wide">{plain_tables(data["text/html"])}</div>'
        if "text/markdown" in data: return self.markdown(data["text/markdown"])
        if "image/svg+xml" in data: return data["image/svg+xml"]
        for kind in ("image/gif", "image/png", "image/jpeg"):
            if kind in data:
                sides = "".join(f' {k}="{v}"' for k, v in zip(("width", "height"), size(o) or ()))
                return f'<img alt="{escape(alt, True)}"{sides} src="data:{kind};base64,{"".join(data[kind].split())}">'
        return f"<pre>{escape(data['text/plain'])}</pre>"

    def cell(self, cell):
        if cell.cell_type == "markdown": return self.markdown(cell.source)
        if cell.cell_type != "code": return ""
        code, said = without_directives(cell.source), dict(re.findall(r"^#\|\s*([\w-]+):\s*(.*)$", cell.source, re.M))
        text = highlight(code, PythonLexer(), HtmlFormatter()) if code.strip() and said.get("echo") != "false" else ""
        if text and said.get("code-fold") == "true":
            text = f'<details><summary>{escape(yaml.safe_load(said.get("code-summary", "Code")))}</summary>{text}</details>'
        alt = yaml.safe_load(said.get("fig-alt", "figure"))
        kinds = f'output {said["classes"]}' if "classes" in said else "output"
        return text + "".join(f'<div class="{kinds}">{self.output(o, alt)}</div>' for o in cell.outputs)

def plain_tables(html):
    "A table of pandas without the border that its HTML asks for."
    return re.sub(r'\s+border="1"', "", html)

# --- the navigation

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

# --- search

def words(html):
    "The text of (a part of) a page, for the search."
    html = re.sub(r"<(pre|script|style|math|svg)\b.*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub("<[^>]+>", " ", html))).strip()

def entries(file, title, html):
    "What the search finds on a page: address, title and text of its sections."
    parts = re.split(r'<h[23] id="([^"]*)">(.*?)</h[23]>', html, flags=re.S)
    yield [file, title, "", words(parts[0])[:1500]]
    for id, heading, text in zip(parts[1::3], parts[2::3], parts[3::3]): yield [f"{file}#{id}", title, words(heading), words(text)[:1500]]

TEMPLATE = (ROOT / "tests/docs_preview.html").read_text(encoding="utf-8")

def preview(out):
    "Writes the plain site into a folder, and gives its pages: notebook → (processed notebook, file name, HTML)."
    nbs, out = processed(), ROOT / out
    shutil.rmtree(out, ignore_errors=True); out.mkdir()
    shutil.copytree(ROOT / "nbs/images", out / "images")
    styles = [(ROOT / "tests/docs_preview.css").read_text(), HtmlFormatter(style="default").get_style_defs(".highlight"),
              HtmlFormatter(style="github-dark").get_style_defs('[data-theme="dark"] .highlight')]
    (out / "preview.css").write_text("\n".join(styles))
    shutil.copy(ROOT / "tests/docs_preview.js", out / "preview.js")
    contents = sidebar(); order = [n for n in notebooks(contents) if n in nbs]
    files, titles = ({n: front(nb)[key] for n, nb in nbs.items()} for key in ("output-file", "title"))
    pages, index = {}, []
    for name, nb in nbs.items():
        page = Page(files); body = "\n".join(page.cell(c) for c in nb.cells[1:])
        i = order.index(name) if name in order else -1
        sides = [("prev", order[i - 1] if i > 0 else None), ("next", order[i + 1] if 0 <= i < len(order) - 1 else None)]
        parts = dict(
            title=escape(titles[name]), site=escape(config().title), description=page.markdown(front(nb).get("description", "")), body=body,
            menu=menu(contents, name, files, titles), sections="".join(f'<a href="#{id}">{escape(text)}</a>' for id, text in page.sections),
            neighbours="".join(f'<a rel="{rel}" href="{files[n]}">{escape(titles[n])}</a>' for rel, n in sides if n))
        html = re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], TEMPLATE)
        index += entries(files[name], titles[name], body)
        (out / files[name]).write_text(html, encoding="utf-8")
        pages[name] = nb, files[name], html
    (out / "search.js").write_text(f"window.INDEX = {json.dumps(index, ensure_ascii=False)};\n", encoding="utf-8")
    return pages

if __name__ == "__main__":
    if shutil.which("quarto"):
        os.chdir(ROOT)
        STEPS.append(with_mathml)
        nbdev_docs.__wrapped__(n_workers=0)
    else:
        preview("_docs")
        print(HINT.format(page="_docs/index.html"))
