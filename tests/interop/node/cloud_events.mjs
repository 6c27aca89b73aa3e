// Sends CloudEvents with the npm package, in every mode it has, and compares what is read back.
//
// Usage: node cloud_events.mjs BASE_URL TOPIC, with an empty topic of one partition.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { load } from "./packages.mjs";

const { CloudEvent, HTTP } = await load("cloudevents");
const { EventSource } = await load("eventsource");

const CASES = JSON.parse(readFileSync(new URL("../events.json", import.meta.url), "utf8"));
// What the engine adds to each event.
const ADDED = ["recordedtime", "sequence"];
const TIMEOUT_MS = 30_000;

const [base, topic] = process.argv.slice(2);
assert(base && topic, "usage: node cloud_events.mjs BASE_URL TOPIC");
const url = `${base}/v1/topics/${topic}`;

const isJson = (event) => event.datacontenttype?.endsWith("json") ?? true;

/** The event as the package has it. Binary data is a typed array. */
function cloudEvent({ data_base64, ...event }) {
  return new CloudEvent(data_base64 ? { ...event, data: new Uint8Array(Buffer.from(data_base64, "base64")) } : event);
}

/** In binary mode: the package leaves numbers to its caller, and says application/json where there is no type. */
function binary(event) {
  const message = HTTP.binary(cloudEvent(event));
  return { ...message, body: typeof message.body === "number" ? String(message.body) : message.body };
}

/** The package has no batches to send: a batch is a list of what it writes in structured mode. */
function batch(events) {
  const texts = events.map((event) => HTTP.structured(cloudEvent(event)).body);
  return [{ headers: { "content-type": "application/cloudevents-batch+json" }, body: `[${texts.join(",")}]` }];
}

// `not` in events.json: in binary mode the package does not percent-code headers, and sends a JSON text without its quotes.
const MODES = {
  "node-structured": (events) => events.map((event) => HTTP.structured(cloudEvent(event))),
  "node-binary": (events) => events.map(binary),
  "node-batch": batch,
};

async function answered(path, options) {
  const response = await fetch(url + path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return { headers: Object.fromEntries(response.headers), body: text };
}

async function publish({ headers, body }) {
  const outcomes = JSON.parse((await answered("/events", { method: "POST", headers, body })).body);
  for (const { outcome } of outcomes) {
    assert.equal(outcome, "stored");
  }
  return outcomes.length;
}

/** The events of a stream from this offset on, as the texts of their data. */
async function readStream(from, count, types) {
  const source = new EventSource(`${url}/stream?from=${from}`);
  const texts = [];
  try {
    await new Promise((resolve, reject) => {
      const late = () => reject(new Error(`${texts.length} of ${count} events came in time`));
      setTimeout(late, TIMEOUT_MS).unref();
      source.addEventListener("error", (error) => reject(new Error(`the stream failed: ${error.message}`)));
      const take = (message) => {
        assert.equal(message.lastEventId, `0:${from + texts.length + 1}`);
        assert.equal(message.type, JSON.parse(message.data).type);
        if (texts.push(message.data) === count) {
          resolve();
        }
      };
      types.forEach((type) => source.addEventListener(type, take));
    });
  } finally {
    source.close();
  }
  return texts;
}

/** What came is what was sent and the two attributes that the engine adds. All attributes come as texts. */
function checkRaw(sent, got, offset) {
  const asText = ([name, value]) => [name, name.startsWith("data") ? value : String(value)];
  const expected = Object.fromEntries(Object.entries(sent).map(asText));
  const found = Object.fromEntries(Object.entries(got).filter(([name]) => !ADDED.includes(name)));
  assert.equal(got.sequence, String(offset).padStart(20, "0"));
  assert(!Number.isNaN(Date.parse(got.recordedtime)), got.recordedtime);
  // The package sends times in UTC, in milliseconds.
  expected.time = new Date(sent.time).toISOString();
  found.time = new Date(got.time).toISOString();
  assert.deepEqual(found, expected);
}

/** The package as a receiver sees the event as it would make it. */
function checkPackage(sent, event) {
  const made = cloudEvent(sent);
  for (const name of Object.keys(sent).filter((name) => !["data", "data_base64", "time"].includes(name))) {
    assert.equal(event[name], String(made[name]), name);
  }
  assert.equal(new Date(event.time).getTime(), new Date(made.time).getTime());
  // Bytes come as typed arrays of different kinds.
  const plain = ({ data, data_base64 }) => data_base64 ?? data ?? null;
  assert.deepEqual(plain(event), plain(made));
}

let offset = 0;
for (const [mode, messages] of Object.entries(MODES)) {
  const sent = CASES.filter((it) => !it.not?.includes(mode)).map((it) => it.event);
  let stored = 0;
  for (const message of messages(sent)) {
    stored += await publish(message);
  }
  assert.equal(stored, sent.length);
  const accept = "application/cloudevents-batch+json";
  const read = await answered(`/events?from=${offset}`, { headers: { accept } });
  const stream = await readStream(offset, sent.length, [...new Set(sent.map((event) => event.type))]);
  const got = JSON.parse(read.body);
  assert.deepEqual(stream.map((text) => JSON.parse(text)), got);
  const batched = HTTP.toEvent(read);
  assert.equal(batched.length, sent.length);
  sent.forEach((event, index) => {
    try {
      checkRaw(event, got[index], offset + index);
      checkPackage(event, batched[index]);
      const headers = { "content-type": "application/cloudevents+json" };
      checkPackage(event, HTTP.toEvent({ headers, body: stream[index] }));
    } catch (error) {
      error.message = `${mode}, event ${event.id}: ${error.message}`;
      throw error;
    }
  });
  offset += sent.length;
  console.log(`${mode}: ${sent.length} events came back equal`);
}
