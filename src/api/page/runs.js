
// -- Runs of the agent and of programs, and every life of the app; each opens to what it wrote, live.
const RUNS = { step: 12, most: 300, actions: 1500 };
const runs = { built: false, limit: RUNS.step, open: new Map(), agent: false };
const KINDS = { agent: "Agent", exec: "Program", server: "App" };
const RUN_TONES = { running: "wait", completed: "good", failed: "bad", aborted: "off", interrupted: "off" };

// An action as a line of output.
function actionLine(output, { type, timestamp, payload }) {
  if ((type === "AGENT_OUTPUT" || type === "AGENT_STDERR") && typeof payload?.text === "string") {
    output.write(type === "AGENT_STDERR" ? "err" : "out", `${payload.text}\n`);
    return;
  }
  // Without what says nothing: which run it is, and what is not known.
  const isObject = payload !== null && typeof payload === "object" && !Array.isArray(payload);
  const told = isObject ? Object.fromEntries(Object.entries(payload).filter(([key, value]) => key !== "executionId" && value !== null)) : payload;
  const text = cut(JSON.stringify(told) ?? "", 4000);
  const shown = text === "{}" || text === "null" ? "" : seen(text);
  output.element(make("span", { class: "action", title: clock(timestamp) }, make("b", { text: oneLine(type) }), ` ${shown}\n`), text.length);
}
const identity = ({ type, timestamp, payload }) => `${timestamp} ${type} ${JSON.stringify(payload ?? null)}`;

// What a run did so far, and then whatever else it does.
class RunView {
  constructor(run) {
    this.run = run;
    this.output = new Output(`Output of run ${run.executionId}`);
    this.box = make("div", { class: "view" }, this.output.box, this.actions = make("div", { class: "row end" }));
    this.buttons();
    if (run.kind === "exec") this.follow(); else this.load();
  }
  follow() {
    this.stream = followExec(this.run.executionId, this.output, {
      end: (event) => this.output.note(exitText(event)),
      // Its output is not kept for ever; its actions are.
      refused: () => this.load(),
    });
  }
  async load() {
    this.early = [];
    try {
      const { actions, actionsTruncated } = await askJson(`runs/${encodeURIComponent(this.run.executionId)}`);
      if (actions.length > RUNS.actions) this.output.note(`${plural(actions.length - RUNS.actions, "earlier action")} left out`);
      for (const action of actions.slice(-RUNS.actions)) actionLine(this.output, action);
      if (actionsTruncated) this.output.note("There are more than the server sends");
      // What came meanwhile over the stream may be among them, or not.
      const known = new Map();
      for (const action of actions) known.set(identity(action), (known.get(identity(action)) || 0) + 1);
      const early = this.early;
      this.early = null;
      for (const action of early) {
        const left = known.get(identity(action)) || 0;
        if (left > 0) known.set(identity(action), left - 1); else this.act(action);
      }
    } catch (error) {
      this.early = null;
      this.output.note(inWords(error));
    }
  }
  act(action) {
    if (this.run.kind === "exec") return;
    if (this.early) this.early.push(action); else actionLine(this.output, action);
  }
  // Buttons for what goes on.
  buttons() {
    const { executionId: id, status: state, kind } = this.run;
    this.actions.replaceChildren();
    if (state !== "running" || kind === "server") return;
    const path = kind === "exec" ? `exec/${encodeURIComponent(id)}` : `runs/${encodeURIComponent(id)}/cancel`;
    const stop = button(kind === "exec" ? "Stop" : "Abort", (event) => busy(event.currentTarget, "Ending…", () => ask(path, { method: kind === "exec" ? "DELETE" : "POST" })), { class: "small" });
    if (kind !== "agent") { this.actions.append(stop); return; }
    const words = make("input", { type: "text", "aria-label": "Something to tell the agent", placeholder: "Tell it something (optional)", autocomplete: "off" });
    const form = make("form", { class: "row grow", onsubmit: (event) => {
      event.preventDefault();
      busy(form.lastChild, "", async () => {
        await ask(`runs/${encodeURIComponent(id)}/continue`, { method: "POST", json: words.value });
        this.output.note(`You: ${words.value || "go on"}`);
        words.value = "";
      });
    } }, words, make("button", { type: "submit", class: "small", text: "Continue" }));
    this.actions.append(form, stop);
  }
  update(run) {
    const changed = run.status !== this.run.status;
    this.run = run;
    if (changed) this.buttons();
  }
  close() { this.stream?.stop(); }
}

