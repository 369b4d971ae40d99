// conform.mjs: cases.json through JavaScript's ws library; conform.py runs it and judges what came back, which is printed as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [file, url, modules] = process.argv.slice(2);
const WebSocket = createRequire(modules + "/")("ws");
const patience = 60_000;

function request({ request: id, size = 0, raw }) {
  if (raw) {
    const header = Buffer.from(JSON.stringify({ id, model: "half_plus_two" }));
    return Buffer.concat([Buffer.from([4, 0, header.length, 0]), header, Buffer.from("0000803f", "hex")]);
  }
  return JSON.stringify({ id, model: "half_plus_two", instances: [[1]] }).padEnd(size);
}

function frame({ op, fin = 1, rsv = 0, hex = "", fill = 0, mask = true }) {
  const payload = fill ? Buffer.alloc(fill, " ") : Buffer.from(hex, "hex");
  const n = payload.length, bit = mask ? 0x80 : 0;
  let head;
  if (n < 126) head = Buffer.from([0, bit | n]);
  else if (n < 65536) { head = Buffer.alloc(4); head[1] = bit | 126; head.writeUInt16BE(n, 2); }
  else { head = Buffer.alloc(10); head[1] = bit | 127; head.writeBigUInt64BE(BigInt(n), 2); }
  head[0] = fin << 7 | rsv << 4 | op;
  return Buffer.concat([head, Buffer.alloc(mask ? 4 : 0), payload]);
}

function run(c) {
  return new Promise((resolve, reject) => {
    const got = { answers: [], pongs: [], close: null };
    const ws = new WebSocket(url, "inferd.v1.json", { perMessageDeflate: true });
    const timer = setTimeout(() => { ws.terminate(); reject(new Error(`nothing more came: ${c.name}: ${JSON.stringify(got)}`)); }, patience);
    const enough = () => {
      if (!c.close && got.answers.length >= (c.answers ?? []).length && got.pongs.length >= (c.pongs ?? []).length) ws.close(1000);
    };
    ws.on("message", (data, binary) => {
      const m = JSON.parse(binary ? data.subarray(4, 4 + data[2]) : data);
      if (m.hello) {
        if (ws.extensions) reject(new Error("it agreed to " + ws.extensions));
        for (const s of c.steps) {
          if (s.request) ws.send(request(s));
          else if (s.ping !== undefined) ws.ping(Buffer.from(s.ping, "hex"));
          else ws._socket.write(s.bytes ? Buffer.from(s.bytes, "hex") : frame(s.frame));
        }
      } else if (!Object.keys(m).every((k) => k === "credits" || k === "draining")) {
        got.answers.push(m.id ?? null);
        enough();
      }
    });
    ws.on("pong", (data) => { got.pongs.push(data.toString("hex")); enough(); });
    ws.on("error", () => {}); // a close follows
    ws.on("close", (code) => { clearTimeout(timer); got.close = code; resolve(got); });
  });
}

const all = [];
for (const c of JSON.parse(readFileSync(file))) all.push(await run(c));
console.log(JSON.stringify(all));
