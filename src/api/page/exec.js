
// -- Programs, with their output as it comes.
const exec = { run: null };

// Splits a line into words as a shell would, quotes and backslashes included; nothing is expanded.
function words(line) {
  const found = [];
  let word = null, quote = "";
  for (let i = 0; i < line.length; i += 1) {
    const c = line[i];
    if (quote === "'") { if (c === "'") quote = ""; else word += c; }
    else if (c === "\\" && (quote === "" || '"\\'.includes(line[i + 1] || ""))) { i += 1; word = (word ?? "") + (line[i] ?? ""); }
    else if (quote === '"') { if (c === '"') quote = ""; else word += c; }
    else if (c === "'" || c === '"') { quote = c; word ??= ""; }
    else if (/\s/.test(c)) { if (word !== null) found.push(word); word = null; }
    else word = (word ?? "") + c;
  }
  if (quote) throw new Error(`A ${quote} is not closed.`);
  if (word !== null) found.push(word);
  return found;
}

// Follows a run of exec into an Output; `on.end` hears the last event.
function followExec(id, output, on) {
  return listen(`exec/${encodeURIComponent(id)}`, {
    event({ name, data }) {
      const event = JSON.parse(data);
      if (name === "gap") output.note(`${size(event.to - event.from)} of ${event.stream} are not kept any more`);
      else if (event.type === "stdout") output.write("out", event.data);
      else if (event.type === "stderr") output.write("err", event.data);
      else if (event.type === "error") output.note(event.message);
      else if (event.type === "started") on.started?.(event);
      else if (event.type === "exit_code") { on.end?.(event); return false; }
      return true;
    },
    refused: (error) => on.refused?.(error),
  });
}
function exitText({ code, signal, duration_ms: ms, truncated, timed_out: timedOut }) {
  const how = timedOut ? "Its time was over" : truncated ? "It wrote too much and was ended" : signal ? `Ended by signal ${signal}` : `Exit code ${code}`;
  return `${how} after ${span(ms)}`;
}

function showWords() {
  const line = at("exec-line").value;
  at("exec-error").textContent = "";
  try {
    const found = words(line);
    // Only where it is not what it looks like.
    const shown = found.join(" ") === line.trim() ? [] : found.slice(0, 100);
    at("exec-words").replaceChildren(...shown.map((word) => make("span", { text: cut(oneLine(word), 200) || "\u00a0" })));
  } catch { /* It is still being typed. */ }
}
at("exec-line").addEventListener("input", showWords);

at("exec-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (exec.run) return;
  busy(at("exec-run"), "", async () => {
    const args = words(at("exec-line").value);
    if (args.length === 0) throw new Error("Say what to run.");
    const seconds = Number(at("exec-timeout").value);
    if (!Number.isInteger(seconds) || seconds < 1) throw new Error("The time is a whole number of seconds.");
    // Detached, so that it outlives a connection that breaks: the Stop button ends it.
    const json = { args, timeout_secs: seconds, detach: true };
    if (at("exec-cwd").value.trim()) json.cwd = at("exec-cwd").value.trim();
    if (at("exec-stdin").value) json.stdin = at("exec-stdin").value;
    const response = await ask("exec", { method: "POST", json });
    await beginExec(response, args);
  }, at("exec-error"));
});
// The first event says which run it is; from there on it is followed like any other.
async function beginExec(response, args) {
  const output = new Output(`Output of ${cut(args.join(" "), 80)}`);
  at("exec-output").replaceChildren(output.box);
  const began = Date.now();
  const over = (text, tone) => {
    exec.run = null;
    ticking.delete(at("exec-state"));
    at("exec-state").setAttribute("aria-live", "polite");
    Object.assign(at("exec-state"), { textContent: text });
    at("exec-state").dataset.tone = tone;
    at("exec-run").hidden = false;
    at("exec-stop").hidden = true;
  };
  for await (const { data } of eventsOf(response.body, () => {})) {
    const event = JSON.parse(data);
    if (event.type === "error") output.note(event.message);
    else if (event.type === "exit_code") { over(exitText(event), "bad"); return; }
    else if (event.type === "started") { exec.run = event.run_id; break; }
  }
  if (!exec.run) { over("It did not begin", "bad"); return; }
  at("exec-run").hidden = true;
  at("exec-stop").hidden = false;
  at("exec-state").dataset.tone = "wait";
  // A clock is nothing to be read out; how it ends is.
  at("exec-state").setAttribute("aria-live", "off");
  tick(at("exec-state"), () => `Running for ${lasting(Date.now() - began)}`);
  followExec(exec.run, output, {
    end: (event) => over(exitText(event), event.code === 0 ? "good" : "bad"),
    refused: (error) => over(inWords(error), "bad"),
  });
}
at("exec-stop").addEventListener("click", (event) => busy(event.currentTarget, "Stopping…", async () => {
  if (exec.run) await ask(`exec/${encodeURIComponent(exec.run)}`, { method: "DELETE" });
}, at("exec-error")));
