
// -- The beginning: who may, what there is, and how news reach the sections.
let begun = false;
function show(id) {
  for (const one of ["gate", "denied", "work"]) at(one).hidden = one !== id;
  at("controls").hidden = id !== "work" || !status?.command;
  at("rail").hidden = at("link").hidden = id !== "work";
}
// The token is missing or wrong: everything waits until there is another.
function lock(refused) {
  const hadOne = token !== "";
  token = "";
  at("forget").hidden = true;
  if (refused.code === "identity_required") { deny(refused); return; }
  if (at("gate").hidden) { say("Locked", "off"); show("gate"); at("token").focus(); }
  at("gate-error").textContent = hadOne ? "That is not the server's token." : "";
}
function deny(refused) {
  say("Not allowed", "off");
  at("denied-why").textContent = refused.code === "read_only" ? "Whoever sent you here says that you may only look at the app: control is for others."
    : refused.code === "identity_required" ? "This server is told by the proxy before it who you are, and was not told." : inWords(refused);
  show("denied");
}
at("denied-again").addEventListener("click", () => begin());
at("gate").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  begin();
});
at("forget").addEventListener("click", () => { location.reload(); });

// What a section needs, asked of the routes; and a line on how to turn it on where it is off.
const HINTS = {
  exec: ["Run a program", "Start with --exec PROGRAM or --exec any."],
  "exec-admin": ["Run a program", "For admins: set a token and start with --exec PROGRAM or --exec any."],
  agent: ["Agent and approvals", "Start with --agent COMMAND, and --require-approval for its tools."],
  runs: ["Runs and events", "This build has no runs (cargo feature runs)."],
  workers: ["Workers", "This build has no workers (cargo feature workers)."],
  "workers-admin": ["Workers", "For admins: set a token and start with --worker SELECTOR=COMMAND."],
  artifacts: ["Artifacts", "This build has no artifacts (cargo feature artifacts)."],
};
async function whether(path, options) {
  const response = await send(path, options);
  if (response.status === 429 || response.status >= 500) throw await refusal(response);
  return { status: response.status, json: response.ok && response.status !== 204 ? await response.json().catch(() => null) : null };
}
async function look() {
  const off = [];
  const [exec, list, workers, artifacts] = await Promise.all([
    whether("exec"), whether("runs?limit=1"), whether("v1/workers"), whether("api/artifacts", { method: "OPTIONS" }),
  ]);
  const has = { exec: exec.status === 200, runs: list.status === 200, workers: workers.status === 200, artifacts: artifacts.status === 204 };
  if (!has.exec) off.push(exec.status === 403 ? "exec-admin" : "exec");
  if (!has.workers) off.push(workers.status === 403 ? "workers-admin" : "workers");
  if (!has.artifacts) off.push("artifacts");
  const manifest = has.runs ? await whether(".well-known/manifest.json") : { json: null };
  const agent = manifest.json?.capabilities?.features?.includes("approvals") || false;
  off.push(...(has.runs ? (agent ? [] : ["agent"]) : ["runs"]));
  runs.built = has.runs;
  runs.agent = agent;
  at("exec").hidden = !has.exec;
  at("runs").hidden = !has.runs && !has.exec;
  at("runs-kind").hidden = !has.runs;
  at("agent-form").hidden = !agent;
  at("workers").hidden = !has.workers;
  at("artifacts").hidden = !has.artifacts;
  at("off").hidden = off.length === 0;
  at("off-list").replaceChildren(...off.map((name) => make("div", {}, make("dt", { text: HINTS[name][0] }), make("dd", { text: HINTS[name][1] }))));
  nameSections();
  return has;
}
function nameSections() {
  const sections = [...document.querySelectorAll("section[aria-labelledby]")].filter((section) => !section.hidden && section.id !== "off");
  sync(at("sections"), sections, (section) => section.id, (section) => make("a", { href: `#${section.id}`, text: section.querySelector("h2").textContent }));
}

// Every action there is comes through here.
const OF = [
  [/^SERVER_/, () => { refreshStatus(); refreshRuns(); }],
  [/^(RUNTIME_|EXEC_)/, () => refreshRuns()],
  [/^HITL_/, () => refreshApprovals()],
  [/^WORKER_/, () => { if (!at("workers").hidden) refreshWorkers(); }],
  [/^FILE_/, () => refreshFiles()],
  [/^ARTIFACT_/, (action) => showArtifactCounts(action.payload?.counts)],
];
function happened({ action, executionId }) {
  for (const [kind, react] of OF) if (kind.test(action.type)) react(action);
  if (executionId !== undefined) runs.open.get(executionId)?.act(action);
}
// Everything anew: at the beginning, and when something was missed.
let has = {};
function refreshAll() {
  refreshStatus();
  refreshFiles();
  if (!at("runs").hidden) refreshRuns();
  if (has.runs) refreshApprovals();
  if (has.workers) refreshWorkers();
  if (has.runs && has.artifacts) askJson("state/artifacts").then(showArtifactCounts, () => {});
}

// On a phone the head scrolls away but for its last row; how high that is depends on what stands in it.
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--away", `${at("rail").offsetHeight - at("top").offsetHeight}px`);
}).observe(at("top"));
new IntersectionObserver(([state]) => { at("rail-state").hidden = state.isIntersecting; }).observe(at("state"));

const POLL_MS = 5000;
async function begin() {
  try {
    const response = await send("status");
    if (response.status === 403) { deny(await refusal(response)); return; }
    const now = await response.json();
    at("gate-error").textContent = "";
    show("work");
    at("forget").hidden = token === "";
    showStatus(now);
    has = await look();
    refreshAll();
    unlock();
    if (begun) return;
    begun = true;
    followLogs();
    if (has.runs) followActions();
    setInterval(() => {
      if (document.hidden || at("work").hidden) return;
      refreshStatus();
      if (!has.runs && has.exec) refreshRuns();
      if (!has.runs && has.workers) refreshWorkers();
    }, POLL_MS);
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !at("work").hidden) refreshAll(); });
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return;
    connection("status", "waiting");
    say("Unreachable", "bad");
    setTimeout(begin, 2000);
    if (!(error instanceof Refused)) throw error;
  }
}
function followActions() {
  let before = false;
  listen("stream/actions", {
    event({ name, data }) {
      if (name === "action") happened(JSON.parse(data));
      // A gap: nobody knows what was in it.
      else if (name === "state.initial") refreshAll();
    },
    state(state, until) {
      connection("actions", state, until);
      // It may be another server by now, with other things turned on.
      if (state === "live" && before) look().then((now) => { has = now; refreshAll(); }, () => {});
      before = true;
    },
  });
}
begin();
