// An explanation, as the API sends it, as elements.

import { ago, bar, count, h, percent, share } from "./dom.js";

// Characters of a text, not UTF-16 units: the API counts as Python does.
function marked(block) {
  if (!block.span) return [block.text];
  const text = Array.from(block.text);
  const [start, end] = block.span;
  return [
    text.slice(0, start).join(""),
    h("mark", { class: block.chosen || block.p_of_answer !== null ? "chosen" : "" },
      text.slice(start, end).join("")),
    text.slice(end).join(""),
  ];
}

function said(block, how) {
  if (how === "found") return null;
  const parts = [];
  if (how === "read") {
    parts.push(block.answer ? "reads here " : "reads nothing here");
    if (block.answer) parts.push(h("q", {}, block.answer), " ", h("b", {}, percent(block.answer_p)));
  } else {
    parts.push("with it alone ", h("q", {}, block.answer), " ");
    parts.push(h("b", {}, percent(block.answer_p)));
    parts.push(", the answer ", h("b", {}, percent(block.p_of_answer)));
  }
  return h("span", { class: "said" }, parts);
}

function evidence(block, how, onlyHere) {
  const isNull = block.block_id < 0;
  const title = isNull ? "No evidence (null block)" : block.title || "Untitled";
  return h("li", { class: block.chosen ? "block chosen" : "block" },
    h("div", { class: "head" },
      h("h3", { dir: "auto" }, title),
      h("span", { class: "p" }, h("abbr", { title: "probability of this block given the question" }, "p(z|x)"), " ", share(block.p))),
    bar(block.p),
    isNull ? null : h("p", { class: "text", dir: "auto" }, marked(block)),
    h("p", { class: "foot" },
      block.chosen ? h("span", { class: "tag" }, "the answer") : null,
      onlyHere ? h("span", { class: "tag soft" }, "only here") : null,
      said(block, how),
      isNull ? null : h("span", { class: "id" }, `block ${block.block_id}`)));
}

function words(list, number, many) {
  const rows = list.map((word) =>
    h("tr", {},
      h("th", { scope: "row" }, word.text),
      h("td", {}, bar(word.p)),
      h("td", { class: "number" }, percent(word.p)),
      h("td", { class: "number quiet" }, percent(word.p_without))));
  return h("table", { class: "words" },
    h("caption", {}, many ? `[MASK] ${number + 1}` : "In the place of [MASK]"),
    h("thead", {}, h("tr", {},
      h("th", { scope: "col" }, "word"),
      h("td", {}),
      h("th", { scope: "col", class: "number" }, "p(y|x)"),
      h("th", { scope: "col", class: "number" }, "without"))),
    h("tbody", {}, rows));
}

function source(x) {
  const index = x.index;
  const parts = [h("b", {}, x.run), ` step ${x.step}`];
  if (index.version === null) parts.push(" · index made as it was opened");
  else {
    parts.push(" · ", h("b", {}, `index ${index.version}`), ", ");
    parts.push(index.steps_behind ? `${count(index.steps_behind, "step")} behind` : "up to date");
    parts.push(`, made ${ago(index.made)}`);
  }
  parts.push(` · ${count(index.num_blocks, "block")}`);
  return h("p", { class: "source" }, parts);
}

function verdict(label, answer, p, kind) {
  return h("div", { class: `verdict ${kind}` },
    h("p", { class: "label" }, label),
    h("p", { class: "says", dir: "auto" }, answer || "—"),
    p === null ? null : h("div", { class: "sure" }, bar(p, kind), h("span", {}, percent(p))));
}

const HOWS = {
  read: "Read in the evidence",
  "filled in": "Filled in, over all evidence",
  found: "This run finds blocks, it reads nothing",
};

// others: blocks that another explanation shows, as keys; null for none.
export function explanation(x, others) {
  return h("article", { class: "answer", "aria-label": `${x.run}, index ${x.index.version ?? "none"}` },
    source(x),
    h("div", { class: "verdicts" },
      x.how === "found" ? h("p", { class: "label" }, HOWS.found) : verdict(HOWS[x.how], x.answer, x.p, "with"),
      x.without ? verdict("Without evidence", x.without.answer, x.without.p, "without") : null),
    x.note ? h("p", { class: "note" }, x.note) : null,
    x.words.map((list, i) => words(list, i, x.words.length > 1)),
    h("h2", {}, "Evidence"),
    h("ol", { class: "evidence" },
      x.evidence.map((block) => evidence(block, x.how, others !== null && !others.has(key(block))))));
}

export function key(block) {
  return `${block.title}\n${block.text}`;
}
