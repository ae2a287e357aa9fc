
// -- Files and folders to below the root, each with its progress.
const UPLOADS = { files: 5000, rows: 60 };
const uploads = { all: [], restart: false, ended: true, next: 0 };

// The folder they go to. A dot segment would be resolved by the browser, to another route.
function folderOf(text) {
  const parts = text.trim().split("/").filter((part) => part !== "");
  if (parts.some((part) => part === "." || part === "..")) throw new Error("The folder is a path below the root, without “..”.");
  return parts.join("/");
}
// What was dropped, with its folders. `items` are only good until the event is over, so they are taken first.
async function filesOf(entries) {
  const found = [];
  const visit = async (entry, folder) => {
    if (found.length > UPLOADS.files) return;
    const path = joined(folder, entry.name);
    if (entry.isFile) { found.push({ file: await new Promise((done, failed) => entry.file(done, failed)), path }); return; }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (some.length === 0) return;
      for (const one of some) await visit(one, path);
    }
  };
  for (const entry of entries) await visit(entry, "");
  return found;
}

function uploadAll(files, folder) {
  at("upload-error").textContent = "";
  const room = UPLOADS.files - uploads.all.filter((one) => one.state === "waiting" || one.state === "going").length;
  if (files.length > room) at("upload-error").textContent = `At most ${plural(UPLOADS.files, "file")} at a time: the others are left out.`;
  if (uploads.ended) uploads.all = uploads.all.filter((one) => one.state === "failed");
  uploads.ended = false;
  uploads.restart ||= at("upload-restart").checked;
  for (const { file, path } of files.slice(0, room)) {
    const one = { id: String(uploads.next), file, path: joined(folder, path), state: "waiting", sent: 0, bytes: file.size };
    uploads.next += 1;
    try { one.address = `upload/${encodePath(one.path)}`; } catch { Object.assign(one, { state: "failed", error: "Its name is not Unicode." }); }
    uploads.all.push(one);
  }
  nextUploads();
}
function nextUploads() {
  const going = uploads.all.filter((one) => one.state === "going").length;
  const waiting = uploads.all.filter((one) => one.state === "waiting");
  // Two, unless that would be the last of the browser's six connections.
  for (const one of waiting.slice(0, (streams < 4 ? 2 : 1) - going)) startUpload(one);
  drawUploads();
  if (going === 0 && waiting.length === 0 && !uploads.ended) endUploads();
}
// XMLHttpRequest, because fetch does not tell how far a body has come.
function startUpload(one) {
  Object.assign(one, { state: "going", sent: 0, error: "" });
  const request = new XMLHttpRequest();
  one.request = request;
  request.open("PUT", one.address);
  for (const [name, value] of Object.entries(headersOf({}))) request.setRequestHeader(name, value);
  request.upload.onprogress = (event) => { one.sent = event.loaded; laterUploads(); };
  const over = (state, error) => { Object.assign(one, { state, error, request: null }); nextUploads(); };
  request.onload = async () => {
    if (request.status === 200) { one.sent = one.bytes; over("done", ""); return; }
    const refused = await refusal(new Response(request.responseText, { status: Math.max(200, request.status) }));
    if (request.status === 401) lock(refused);
    over("failed", inWords(refused));
  };
  request.onerror = () => over("failed", "The connection broke.");
  request.onabort = () => over("stopped", "Cancelled.");
  request.send(one.file);
}
async function endUploads() {
  uploads.ended = true;
  const done = uploads.all.filter((one) => one.state === "done").length, failed = uploads.all.filter((one) => one.state === "failed").length;
  if (done > 0) {
    refreshFiles();
    tell(`Uploaded ${plural(done, "file")}${failed ? `, ${failed} failed` : ""}.`, failed ? "bad" : "good");
    if (uploads.restart) await act("restart", "Restarting…", (_, ms) => `Restarted, and ready after ${span(ms)}.`);
  }
  uploads.restart = false;
}

