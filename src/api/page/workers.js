
// -- Workers: what they are at, what was said, and something to say.
const WORKERS = { items: 200 };
const workerPath = (id, rest = "") => `v1/workers/${encodeURIComponent(id)}${rest}`;
const ABOUT = { assistant: ["purpose", "Purpose (optional)"], task: ["objective", "What is to be reached"], role: ["role", "Which role"] };
at("worker-kind").addEventListener("change", ({ currentTarget }) => { at("worker-about").placeholder = ABOUT[currentTarget.value][1]; });

function profileOf(text) {
  const [kind, ...rest] = text.trim().split(":");
  if (kind === "runtime_default" && rest.length === 0) return { kind };
  if ((kind === "builtin" || kind === "named") && rest.join(":")) return { kind, value: kind === "builtin" ? text.trim() : rest.join(":") };
  throw new Error("A profile is runtime_default, builtin:NAME or named:NAME.");
}
const intentWords = (intent) => intent.objective || intent.role || intent.purpose || "";

class WorkerView {
  constructor(id) {
    this.id = id;
    this.next = 0;
    this.output = new Output(`Transcript of ${id}`);
    const text = make("input", { type: "text", "aria-label": `Something to tell ${id}`, placeholder: "Say something", autocomplete: "off", required: true });
    this.form = make("form", { class: "row grow", onsubmit: (event) => {
      event.preventDefault();
      busy(this.form.lastChild, "", async () => {
        await ask(workerPath(this.id, "/input"), { method: "POST", json: { kind: "user", content: text.value } });
        text.value = "";
      });
    } }, text, make("button", { type: "submit", class: "small", text: "Send" }));
    const end = (how) => (event) => busy(event.currentTarget, "", () => ask(workerPath(this.id, `/${how}`), { method: "POST", json: {} }));
    this.acts = make("div", { class: "row end" }, this.form, button("Cancel", end("cancel"), { class: "small" }), button("Stop", end("stop"), { class: "small" }));
    this.box = make("div", { class: "view" }, this.output.box, this.acts);
    this.read = calmly(200, () => this.more());
    this.read();
  }
  async more() {
    for (;;) {
      const { transcript } = await askJson(workerPath(this.id, `/transcript?start=${this.next}&limit=${WORKERS.items}`));
      for (const item of transcript.items) {
        this.output.note(`${item.role}`);
        this.output.write(item.role === "assistant" ? "out" : "in", `${item.content}\n`);
      }
      this.next += transcript.items.length;
      if (transcript.items.length < WORKERS.items) return;
    }
  }
}
function workerRow(worker) {
  const detail = make("div", { hidden: true });
  const badge = make("span", { class: "badge" }), word = make("span", { class: "word" }), facts = make("span", { class: "facts" });
  const toggle = make("button", { type: "button", class: "entry wide-button", "aria-expanded": "false", onclick: () => {
    const wanted = detail.hidden;
    toggle.setAttribute("aria-expanded", String(wanted));
    detail.hidden = !wanted;
    row.view = wanted ? new WorkerView(worker.worker_id) : null;
    detail.replaceChildren(...(wanted ? [row.view.box] : []));
    row.show(row.worker);
  } }, badge, word, facts);
  const row = make("li", {}, toggle, make("p", { class: "why" }), detail);
  row.show = (now) => {
    row.worker = now;
    const active = now.status === "running";
    row.dataset.tone = !active ? "off" : { busy: "wait", idle: "good" }[now.execution.run_state] || "bad";
    badge.textContent = active ? now.execution.run_state : now.status;
    word.textContent = oneLine(`${now.worker_id}${intentWords(now.intent) ? ` · ${intentWords(now.intent)}` : ""}`);
    facts.textContent = plural(now.transcript_len, "entry", "entries");
    const last = now.execution.last_result;
    row.children[1].textContent = last?.message && last.outcome !== "accepted" ? seen(last.message) : "";
    if (!row.view) return;
    row.view.acts.hidden = !active;
    row.view.read();
  };
  return row;
}
const refreshWorkers = calmly(250, async () => {
  const { workers } = await askJson("v1/workers");
  const list = [...workers].reverse().slice(0, WORKERS.items);
  sync(at("workers-list"), list, (worker) => worker.worker_id, workerRow, (row, worker) => row.show(worker));
  at("workers-empty").hidden = list.length > 0;
  const active = workers.filter((worker) => worker.status === "running").length;
  at("workers-count").textContent = workers.length ? `${active} active` : "";
});
at("worker-form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.submitter || event.currentTarget.querySelector("[type=submit]"), "", async () => {
    const kind = at("worker-kind").value, about = at("worker-about").value.trim();
    const intent = { kind, ...((about || kind !== "assistant") && { [ABOUT[kind][0]]: about }) };
    await ask("v1/workers", { method: "POST", json: { intent, profile: profileOf(at("worker-profile").value) } });
    at("worker-about").value = "";
    refreshWorkers();
  }, at("worker-error"));
});
