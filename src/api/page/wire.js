
// -- Requests. Paths are relative, so the page works below any prefix. The token is in this variable only.
let token = "";
class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}
const UNREACHABLE = "The server cannot be reached.";
function inWords(error) {
  if (!(error instanceof Refused)) return String(error?.message || error);
  const text = error.message.replace(/^./, (c) => c.toUpperCase());
  return seen(/[.!?…]$/.test(text) ? text : `${text}.`);
}

const headersOf = (more) => token ? { ...more, authorization: `Bearer ${token}` } : { ...more };
// The response, whatever its status but 401: then the token is asked for.
async function send(path, { method = "GET", json, body, headers, signal } = {}) {
  const all = headersOf(headers);
  if (json !== undefined) { all["content-type"] = "application/json"; body = JSON.stringify(json); }
  const used = token;
  let response;
  try {
    response = await fetch(path, { method, headers: all, body, signal, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "unreachable", UNREACHABLE);
  }
  if (response.status === 401) {
    const refused = await refusal(response);
    if (used === token) lock(refused);
    throw refused;
  }
  return response;
}
// The response of what worked.
async function ask(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw await refusal(response);
  return response;
}
const askJson = async (path, options) => (await ask(path, options)).json();
// The routes have errors in three shapes: {error: {code, message}}, {error: "text"}, {code, message}.
async function refusal(response) {
  const text = await response.text().catch(() => "");
  let json = null;
  try { json = JSON.parse(text); } catch { /* Then it is a text like any other. */ }
  const error = json?.error ?? json;
  const message = typeof error === "string" ? error : error?.message;
  return new Refused(response.status, error?.code || "", message || cut(text.trim(), 200) || `The server answered ${response.status}`);
}
const encodePath = (path) => path.split("/").map(encodeURIComponent).join("/");

// -- Streams of server-sent events, read with fetch: an EventSource cannot send the token.
async function* eventsOf(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let event = { name: "message", data: [], id: undefined };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      text += value;
      const lines = text.split("\n");
      text = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (event.data.length > 0) yield { ...event, data: event.data.join("\n") };
          event = { name: "message", data: [], id: undefined };
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "event") event.name = content;
        else if (field === "data") event.data.push(content);
        else if (field === "id") event.id = content;
      }
    }
  } finally {
    // Who has enough gives the connection back.
    reader.cancel().catch(() => {});
  }
}

let streams = 0;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const BACKOFF_MS = { first: 400, most: 15_000 };
// Longer than any of our streams is silent.
const SILENCE_MS = 95_000;
// A browser opens six connections to a server, for all pages together: a page nobody sees gives its own
// back after this, and goes on where it was once it is seen.
const UNSEEN_MS = 20_000;
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => document.addEventListener("visibilitychange", function look() {
    if (document.hidden) return;
    document.removeEventListener("visibilitychange", look);
    done();
  }));
}

// Who was refused for want of the token goes on once there is one.
const locked = [];
const unlocked = () => new Promise((done) => locked.push(done));
function unlock() { for (const done of locked.splice(0)) done(); }

// Follows a stream until it is stopped, refused, or `on.event` says that it is over; comes back where it stood.
// `on.state` hears "live", or "waiting" with the time of the next try.
function listen(path, on) {
  let last = "", tries = 0, controller = null, stopped = false, wake = () => {};
  const stop = () => { stopped = true; controller?.abort(); wake(); };
  const once = async () => {
    controller = new AbortController();
    const { signal } = controller;
    let heardAt = Date.now(), seenAt = Date.now();
    const watch = setInterval(() => {
      if (!document.hidden) seenAt = Date.now();
      if (Date.now() - seenAt > UNSEEN_MS || Date.now() - heardAt > SILENCE_MS) controller.abort();
    }, 1000);
    streams += 1;
    try {
      const headers = { accept: "text/event-stream", ...(last && { "last-event-id": last }) };
      const response = await ask(path, { headers, signal });
      on.state?.("live");
      for await (const event of eventsOf(response.body, () => { heardAt = Date.now(); tries = 0; })) {
        if (event.id !== undefined) last = event.id;
        if (on.event(event) === false) { stop(); return; }
      }
    } finally {
      streams -= 1;
      clearInterval(watch);
    }
  };
  (async () => {
    while (!stopped) {
      await visible();
      try { await once(); } catch (error) {
        if (!stopped && error instanceof Refused && error.status === 401) { await unlocked(); continue; }
        if (!stopped && error instanceof Refused && error.status >= 400 && error.status < 500 && error.status !== 429) {
          on.refused?.(error);
          return;
        }
      }
      if (stopped) return;
      const ms = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** tries) * (0.75 + Math.random() / 2);
      tries += 1;
      on.state?.("waiting", Date.now() + ms);
      await Promise.race([pause(ms), new Promise((done) => { wake = done; })]);
    }
  })();
  return { stop, now: () => wake() };
}
