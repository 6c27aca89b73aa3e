// Cuts the connection of npm's EventSource 50 times while events are published, and checks that each event comes once.
//
// Usage: node event_source.mjs BASE_URL TOPIC first-id|first-event, with an empty topic. The first cut comes after the first id, before
// any event, or after the first events; all others come wherever they come, within events and within the head of the response.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

import { load } from "./packages.mjs";

const { EventSource } = await load("eventsource");

const CUTS = 50;
/** Most bytes of the response that a connection lets through before it is cut. */
const BYTES_MAX = 2_500;
const TIMEOUT_MS = 60_000;
/** Published after the last cut. */
const LAST = 20;

const [base, topic, first] = process.argv.slice(2);
assert(["first-id", "first-event"].includes(first), "usage: node event_source.mjs BASE_URL TOPIC first-id|first-event");
const engine = new URL(base);

/** A proxy that cuts every connection but the last. */
class Proxy {
  cuts = 0;
  /** Only the first connection is cut by hand. */
  #byHand = true;
  #sockets = new Set();
  #server = net.createServer((client) => this.#forward(client));

  async listen() {
    await once(this.#server.listen(0, "127.0.0.1"), "listening");
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** What has come is still delivered: the client sees all bytes, and then the end. */
  cutByHand() {
    this.#byHand = false;
    this.cuts += 1;
    this.#sockets.forEach((socket) => socket.end());
  }

  #forward(client) {
    const upstream = net.connect(Number(engine.port), engine.hostname);
    let left = this.#byHand || this.cuts >= CUTS ? Infinity : Math.floor(Math.random() * BYTES_MAX);
    this.#sockets.add(client);
    const close = () => {
      this.#sockets.delete(client);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      socket.on("error", close).on("close", close);
    }
    client.on("data", (bytes) => upstream.write(bytes));
    upstream.on("data", (bytes) => {
      // The client is told to wait for 2 s before it comes again: 20 ms do as well here, and have as many digits.
      const text = Buffer.from(bytes.toString("latin1").replace("retry: 2000\n", "retry: 0020\n"), "latin1");
      if (left === 0) {
        return;
      }
      const part = text.subarray(0, left);
      left -= part.length;
      client.write(part);
      if (left === 0) {
        this.cuts += 1;
        client.end();
        upstream.destroy();
      }
    });
  }

  close() {
    this.#server.close();
    this.#sockets.forEach((socket) => socket.destroy());
  }
}

let published = 0;
async function publish(count) {
  for (let end = published + count; published < end; published += 1) {
    const body = JSON.stringify({ number: published, text: "€".repeat(published % 50) });
    const headers = { "content-type": "application/json", "levada-key": `key-${published}` };
    const response = await fetch(`${base}/v1/topics/${topic}/events`, { method: "POST", headers, body });
    assert.equal(response.status, 200, await response.text());
  }
}

async function until(what, condition) {
  const end = Date.now() + TIMEOUT_MS;
  while (!condition()) {
    assert(Date.now() < end, `${what}: not in time; ${proxy.cuts} cuts, ${received.length} of ${published} events`);
    await sleep(5);
  }
}

const proxy = new Proxy();
const source = new EventSource(`${await proxy.listen()}/v1/topics/${topic}/stream?from=latest`);
/** Numbers of events in the order in which they came, and the last offset of each partition. */
const received = [];
const ids = [];
let opened = 0;
source.addEventListener("open", () => (opened += 1));
source.addEventListener("events_lost", (event) => assert.fail(`events lost: ${event.data}`));
source.addEventListener("levada.event", (event) => {
  received.push(JSON.parse(event.data).data.number);
  ids.push(event.lastEventId);
});

await until("the first connection", () => opened === 1);
if (first === "first-event") {
  await publish(3);
  await until("the first events", () => received.length === 3);
} else {
  // The id comes with the head, or right behind it.
  await sleep(200);
}
proxy.cutByHand();
await publish(10);
while (proxy.cuts < CUTS) {
  await publish(1);
  // However slowly the stream comes again: it is cut by what it has sent.
  await until("the stream", () => received.length >= published - 100);
  assert(published < 20_000, `only ${proxy.cuts} cuts among ${published} events`);
}
await publish(LAST);
await until("all events", () => received.length >= published);
// One that comes twice may come a little later.
await sleep(200);
source.close();
proxy.close();

const sorted = [...received].sort((one, other) => one - other);
const doubles = sorted.filter((number, index) => number === sorted[index - 1]);
assert.deepEqual(doubles, [], "events that came twice");
assert.deepEqual(sorted, [...Array(published).keys()], "events that are missing");
assert.equal(new Set(ids).size, ids.length, "each event has an id of its own");
assert(proxy.cuts === CUTS && opened >= 2, `${proxy.cuts} cuts`);
console.log(`${first}: ${published} events came once each through ${CUTS} cuts; the stream was opened ${opened} times`);
process.exit(0);
