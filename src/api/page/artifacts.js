
// -- Artifacts: links to what is too long for one. There is no list of them: who has a link has it.
const ARTIFACTS = { rows: 20 };
const made = [];
function payloadOf(kind, title, content) {
  if (!kind) return content;
  const artifact = { id: "a", kind, title: title || "Artifact", content, ...(kind === "diff" && { patch: content }) };
  const bytes = new TextEncoder().encode(JSON.stringify({ v: 1, codec: "plain", title, activeArtifactId: "a", artifacts: [artifact] }));
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return `p${btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}`;
}
async function copy(element, text) {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = make("textarea", { readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    element.focus();
    if (!done) { tell("The browser does not allow that: copy it from the address of the link.", "bad"); return; }
  }
  tell("Copied the link.");
}
function artifactRow(one) {
  const link = new URL(one.id, document.baseURI).href;
  return make("li", {}, make("div", { class: "entry" },
    make("a", { class: "word", href: link, target: "_blank", rel: "noopener noreferrer", text: oneLine(one.title) || one.id }),
    make("span", { class: "facts", text: `until ${moment(one.until)}`, title: "A look at it makes it last longer" }),
    make("span", { class: "acts" }, button("Copy", (event) => copy(event.currentTarget, link), { class: "quiet small" }),
      twice("✕", `Delete ${oneLine(one.title) || one.id}`, (element) => busy(element, "", async () => {
        const response = await send(`api/artifacts/${one.id}`, { method: "DELETE" });
        if (!response.ok && response.status !== 404) throw await refusal(response);
        made.splice(made.indexOf(one), 1);
        drawMade();
      })))));
}
const drawMade = () => sync(at("artifact-list"), made, (one) => one.id, artifactRow);
function showArtifactCounts(counts) {
  at("artifacts-count").textContent = typeof counts?.rows === "number" ? `${plural(counts.rows, "artifact")}, ${size(counts.bytes)}` : "";
}
at("artifact-form").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(event.currentTarget.querySelector("[type=submit]"), "", async () => {
    const title = at("artifact-title").value.trim();
    const payload = payloadOf(at("artifact-kind").value, title, at("artifact-text").value);
    const { id, expires_at: until } = await askJson("api/artifacts", { method: "POST", json: { payload } });
    made.unshift({ id, title, until: Date.parse(until) });
    made.splice(ARTIFACTS.rows);
    at("artifact-text").value = at("artifact-title").value = "";
    drawMade();
    tell("The link is ready.");
  }, at("artifact-error"));
});
at("artifact-clean").addEventListener("click", (event) => busy(event.currentTarget, "", async () => {
  const { deleted } = await askJson("api/cleanup", { method: "POST" });
  tell(`${plural(deleted, "expired artifact")} removed.`);
}));
