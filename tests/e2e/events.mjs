// The side of Node and Chromium in events.py: node events.mjs SCENARIO URL [CHANGES]
import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const require = createRequire(join(process.env.NODE_MODULES, "/"));
const [scenario, base, count] = process.argv.slice(2);
const LIMIT_MS = 30_000;
const KINDS = ["state.initial", "state.update", "execution.status", "custom-event", "heartbeat", "action"];
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });

function request(method, path, body) {
  return new Promise((resolve, reject) => {
    const headers = { "x-verified-user-data": '{"role":"admin"}' };
    const sent = http.request(`${base}/_frag${path}`, { method, headers, agent }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => {
        const text = Buffer.concat(parts).toString();
        answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(`${answer.statusCode} ${text}`));
      });
    });
    sent.on("error", reject);
    sent.end(body && JSON.stringify(body));
  });
}

const note = (payload) => request("POST", "/dispatch", { action: { type: "NOTE", payload } });

async function until(condition, what) {
  const end = Date.now() + LIMIT_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await pause(5);
  }
}

// Numbers that are the same each time.
function dice(seed) {
  return (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
}

const KEYS = ["a", "b", "10", "9", "", "a/b", "m~n", "~1", "\u00e9", "__proto__", "constructor", "prototype", "length"];

function nonsense(roll, depth) {
  const items = (make) => Array.from({ length: roll(4) }, make);
  switch (roll(depth ? 9 : 6)) {
    case 0: return null;
    case 1: return roll(2) === 0;
    case 2: return roll(1000);
    case 3: return roll(1_000_000) / 7 - 1e4;
    case 4: return [1e21, 1e-7, -0, 0.1, 2 ** 53][roll(5)];
    case 5: return "x\u2028\"\\\u{1f600}".repeat(roll(3));
    case 6: return items(() => nonsense(roll, depth - 1));
    default: {
      const object = {};
      // A plain assignment of __proto__ would set the prototype.
      for (const key of items(() => KEYS[roll(KEYS.length)])) {
        const value = nonsense(roll, depth - 1);
        Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
      }
      return object;
    }
  }
}

// Follows a stream as the README of such a client says: initial replaces all, update patches or replaces.
class Follower {
  constructor(source, applyPatch) {
    Object.assign(this, { slices: null, events: 0, patches: 0, values: 0, initials: 0, last: null });
    for (const kind of KINDS) {
      source.addEventListener(kind, ({ data, lastEventId }) => {
        const event = JSON.parse(data);
        assert.equal(event.type, kind);
        if (kind === "state.initial") {
          this.slices = event.slices;
          this.initials += 1;
        } else if (kind === "state.update") {
          assert.ok(("patches" in event) !== ("value" in event), data);
          if (event.patches) {
            // Validated: an operation that does not fit throws.
            const document = this.slices[event.slice];
            this.slices[event.slice] = applyPatch(document, event.patches, true, true, false).newDocument;
            this.patches += 1;
          } else {
            this.slices[event.slice] = event.value;
            this.values += 1;
          }
        }
        this.events += 1;
        this.last = lastEventId;
      });
    }
  }

  async equals() {
    const state = await request("GET", "/state");
    try {
      assert.deepStrictEqual(this.slices, state);
      return true;
    } catch {
      return false;
    }
  }
}

async function library(name) {
  const entry = require.resolve(name);
  const module = await import(pathToFileURL(entry));
  return module.default && !module.EventSource && !module.applyPatch ? module.default : module;
}

const scenarios = {
  // Random changes, in batches and one by one: after each the follower has what the server has.
  async patches() {
    const { EventSource } = await library("eventsource");
    const { applyPatch } = require("fast-json-patch");
    const source = new EventSource(`${base}/_frag/stream/state`);
    const follower = new Follower(source, applyPatch);
    await until(() => follower.slices, "the initial state");
    const roll = dice(42);
    let changes = 0, compared = 0, single = 0;
    while (changes < Number(count)) {
      const size = process.env.EVENTS_ONE_BY_ONE ? 1 : [1, 1, 2, 10, 60, 120][roll(6)];
      const batch = Array.from({ length: size }, () => {
        if (roll(40) === 0) return request("PUT", `/upload/f${roll(5)}`, roll(100));
        return note(nonsense(roll, 4));
      });
      await Promise.all(batch);
      changes += size;
      single += size === 1;
      await until(() => follower.equals(), `the state after ${changes} changes`);
      compared += 1;
    }
    source.close();
    assert.equal(follower.initials, 1);
    assert.ok(follower.patches > 100 && follower.values > 10, `${follower.patches} ${follower.values}`);
    console.log(
      `eventsource and fast-json-patch: ${changes} changes in ${follower.events} events ` +
      `(${follower.patches} patches, ${follower.values} values), equal to the state ${compared} times ` +
      `(${single} after one change)`,
    );
  },

  // Cut connections: the library comes back by itself, and resumes.
  async eventsource() {
    const { EventSource } = await library("eventsource");
    const { applyPatch } = require("fast-json-patch");
    const proxy = await cuttable();
    const source = new EventSource(`${proxy.url}/_frag/events`);
    const follower = new Follower(source, applyPatch);
    await resumes("eventsource", proxy, () => follower, () => follower.equals());
    source.close();
    proxy.close();
  },

  async chromium() {
    const { chromium } = require("playwright-core");
    const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
    const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: flags });
    const proxy = await cuttable();
    try {
      const page = await browser.newPage();
      await page.goto(`${proxy.url}/_frag/health`);
      await page.addScriptTag({ path: require.resolve("fast-json-patch/dist/fast-json-patch.min.js") });
      await page.evaluate(`
        ${Follower.toString().replaceAll("assert.equal(event.type, kind);", "").replace(/assert\.ok\([^;]*;/, "")}
        const KINDS = ${JSON.stringify(KINDS)};
        window.follower = new Follower(new EventSource("/_frag/events"), jsonpatch.applyPatch);
      `);
      const seen = () => page.evaluate("({ ...window.follower })");
      let now = await seen();
      await resumes("chromium", proxy, () => now, async () => {
        now = await seen();
        const state = await request("GET", "/state");
        try {
          assert.deepStrictEqual(now.slices, state);
          return true;
        } catch {
          return false;
        }
      });
    } finally {
      await browser.close();
      proxy.close();
    }
  },
};

