// Elements, numbers and times. Text only ever becomes text: nothing here, nor
// anywhere else on the page, reads a string as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

// A bar of a share; the number stands beside it, so it is silent.
export function bar(share, kind = "") {
  const inner = h("span");
  inner.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return h("span", { class: `bar ${kind}`, "aria-hidden": "true" }, inner);
}

export function percent(p) {
  if (p === null) return "";
  const value = 100 * p;
  if (value > 0 && value < 0.1) return "< 0.1\u2009%";
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)}\u2009%`;
}

export function share(p) {
  return p.toFixed(3);
}

export function figure(value) {
  if (value === 0 || value === null) return String(value ?? "–");
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

export function ago(seconds) {
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const age = Math.max(Date.now() / 1000 - seconds, 0);
  const [size, name] = units.find(([size]) => age >= size) ?? [1, "second"];
  const count = Math.floor(age / size);
  return `${count} ${name}${count === 1 ? "" : "s"} ago`;
}

export function count(number, name) {
  return `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;
}
