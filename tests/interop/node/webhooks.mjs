// Receives pushes of the engine and verifies them with the npm package of Standard Webhooks, while their secret is rotated.
//
// Usage: node webhooks.mjs BASE_URL TOPIC, with an empty topic; the engine must allow pushes to 127.0.0.1.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";

import { load } from "./packages.mjs";

const { Webhook } = await load("standardwebhooks");

const TIMEOUT_MS = 60_000;
// With all that is hard in texts.
const PAYLOADS = [{ note: 'Euro € 😀 "100%"' }, { note: "a\nb\\c" }, { n: 1.5 }];

const [base, topic] = process.argv.slice(2);
assert(base && topic, "usage: node webhooks.mjs BASE_URL TOPIC");
const subscription = `${base}/v1/topics/${topic}/subscriptions/hook`;

const receiver = http.createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray()).toString();
  response.writeHead(204).end();
  receiver.emit("pushed", { headers: request.headers, body });
});
await once(receiver.listen(0, "127.0.0.1"), "listening");

async function ask(method, url, body) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url, { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(TIMEOUT_MS) });
  const text = await response.text();
  assert(response.ok, text);
  return JSON.parse(text);
}

function verifies(secret, { headers, body }) {
  try {
    return new Webhook(secret).verify(body, headers);
  } catch {
    return null;
  }
}

/** Publishes an event and returns what the receiver gets. */
async function pushed(payload) {
  const coming = once(receiver, "pushed", { signal: AbortSignal.timeout(TIMEOUT_MS) });
  await ask("POST", `${base}/v1/topics/${topic}/events`, payload);
  const [came] = await coming;
  assert.deepEqual(JSON.parse(came.body).data, payload);
  return came;
}

await ask("PUT", `${subscription}?from=earliest`, {});
const { secret: first } = await ask("PUT", `${subscription}/push`, { url: `http://127.0.0.1:${receiver.address().port}/hook` });
for (const payload of PAYLOADS) {
  const came = await pushed(payload);
  assert.deepEqual(verifies(first, came)?.data, payload);
  assert.equal(verifies(first, { ...came, body: `${came.body} ` }), null, "a changed body");
}

const { secret: second } = await ask("PUT", `${subscription}/push`, { new_secret: true });
assert.notEqual(first, second);
for (const payload of PAYLOADS) {
  const came = await pushed(payload);
  for (const secret of [first, second]) {
    assert.deepEqual(verifies(secret, came)?.data, payload);
    assert.equal(verifies(secret, { ...came, body: `${came.body} ` }), null, "a changed body");
  }
}

const { secret: third } = await ask("PUT", `${subscription}/push`, { new_secret: true, previous_for: "0s" });
const came = await pushed(PAYLOADS[0]);
assert(verifies(third, came) && !verifies(first, came) && !verifies(second, came));
console.log(`verified ${2 * PAYLOADS.length + 1} pushes with three secrets`);
process.exit(0);
