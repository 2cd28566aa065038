"Makes README.md from nbs/index.ipynb: its prose, code and text outputs, without front matter and hidden cells. `make readme` runs it."
import posixpath, re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]

def visible(cell):
    "Whether a reader of the README sees this cell."
    return cell.cell_type != "raw" and not re.search(r"^#\|\s*hide\b", cell.source, re.M)

def without_directives(cell):
    "The cell without nbdev's `#| ...` lines (code) or front matter lines `- key: value` below the title (markdown)."
    if cell.cell_type == "code": cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
    elif cell.source.startswith("# "): cell.source = re.sub(r"^- \w+: .*\n?", "", cell.source, flags=re.M).strip()
    return cell

def only_output(cell):
    "A cell marked `#| echo: false` as its Markdown output, which is all that a reader is to see of it."
    if cell.cell_type == "code" and re.search(r"^#\|\s*echo:\s*false", cell.source, re.M):
        return nbformat.v4.new_markdown_cell("\n\n".join(o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})))
    return cell

def from_root(match):
    "A relative link or image of a notebook in nbs/, as it must read in the root."
    return match[1] + posixpath.normpath(posixpath.join("nbs", match[2]))

def whole_numbers(text):
    "Markdown in whose tables no number is parted from what belongs to it: ± 1.2, %, (n = 1)."
    def row(m): return re.sub(r"(?<=\d) (?=[±%(])|(?<=±) (?=\d)|(?<=n) (?==)|(?<==) (?=\d)", "\N{NO-BREAK SPACE}", m[0])
    return re.sub(r"^\|.*$", row, text, flags=re.M)

def with_address(text):
    "The repository's address where a reader is to clone it, once settings.ini has one."
    address = re.search(r"^git_url = *(\S*)", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)[1]
    return text.replace("ADDRESS-OF-THIS-REPOSITORY", address) if address else text

def readme():
    "The text of README.md."
    nb = nbformat.read(ROOT / "nbs/index.ipynb", 4)
    nb.cells = [without_directives(only_output(c)) for c in nb.cells if visible(c)]
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources["outputs"]:
        raise ValueError("index.ipynb has a figure among its outputs; README.md can only show image files: link one by ![title](../path)")
    text = re.sub(r"(\]\()(?![a-z]+:|#|/)([^)#\s]+)", from_root, text)
    text = re.sub(r'(\b(?:src|srcset)=")(?![a-z]+:|/)([^"\s]+)', from_root, text)
    return with_address(whole_numbers(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"))

if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
