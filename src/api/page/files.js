
// -- The files below the root, folder by folder, and a look into one.
const FILES = { entries: 300, view: 512 * 1024, download: 256 * 1024 * 1024 };
const ICONS = { directory: "▸", file: "", symlink: "↪", other: "?" };
const joined = (folder, name) => folder ? `${folder}/${name}` : name;

async function listFolder(folder) {
  const listing = await askJson(`files/${folder ? `${encodePath(folder)}/` : ""}`);
  const rank = (entry) => entry.type === "directory" ? 0 : 1;
  listing.entries.sort((a, b) => rank(a) - rank(b));
  return listing;
}
function drawFolder(list, folder, listing, most) {
  const shown = listing.entries.slice(0, most);
  sync(list, shown, (entry) => `${entry.type} ${entry.name}`, (entry) => fileRow(folder, entry), (row, entry) => row.show(entry));
  const left = listing.entries.length - shown.length;
  if (left > 0) {
    const more = () => drawFolder(list, folder, listing, most + FILES.entries);
    list.append(make("li", { class: "rest" }, button(`Show ${Math.min(left, FILES.entries)} of ${left.toLocaleString("en")} more`, more, { class: "quiet small" })));
  } else if (listing.truncated) list.append(make("li", { class: "rest hint", text: "There are more than can be listed." }));
  if (list.childElementCount === 0 && folder) list.append(make("li", { class: "rest hint", text: "Empty" }));
}
function fileRow(folder, first) {
  const path = joined(folder, first.name), isFolder = first.type === "directory";
  const facts = make("span", { class: "facts" });
  const row = make("li", { class: first.type });
  const name = make("span", { class: "name", text: oneLine(first.name) });
  const line = make("div", { class: "entry" });
  if (isFolder) {
    const inner = make("ul", { class: "plain", hidden: true });
    const open = async (wanted) => {
      toggle.setAttribute("aria-expanded", String(wanted));
      inner.hidden = !wanted;
      if (!wanted) return;
      try { drawFolder(inner, path, await listFolder(path), FILES.entries); } catch (error) {
        inner.replaceChildren(make("li", { class: "rest error", text: inWords(error) }));
      }
    };
    const toggle = make("button", { type: "button", class: "name folder", "aria-expanded": "false", onclick: () => open(inner.hidden) }, make("span", { class: "icon", "aria-hidden": "true", text: ICONS.directory }), name);
    const into = sign("↑", `Upload into ${oneLine(first.name)}`, () => { at("upload-into").value = path; at("upload-into").focus(); });
    line.append(toggle, make("span", { class: "acts" }, into, removal(path, true)), facts);
    line.dataset.into = path;
    row.append(line, inner);
    row.reload = () => { if (!inner.hidden) return open(true); return undefined; };
  } else {
    const isFile = first.type === "file";
    const look = isFile ? make("button", { type: "button", class: "name", onclick: () => openEditor(path) }, make("span", { class: "icon", "aria-hidden": "true" }), name)
      : make("span", { class: "name" }, make("span", { class: "icon", "aria-hidden": "true", text: ICONS[first.type] }), name);
    const download = isFile ? sign("↓", `Download ${oneLine(first.name)}`, (event) => busy(event.currentTarget, "", () => save(path, row.bytes))) : null;
    line.append(look, make("span", { class: "acts" }, download, removal(path, false)), facts);
    row.append(line);
  }
  row.show = (entry) => {
    row.bytes = entry.bytes;
    facts.textContent = isFolder ? "" : entry.type === "file" ? size(entry.bytes) : entry.type === "symlink" ? "link" : "special";
    facts.title = `${moment(entry.modified_ms)} · mode ${entry.mode}`;
    row.reload?.();
  };
  return row;
}
const removal = (path, isFolder) => twice("✕", `Delete ${oneLine(path.split("/").at(-1))}`, (element) => busy(element, "", async () => {
  await ask(`files/${encodePath(path)}`, { method: "DELETE" });
  tell(`Deleted ${isFolder ? "the folder " : ""}${oneLine(path)}.`);
  refreshFiles();
}));

const refreshFiles = calmly(400, async () => {
  try {
    const listing = await listFolder("");
    drawFolder(at("tree"), "", listing, Math.max(FILES.entries, at("tree").childElementCount));
    at("files-empty").hidden = listing.entries.length > 0;
    at("files-error").textContent = "";
  } catch (error) {
    at("files-error").textContent = inWords(error);
  }
});
at("files-refresh").addEventListener("click", () => refreshFiles());

