"""Receives pushes of the engine and verifies them with the package of Standard Webhooks, while their secret is rotated.

Usage: python webhooks.py BASE_URL TOPIC, with an empty topic; the engine must allow pushes to 127.0.0.1.
"""

import json
import queue
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

TIMEOUT_S = 60
# With all that is hard in texts.
PAYLOADS = [{"note": "Euro € 😀 \"100%\""}, {"note": "a\nb\\c"}, {"n": 1.50}]

base, topic = sys.argv[1:]
subscription = f"{base}/v1/topics/{topic}/subscriptions/hook"
received = queue.Queue()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        received.put((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def ask(method, url, body):
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)


def verifies(secret, headers, body):
    try:
        return Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return None


def pushed(payload):
    """Publishes an event and returns what the receiver gets."""
    ask("POST", f"{base}/v1/topics/{topic}/events", payload)
    headers, body = received.get(timeout=TIMEOUT_S)
    assert json.loads(body)["data"] == payload, body
    return headers, body


server = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
ask("PUT", f"{subscription}?from=earliest", {})
push = {"url": f"http://127.0.0.1:{server.server_port}/hook"}
first = ask("PUT", f"{subscription}/push", push)["secret"]
for payload in PAYLOADS:
    headers, body = pushed(payload)
    assert verifies(first, headers, body)["data"] == payload, headers
    assert verifies(first, headers, body + b" ") is None, "a changed body"
    assert verifies(first, {**headers, "webhook-id": "lv_9_9_9"}, body) is None, "a changed id"

second = ask("PUT", f"{subscription}/push", {"new_secret": True})["secret"]
assert first != second
for payload in PAYLOADS:
    headers, body = pushed(payload)
    assert len(headers["webhook-signature"].split(" ")) == 2, headers
    for secret in [first, second]:
        assert verifies(secret, headers, body)["data"] == payload, headers
        assert verifies(secret, headers, body + b" ") is None, "a changed body"

third = ask("PUT", f"{subscription}/push", {"new_secret": True, "previous_for": "0s"})["secret"]
headers, body = pushed(PAYLOADS[0])
assert verifies(third, headers, body) and not verifies(first, headers, body) and not verifies(second, headers, body)
print(f"verified {2 * len(PAYLOADS) + 1} pushes with three secrets")
