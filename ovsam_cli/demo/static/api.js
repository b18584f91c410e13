// What the page asks the program; every failure becomes an Error with one sentence.

export class GoneError extends Error {}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("ovsam demo does not answer; is it still running in the terminal?");
  }
  if (response.ok) return response;
  let text = `request failed (${response.status})`;
  try {
    const body = await response.text();
    text = body.startsWith("{") ? JSON.parse(body).error : body || text;
  } catch { /* the status says it */ }
  throw response.status === 410 ? new GoneError(text) : new Error(text);
}

function post(path, body, signal) {
  return ask(path, {
    method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  });
}

export const readState = async () => (await ask("api/state")).json();

export const readExample = async (name) => (await ask(`examples/${encodeURIComponent(name)}`)).blob();

export async function openImage(blob, name) {
  const headers = { "X-File-Name": encodeURIComponent(name), "Content-Type": "application/octet-stream" };
  return (await ask("api/images", { method: "POST", body: blob, headers })).json();
}

export const readPicture = async (id) => (await ask(`api/images/${id}/picture`)).blob();

export const label = async (id, query) => (await post(`api/images/${id}/label`, query)).json();

export const chooseNames = async (query) => (await post("api/names", query)).json();

export const readCoco = async (query) => (await post("api/coco", query)).blob();
