"The input of the docs site: process every notebook as nbdev does, render each to HTML, and refuse errors."
import sys, warnings
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbdev.serve import proc_nbs

def main():
    warnings.filterwarnings("ignore", "Found cells containing imports")
    try: proc = proc_nbs(force=True, n_workers=0)
    # the docs run exported cells and every cell with an import, no others: such a cell must not need what a lesson cell made
    except Exception as e: sys.exit(f"docs: {e}")
    out = Path("_html"); out.mkdir(exist_ok=True)
    pages = sorted(Path(proc).rglob("*.ipynb"))
    if not pages: sys.exit("docs: no notebook was processed")
    for p in pages:
        nb = nbformat.read(p, 4)
        for o in (o for c in nb.cells for o in c.get("outputs", []) if o.output_type == "error"):
            sys.exit(f"docs: {p.name} shows an error: {o.ename}: {o.evalue}")
        html, _ = HTMLExporter().from_notebook_node(nb)
        (out / p.with_suffix(".html").name).write_text(html, encoding="utf-8")
    print(f"docs: {len(pages)} pages processed without errors")

if __name__ == "__main__": main()
