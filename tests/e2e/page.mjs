// The browser's side of page.py: node page.mjs URL SCENARIO…
// Whatever the page reports against its policy, loads from elsewhere, or runs of what it is shown, is a fault.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_MODULES, "/"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [base, ...wanted] = process.argv.slice(2);
let scenario = "";
const { APP, GIVEN, ROOT, SHOTS, TOKEN } = process.env;
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const SLOW_MS = 20_000;
const SMALL = process.env.CI === "true";

async function step(what, action) {
  const began = performance.now();
  try {
    await action();
  } catch (error) {
    console.log(`${scenario}: ${what}: failed; ${(latest?.faults || []).join("; ") || "the page has no fault"}`);
    if (latest) await shot(latest, "failed");
    throw error;
  }
  console.log(`${scenario}: ${what}: ${Math.round(performance.now() - began)} ms`);
}
let latest = null;
async function open(browser, options = {}, url = base) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(SLOW_MS);
  page.faults = [];
  latest = page;
  page.on("dialog", (dialog) => { page.faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("pageerror", (error) => page.faults.push(`error: ${error.stack}`));
  page.on("request", (asked) => { if (!asked.url().startsWith(new URL(url).origin) && !asked.url().startsWith("blob:")) page.faults.push(`request: ${asked.url()}`); });
  await page.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(url);
  return page;
}
async function enter(page, token = TOKEN) {
  await page.fill("#token", token);
  await page.keyboard.press("Enter");
}
async function close(page) {
  assert.deepEqual(await page.evaluate(() => window.violations), [], "the policy's reports");
  assert.equal(await page.evaluate(() => window.pwned), undefined, "something ran");
  assert.deepEqual(page.faults, []);
  const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.search, location.hash]);
  assert.deepEqual(kept.slice(0, 4), [0, 0, "", ""], "nothing is kept");
  assert.ok(!kept[4].includes(TOKEN));
  await page.context().close();
}
async function shot(page, name, options = {}) {
  if (!SHOTS) return;
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `page-${name}.png`), ...options });
}
// axe runs in a world of its own, where the page's policy does not hold it back.
async function audit(page, what) {
  await page.evaluate(`${axe}; undefined`);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  for (const { id, nodes } of bad) for (const node of nodes) console.log(`${what}: ${id}: ${node.target}: ${node.failureSummary}`);
  assert.equal(bad.length, 0, `axe's findings: ${what}`);
}
const say = (query) => fetch(`${APP}/?${new URLSearchParams(query)}`);
const text = (page, selector) => page.locator(selector).innerText();
const until = async (what, condition) => {
  for (const end = Date.now() + SLOW_MS; !(await condition());) {
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
};
const toast = (page, words) => page.locator("#toasts p", { hasText: words }).first().waitFor();

const scenarios = {
  async work(browser) {
    const page = await open(browser);
    await step("a wrong token, and the right one", async () => {
      await page.locator("#gate").waitFor();
      await shot(page, "gate");
      assert.ok(await page.locator("#work").isHidden());
      await enter(page, "wrong");
      await page.getByText("That is not the server's token.").waitFor();
      await enter(page);
      await page.getByRole("heading", { name: "Ready" }).waitFor();
      await page.locator("#link", { hasText: "Live" }).waitFor();
    });

    await step("hostile names are names", async () => {
      await page.locator("#tree li").nth(5).waitFor();
      const names = await page.locator("#tree .name .name").allInnerTexts();
      for (const name of ["<img src=x onerror=window.pwned=1>.txt", "turned \\u202etxt.exe", "two\\nlines", "\\u001b[31mred.txt", "100%25 #?&.txt"]) {
        assert.ok(names.includes(name), `${name} in ${JSON.stringify(names)}`);
      }
      assert.equal(await page.locator("#tree img").count(), 0);
    });

    await step("hostile lines are lines, and colours are colours", async () => {
      await say({ out: "<img src=x onerror=window.pwned=2><script>window.pwned=3</script>" });
      await say({ out: "\u001b]0;title\u0007\u001b[1;31mred\u001b[0m and \u001b[4mlined\u001b[24m \u001b[2J\u001b[3Jplain\u0008" });
      await say({ err: "10%\r20%\r100% \u202edone" });
      await page.locator(".line", { hasText: "done" }).waitFor();
      const lines = await page.locator("#logs-lines .line .t").allInnerTexts();
      for (const line of ["<img src=x onerror=window.pwned=2><script>window.pwned=3</script>", "red and lined plain", "100% \\u202edone"]) {
        assert.ok(lines.includes(line), `${line} in ${JSON.stringify(lines)}`);
      }
      assert.equal(await page.locator("#logs-lines .bold.c1").innerText(), "red");
      assert.equal(await page.locator("#logs-lines :is(img, script)").count(), 0);
    });

    await step("logs: filter, stream, pause", async () => {
      const shown = () => page.locator("#logs-lines .line:visible .t").allInnerTexts();
      await page.fill("#logs-filter", "LINED");
      assert.deepEqual(await shown(), ["red and lined plain"]);
      await page.fill("#logs-filter", "");
      await page.selectOption("#logs-stream", "stderr");
      assert.deepEqual(await shown(), ["100% \\u202edone"]);
      await page.selectOption("#logs-stream", "");
      await page.click("#logs-pause");
      const before = (await shown()).length;
      await say({ out: "while paused" });
      await page.getByText("Paused, 1 new").waitFor();
      assert.equal((await shown()).length, before);
      await page.click("#logs-pause");
      await page.locator(".line", { hasText: "while paused" }).waitFor();
    });

    await step("a broken connection is told, and comes back without loss", async () => {
      // What is under way ends with the pages of other servers: a stream is not cut by this, a new one cannot begin.
      await page.context().setOffline(true);
      await page.click("#restart");
      await toast(page, "The server cannot be reached.");
      await page.context().setOffline(false);
      await page.locator("#link", { hasText: "Live" }).waitFor();
    });

    await step("upload of files, with progress", async () => {
      writeFileSync(join(GIVEN, "..", "one.bin"), Buffer.alloc(3_000_000, 7));
      writeFileSync(join(GIVEN, "..", "two <b>.txt"), "two");
      await page.setInputFiles("#file-input", [join(GIVEN, "..", "one.bin"), join(GIVEN, "..", "two <b>.txt")]);
      await page.getByRole("heading", { name: "2 files uploaded" }).waitFor();
      await page.getByRole("button", { name: "one.bin", exact: true }).waitFor();
      assert.equal(readFileSync(join(ROOT, "one.bin")).length, 3_000_000);
      assert.equal(readFileSync(join(ROOT, "two <b>.txt"), "utf8"), "two");
    });
    await step("upload of a folder, into a folder, and a restart", async () => {
      const pid = await page.locator("#facts dd").nth(1).innerText();
      await page.fill("#upload-into", "/static/new/");
      await page.check("#upload-restart");
      await page.setInputFiles("#folder-input", GIVEN);
      await toast(page, "Restarted, and ready");
      await page.uncheck("#upload-restart");
      assert.deepEqual(readFileSync(join(ROOT, "static/new/site/img/logo.png")), readFileSync(join(GIVEN, "img/logo.png")));
      assert.ok(existsSync(join(ROOT, "static/new/site/img/icons/a b%.svg")));
      await until("another process", async () => (await page.locator("#facts dd").nth(1).innerText()) !== pid);
      for (const name of ["static", "new", "site", "img", "icons"]) await page.getByRole("button", { name, exact: true }).click();
      await page.getByRole("button", { name: "a b%.svg", exact: true }).waitFor();
    });
    await step("a folder outside of the root is refused", async () => {
      await page.fill("#upload-into", "../elsewhere");
      await page.setInputFiles("#file-input", join(GIVEN, "index.html"));
      await page.getByText("a path below the root").waitFor();
      await page.fill("#upload-into", "");
    });
    await step("drop of a file on a folder", async () => {
      const data = await page.evaluateHandle(() => {
        const data = new DataTransfer();
        data.items.add(new File(["dropped"], "dropped.txt"));
        return data;
      });
      const folder = page.locator("[data-into=pages]");
      await folder.dispatchEvent("dragover", { dataTransfer: data });
      await page.locator("#overlay", { hasText: "/pages" }).waitFor();
      await folder.dispatchEvent("drop", { dataTransfer: data });
      await until("it is there", () => existsSync(join(ROOT, "pages/dropped.txt")));
      await page.locator("#overlay").waitFor({ state: "hidden" });
    });
    await step("a file is changed, downloaded and deleted", async () => {
      await page.getByRole("button", { name: "pages", exact: true }).click();
      await page.getByRole("button", { name: "about.html", exact: true }).click();
      await page.locator("#editor-text").fill("<p>About us\n");
      await page.click("#editor-save");
      await toast(page, "Saved pages/about.html");
      assert.equal(readFileSync(join(ROOT, "pages/about.html"), "utf8"), "<p>About us\n");
      const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download about.html", exact: true }).click()]);
      assert.equal(readFileSync(await download.path(), "utf8"), "<p>About us\n");
      const away = page.getByRole("button", { name: "Delete dropped.txt" }).first();
      await away.click();
      assert.ok(existsSync(join(ROOT, "pages/dropped.txt")), "it asks once more");
      await away.click();
      await until("it is gone", () => !existsSync(join(ROOT, "pages/dropped.txt")));
      // Nor does a page that is late overwrite what somebody else has written.
      await page.getByRole("button", { name: "about.html", exact: true }).click();
      await page.locator("#editor[open]").waitFor();
      writeFileSync(join(ROOT, "pages/about.html"), "somebody else's");
      await page.locator("#editor-text").fill("mine");
      await page.click("#editor-save");
      await page.getByText("Somebody else changed the file").waitFor();
      await page.click("#editor-close");
      await page.click("#editor-close");
      assert.equal(readFileSync(join(ROOT, "pages/about.html"), "utf8"), "somebody else's");
      // The ends of lines before and behind what was changed are as they were.
      writeFileSync(join(ROOT, "pages/about.html"), "a\r\nb\nc\rd\r\n");
      await page.getByRole("button", { name: "about.html", exact: true }).click();
      await page.locator("#editor[open]").waitFor();
      await page.locator("#editor-text").fill("a\nB\nB\nc\nd\n");
      await page.click("#editor-save");
      await page.locator("#editor[open]").waitFor({ state: "detached" });
      assert.equal(readFileSync(join(ROOT, "pages/about.html"), "utf8"), "a\r\nB\nB\nc\rd\r\n");
    });

    await step("a program, its output as it comes, its code", async () => {
      await page.fill("#exec-line", `sh -c 'echo "<b>one</b>"; read x; echo two $x >&2; exit 3'`);
      assert.deepEqual(await page.locator("#exec-words span").allInnerTexts(), ["sh", "-c", 'echo "<b>one</b>"; read x; echo two $x >&2; exit 3']);
      await page.click("#exec-form summary");
      await page.fill("#exec-stdin", "given\n");
      await page.keyboard.press("Tab");
      await page.locator("#exec-line").press("Enter");
      await page.locator("#exec-state", { hasText: "Exit code 3 after" }).waitFor();
      assert.equal((await text(page, "#exec-output .out")).trim(), "<b>one</b>");
      assert.equal((await text(page, "#exec-output .err")).trim(), "two given");
      await page.fill("#exec-stdin", "");
    });
    await step("a program is seen while it runs, and stopped", async () => {
      await page.fill("#exec-line", "sh -c 'echo begun; exec sleep 100'");
      await page.click("#exec-run");
      await page.locator("#exec-output", { hasText: "begun" }).waitFor();
      await page.locator("#exec-state", { hasText: "Running for" }).waitFor();
      await page.click("#exec-stop");
      await page.locator("#exec-state", { hasText: "Ended by signal 15" }).waitFor();
      await page.fill("#exec-line", "no-such-program");
      await page.click("#exec-run");
      await page.locator("#exec-state", { hasText: "Exit code 1 after" }).waitFor();
      await page.fill("#exec-line", "sh 'open");
      await page.click("#exec-run");
      await page.getByText("A ' is not closed.").waitFor();
    });

    await step("the agent asks, and is approved", async () => {
      await page.fill("#agent-input", "greeting <img src=x onerror=window.pwned=4>");
      await page.click("#agent-run");
      await page.locator("#approvals", { hasText: "write_file" }).waitFor();
      assert.ok((await text(page, "#approvals .args")).includes('"path": "greeting.html"'));
      await shot(page, "approval");
      await page.getByRole("button", { name: "Approve" }).click();
      await page.locator("#approvals").waitFor({ state: "hidden" });
      const run = page.locator("#runs-list > li").first();
      await run.filter({ hasText: "completed" }).waitFor();
      await run.locator(".view", { hasText: "greeting.html is new" }).waitFor();
      assert.ok((await run.locator(".terminal").innerText()).includes("my task: greeting <img src=x onerror=window.pwned=4>"));
      assert.ok(existsSync(join(ROOT, "greeting.html")));
    });
    await step("another is rejected, with a reason", async () => {
      await page.fill("#agent-input", "greeting Bob");
      await page.locator("#agent-input").press("Enter");
      await page.getByPlaceholder("Reason (optional)").fill("not now");
      await page.getByRole("button", { name: "Reject" }).click();
      const run = page.locator("#runs-list > li").first();
      await run.filter({ hasText: "failed" }).waitFor();
      await run.locator(".view", { hasText: "not allowed to write: not now" }).waitFor();
      await page.click("#decided summary");
      await page.locator("#decided-list", { hasText: "not now" }).waitFor();
    });
    await step("the agent waits, is let go on; another is aborted", async () => {
      await page.fill("#agent-input", "wait");
      await page.click("#agent-run");
      const run = page.locator("#runs-list > li").first();
      await run.locator(".view", { hasText: "waiting" }).waitFor();
      await run.getByPlaceholder("Tell it something").fill("go");
      await run.getByRole("button", { name: "Continue" }).click();
      await run.filter({ hasText: "completed" }).waitFor();
      await page.fill("#agent-input", "wait");
      await page.click("#agent-run");
      await page.locator("#runs-list > li").first().getByRole("button", { name: "Abort" }).click();
      await page.locator("#runs-list > li").first().filter({ hasText: "aborted" }).waitFor();
    });

    await step("a worker is told something", async () => {
      await page.fill("#worker-about", "chat");
      await page.getByRole("button", { name: "New worker" }).click();
      const worker = page.locator("#workers-list > li").first();
      await worker.locator(".wide-button").click();
      await worker.getByPlaceholder("Say something").fill("<i>hello</i>");
      await worker.getByRole("button", { name: "Send" }).click();
      await worker.locator(".terminal", { hasText: "heard: <i>hello</i>" }).waitFor();
      await worker.getByRole("button", { name: "Stop" }).click();
      await worker.filter({ hasText: "stopped" }).waitFor();
    });
    await step("an artifact and its link", async () => {
      await page.fill("#artifact-title", "A <b>report</b>");
      await page.fill("#artifact-text", "# Hello");
      await page.getByRole("button", { name: "Make a link" }).click();
      const link = page.locator("#artifact-list a");
      assert.equal(await link.innerText(), "A <b>report</b>");
      const shown = await fetch(await link.getAttribute("href"));
      assert.ok((await shown.text()).includes("__AGENT_RENDER_PAYLOAD__"));
      await page.locator("#artifacts-count", { hasText: "1 artifact" }).waitFor();
    });

    await step("stop and start, told in words", async () => {
      await page.click("#stop");
      await page.getByRole("heading", { name: "Stopped" }).waitFor();
      await page.getByText("It was stopped.").waitFor();
      await page.click("#start");
      await page.getByRole("heading", { name: "Ready" }).waitFor();
    });
    await close(page);
  },

  async looks(browser) {
    await say({ err: "Traceback (most recent call last):\n  File \"app.py\", line 12, in <module>\nKeyError: 'price'" });
    for (const width of [1440, 390]) {
      for (const colorScheme of ["light", "dark"]) {
        // The other two are looked at in `plain`, empty.
        if (SMALL && (width === 1440) !== (colorScheme === "light")) continue;
        await step(`${width} px, ${colorScheme}`, async () => {
          const page = await open(browser, { colorScheme, viewport: { width, height: width > 400 ? 900 : 844 }, reducedMotion: "reduce" });
          await page.locator("#gate").waitFor();
          await audit(page, "gate");
          await enter(page);
          await page.locator(".line", { hasText: "KeyError" }).waitFor();
          await page.locator("#runs-list > li").nth(2).waitFor();
          await page.getByRole("button", { name: "pages", exact: true }).click();
          await page.locator("#runs-list .wide-button").first().click();
          await page.locator("#runs-list .view").waitFor();
          await page.evaluate(() => scrollTo(0, 0));
          await shot(page, `full-${width}-${colorScheme}`);
          await shot(page, `full-${width}-${colorScheme}-long`, { fullPage: true });
          await audit(page, `${width} ${colorScheme}`);
          const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert.ok(overflow <= 0, `${overflow} px to scroll sideways`);
          await close(page);
        });
      }
    }
  },

  async bounds(browser) {
    const page = await open(browser);
    await enter(page);
    await page.locator("#exec").waitFor();
    await step("what is shown is bounded", async () => {
      await page.fill("#exec-line", "seq 20000");
      await page.click("#exec-run");
      await page.locator("#exec-output", { hasText: "20000" }).waitFor();
      await say({ lines: 2500 });
      await page.locator(".line", { hasText: "line 2499" }).waitFor();
      assert.ok(await page.locator("#logs-lines > *").count() <= 2000);
      assert.ok(await page.evaluate(() => document.querySelectorAll("#exec-output span").length) <= 4000);
    });
    await close(page);
  },

  async plain(browser) {
    for (const [width, colorScheme] of [[1440, "dark"], [390, "light"]]) {
      await step(`nothing turned on: ${width} px, ${colorScheme}`, async () => {
        const page = await open(browser, { colorScheme, viewport: { width, height: 900 }, reducedMotion: "reduce" });
        await page.getByRole("heading", { name: "Ready" }).waitFor();
        await page.locator("#off", { hasText: "--exec" }).waitFor();
        await page.getByText("There are no files yet.").waitFor();
        for (const section of ["#gate", "#exec", "#workers", "#agent-form", "#approvals"]) assert.ok(await page.locator(section).isHidden(), section);
        await shot(page, `empty-${width}-${colorScheme}`, { fullPage: true });
        await audit(page, "plain");
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${overflow} px to scroll sideways`);
        await close(page);
      });
    }
    await step("by keyboard: past the head, through the sections, into a button", async () => {
      const page = await open(browser);
      await page.getByRole("heading", { name: "Ready" }).waitFor();
      const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.textContent);
      await page.keyboard.press("Tab");
      assert.equal(await focused(), "skip");
      await page.keyboard.press("Enter");
      assert.equal(await focused(), "main");
      await page.keyboard.press("Tab");
      assert.equal(await focused(), "logs-filter");
      await page.locator("#interrupt").focus();
      await page.keyboard.press("Space");
      await toast(page, "Interrupted.");
      assert.equal(await focused(), "interrupt", "the focus stays where it was");
      await close(page);
    });
    await step("a reader is told so", async () => {
      const page = await open(browser);
      await page.locator("#work").waitFor();
      await page.setExtraHTTPHeaders({ "x-verified-user-data": '{"readOnly":true}' });
      // The page asks again when the network is back, and every few seconds anyway.
      await page.evaluate(() => dispatchEvent(new Event("online")));
      await page.getByRole("heading", { name: "Not allowed" }).first().waitFor();
      await shot(page, "denied");
      assert.deepEqual(page.faults, []);
      const refused = await page.goto(base);
      assert.equal(refused.status(), 403);
    });
  },

  // As behind an edge that gives each sandbox a path of its own.
  async prefix(browser) {
    const proxy = createServer((from, to) => {
      if (!from.url.startsWith("/box/7/")) { to.writeHead(404).end(); return; }
      const passed = request({ host: "127.0.0.1", port: new URL(base).port, method: from.method, path: from.url.slice("/box/7".length), headers: from.headers }, (answer) => {
        to.writeHead(answer.statusCode, answer.headers);
        answer.pipe(to);
        to.on("close", () => answer.destroy());
      });
      passed.on("error", () => to.destroy());
      from.pipe(passed);
    });
    await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
    await step("behind a path prefix", async () => {
      const page = await open(browser, {}, `http://127.0.0.1:${proxy.address().port}/box/7/_frag/`);
      await page.locator("#gate").waitFor();
      await enter(page);
      await page.locator("#link", { hasText: "Live" }).waitFor();
      await page.locator(".line", { hasText: "KeyError" }).waitFor();
      await page.fill("#exec-line", "echo through the proxy");
      await page.click("#exec-run");
      await page.locator("#exec-output", { hasText: "through the proxy" }).waitFor();
      await page.setInputFiles("#file-input", { name: "proxied.txt", mimeType: "text/plain", buffer: Buffer.from("proxied") });
      await page.getByRole("heading", { name: "1 file uploaded" }).waitFor();
      await close(page);
    });
    proxy.closeAllConnections();
    proxy.close();
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
try {
  for (scenario of wanted) await scenarios[scenario](browser);
} finally {
  await browser.close();
}
