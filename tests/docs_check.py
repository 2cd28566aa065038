"The docs site: every notebook becomes a page, none shows an error, no link between pages, to a place in a page or to a file is broken. `make docs-check` runs it."
import re, sys

from docs_preview import ROOT, preview

def errors(name, nb):
    "Outputs of a page that are errors."
    for o in (o for c in nb.cells for o in c.get("outputs", []) if o.output_type == "error"): yield f"{name} shows an error: {o.ename}: {o.evalue}"

def broken(name, html, places, out):
    "Links and images of a page that lead nowhere; `places` has the ids of each page."
    for url in sorted(set(re.findall(r'<(?:a|img)\b[^>]*?\s(?:href|src)="([^"]*)"', html))):
        file, _, place = url.partition("#")
        if re.match(r"[a-z]+:", url): continue
        if file and file not in places:
            if not (out / file).resolve().exists(): yield f"{name} links to {url}, but there is no {file}"
        elif place and place not in places[file or name]: yield f"{name} links to {url}, but {file or 'the page'} has no place #{place}"

def main():
    out = ROOT / "_html"
    try: pages = preview(out)
    except Exception as e: sys.exit(f"docs: {e}")
    places = {file: set(re.findall(r'\sid="([^"]+)"', html)) for _, file, html in pages.values()}
    faults = [f"{p.name} has no page" for p in sorted((ROOT / "nbs").glob("[!._]*.ipynb")) if p.name not in pages]
    faults += [f"several notebooks become {file}" for file in places if sum(file == f for _, f, _ in pages.values()) > 1]
    for name, (nb, file, html) in pages.items(): faults += [*errors(name, nb), *broken(file, html, places, out)]
    if faults: sys.exit("\n".join(f"docs: {s}" for s in faults))
    print(f"docs: {len(pages)} pages, no errors, no broken links")

if __name__ == "__main__": main()