function saveAs(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
// Without a token the browser fetches it by itself; with one, the page has to, in memory.
async function save(path, bytes) {
  const address = `files/${encodePath(path)}`, name = path.split("/").at(-1);
  if (!token) { make("a", { href: address, download: name }).click(); return; }
  if (bytes > FILES.download) throw new Error(`Over ${size(FILES.download)} this page cannot download with a token. Use curl.`);
  saveAs(await (await ask(address)).blob(), name);
}

// -- One file as a text, to be changed.
const editor = { path: "", etag: "", text: "", before: "" };
const LINE_END = /\r\n|\r|\n/;
// The editor knows but one line end: lines before and behind what was changed get back the ones they had.
function withLineEnds(before, text) {
  const ends = before.match(new RegExp(LINE_END, "g")) ?? [], old = before.split(LINE_END), lines = text.split("\n");
  const most = Math.min(old.length, lines.length);
  let head = 0, tail = 0;
  while (head < most && old[head] === lines[head]) head += 1;
  while (tail < most - head && old.at(-1 - tail) === lines.at(-1 - tail)) tail += 1;
  const usual = new Set(ends).size === 1 ? ends[0] : "\n";
  const whole = lines.map((line, number) => {
    const left = lines.length - 1 - number;
    if (left === 0) return line;
    return line + ((number < head ? ends[number] : left <= tail ? ends.at(-left) : undefined) ?? usual);
  }).join("");
  // A lone CR may have come to stand before an LF.
  return whole.split(LINE_END).length === lines.length ? whole : text;
}
async function openEditor(path) {
  try {
    const head = await ask(`files/${encodePath(path)}`, { method: "HEAD" });
    const bytes = Number(head.headers.get("content-length"));
    if (bytes > FILES.view) throw new Error(`${oneLine(path)} has ${size(bytes)}: too long to be changed here. Download it.`);
    const response = await ask(`files/${encodePath(path)}`);
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(await response.arrayBuffer());
    if (/\u0000/.test(text)) throw new TypeError();
    at("editor-name").textContent = oneLine(path);
    at("editor-size").textContent = size(bytes);
    at("editor-text").value = text;
    Object.assign(editor, { path, etag: response.headers.get("etag"), before: text, text: at("editor-text").value });
    at("editor-error").textContent = "";
    at("editor").showModal();
    at("editor-text").setSelectionRange(0, 0);
    at("editor-text").scrollTop = 0;
  } catch (error) {
    tell(error instanceof TypeError ? `${oneLine(path)} is not a text. Download it.` : inWords(error), "bad");
  }
}
async function saveEditor(element, restart) {
  const text = at("editor-text").value;
  await busy(element, restart ? "Restarting…" : "Saving…", async () => {
    const body = withLineEnds(editor.before, text);
    const headers = editor.etag?.startsWith('"') ? { "if-match": editor.etag } : {};
    const response = await send(`upload/${encodePath(editor.path)}${restart ? "?restart=true" : ""}`, { method: "PUT", body, headers });
    if (response.status === 412) throw new Error("Somebody else changed the file meanwhile. Close it and open it again.");
    if (!response.ok) throw await refusal(response);
    [editor.etag, editor.text, editor.before] = [response.headers.get("etag"), text, body];
    at("editor").close();
    tell(`Saved ${oneLine(editor.path)}${restart ? " and restarted" : ""}.`);
    refreshFiles();
  }, at("editor-error"));
}
at("editor-save").addEventListener("click", (event) => saveEditor(event.currentTarget, false));
at("editor-restart").addEventListener("click", (event) => saveEditor(event.currentTarget, true));
const unsaved = () => at("editor-text").value !== editor.text;
let warned = false;
function closeEditor(event) {
  event.preventDefault();
  if (unsaved() && !warned) {
    warned = true;
    at("editor-error").textContent = "Not saved. Close once more to lose the changes.";
    setTimeout(() => { warned = false; }, 4000);
    return;
  }
  warned = false;
  at("editor").close();
}
at("editor-close").addEventListener("click", closeEditor);
at("editor").addEventListener("cancel", closeEditor);
