"""What Schemathesis is told of the endpoints beside their description."""

import json
import re
from zlib import crc32

import schemathesis
from schemathesis import GenerationMode
from schemathesis.openapi.checks import RejectedPositiveData

# Headers that are for a body that is no CloudEvent and no lines of JSON: the description says so in words.
ONLY_RAW = {"levada-key", "levada-id", "levada-time", "levada-tombstone"}
# What the description says in words, as a JSON Schema cannot: the forms of durations, times, conditions, positions and percent-coded
# texts, and which members of a CloudEvent fit each other. A refusal says which it is.
IN_WORDS = re.compile(
    r"as (wait|from|to|delay|timeout|previous_for|Accept|Last-Event-ID|Levada-(Time|Delay|Ttl)|levada-(key|id|time|delay|ttl|tombstone))\b"
    r"|true as Levada-Tombstone, with an empty body"
    r"|^where: "
    r"|either `data` or `data_base64`, got both"
    r"|a text, as `datacontenttype` is no JSON, as `data`"
    r"|bytes in base64 as `data_base64`"
    r"|a whole number of 32 bits, true or false as the attribute `[a-z0-9]+`, got \"-?\d+\.0\""
    r"|expected `partition` with `expect_offset`"
    r"|expect_offset and deliver_at contradict each other"
    # Which members fit each other, and what there is.
    r"|^the number of partitions of topic \S+ is \d+, got \d+; it cannot be changed$"
    r"|has no effect with|contradict each other|^both a secret and new_secret were given"
    r"|^partition \d+ is named more than once|^the position of partition \d+ is of none that is read, or given more than once"
    r"|as name of the body, or none, got|is the engine's own and no target"
    r"|^expected at most 1024 bytes as reason"
    r"|^there is no push yet: expected its url$|expected an https URL|is no push secret"
    # A whole number with a point is one for a JSON Schema.
    r"|floating point `-?\d+\.0`, expected [ui](8|16|32|64)\b"
    r"|^the configuration of \S* is not JSON: |the artefact is no plugin: "
    r"|a time in RFC 3339, such as \S+ as the attribute `(time|expirytime)`"
)
# Values of such forms, so that most requests get further than to their parameters.
GOOD = {
    "wait": ["0s", "1ms", "20 ms"],
    "from": ["earliest", "latest", "0", "0:1", "2026-01-31T12:00:00+01:00"],
    "where": ["amount > 100", "amount <= 5 or not exists(amount)", 'key = "a"'],
    "last-event-id": ["", "0:0", "0:1,1:0,2:0"],
    "accept": ["*/*", "application/x-ndjson", "application/cloudevents-batch+json"],
    "to": ["earliest", "latest", "0"],
    "levada-key": ["order-1", "%E2%82%AC"],
    "levada-id": ["1", "a%20b"],
    "levada-time": ["0", "2026-01-31T12:00:00Z"],
    "levada-delay": ["0s", "5s"],
    "levada-ttl": ["1ms", "10m"],
}


@schemathesis.serializer("application/wasm")
def component(context, value):
    """Bytes as they are: hardly any are a component."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A text of the description's kind becomes the payload of an event; what is none is sent as it is, to be refused."""
    return json.dumps({"payload": value} if isinstance(value, str) else value).encode()


@schemathesis.hook
def map_case(context, case):
    if case.media_type and case.media_type != "application/octet-stream" and case.headers:
        for name in [name for name in case.headers if name.lower() in ONLY_RAW]:
            del case.headers[name]
    if case.meta and case.meta.generation.mode == GenerationMode.POSITIVE:
        for values in (case.query or {}, case.headers or {}):
            for name, value in list(values.items()):
                choices = GOOD.get(name.lower())
                chosen = crc32(str(value).encode("utf-8", "replace"))
                # One of eight stays what it is.
                if choices and (value == "" or chosen % 8):
                    values[name] = choices[chosen // 8 % len(choices)]
        if case.path.endswith("/pull") and isinstance(case.body, dict):
            # A pull of nothing waits a second by itself.
            case.body["wait"] = GOOD["wait"][crc32(str(case.body).encode("utf-8", "replace")) % 3]
        for event in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(event, dict) and "data" in event:
                event.pop("data_base64", None)
    return case


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, RejectedPositiveData) and response.status_code in (400, 406, 416):
        # Which offsets there are, and which URLs are pushed to, is the engine's state.
        if response.json()["code"] in ("OFFSET_OUT_OF_RANGE", "PUSH_REFUSED"):
            return False
        return not IN_WORDS.search(response.json()["detail"])
    return True
