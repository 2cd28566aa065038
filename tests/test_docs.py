"What the docs' machinery makes of a page, and what its check finds."
import ast
import base64
import struct
from types import SimpleNamespace

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from docs_check import formulas, markdown_shown, sideways, too_wide, undescribed, unwritten
from docs_pages import (MATH, Descriptions, Results, cut, large_figures, mathml, names, plain, plain_links, readable, refusals,
                        signature, size, whole_cells)
from docs_preview import Page
from make_readme import whole_numbers


def test_a_link_in_a_link_keeps_the_inner_one():
    "nbdev links the name in `[`f`](x.ipynb)`; Markdown has no links in links."
    assert plain_links("[[`f`](page.html#f)](20_x.ipynb)`.g`") == "[`f`](page.html#f)`.g`"
    assert plain_links("[`f`](20_x.ipynb)") == "[`f`](20_x.ipynb)"


def test_signatures_are_plain():
    assert readable("x:[`DiffHPE`](m.html#diffhpe), g:torch._C.Generator, s:collections.abc.Sequence[__main__.A]") == \
        "x:DiffHPE, g:Generator, s:Sequence[A]"


CODE = '''
@patch
def f(self:A,
    x:int, # a number
)->int:    # another
    "Doc."
    return x
class B:
    "B."
    def __init__(self,
        y, # (J, 3)
    ):
        self.y = y
class C:
    a:int=0 # a field
    def g(self): pass
def one(x): return x
'''


def test_signatures_are_those_of_the_source():
    found = names(CODE)
    assert list(found) == ["A.f", "B", "C", "one"]
    heads = {n: signature(node, CODE) for n, node in found.items()}
    assert heads["A.f"].splitlines() == ["def f(self:A,", "    x:int, # a number", ")->int:    # another"]
    assert heads["B"].splitlines() == ["class B:", "    def __init__(self,", "        y, # (J, 3)", "    ):"]
    assert heads["C"].splitlines() == ["class C:", "    a:int=0 # a field"]
    assert heads["one"] is None
    assert isinstance(found["B"], ast.ClassDef)


@pytest.mark.parametrize("source, alone", [("test_fail(lambda: f(1), contains='x')", True), ("for n in (1, 2): test_fail(lambda: f(n))", True),
    ("x = 1\nf(x)\ntest_fail(lambda: f(2))\ntest_fail(lambda: f(3))\ntest_fail(lambda: f(4))", True),
    ("x = f(1)\nplot(x)\ntest_fail(lambda: f(1))", False), ("assert f(0)\ntest_fail(lambda: f(1))\ntest_fail(lambda: f(2))", False),
    ("test_eq(f(0), 1)\ntest_fail(lambda: f(1))", False), ("x = 1", False), ("%matplotlib inline", False), ("", False)])
def test_cells_of_refusals_are_known(source, alone):
    assert refusals(source) == alone


def cell(source, *kinds, tags=()):
    return SimpleNamespace(cell_type="code", source=source, metadata={"tags": list(tags)}, get=lambda key, default: [{"data": {k: ""}} for k in kinds])


def test_pages_of_results_show_results():
    def made(name, *args, **kw):
        c = cell(*args, **kw); Results(SimpleNamespace(path_=f"nbs/{name}"))(c)
        return c.source
    assert made("tables.ipynb", "draw()", "image/png") == "#| echo: false\ndraw()"
    assert made("tables.ipynb", "x", "text/markdown", "text/plain").startswith("#| echo: false")
    assert 'code-fold: true\n#| code-summary: "Code"' in made("tables.ipynb", "x = f()", "text/plain")
    assert 'code-summary: "Imports"' in made("tables.ipynb", "from a import b\nb()")
    for source, kw in (("#| echo: true\nx", {}), ("#| code-fold: true\nx", {}), ("x: int = 0", {"tags": ["parameters"]})):
        assert made("tables.ipynb", source, "text/markdown", **kw) == source
    assert made("20_schedule.ipynb", "draw()", "image/png") == "draw()"


def test_formulas_keep_their_numbers_and_letters():
    html = mathml(r"\begin{aligned}x&=\mathbf y\\&\in\mathbb R\end{aligned}\tag{DDPM 7}", True)
    assert "(DDPM 7)" in html and "tag" not in html and html.index('class="number"') > html.index("</math>")     # beside what scrolls
    assert "<mi>\N{MATHEMATICAL BOLD SMALL Y}</mi>" in html and "<mi>\N{DOUBLE-STRUCK CAPITAL R}</mi>" in html and ">&<" not in html
    with pytest.raises(ValueError, match="is not understood"): mathml(r"\nosuchcommand x")


@pytest.mark.parametrize("text, found", [("$a+b$", ["a+b"]), ("`$HOME`, $x$", ["x"]), ("5 $ and 6 $", []), ("$$\nx\n$$", ["\nx\n"]), (r"\$x$", [])])
def test_formulas_are_found(text, found):
    assert [m["block"] or m["inline"] for m in MATH.finditer(text) if not m["code"]] == found


@pytest.mark.parametrize("html, what", [("<p>[`f`](x.ipynb)</p>", "a link"), ("<p>so **bold** it is</p>", "bold text"), ("<td>`code`</td>", "code"),
    ("<p>$x_t$</p>", "a formula"), ("<p>\n## Title\n</p>", "a heading"), ("<p>\n| a | b |\n</p>", "a table")])