function runRow(run) {
  const detail = make("div", { hidden: true });
  const word = make("span", { class: "word" }), facts = make("span", { class: "facts" }), badge = make("span", { class: "badge" });
  const why = make("p", { class: "why" });
  const toggle = make("button", { type: "button", class: "entry wide-button", "aria-expanded": "false", onclick: () => row.open(detail.hidden) }, badge, word, facts);
  const row = make("li", {}, toggle, why, detail);
  row.open = (wanted) => {
    toggle.setAttribute("aria-expanded", String(wanted));
    detail.hidden = !wanted;
    row.view?.close();
    runs.open.delete(run.executionId);
    // One that is followed holds a connection, of which there are few.
    if (wanted && run.kind === "exec") for (const other of at("runs-list").children) if (other.view?.stream) other.open(false);
    row.view = wanted ? new RunView(row.run) : null;
    if (wanted) runs.open.set(run.executionId, row.view);
    detail.replaceChildren(...(wanted ? [row.view.box] : []));
  };
  row.show = (now) => {
    row.run = now;
    row.dataset.tone = RUN_TONES[now.status] || "off";
    badge.textContent = now.status;
    word.textContent = `${KINDS[now.kind] || now.kind}${now.program ? ` · ${oneLine(now.program)}` : ""}`;
    const began = moment(now.startTime);
    const text = () => `${began} · ${now.endTime === undefined ? lasting(Date.now() - now.startTime) : span(now.endTime - now.startTime)}`;
    ticking.delete(facts);
    if (now.endTime === undefined) tick(facts, text); else facts.textContent = text();
    why.textContent = now.error ? seen(now.error) : "";
    toggle.title = `${now.executionId}${now.actionCount ? `\n${plural(now.actionCount, "action")}` : ""}${now.digest ? `\ndigest ${now.digest}` : ""}`;
    row.view?.update(now);
  };
  return row;
}
// In a build without runs those of exec are all there is.
async function listRuns() {
  const kind = at("runs-kind").value;
  const programs = at("exec").hidden ? [] : (await askJson("exec")).runs;
  if (runs.built) {
    const list = (await askJson(`runs?limit=${runs.limit}${kind && `&kind=${kind}`}`)).runs;
    for (const run of list) run.program = programs.find((program) => program.run_id === run.executionId)?.program;
    return list;
  }
  const states = (run) => run.state === "running" ? "running" : run.exit_code === 0 ? "completed" : "failed";
  return programs.slice(0, runs.limit).map((run) => {
    const startTime = Date.parse(run.started_at);
    return { executionId: run.run_id, kind: "exec", status: states(run), startTime, endTime: run.state === "running" ? undefined : startTime + run.duration_ms, error: run.error, program: run.program };
  });
}
const refreshRuns = calmly(300, async () => {
  try {
    const list = await listRuns();
    for (const row of at("runs-list").children) if (!list.some((run) => run.executionId === row.dataset.key)) row.open(false);
    sync(at("runs-list"), list, (run) => run.executionId, runRow, (row, run) => row.show(run));
    at("runs-empty").hidden = list.length > 0;
    at("runs-more").hidden = list.length < runs.limit || runs.limit >= RUNS.most;
    at("runs-error").textContent = "";
  } catch (error) { at("runs-error").textContent = inWords(error); }
});
at("runs-kind").addEventListener("change", () => refreshRuns());
at("runs-more").addEventListener("click", () => { runs.limit = Math.min(RUNS.most, runs.limit * 3); refreshRuns(); });

at("agent-form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(at("agent-run"), "Starting…", async () => {
    const { executionId } = await askJson("invoke", { method: "POST", json: { input: at("agent-input").value.trim() } });
    at("agent-input").value = "";
    at("runs-kind").value = "";
    const list = await listRuns();
    sync(at("runs-list"), list, (run) => run.executionId, runRow, (row, run) => row.show(run));
    at("runs-empty").hidden = list.length > 0;
    [...at("runs-list").children].find((row) => row.dataset.key === executionId)?.open(true);
  }, at("agent-error"));
});
at("agent-input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); at("agent-form").requestSubmit(); }
});
