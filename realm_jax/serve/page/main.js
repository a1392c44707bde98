// Which view is shown, and what they share.

import { call, takeToken } from "./api.js";
import * as ask from "./ask.js";
import { byId } from "./dom.js";
import * as runs from "./runs.js";

function view() {
  return new URLSearchParams(location.search).get("view") === "runs" ? "runs" : "ask";
}

function show() {
  const now = view();
  for (const name of ["ask", "runs"]) byId(name).hidden = name !== now;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === now) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  runs.watch(now === "runs");
  if (now === "ask") ask.open();
  else document.title = "Runs – REALM";
}

async function start() {
  takeToken();
  ask.start();
  for (const link of document.querySelectorAll("[data-view]")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      history.pushState(null, "", link.getAttribute("href"));
      show();
    });
  }
  addEventListener("popstate", show);
  addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing || view() !== "ask" || byId("door").open) return;
    event.preventDefault();
    byId("question").focus();
  });
  let trouble = "";
  try {
    const known = await call("/api/runs");
    byId("folder").textContent = known.folder;
    ask.setRuns(known);
  } catch (error) {
    trouble = `The runs can't be read: ${error.message}.`;
  }
  show();
  if (trouble && view() === "ask") {
    byId("status").textContent = trouble;
    byId("status").className = "status trouble";
  }
  if (view() === "ask" && !byId("question").value) byId("question").focus();
}

start();