// The client is cut off, things happen, and it knows them when it is back, without a second initial.
async function resumes(name, proxy, follower, equals) {
  await until(() => equals(), "the initial state");
  for (let round = 0; round < 3; round += 1) {
    for (let n = 0; n < 5; n += 1) await note({ text: `${round}.${n}` });
    await until(() => equals(), "the state while connected");
    proxy.cut();
    await note({ text: `while away ${round}` });
    await until(() => equals(), "the state after coming back");
  }
  await until(async () => (await equals(), follower().events > 20), "heartbeats");
  assert.equal(follower().initials, 1, "each time it resumed");
  assert.equal(proxy.resumed(), 3);
  console.log(`${name}: cut 3 times, resumed 3 times by Last-Event-ID; ${follower().events} events`);
}

// A way to the server whose connections can be cut.
async function cuttable() {
  const target = new URL(base);
  const pairs = new Set();
  let resumed = 0;
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(target.port), target.hostname);
    const pair = [client, upstream];
    pairs.add(pair);
    client.on("data", (bytes) => {
      if (/^last-event-id: \d+\r$/im.test(bytes.toString("latin1"))) resumed += 1;
    });
    client.pipe(upstream).pipe(client);
    for (const socket of pair) {
      socket.on("error", () => {});
      socket.on("close", () => pair.forEach((other) => other.destroy()));
    }
    client.on("close", () => pairs.delete(pair));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => pairs.forEach((pair) => pair.forEach((socket) => socket.destroy())),
    resumed: () => resumed,
    close: () => { server.close(); pairs.forEach((pair) => pair.forEach((socket) => socket.destroy())); },
  };
}

await scenarios[scenario]();
process.exit(0);
