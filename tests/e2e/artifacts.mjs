// The browser's side of artifacts.py: node artifacts.mjs SCENARIO URL
// Whatever a page reports against its policy, loads from elsewhere, or runs of a payload, is a fault.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.env.NODE_MODULES, "/"))("playwright-core");
const [scenario, base] = process.argv.slice(2);
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const SLOW_MS = 30_000;

const encode = (envelope) => Buffer.from(JSON.stringify(envelope)).toString("base64url");
const bundle = (...artifacts) => ({ v: 1, codec: "plain", title: "A bundle", activeArtifactId: artifacts[0].id, artifacts });

async function create(payload) {
  const response = await fetch(`${base}/api/artifacts`, { method: "POST", body: JSON.stringify({ payload }) });
  const json = await response.json();
  assert.equal(response.status, 201, JSON.stringify(json));
  return `${base}/${json.id}`;
}

async function open(browser, url, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(SLOW_MS);
  page.faults = [];
  page.on("dialog", (dialog) => { page.faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("pageerror", (error) => page.faults.push(`error: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !/^(data|blob):/.test(request.url())) page.faults.push(`request: ${request.url()}`);
  });
  await page.addInitScript(() => {
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(url);
  return page;
}

async function close(page) {
  assert.deepEqual(await page.evaluate(() => window.violations), [], "the policy's reports");
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function shot(page, name) {
  if (!process.env.SHOTS) return;
  mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) });
}

const MARKDOWN = `# Weekly report

A paragraph with **bold**, *em*, \`code\`, ~~gone~~, a [link](https://example.org/a_b) and <b>no markup</b>.

- one
- two
  - nested
- [x] done

> A quote

| Name | Amount |
|:-----|-------:|
| Apples | 12 |

\`\`\`rust
fn main() {} // comment
\`\`\`
`;
const CODE = 'import os\n\n# why\ndef f(x):\n    return "text" if x else 42\n' + `print("${"long ".repeat(60)}")\n`;
const PATCH = "diff --git a/x.js b/x.js\n--- a/x.js\n+++ b/x.js\n@@ -1,3 +1,4 @@\n const a = 1;\n-let b = 2;\n+let b = 3;\n+let c = 4;\n done();\n";
const lines = (from, change) => Array.from({ length: 40 }, (_, n) => change(n) ?? `line ${n + from}`).join("\n");
const CSV = `City,Amount,Note\nParis,1200.5,"a, b"\nBerlin,900,"say ""hi"""\n${Array.from({ length: 900 }, (_, n) => `Town ${n},${n},x`).join("\n")}`;
const JSON_TEXT = JSON.stringify({ name: "x", n: 1.5, ok: true, none: null, list: [1, { a: "b" }], empty: {} });

const KINDS = [
  { id: "m", kind: "markdown", title: "Report", content: MARKDOWN },
  { id: "c", kind: "code", title: "main.py", language: "python", content: CODE },
  { id: "d", kind: "diff", title: "A patch", language: "js", patch: PATCH },
  { id: "e", kind: "diff", title: "Two texts", view: "split", oldContent: lines(0, () => null), newContent: lines(0, (n) => (n === 20 ? "changed" : null)) },
  { id: "s", kind: "csv", title: "Sales", content: CSV },
  { id: "j", kind: "json", title: "Settings", content: JSON_TEXT },
];
const count = (page, selector) => page.locator(selector).count();

const checks = {
  async m(page) {
    for (const [selector, text] of [["h1 >> nth=1", "Weekly report"], ["main strong", "bold"], ["main em", "em"], ["main del", "gone"], ["li li", "nested"], ["blockquote", "A quote"], ["td.right", "12"], ["pre .w", "fn"]]) {
      assert.equal((await page.locator(selector).first().textContent()).trim(), text, selector);
    }
    assert.equal(await page.locator("main a").getAttribute("href"), "https://example.org/a_b");
    assert.equal(await page.locator("main a").getAttribute("rel"), "noopener noreferrer nofollow");
    assert.ok((await page.textContent("main")).includes("<b>no markup</b>"));
    assert.ok(await page.locator("input[type=checkbox]").isChecked());
  },
  async c(page) {
    assert.equal(await count(page, ".lines > div"), 6);
    assert.equal((await page.locator(".lines").textContent()), CODE.replaceAll("\n", ""));
    assert.equal(await page.locator(".c").first().textContent(), "# why");
    assert.equal(await page.locator(".s").first().textContent(), '"text"');
  },
  async d(page) {
    assert.equal(await count(page, ".plus"), 2);
    assert.equal(await count(page, ".minus"), 1);
    assert.deepEqual(await page.locator(".plus .n").allTextContents(), ["", "2", "", "3"]);
  },
  async e(page) {
    assert.equal(await page.locator(".plus .t").textContent(), "changed");
    assert.equal(await page.locator(".minus .t").textContent(), "line 20");
    assert.equal(await page.locator(".plus .n").last().textContent(), "21");
  },
  async s(page) {
    assert.deepEqual(await page.locator("tbody tr >> nth=1").locator("td").allTextContents(), ["2", "Berlin", "900", 'say "hi"']);
    assert.equal(await count(page, "tbody tr"), 500);
    await page.getByRole("button", { name: "Show more" }).click();
    assert.equal(await count(page, "tbody tr"), 902);
    assert.equal(await count(page, ".more"), 0);
  },
  async j(page) {
    assert.equal(await page.locator(".tree .s").first().textContent(), '"x"');
    await page.locator("summary", { hasText: "list" }).locator("xpath=..").locator(".in summary").click();
    await page.getByText('"b"').waitFor();
  },
};

// What must end on the page as text, at once, and do nothing.
const SCRIPT = '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2"><svg onload="window.pwned = 3">';
const LINKS = [
  "[a](javascript:window.pwned=4)", "[b](JaVaScRiPt:window.pwned=5)", "[c](  javascript:window.pwned=6)", "[d](java\tscript:window.pwned=7)",
  "[e](data:text/html,<script>window.pwned=8</script>)", "[f](vbscript:x)", "<javascript:window.pwned=9>", "![g](javascript:window.pwned=10)",
  "[h](//evil.example/x)", "[i](file:///etc/passwd)", "![j](https://evil.example/pixel.png)", '[k](https://x.example" onclick="window.pwned=11)',
].join("\n\n");
const all = (content, more = {}) => ["markdown", "code", "diff", "csv", "json", "html", ""].map((kind, n) => ({ id: `${n}`, kind, title: SCRIPT, filename: SCRIPT, language: SCRIPT, ...(kind === "diff" ? { patch: content } : { content }), ...more }));
const HOSTILE = {
  scripts: all(SCRIPT),
  links: all(LINKS),
  escapes: all("A$$B$&C$`D$'E</script></head><!--\u2028\u2029\0\ufeff"),
  "a wide table": all(",".repeat(300_000)),
  "a long table": all("a,b\n".repeat(60_000)),
  "a markdown table": all(`|a|b|\n|-|-|\n${"|x|y|\n".repeat(50_000)}`),
  "a wide markdown table": all(`${"|a".repeat(20_000)}|\n${"|-".repeat(20_000)}|\n|x|\n`),
  quotes: all(">".repeat(100_000)),
  "quotes in lines": all(`${">".repeat(500)}\n`.repeat(500)),
  lists: all(Array.from({ length: 600 }, (_, n) => `${" ".repeat(n)}- x`).join("\n")),
  stars: all("*a ".repeat(100_000)),
  "more stars": all("*".repeat(300_000)),
  underscores: all("_a_ ".repeat(75_000)),
  brackets: all("[".repeat(300_000)),
  "open links": all("[a](".repeat(70_000)),
  backticks: all(Array.from({ length: 700 }, (_, n) => "`".repeat(n)).join(" ")),
  "deep json": all("[".repeat(150_000) + "]".repeat(150_000)),
  "wide json": all(`[${"1,".repeat(150_000)}1]`),
  "json keys": all(`{"__proto__":{"a":1},"constructor":1,"${"k".repeat(100_000)}":2}`),
  "one long line": all("x".repeat(300_000)),
  "many lines": all("x\n".repeat(100_000)),
  "two strangers": all("", { kind: "diff", patch: "", oldContent: lines(0, (n) => `a${n}`).repeat(500), newContent: lines(0, (n) => `b${n}`).repeat(500) }),
  "hunks": all("@@ -1 +1 @@\n+a\n-b\n".repeat(15_000)),
};

const scenarios = {
  async kinds(browser) {
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [390, 1280]) {
        for (const one of KINDS) {
          const artifacts = [one, ...KINDS.filter((other) => other !== one)];
          const page = await open(browser, await create(`p${encode(bundle(...artifacts))}`), { colorScheme, viewport: { width, height: 900 } });
          assert.equal(await page.title(), one.title);
          assert.equal(await page.textContent("header h1"), one.title);
          await checks[one.id](page);
          const overflows = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
          assert.ok(!overflows, `${one.id}: nothing to scroll sideways at ${width} px`);
          await page.evaluate(() => scrollTo(0, 0));
          await shot(page, `${one.title}-${colorScheme}-${width}`);
          await close(page);
        }
      }
    }
    // From one to the next, and their source.
    const page = await open(browser, await create(`agent-render=v1.plain.${encode(bundle(...KINDS))}`));
    for (const one of KINDS) {
      await page.getByRole("tab", { name: one.title }).click();
      assert.equal(await page.textContent("header h1"), one.title);
      await checks[one.id](page);
    }
    await page.getByRole("tab", { name: "Report" }).click();
    await page.getByRole("button", { name: "Source" }).click();
    assert.equal(await page.textContent("main pre"), MARKDOWN);
    await page.keyboard.press("Tab");
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download" }).click();
    assert.equal((await download).suggestedFilename(), "Report.md");
    assert.equal(await page.evaluate(() => window.__AGENT_RENDER_PAYLOAD__), undefined, "taken");
    await close(page);
    console.log(`kinds: ${KINDS.length} in light and dark, at 390 and 1280 px`);
  },

  async texts(browser) {
    const packed = { p: 1, v: 1, c: "plain", t: "B", a: "x", r: [{ i: "x", k: "code", t: "Packed", c: "let a = 1", l: "js" }] };
    const page = await open(browser, await create(`p${encode(packed)}`));
    assert.equal(await page.textContent("header h1"), "Packed");
    assert.equal(await page.textContent(".lines .w"), "let");
    await close(page);
    for (const payload of ["any text < & > \u2028", "pnot-an-envelope", `p${encode([1])}`, `p${encode({ artifacts: [] })}`, "agent-render=v1.lz.abc", "agent-render=v1.plain.!!", "p"]) {
      const page = await open(browser, await create(payload));
      assert.equal(await page.textContent("main pre"), payload);
      await close(page);
    }
    const long = `# Long\n\n${"Word ".repeat(12_000)}the end.`;
    const full = await open(browser, await create(`p${encode(bundle({ id: "m", kind: "markdown", content: long }))}`));
    await full.getByText("the end.").waitFor();
    await close(full);
    console.log("texts: envelopes, what is none, 60,000 characters to their end");
  },

  async hostile(browser) {
    let slowest = [0, ""], shown = 0;
    const page = await open(browser, await create("x"));
    for (const [name, artifacts] of Object.entries(HOSTILE)) {
      // What is shown as plain text is the same for all that is merely long.
      const some = /^(scripts|links|escapes)$/.test(name) ? artifacts : artifacts.slice(0, 5);
      for (const one of some) {
        const url = await create(`p${encode(bundle(one))}`);
        const began = performance.now();
        await page.goto(url);
        await page.locator("main > *").first().waitFor();
        await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));
        const took = performance.now() - began;
        shown += 1;
        if (process.env.VERBOSE) console.log(`${name} as ${one.kind}: ${Math.round(took)} ms`);
        if (took > slowest[0]) slowest = [took, `${name} as ${one.kind || "nothing"}`];
        assert.ok(took < 20_000, `${name} as ${one.kind}: ${took} ms`);
        const seen = await page.evaluate(() => ({
          links: [...document.querySelectorAll("main a")].map((link) => [link.href, link.getAttribute("onclick")]),
          elements: document.querySelectorAll("main script, main img, main svg, main iframe, main [style]").length,
          prototype: {}.a,
          violations: window.violations,
          pwned: window.pwned,
        }));
        for (const [href, onclick] of seen.links) {
          assert.match(href, /^(https?|mailto):/);
          assert.equal(onclick, null);
        }
        assert.deepEqual({ ...seen, links: 0 }, { links: 0, elements: 0, prototype: undefined, violations: [], pwned: undefined }, `${name} as ${one.kind}`);
      }
    }
    await close(page);
    console.log(`hostile: ${Object.keys(HOSTILE).length} payloads, ${shown} pages, slowest ${Math.round(slowest[0])} ms (${slowest[1]})`);
  },

  // The public front end, served from a directory.
  async frontend(browser) {
    const seen = async (artifact, text) => {
      const page = await open(browser, await create(`agent-render=v1.plain.${encode(bundle(artifact))}`));
      await page.getByText(text).first().waitFor();
      await shot(page, `frontend-${artifact.id}`);
      await close(page);
    };
    await seen(KINDS[0], "A paragraph with");
    await seen(KINDS[1], "return");
    await seen(KINDS[2], "done()");
    await seen(KINDS[4], "Berlin");
    await seen(KINDS[5], "none");
    const long = `# Long\n\n${"Word ".repeat(11_990)}the very end.`;
    await seen({ id: "long", kind: "markdown", title: "Long", content: long }, "the very end.");
    const odd = "A$$B$&C$`D$'E</script>F\u2028G";
    const payload = `p${encode(bundle({ id: "o", kind: "code", title: "odd", language: "text", content: odd }))}`;
    const page = await open(browser, await create(payload));
    await page.getByText("A$$B$&C$`D$'E</script>F").first().waitFor();
    await close(page);
    // Not decodable, but it reaches the page as it was sent.
    const raw = await create(odd);
    const html = await (await fetch(raw)).text();
    const literal = /__AGENT_RENDER_PAYLOAD__=(".*?");<\/script>/.exec(html)[1];
    assert.equal(JSON.parse(literal), odd);
    console.log("frontend: five kinds, 60,000 characters to their end, patterns and separators unharmed");
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
try {
  await scenarios[scenario](browser);
} finally {
  await browser.close();
}
