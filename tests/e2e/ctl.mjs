// The browser's side of ctl.py: node ctl.mjs URL
// Saves the app's source here, as editors do, and waits for its new text on the page there.
import assert from "node:assert/strict";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const { chromium } = createRequire(join(process.env.NODE_MODULES, "/"))("playwright-core");
const base = process.argv[2];
const app = process.env.APP;
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
try {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(30_000);
  let loads = 0;
  page.on("load", () => (loads += 1));
  await page.goto(base);
  const seen = (text) => page.getByText(text).first().waitFor();
  await seen("This text stands in app.py.");
  const old = readFileSync(app, "utf8");
  const times = [];
  for (let save = 0; save < Number(process.env.SAVES); save += 1) {
    // A watcher of the app's may take two changes within a moment for one.
    await pause(300);
    const text = old.replace("This text", `Save ${save}`);
    const began = performance.now();
    if (save % 2) {
      writeFileSync(app, text);
    } else {
      writeFileSync(`${app}~`, text);
      renameSync(`${app}~`, app);
    }
    await seen(`Save ${save} stands`);
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  const [median, longest] = [times[times.length >> 1], times.at(-1)].map(Math.round);
  console.log(`save to new text on the page: median ${median} ms, longest ${longest} ms of ${times.length}`);
  assert.equal(loads, 1, "without a reload");
} finally {
  await browser.close();
}
