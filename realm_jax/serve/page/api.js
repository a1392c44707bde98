// The API, with the token where the server wants one.

import { byId } from "./dom.js";

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
  if (!door.open) door.showModal();
}

// The answer as a value; null where the server says that nothing is new.
export async function call(path, body) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const options = body
    ? { method: "POST", headers, body: JSON.stringify(body) }
    : { headers };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer");
  }
  if (response.status === 304) return null;
  if (response.status === 401) askForToken();
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}