function uploadRow(one) {
  const bar = make("progress", { max: "1", value: "0", "aria-label": oneLine(one.path) });
  const row = make("li", {}, make("span", { class: "name mono", text: oneLine(one.path) }), make("span", { class: "facts" }), bar);
  return row;
}
function showUpload(row, one) {
  row.dataset.state = one.state;
  row.querySelector("progress").value = one.state === "done" ? 1 : one.bytes ? one.sent / one.bytes : 0;
  row.querySelector(".facts").textContent = { waiting: "waiting", going: `${size(one.sent)} of ${size(one.bytes)}`, done: size(one.bytes), failed: one.error, stopped: "cancelled" }[one.state];
}
const laterUploads = calmly(80, () => drawUploads());
function drawUploads() {
  const { all } = uploads, count = (state) => all.filter((one) => one.state === state).length;
  at("uploads").hidden = all.length === 0;
  const bytes = all.reduce((sum, one) => sum + one.bytes, 0), sent = all.reduce((sum, one) => sum + (one.state === "done" ? one.bytes : Math.min(one.sent, one.bytes)), 0);
  const [done, failed, stopped, left] = [count("done"), count("failed"), count("stopped"), count("waiting") + count("going")];
  at("uploads-title").textContent = left ? `Uploading ${plural(all.length, "file")}` : `${plural(done, "file")} uploaded${failed ? `, ${failed} failed` : ""}${stopped ? `, ${stopped} cancelled` : ""}`;
  at("uploads-progress").value = bytes ? sent / bytes : done / Math.max(1, all.length);
  at("uploads-progress").hidden = left === 0;
  at("uploads-cancel").hidden = left === 0;
  at("uploads-retry").hidden = left > 0 || failed === 0;
  at("uploads-clear").hidden = left > 0;
  // The interesting ones first: what failed, what goes on, then the rest, as far as there is room.
  const order = ["failed", "going", "waiting", "done", "stopped"];
  const shown = [...all].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state)).slice(0, UPLOADS.rows);
  sync(at("uploads-list"), shown, (one) => one.id, uploadRow, showUpload);
}
at("uploads-cancel").addEventListener("click", () => {
  for (const one of uploads.all) if (one.state === "waiting") one.state = "stopped";
  for (const one of uploads.all) one.request?.abort();
  nextUploads();
});
at("uploads-retry").addEventListener("click", () => {
  for (const one of uploads.all) if (one.state === "failed" && one.address) one.state = "waiting";
  uploads.ended = false;
  nextUploads();
});
at("uploads-clear").addEventListener("click", () => { uploads.all = []; drawUploads(); });

function withFolder(action) {
  try { return action(folderOf(at("upload-into").value)); } catch (error) { at("upload-error").textContent = inWords(error); return undefined; }
}
at("pick-folder").hidden = !("webkitdirectory" in at("folder-input"));
for (const [opener, input] of [["pick-files", "file-input"], ["pick-folder", "folder-input"]]) {
  at(opener).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", ({ currentTarget }) => {
    const files = [...currentTarget.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
    if (files.length) withFolder((folder) => uploadAll(files, folder));
    currentTarget.value = "";
  });
}
// The whole page takes files: one that misses its place would replace the page in the browser.
const carriesFiles = (event) => [...event.dataTransfer?.types || []].includes("Files");
const targetOf = (event) => event.target.closest?.("[data-into]");
function hover(element, on) {
  for (const other of document.querySelectorAll(".entry.over")) other.classList.toggle("over", on && other === element);
  if (on && element) element.classList.add("over");
  at("overlay").hidden = !on;
  if (on) at("overlay-into").textContent = `/${oneLine(element ? element.dataset.into : at("upload-into").value.trim().replace(/^\/+/, ""))}`;
}
let hovering;
addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  if (at("work").hidden || at("editor").open) { event.dataTransfer.dropEffect = "none"; return; }
  event.dataTransfer.dropEffect = "copy";
  hover(targetOf(event), true);
  clearTimeout(hovering);
  hovering = setTimeout(hover, 400, null, false);
});
addEventListener("drop", async (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  const target = targetOf(event);
  hover(null, false);
  if (at("work").hidden || at("editor").open) return;
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...event.dataTransfer.files].map((file) => ({ file, path: file.name }));
  try {
    const files = entries.length ? await filesOf(entries) : plain;
    if (files.length === 0) { at("upload-error").textContent = "There are no files in that."; return; }
    if (target) uploadAll(files, target.dataset.into);
    else withFolder((folder) => uploadAll(files, folder));
  } catch (error) {
    at("upload-error").textContent = `That cannot be read: ${inWords(error)}`;
  }
});
addEventListener("beforeunload", (event) => { if (uploads.all.some((one) => one.state === "going") || (at("editor").open && unsaved())) event.preventDefault(); });
