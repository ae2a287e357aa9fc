
// -- The wrapped server's output.
const LOGS = { lines: 2000, waiting: 5000 };
const logs = { fresh: [], held: [], missed: 0, paused: false, stream: null, filter: "", kind: "" };
const logBox = at("logs-lines");
const logSticky = new Sticky(logBox, (atEnd) => { at("logs-newest").hidden = atEnd; });

const matches = (row) => (!logs.kind || row.dataset.stream === logs.kind) && (!logs.filter || row.words.includes(logs.filter));
function logRow({ id, at: time, stream, text }) {
  const content = make("span", { class: "t" }, ...painted(text, {}));
  const row = make("div", { class: "line", "data-stream": stream }, make("time", { text: clock(Date.parse(time)), datetime: time }), content);
  row.words = content.textContent.toLowerCase();
  row.dataset.id = id;
  row.hidden = !matches(row);
  return row;
}
const gapRow = (text) => Object.assign(make("div", { class: "line gap", text }), { words: "" });
function drawLogs() {
  logs.drawing = false;
  if (logs.paused) {
    logs.held.push(...logs.fresh);
    logs.fresh = [];
    if (logs.held.length > LOGS.waiting) logs.missed += logs.held.splice(0, logs.held.length - LOGS.waiting).length;
    countLogs();
    return;
  }
  const fresh = logs.fresh.slice(-LOGS.lines);
  logs.fresh = [];
  logBox.append(...fresh.map((line) => line.gap ? gapRow(line.gap) : logRow(line)));
  while (logBox.childElementCount > LOGS.lines) logBox.firstElementChild.remove();
  logSticky.settle();
  countLogs();
}
// In rounds, so that an app that writes without end does not stop the page.
function addLog(line) {
  logs.fresh.push(line);
  if (logs.fresh.length > LOGS.waiting) logs.fresh.splice(0, logs.fresh.length - LOGS.waiting);
  if (!logs.drawing) { logs.drawing = true; setTimeout(drawLogs, 60); }
}
function countLogs() {
  const rows = [...logBox.children], shown = rows.filter((row) => !row.hidden).length;
  const filtered = logs.filter || logs.kind;
  const held = logs.held.length + logs.missed;
  at("logs-count").textContent = logs.paused ? (held ? `Paused, ${held.toLocaleString("en")} new` : "Paused")
    : filtered ? `${shown.toLocaleString("en")} of ${plural(rows.length, "line")}` : rows.length ? plural(rows.length, "line") : "";
  at("logs-empty").hidden = shown > 0;
  at("logs-empty").textContent = rows.length ? "No line has that." : "Nothing written yet.";
}
function filterLogs() {
  logs.filter = at("logs-filter").value.toLowerCase();
  logs.kind = at("logs-stream").value;
  for (const row of logBox.children) row.hidden = !matches(row);
  logSticky.settle();
  countLogs();
}
at("logs-filter").addEventListener("input", filterLogs);
at("logs-stream").addEventListener("change", filterLogs);
at("logs-pause").addEventListener("click", () => {
  logs.paused = !logs.paused;
  at("logs-pause").setAttribute("aria-pressed", String(logs.paused));
  at("logs-pause").textContent = logs.paused ? "Resume" : "Pause";
  if (!logs.paused) {
    if (logs.missed) logs.held.unshift({ gap: `${plural(logs.missed, "line")} came while this was paused and are not kept here` });
    logs.fresh = [...logs.held, ...logs.fresh];
    [logs.held, logs.missed] = [[], 0];
  }
  drawLogs();
});
at("logs-clear").addEventListener("click", () => { logBox.replaceChildren(); logs.held = []; logs.missed = 0; countLogs(); });
at("logs-newest").addEventListener("click", () => { logSticky.atEnd = true; logSticky.settle(); at("logs-newest").hidden = true; logBox.focus(); });

function followLogs() {
  logs.stream?.stop();
  let last = 0;
  logs.stream = listen("logs", {
    event({ name, data }) {
      const line = JSON.parse(data);
      if (name === "gap") { addLog({ gap: "Lines before this were not kept" }); return; }
      // Numbers that begin anew are those of another life of the server.
      if (line.id <= last) addLog({ gap: "The server itself was started anew" });
      last = line.id;
      addLog(line);
    },
    state: (state, until) => connection("logs", state, until),
    refused: (error) => addLog({ gap: inWords(error) }),
  });
}
