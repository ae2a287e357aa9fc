// The browser's side of browser.py: node browser.mjs SCENARIO URL
// Each step prints how long it took. A page counts its loads, so a reload cannot pass for an update.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const { chromium } = createRequire(join(process.env.NODE_MODULES, "/"))("playwright-core");
const [scenario, base] = process.argv.slice(2);
const TIMEOUT_MS = 30_000;
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

async function step(what, action) {
  const began = performance.now();
  const result = await action();
  console.log(`${scenario}: ${what}: ${Math.round(performance.now() - began)} ms`);
  return result;
}

async function post(path, body) {
  const response = await fetch(`${base}/_frag/${path}`, { method: "POST", body });
  assert.equal(response.status, 200, `${path}: ${await response.text()}`);
}

const source = (name) => readFileSync(join(process.env.ROOT, name), "utf8");

async function shot(page, name) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) });
}

async function open(context) {
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  Object.assign(page, { loads: 0, sockets: [], faults: [] });
  page.on("load", () => (page.loads += 1));
  page.on("websocket", (socket) => page.sockets.push(socket.url()));
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) page.faults.push(message.text());
  });
  await page.goto(base);
  return page;
}

const seen = (page, text) => page.getByText(text).first().waitFor();

const scenarios = {
  async vite(context) {
    const page = await step("the page", async () => {
      const page = await open(context);
      await seen(page, "This text stands in main.js.");
      return page;
    });
    await page.click("#button");
    await page.click("#button");
    await seen(page, "Counted to 2");
    // Its client connects after the page is shown; an update before that would be missed.
    while (page.sockets.length === 0) await pause(20);
    await pause(300);
    const old = source("main.js");
    for (const text of ["A new text", "Another text", "A third text"]) {
      await step("upload to hot update", async () => {
        await post("upload/main.js", old.replace("This text", text));
        await seen(page, `${text} stands`);
      });
      // Vite does not see a file change again within 50 ms, however it is written.
      await pause(300);
    }
    assert.equal(await page.textContent("#button"), "Counted to 2", "the state is kept");
    assert.equal(page.loads, 1, "without a reload");
    const port = new URL(base).port;
    assert.deepEqual(page.sockets.map((url) => new URL(url).port), [port], "its WebSocket comes through us");
    await shot(page, "vite");
    await step("restart to reloaded page", async () => {
      const loads = page.loads;
      await post("restart?wait=ready");
      while (page.loads === loads) await pause(20);
      await seen(page, "A third text stands");
    });
  },

  async streamlit(context) {
    const page = await step("the page", async () => {
      const page = await open(context);
      await seen(page, "This text stands in app.py.");
      return page;
    });
    const count = page.getByRole("button", { name: "Count", exact: true });
    for (const n of [1, 2]) {
      await step("a round trip over its WebSocket", async () => {
        await count.click();
        await seen(page, `Counted to ${n}.`);
      });
    }
    const old = source("app.py");
    await step("upload to new text", async () => {
      await post("upload/app.py", old.replace("This text", "A new text"));
      await seen(page, "A new text stands");
    });
    await seen(page, "Counted to 2.");
    await step("upload with restart to new text and new session", async () => {
      await post("upload/app.py?restart=true", old.replace("This text", "Another text"));
      await seen(page, "Another text stands");
      // Only the new process knows nothing of the count.
      await seen(page, "Counted to 0.");
    });
    await step("a round trip to the new process", async () => {
      await count.click();
      await seen(page, "Counted to 1.");
    });
    assert.equal(page.loads, 1, "without a reload");
    await shot(page, "streamlit");

    await post("stop");
    const other = await open(context);
    await seen(other, "The server was stopped");
    await shot(other, "stopped");
    await step("start to the app in place of the failure page", async () => {
      await post("start");
      await seen(other, "Another text stands");
    });
    assert.deepEqual(other.faults, []);
  },

  async failure(context, browser) {
    const page = await open(context);
    await seen(page, "The server keeps failing and was given up");
    await seen(page, "there is no app.py & nothing to do without it");
    await seen(page, "INFO reading the configuration");
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [390, 1440]) {
        const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
        const page = await open(context);
        await shot(page, `failure-${colorScheme}-${width}`);
        const overflows = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        assert.ok(!overflows, `nothing to scroll sideways at ${width} px`);
        await context.close();
      }
    }
    await step("upload of a worse app to its error on the page", async () => {
      await post("upload/app.py?restart=true", "import nothing_of_this_name");
      await seen(page, "No module named 'nothing_of_this_name'");
    });
    assert.equal(page.loads, 1, "the page changed in place");
    await step("upload of a good app to the app", async () => {
      const app = [
        "import http.server, os",
        "class Page(http.server.BaseHTTPRequestHandler):",
        "    def do_GET(self):",
        "        self.send_response(200)",
        "        self.end_headers()",
        "        self.wfile.write(b'It works.')",
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Page).serve_forever()",
      ];
      await post("upload/app.py?restart=true", app.join("\n"));
      await seen(page, "It works.");
    });
    assert.equal(page.loads, 2);
    assert.deepEqual(page.faults, [], "the policy allows what the page does");

    await post("stop");
    const still = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
    await still.goto(base);
    await seen(still, "The server was stopped");
    await step("start to the app without scripts", async () => {
      await post("start");
      await seen(still, "It works.");
    });
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
try {
  await scenarios[scenario](await browser.newContext(), browser);
} finally {
  await browser.close();
}
