
// -- Tool calls of the agent that wait for a decision.
const DECIDED = 50;
function approvalCard(approval) {
  const args = JSON.stringify(approval.args, null, 2) ?? "";
  const reason = make("input", { type: "text", placeholder: "Reason (optional)", "aria-label": "Reason", maxlength: "2000", autocomplete: "off" });
  const error = make("p", { class: "error", role: "alert" });
  const decide = (decision) => (event) => busy(event.currentTarget, "", async () => {
    const json = { decision, executionId: approval.executionId, ...(reason.value.trim() && { reason: reason.value.trim() }) };
    await ask(`approvals/${encodeURIComponent(approval.id)}`, { method: "POST", json });
    tell(`${decision === "approve" ? "Approved" : "Rejected"}: ${oneLine(approval.toolName)}.`);
    refreshApprovals();
  }, error);
  const left = approval.expiresAt === undefined ? make("span", { class: "facts", text: "waits until you decide" })
    : tick(make("span", { class: "facts" }), () => approval.expiresAt > Date.now() ? `expires in ${lasting(approval.expiresAt - Date.now())}` : "expired");
  return make("li", { class: "approval" },
    make("div", { class: "entry" }, make("strong", { class: "mono", text: oneLine(approval.toolName) }), left),
    make("pre", { class: "args mono", tabindex: "0", "aria-label": `Arguments of ${oneLine(approval.toolName)}`, text: seen(args) }),
    make("div", { class: "row" }, reason, button("Reject", decide("reject")), button("Approve", decide("approve"), { class: "primary" })), error);
}
const refreshApprovals = calmly(150, async () => {
  const [{ approvals }, { history }] = await Promise.all([askJson("approvals"), askJson("approvals/history")]);
  const before = at("approvals-list").childElementCount;
  sync(at("approvals-list"), approvals, (one) => one.id, approvalCard);
  at("approvals").hidden = approvals.length === 0;
  at("approvals-count").textContent = plural(approvals.length, "tool call");
  if (approvals.length > before) tell(`The agent asks: ${oneLine(approvals.at(-1).toolName)}.`, "wait");
  at("decided").hidden = history.length === 0;
  sync(at("decided-list"), history.slice(0, DECIDED), (one) => one.id, (one) => make("li", { "data-tone": { approved: "good", rejected: "bad" }[one.status] || "off" },
    make("div", { class: "entry" }, make("span", { class: "badge", text: one.status }), make("span", { class: "word mono", text: oneLine(one.toolName) }), make("span", { class: "facts", text: one.decidedAt ? moment(one.decidedAt) : "" })),
    make("p", { class: "why", text: one.reason ? seen(one.reason) : "" })));
  nameSections();
});
