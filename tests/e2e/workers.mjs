// Observes a worker with the npm package `ws`, coming back with the last cursor after every so many
// events: node workers.mjs URL TOKEN EVENTS_A_CONNECTION UNTIL. Prints one line of JSON.
import { createRequire } from "node:module";

const { WebSocket } = createRequire(process.cwd() + "/")("ws");
const [url, token, each, until] = process.argv.slice(2);
const seen = [];
let cursor = "wo_0000000000000000";
let connections = 0;
let snapshots = 0;
let pings = 0;

function observe() {
  connections += 1;
  const socket = new WebSocket(`${url}?cursor=${cursor}`, { headers: { Authorization: `Bearer ${token}` } });
  let left = Number(each);
  let isFirst = true;
  socket.on("ping", () => (pings += 1));
  socket.on("message", (data, isBinary) => {
    const frame = JSON.parse(data);
    if (isBinary || frame.kind !== "event") throw new Error(String(data));
    const { payload } = frame.envelope;
    if (isFirst) {
      isFirst = false;
      snapshots += payload.event === "snapshot" ? 1 : 0;
      if (frame.envelope.event_id !== `snapshot:${cursor}`) throw new Error(String(data));
      return;
    }
    if (left <= 0) return;
    cursor = frame.envelope.cursor;
    seen.push(parseInt(cursor.slice(3), 16));
    left -= 1;
    if (payload.event === until) {
      socket.close();
      console.log(JSON.stringify({ seen: seen.length, first: seen[0], last: seen.at(-1), ordered: seen.every((n, i) => i === 0 || n > seen[i - 1]), connections, snapshots, pings }));
      process.exit(0);
    }
    if (left === 0) socket.close();
  });
  socket.on("close", (code) => {
    if (code !== 1005 && code !== 1000) throw new Error(`closed with ${code}`);
    observe();
  });
  socket.on("error", (error) => {
    throw error;
  });
}

observe();
