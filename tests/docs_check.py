"""The docs site: every notebook becomes a page; no page shows an error, Markdown as text, a block wider than its column (on the method's pages), a
part that moves a phone's page to the side or a picture without a description; no link to a page, a place in a page or a file is broken. `make docs-check` runs it."""
import re, sys
from html.parser import HTMLParser

import nbformat

from docs_preview import ROOT, preview

WRITTEN = ("0", "1", "60", "61", "62", "63", "64", "66", "67", "68", "7", "8", "figures")   # pages whose figures have a written description each
COLUMNS = 120   # of code that fits the page's column at 1280 pixels, as of tests/docs_preview.css
SIGNS = 34      # of a formula in a line, where a phone's column of 358 pixels is the widest that it may be
ENS = 88        # of a formula that does: a rough measure, each sign half an em wide

class Text(HTMLParser):
    "The visible text of a page outside code and formulas, block by block."
    SILENT = {"pre", "code", "script", "style", "math", "svg", "title", "head"}
    def __init__(self): super().__init__(); self.depth, self.parts = 0, []
    def handle_starttag(self, tag, attrs): self.depth += tag in self.SILENT
    def handle_endtag(self, tag): self.depth -= tag in self.SILENT
    def handle_data(self, data):
        if not self.depth: self.parts.append(data)

MARKS = [(r"\]\(", "a link"), (r"(?<!\w)\*\*\w|\w\*\*(?!\w)", "bold text"), (r"`+\w[^`]*`", "code"), (r"\$\$|(?<![\w$\\])\$[^\s$][^$\n]{0,80}\$(?!\w)", "a formula"),
         (r"^#{1,6} \w", "a heading"), (r"^\|.*\|\s*$", "a table"), (r"\{=html\}|:::", "a mark of Pandoc's")]

def markdown_shown(name, html):
    "Markdown that a reader would see as such."
    page = Text(); page.feed(html)
    text = "".join(page.parts)
    for pattern, what in MARKS:
        for m in re.finditer(pattern, text, re.M): yield f"{name} shows {what} as Markdown: {text[max(0, m.start() - 30):m.end() + 30].strip()!r}"

def errors(name, nb):
    "Outputs of a page that are errors."
    for o in (o for c in nb.cells for o in c.get("outputs", []) if o.output_type == "error"): yield f"{name} shows an error: {o.ename}: {o.evalue}"

def broken(name, html, places, out):
    "Links and images of a page that lead nowhere; `places` has the ids of each page."
    for url in sorted(set(re.findall(r'<(?:a|img|source)\b[^>]*?\s(?:href|src|srcset)="([^"]*)"', html))):
        file, _, place = url.partition("#")
        if re.match(r"[a-z]+:", url): continue
        if file and file not in places:
            if not (out / file).resolve().exists(): yield f"{name} links to {url}, but there is no {file}"
        elif place and place not in places[file or name]: yield f"{name} links to {url}, but {file or 'the page'} has no place #{place}"

def undescribed(name, html):
    "Images without words for those who don't see them."
    for image in re.findall(r"<img\b[^>]*>", html):
        alt = re.search(r'\balt="([^"]*)"', image)
        if not alt or alt[1].strip() in ("", "figure"): yield f"{name} has an image without a description: {image[:80]}…"

def unwritten(nb):
    "Cells that draw a figure and have no `#| fig-alt: …`, in which its description is written."
    for c in nb.cells:
        drawn = any(k.startswith("image/") for o in c.get("outputs", []) for k in o.get("data", {}))
        if drawn and not re.search(r"^#\|\s*(fig-alt:|hide\b)", c.source, re.M): yield f"the figure of the cell {c.get('id')} has no written description: #| fig-alt: …"