def test_markdown_shown_as_text_is_found(html, what):
    assert f"shows {what} as Markdown" in next(markdown_shown("p.html", html))


def test_code_and_formulas_may_have_such_signs():
    html = "<pre>f[i](x) ** 2 `a`</pre><p><code>[a](b)</code> 2 * 3, a[0], 5 $</p><math><mi>$x$</mi></math>"
    assert not list(markdown_shown("p.html", html))


def test_numbers_stay_whole():
    nb = "\N{NO-BREAK SPACE}"
    assert whole_numbers("| 77.2 ± 13.0 | -0.2 ± 1.4 % | 72.2 (n = 1) |\n77.2 ± 1") == \
        f"| 77.2{nb}±{nb}13.0 | -0.2{nb}±{nb}1.4{nb}% | 72.2{nb}(n{nb}={nb}1) |\n77.2 ± 1"


def test_cells_stay_whole():
    nb = "\N{NO-BREAK SPACE}"
    assert whole_cells("| 2d: a b | -40.2 % (n = 1) | **7.0 ± 1** | 16 residual blocks of 64 channels each | `1 2` | a 1 | 4e-05 |\n1 2") == \
        f"| 2d: a b | -40.2{nb}%{nb}(n{nb}={nb}1) | **7.0{nb}±{nb}1** | 16 residual blocks of 64 channels each | `1 2` | a 1 | 4e-\N{WORD JOINER}05 |\n1 2"


def test_images_need_words():
    assert len(list(undescribed("p", '<img src="a.png"><img alt="" src="a"><img alt="figure" src="a"><img alt="Two curves" src="a">'))) == 3


def test_figures_need_a_description_of_their_own():
    figure = new_output("display_data", {"image/png": ""})
    def nb(source, *outputs): return new_notebook(cells=[new_code_cell(source, outputs=list(outputs))])
    assert len(list(unwritten(nb("plot(x)", figure)))) == 1
    assert not [s for n in (nb('#| fig-alt: "A curve."\nplot(x)', figure), nb("#| hide\nplot(x)", figure), nb("plot(x)")) for s in unwritten(n)]


def test_a_written_description_is_kept():
    "What is written in `#| fig-alt: …` comes out as the picture's words, whatever stands before it."
    cells = [new_markdown_cell("Words before."), new_code_cell('#| fig-alt: "A curve: it falls."\nplot(x)', outputs=[new_output("display_data", {"image/png": ""})])]
    nb = new_notebook(cells=cells)
    described = Descriptions(nb)
    for cell in nb.cells: described(cell)
    assert 'alt="A curve: it falls."' in Page({}).cell(nb.cells[1])


def test_wide_blocks_are_found():
    page = '<div class="highlight"><pre><span></span>{}\n</pre></div>'
    assert len(list(too_wide("p", page.format("x" * 121)))) == 1 and not list(too_wide("p", page.format("&lt;" * 120)))

    class Nb: pass
    def nb(tex):
        cell = Nb(); cell.cell_type, cell.source = "markdown", f"$$\n{tex}\n$$"
        page = Nb(); page.cells = [cell]
        return page
    long = "+".join(["x_{t-1}"] * 30)
    assert len(list(formulas("p", nb(long)))) == 1
    assert not list(formulas("p", nb(rf"\begin{{aligned}}{long[:80]}\\&={long[:80]}\end{{aligned}}\tag{{A very long source of it 12, 13}}")))


@pytest.mark.parametrize("html, found", [("<table><tr><td>1</td></tr></table>", 1), ('<div class="wide"><table></table></div><table></table>', 1),
    ("<li>so <math><mi>x</mi></math></li>", 0), (f"<li><math><mi>{'x'*40}</mi></math></li>", 1), (f"<p>a<br><math><mi>{'x'*40}</mi></math></p>", 0),
    ('<div class="output large"><img src="a"></div>', 0), ("<ul><li><iframe></iframe></li></ul>", 1)])
def test_what_moves_a_phones_page_is_found(html, found):
    assert len(list(sideways("p", f"<nav><table></table></nav><main>{html}</main>"))) == found


def test_large_figures_keep_their_size():
    def shown(kind, data, **said): return {"data": {kind: base64.b64encode(data).decode()}, "metadata": {kind: said} if said else {}}
    png, gif = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1906, 800) + b"\0"*40, b"GIF89a" + struct.pack("<HH", 300, 90) + b"\0"*40
    assert size(shown("image/png", png)) == (1906, 800) and size(shown("image/png", png, width=953, height=400)) == (953, 400)
    assert size(shown("image/gif", gif)) == (300, 90) and size({"data": {"text/plain": "x"}}) is None
    for outputs, marked in (([shown("image/png", png)], True), ([shown("image/gif", gif)], False), ([], False)):
        c = SimpleNamespace(source="draw()", get=lambda key, default, outputs=outputs: outputs); large_figures(c)
        assert c.source == ("#| classes: large\ndraw()" if marked else "draw()")


def test_descriptions_are_words():
    assert plain("**A** [link](x.ipynb), `code`\nand $x$\n\n- item\n| table |") == "A link, code and $x$ item"
    assert cut("One sentence. " + "word " * 100) == "One sentence." and cut("word " * 100).endswith(" …")
