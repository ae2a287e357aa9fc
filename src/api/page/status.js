
// -- The wrapped server: how it is, and the buttons.
const STATES = {
  ready: ["Ready", "good"], starting: ["Starting", "wait"], draining: ["Finishing requests", "wait"], stopping: ["Stopping", "wait"],
  backoff: ["Waiting to start again", "wait"], stopped: ["Stopped", "off"], failed: ["Failed", "bad"], port_busy: ["Port in use", "bad"],
};
let status = null, statusAt = 0;
const exitWords = (exit) => exit.signal !== null ? `signal ${exit.signal}` : `code ${exit.code}`;

function say(word, tone) {
  at("state").dataset.tone = tone;
  at("rail-state").dataset.tone = tone;
  at("rail-word").textContent = word;
  if (at("state-word").textContent !== word) at("state-word").textContent = word;
  document.title = status?.command ? `${word} · ${cut(oneLine(status.command), 60)}` : word;
}
function showStatus(now) {
  [status, statusAt] = [now, Date.now()];
  const [word, tone] = STATES[now.status] || [now.status, "wait"];
  say(word, tone);
  at("command").textContent = now.command ? oneLine(now.command) : "No command: nothing is started.";
  at("command").title = oneLine(now.command);
  const facts = [];
  if (now.uptime_ms !== null) facts.push(["Up", () => lasting(now.uptime_ms + Date.now() - statusAt)]);
  if (now.pid !== null) facts.push(["Process", () => String(now.pid)]);
  facts.push(["Restarts", () => now.restarts.toLocaleString("en")], ["Port", () => String(now.port)]);
  if (now.exit) facts.push(["Last exit", () => exitWords(now.exit)]);
  sync(at("facts"), facts, ([name]) => name, ([name]) => make("div", {}, make("dt", { text: name }), make("dd")), (row, [, text]) => tick(row.lastChild, text));
  showNotice(now);
  const is = (...states) => states.includes(now.status);
  at("start").hidden = !is("stopped", "failed");
  at("stop").hidden = is("stopped", "failed");
  at("restart").hidden = is("stopped", "failed");
  if (!at("interrupt").hasAttribute("aria-busy")) at("interrupt").disabled = now.pid === null;
  at("controls").hidden = !now.command;
  at("foot").textContent = `simple-artifact-server ${now.version}`;
}
// Why it is not there, in words. What is said already is not said again: screen readers would repeat it.
const notice = { said: "", until: 0 };
function showNotice(now) {
  const texts = {
    failed: "It ended too often and is not started again until you do.", stopped: "It was stopped. Requests are answered 503 until it is started.",
    port_busy: `Somebody else listens on port ${now.port}.`, backoff: "It ended, and is started again after a pause.",
  };
  const text = texts[now.status];
  notice.until = now.next_retry_ms === null ? 0 : Date.now() + now.next_retry_ms;
  const said = JSON.stringify([now.status, now.message, now.port, notice.until > 0]);
  if (notice.said === said) return;
  notice.said = said;
  at("notice").hidden = !text;
  at("notice").dataset.tone = (STATES[now.status] || [])[1];
  if (!text) { at("notice").replaceChildren(); return; }
  const next = notice.until ? tick(make("span", { "aria-live": "off" }), () => ` Next start in ${lasting(notice.until - Date.now() + 999)}.`) : null;
  // How it ended stands in the head already.
  const isNews = now.message && !(now.exit && /^(exited with|killed by)/.test(now.message));
  const message = isNews ? make("code", { text: seen(now.message) }) : null;
  at("notice").replaceChildren(make("p", {}, text, ...(next ? [next] : [])), ...(message ? [message] : []));
}

const refreshStatus = calmly(250, async () => {
  try {
    const response = await send("status");
    const now = await response.json();
    if (!now.status) throw new Refused(response.status, now.error?.code, now.error?.message || "");
    connection("status", "live");
    showStatus(now);
  } catch (error) {
    if (error instanceof Refused && error.status === 403) deny(error);
    else if (!(error instanceof Refused) || error.status !== 401) { connection("status", "waiting"); say("Unreachable", "bad"); }
    throw error instanceof Refused ? error : new Refused(0, "unreachable", UNREACHABLE);
  }
});

async function act(route, text, done) {
  await busy(at(route), text, async () => {
    const began = Date.now();
    const response = await send(`${route}${route === "restart" || route === "start" ? "?wait=ready" : ""}`, { method: "POST" });
    const answer = await response.clone().json().catch(() => null);
    if (!answer?.status) throw await refusal(response);
    showStatus(answer);
    if (response.ok) tell(done(answer, Date.now() - began));
    else tell(`${STATES[answer.status]?.[0] || answer.status}${answer.message ? `: ${answer.message}` : ""}`, "bad");
  });
  // The button may be another one now.
  if (document.activeElement === document.body) at("controls").querySelector("button:not([hidden], :disabled)")?.focus();
  refreshStatus();
}
at("restart").addEventListener("click", () => act("restart", "Restarting…", (_, ms) => `Restarted, and ready after ${span(ms)}.`));
at("start").addEventListener("click", () => act("start", "Starting…", (_, ms) => `Started, and ready after ${span(ms)}.`));
at("stop").addEventListener("click", () => act("stop", "Stopping…", () => "Stopped."));
at("interrupt").addEventListener("click", () => act("interrupt", "Interrupting…", () => "Interrupted."));

// How this page hears of things: live when every way by which it does is.
const ways = {};
function connection(way, state, until = 0) {
  ways[way] = { state, until };
  const broken = Object.values(ways).filter((one) => one.state !== "live");
  at("link").dataset.tone = broken.length ? "wait" : "good";
  const next = Math.max(...broken.map((one) => one.until));
  tick(at("link-word"), () => broken.length === 0 ? "Live" : next > Date.now() + 900 ? `Connecting again in ${lasting(next - Date.now())}` : "Connecting again");
}
addEventListener("online", () => refreshStatus());
