"""Sends CloudEvents with the Python package, in every mode it has, and compares what is read back.

Usage: cloud_events.py BASE_URL TOPIC, with an empty topic of one partition.
"""

import base64
import json
import sys
import urllib.request
from datetime import datetime
from pathlib import Path

from cloudevents.core.bindings import http as core_http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.conversion import to_binary as to_binary_1
from cloudevents.v1.conversion import to_structured as to_structured_1
from cloudevents.v1.http import CloudEvent as CloudEvent1
from cloudevents.v1.http import from_http as from_http_1

CASES = json.loads((Path(__file__).parent.parent / "events.json").read_text("utf-8"))
# What the engine adds to each event.
ADDED = {"sequence", "recordedtime"}
TIMEOUT = 30

if len(sys.argv) != 3:
    sys.exit(__doc__)
EVENTS = f"{sys.argv[1]}/v1/topics/{sys.argv[2]}"


def attributes_of(event):
    return {name: value for name, value in event.items() if name not in ("data", "data_base64")}


def is_json(event):
    return event.get("datacontenttype", "application/json").endswith("json")


def data_of(event):
    """The data as the package wants it for structured mode."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    return event.get("data")


def body_of(event):
    """The data as bytes, for binary mode: the package writes lists and null otherwise than as JSON."""
    if "data" not in event:
        return data_of(event)
    text = json.dumps(event["data"], ensure_ascii=False) if is_json(event) else event["data"]
    return text.encode()


def event_2(event, data):
    attributes = attributes_of(event)
    attributes["time"] = datetime.fromisoformat(attributes["time"])
    return CloudEvent(attributes, data)


def structured_2(events):
    for event in events:
        message = core_http.to_structured_event(event_2(event, data_of(event)))
        yield message.headers, message.body


def binary_2(events):
    for event in events:
        message = core_http.to_binary_event(event_2(event, body_of(event)))
        yield message.headers, message.body


def batch_2(events):
    """The package has no batches: a batch is a list of what it writes in structured mode."""
    texts = [JSONFormat().write(event_2(event, data_of(event))) for event in events]
    yield {"content-type": "application/cloudevents-batch+json"}, b"[" + b",".join(texts) + b"]"


def structured_1(events):
    for event in events:
        data = data_of(event)
        # Else the package writes texts as JSON in a text.
        marshaller = None if isinstance(data, bytes) else lambda data: data
        yield to_structured_1(CloudEvent1(attributes_of(event), data), marshaller)


def binary_1(events):
    for event in events:
        yield to_binary_1(CloudEvent1(attributes_of(event), body_of(event)), lambda data: data)


# `not` in events.json: version 1 does not percent-code headers, both take null in structured mode for no data, and version 1
# takes it so in binary mode, too.
MODES = {
    "python-2-structured": structured_2,
    "python-2-binary": binary_2,
    "python-2-batch": batch_2,
    "python-1-structured": structured_1,
    "python-1-binary": binary_1,
}


def request(path, headers, body=None):
    # The names of headers go as the packages write them.
    asked = urllib.request.Request(EVENTS + path, data=body, headers=dict(headers))
    try:
        return urllib.request.urlopen(asked, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error}: {error.read().decode()}") from None


def publish(headers, body):
    with request("/events", headers, b"" if body is None else body) as response:
        outcomes = json.load(response)
    assert all(outcome["outcome"] == "stored" for outcome in outcomes), outcomes
    return len(outcomes)


def read_batch(start):
    with request(f"/events?from={start}", {"accept": "application/cloudevents-batch+json"}) as response:
        assert response.headers["content-type"] == "application/cloudevents-batch+json"
        return json.load(response)


def read_stream(start, count):
    """The events of a stream: data, type and id of each, read as the standard says."""
    events, fields = [], {}
    with request(f"/stream?from={start}", {"accept": "text/event-stream"}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        for line in response:
            name, _, value = line.decode().rstrip("\n").partition(":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(" "))
                continue
            if "data" in fields:
                assert fields["id"] == [f"0:{start + len(events) + 1}"], fields
                event = json.loads("\n".join(fields["data"]))
                assert fields["event"] == [event["type"]], fields
                events.append(event)
            fields = {}
            if len(events) == count:
                return events
    raise AssertionError(f"the stream ended after {len(events)} of {count} events")


def check_raw(sent, got, offset):
    """What came is what was sent and the two attributes that the engine adds. All attributes come as texts."""
    expected = {name: value if name.startswith("data") else str(value) for name, value in sent.items()}
    found = {name: value for name, value in got.items() if name not in ADDED}
    assert ADDED <= got.keys() and got["sequence"] == f"{offset:020}", got
    for event in (expected, found):
        event["time"] = datetime.fromisoformat(event["time"])
    assert found == expected, f"\nsent {expected}\ngot  {found}"


def check_packages(sent, got):
    """Both versions of the package, as receivers, see the event as they would write it."""
    body = json.dumps(got).encode()
    headers = {"content-type": "application/cloudevents+json"}
    event = core_http.from_http_event(core_http.HTTPMessage(headers, body))
    for name, value in attributes_of(sent).items():
        value = datetime.fromisoformat(value) if name == "time" else str(value)
        assert event.get_attributes()[name] == value, (name, event.get_attributes())
    assert event.get_data() == data_of(sent), (sent, event.get_data())
    event = from_http_1(headers, body)
    assert event["id"] == sent["id"] and event["type"] == sent["type"], event
    assert event.data == data_of(sent), (sent, event.data)


def main():
    offset = 0
    for mode, messages in MODES.items():
        sent = [case["event"] for case in CASES if mode not in case.get("not", [])]
        stored = sum(publish(*message) for message in messages(sent))
        assert stored == len(sent), f"{mode}: {stored} of {len(sent)} were stored"
        batch, stream = read_batch(offset), read_stream(offset, len(sent))
        assert batch == stream and len(batch) == len(sent), f"{mode}\nbatch  {batch}\nstream {stream}"
        for number, (event, got) in enumerate(zip(sent, batch)):
            try:
                check_raw(event, got, offset + number)
                check_packages(event, got)
            except AssertionError as error:
                raise AssertionError(f"{mode}, event {event['id']}: {error}") from error
        offset += len(sent)
        print(f"{mode}: {len(sent)} events came back equal")


main()
