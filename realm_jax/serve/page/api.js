// The API, with the token where the server wants one.

import { byId, h } from "./dom.js";

const KEY = "realm-token";

export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname + location.search);
}

function askForToken() {
  const door = byId("door");
  byId("door-form").onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, byId("token").value);
    location.reload();
  };
  if (door.open) return;
  byId("token-place").replaceChildren(h("input", { id: "token", type: "password", autocomplete: "off" }));
  door.showModal();
}

const TRIES = 20;

// As `call`; where the server is busy, again until it isn't, or nobody waits.
export async function insist(path, body, tell, signal) {
  for (let tries = 1; ; tries++) {
    try {
      return await call(path, body, signal);
    } catch (error) {
      if (!error.again || tries === TRIES || signal.aborted) throw error;
      tell(error.message);
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.again));
    }
  }
}

// The answer as a value; null where the server says that nothing is new.
export async function call(path, body, signal) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const options = body
    ? { method: "POST", headers, signal, body: JSON.stringify(body) }
    : { headers, signal };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer");
  }
  if (response.status === 304) return null;
  if (response.status === 401) askForToken();
  const value = await response.json().catch(() => null);
  if (!response.ok || value === null) {
    const error = new Error(value?.error ?? `what came back is no answer (status ${response.status})`);
    error.again = Number(response.headers.get("retry-after"));
    throw error;
  }
  return value;
}
