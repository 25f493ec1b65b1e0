// Requests to the server that this page came from. The key is in a header, never in an address.

const STORED = "llama-presets-key";
let key = stored();
let askForKey = async () => false;
let asking = null;

/** What the server refused, or that it cannot be reached (status 0). */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Whether a key is kept. */
export const hasKey = () => key !== "";

/** Keep a key for this tab, or forget it. */
export function setKey(value) {
  key = value.trim();
  try {
    if (key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
  } catch {
    // kept in memory alone
  }
}

function stored() {
  try {
    return sessionStorage.getItem(STORED) || "";
  } catch {
    return "";
  }
}

/** Set what asks the reader for a key; it gets the server's reason and says whether there is one now. */
export const onKeyNeeded = (handler) => (askForKey = handler);

/** JSON of a route. */
export async function call(path, options = {}) {
  const response = await request(path, options);
  return response.json();
}

/** Response of a route; asks for a key where one is needed, and tries again.
 * @throws {ApiError} */
export async function request(path, { method = "GET", query = {}, body, signal } = {}) {
  const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== undefined));
  const address = below(search.size ? `${path}?${search}` : path);
  for (;;) {
    const used = key;
    const response = await sent(address, { method, body, signal });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401 || !(await newKey(used, problem.message))) throw problem;
  }
}

/** Address of a route: beside the page, as another application may have mounted the server below a path. */
const below = (path) => new URL(`.${path}`, document.baseURI);

async function sent(address, { method, body, signal }) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  try {
    return await fetch(address, {
      method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), redirect: "error", cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached. Check that it runs, and try again.");
  }
}

/** Whether there is another key than the refused one; requests that fail together ask once. */
async function newKey(refused, reason) {
  if (key !== refused) return true;
  asking ??= askForKey(reason).finally(() => (asking = null));
  return asking;
}

async function problemOf(response) {
  try {
    return problem(response.status, await response.json());
  } catch {
    return new ApiError(response.status, "unknown", `The server answered with status ${response.status}.`);
  }
}

function problem(status, content) {
  const { message, code } = content.error;
  return new ApiError(status, code, String(message));
}

/** Server-sent events of a route, as `{name, data}`.
 * @throws {ApiError} also for an event `error` */
export async function* events(path, options) {
  const response = await request(path, { method: "POST", ...options });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(cutOff);
      if (done) return;
      const blocks = (buffer + value).split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event?.name === "error") throw problem(event.data.status, event.data);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function cutOff(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError(0, "cut_off", "The connection to the server broke off. Ask again.");
}

function parsed(block) {
  const lines = block.split("\n");
  const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2));
  const data = field("data").join("\n");
  return data ? { name: field("event")[0] || "message", data: JSON.parse(data) } : null;
}

/** Send files; `progress` gets the sent share, 0 to 1.
 * @returns {Promise<object>} the job */
export async function upload(files, engine, progress) {
  for (;;) {
    const used = key;
    const { status, content } = await posted(files, engine, progress);
    if (status === 202) return content;
    const refused = content?.error ? problem(status, content)
      : new ApiError(status, "unknown", status ? `The server answered with status ${status}.` : "The upload broke off.");
    if (status !== 401 || !(await newKey(used, refused.message))) throw refused;
  }
}

function posted(files, engine, progress) {
  const form = new FormData();
  if (engine) form.append("engine", engine);
  for (const file of files) form.append("files", file, file.name);
  const sending = new XMLHttpRequest(); // fetch tells nothing of how much was sent
  return new Promise((resolve) => {
    sending.open("POST", below("/ingest"));
    if (key) sending.setRequestHeader("authorization", `Bearer ${key}`);
    sending.responseType = "json";
    sending.upload.addEventListener("progress", (event) => event.lengthComputable && progress(event.loaded / event.total));
    sending.addEventListener("loadend", () => resolve({ status: sending.status, content: sending.response }));
    sending.send(form);
  });
}