def width(tex):
    "How wide a line of a formula is, in half ems: its signs without the commands that draw nothing, the longer half of a fraction."
    fraction = re.compile(r"\\[dt]?frac\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\w)\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\w)")
    tex = re.sub(r"\\tag\{[^}]*\}|\\(?:begin|end)\{[^}]*\}(?:\{[^}]*\})?", "", tex)
    while (m := fraction.search(tex)): tex = tex[:m.start()] + max(m[1], m[2], key=len) + tex[m.end():]
    tex = re.sub(r"\\(?:left|right|[bB]igg?[lrm]?|mathbf|mathrm|mathbb|mathcal|bm|text|textstyle|displaystyle|operatorname|hat|bar|tilde|sqrt|big)\b", "", tex)
    tex = re.sub(r"\\qquad", "wwww", re.sub(r"\\quad", "ww", re.sub(r"\\[a-zA-Z]+", "x", tex)))
    return len(re.sub(r"\\[,;:! ]|[{}&^_\s]|\\\\", "", tex))

def too_wide(name, html):
    "Code and formulas of a page that would have to be scrolled at 1280 pixels."
    for code in re.findall(r'<div class="highlight"><pre>(.*?)</pre>', html, re.S):
        for line in re.sub(r"<[^>]+>", "", code).replace("&quot;", '"').replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").split("\n"):
            if len(line) > COLUMNS: yield f"{name} has code of {len(line)} columns: {line.strip()[:80]}…"

class Phone(HTMLParser):
    "What would push a page of 390 pixels to the side: tables, films and long formulas in a line outside of what scrolls."
    SCROLLS, VOID = {"p", "pre"}, {"img", "br", "hr", "input", "meta", "link", "source", "wbr", "col", "embed", "track"}
    def __init__(self): super().__init__(); self.open, self.formula, self.found = [], None, []
    def handle_starttag(self, tag, attrs):
        kinds = set((dict(attrs).get("class") or "").split())
        scrolls = tag in self.SCROLLS or bool(kinds & {"wide", "large"}) or (bool(self.open) and self.open[-1][1])
        if tag in ("table", "iframe", "embed", "object") and not scrolls: self.found.append(f"<{tag}> that does not scroll")
        if tag == "math": self.formula = None if scrolls else ""
        if tag not in self.VOID: self.open.append((tag, scrolls))
    def handle_endtag(self, tag):
        if tag == "math" and self.formula is not None:
            if len(self.formula) > SIGNS: self.found.append(f"a formula of {len(self.formula)} signs in a line that does not scroll: {self.formula}")
            self.formula = None
        while self.open and self.open.pop()[0] != tag: pass
    def handle_data(self, data):
        if self.formula is not None: self.formula += re.sub(r"\s", "", data)

def sideways(name, html):
    "Parts of a page that a phone cannot show without moving the whole page."
    page = Phone(); page.feed(re.search(r"<main.*?</main>", html, re.S)[0])
    for what in page.found: yield f"{name} has {what}"

def formulas(name, nb):
    "Display formulas of a page that are too wide for it."
    for c in nb.cells:
        for tex in re.findall(r"\$\$(.+?)\$\$", c.source, re.S) if c.cell_type == "markdown" else []:
            for line in tex.split("\\\\"):
                if width(line) > ENS: yield f"{name} has a formula that is too wide (about {width(line)/2:.0f} em): {line.strip()[:80]}…"

def main():
    out = ROOT / "_html"
    try: pages = preview(out)
    except Exception as e: sys.exit(f"docs: {e}")
    places = {file: set(re.findall(r'\sid="([^"]+)"', html)) for _, file, html in pages.values()}
    faults = [f"{p.name} has no page" for p in sorted((ROOT / "nbs").glob("[!._]*.ipynb")) if p.name not in pages]
    faults += [f"several notebooks become {file}" for file in places if sum(file == f for _, f, _ in pages.values()) > 1]
    for name, (nb, file, html) in pages.items():
        faults += [*errors(name, nb), *broken(file, html, places, out), *markdown_shown(file, html), *undescribed(file, html), *sideways(file, html)]
        if name.startswith(WRITTEN): faults += [f"{name}: {s}" for s in unwritten(nbformat.read(ROOT / "nbs" / name, 4))]
        if name[:2].isdigit() or name == "tutorial.ipynb": faults += [*too_wide(file, html), *formulas(file, nb)]
    if faults: sys.exit("\n".join(f"docs: {s}" for s in faults))
    print(f"docs: {len(pages)} pages, no errors, no broken links, no Markdown as text, nothing too wide (on the method's pages for a screen, on all for a phone), all pictures described")

if __name__ == "__main__": main()
