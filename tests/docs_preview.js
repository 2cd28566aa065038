"use strict";
document.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });

/* dark or light: as the system says, until a reader chooses */
const root = document.documentElement;
function pictures() { for (const s of document.querySelectorAll("picture source[media]")) s.media = root.dataset.theme === "dark" ? "all" : "not all"; }
document.getElementById("theme").onclick = () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.theme = root.dataset.theme; } catch (e) { /* not kept */ }
  pictures();
};
pictures();

/* search: the index is a script, so that it is found without a server, too; it is loaded when it is first needed */
const box = document.getElementById("search"), found = document.getElementById("found");
let loading = null;
const index = () => loading ??= new Promise(done => {
  const script = document.createElement("script");
  script.src = "search.js"; script.onload = () => done(window.INDEX); document.head.append(script);
});
const score = ([, title, heading, text], words) => words.reduce((sum, w) => {
  const at = s => s.toLowerCase().includes(w), is = s => s.toLowerCase() === w;
  const points = (is(heading) || is(title) ? 40 : 0) + (at(heading) ? 12 : 0) + (at(title) ? 6 : 0) + (at(text) ? 1 : 0);
  return points && sum >= 0 ? sum + points : -1;
}, 0);
async function search() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) { found.hidden = true; return; }
  const hits = (await index()).map(e => [score(e, words), e]).filter(([s]) => s > 0).sort((a, b) => b[0] - a[0]).slice(0, 12);
  found.replaceChildren(...hits.map(([, [url, title, heading, text]]) => {
    const item = document.createElement("li"), link = document.createElement("a"), where = document.createElement("small"), line = document.createElement("span");
    const at = Math.max(0, text.toLowerCase().indexOf(words[0]) - 40);
    link.href = url; link.append(heading || title); where.append(heading ? title : ""); line.append((at ? "… " : "") + text.slice(at, at + 120));
    link.append(where, line); item.append(link);
    return item;
  }));
  if (!hits.length) { const item = document.createElement("li"); item.append("nothing found"); found.append(item); }
  found.hidden = false;
}
box.addEventListener("input", search);
box.addEventListener("focus", search);
document.addEventListener("click", e => { if (!e.target.closest(".search")) found.hidden = true; });
document.addEventListener("keydown", e => {
  const links = [...found.querySelectorAll("a")], i = links.indexOf(document.activeElement);
  if (e.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) { e.preventDefault(); box.focus(); }
  else if (e.key === "Escape") { found.hidden = true; box.blur(); }
  else if (!found.hidden && e.target.closest(".search") && (e.key === "ArrowDown" || e.key === "ArrowUp")) {
    e.preventDefault();
    (links[i + (e.key === "ArrowDown" ? 1 : -1)] || box).focus();
  } else if (e.key === "Enter" && document.activeElement === box && links.length) links[0].click();
});
