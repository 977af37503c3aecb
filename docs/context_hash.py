#!/usr/bin/env python3
"""Recomputes every test vector of context-hash.md from that page alone.

    context_hash.py [PAGE]

Says every difference and exits with 1 if there is one, with 2 if the page cannot be understood. It needs nothing but
Python 3. It knows the encoding (`encode`) and shares no code with the server, which is the point of it.
"""

import hashlib
import json
import pathlib
import re
import sys

TAG = "moorline/context/v1"
LIVE_CLASS = {"McpServer"}
VECTOR_KEYS = {"name", "same", "resources", "encoding", "hash"}
RESOURCE_KEYS = {"kind", "source", "sourcePath", "sizeBytes", "status", "error", "body", "bodyHex", "contentHash"}


def u32(number):
    return number.to_bytes(4, "big")


def lp(part):
    return u32(len(part)) + part


def content_hash(resource):
    """The 32 bytes, or none when there is no content."""
    if "body" in resource:
        return hashlib.sha256(resource["body"].encode("utf-8")).digest()
    if "bodyHex" in resource:
        return hashlib.sha256(bytes.fromhex(resource["bodyHex"])).digest()
    if "contentHash" in resource:
        return bytes.fromhex(resource["contentHash"].removeprefix("sha256:"))
    return b""


def encode(resources):
    pinned = [r for r in resources if r["kind"] not in LIVE_CLASS]
    pinned.sort(key=lambda r: (r["kind"].encode("utf-8"), r["source"].encode("utf-8")))
    parts = [lp(TAG.encode("utf-8")), u32(len(pinned))]
    for resource in pinned:
        for text in (resource["kind"], resource["source"], resource["status"]):
            parts.append(lp(text.encode("utf-8")))
        parts.append(lp(content_hash(resource)))
    return b"".join(parts)


def digest(encoding):
    return "sha256:" + hashlib.sha256(encoding).hexdigest()


def block(page, language):
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    if len(blocks) != 1:
        raise ValueError(f"expected one block of {language}, found {len(blocks)}")
    return blocks[0]


def by_hand(text):
    """The bytes at the beginning of each line, up to the words."""
    digits = [re.match(r"\s*((?:[0-9a-f]{2}(?:\s+|$))+)", line) for line in text.splitlines()]
    return bytes.fromhex("".join(match[1] for match in digits))


def differences(page):
    vectors = json.loads(block(page, "json"))
    if len(vectors) < 6:
        yield f"only {len(vectors)} vectors"
    names, groups = set(), {}
    for vector in vectors:
        name = vector["name"]
        if name in names:
            yield f"{name}: twice"
        names.add(name)
        unknown = (vector.keys() - VECTOR_KEYS).union(*(r.keys() - RESOURCE_KEYS for r in vector["resources"]))
        if unknown:
            yield f"{name}: unknown {sorted(unknown)}"
        encoding = encode(vector["resources"])
        if vector["encoding"] != encoding.hex():
            yield f"{name}: encoding: the page says {vector['encoding']}, computed {encoding.hex()}"
        if vector["hash"] != digest(encoding):
            yield f"{name}: hash: the page says {vector['hash']}, computed {digest(encoding)}"
        groups.setdefault(vector.get("same", name), set()).add(digest(encoding))
    for name, hashes in groups.items():
        if len(hashes) != 1:
            yield f"{name}: said to be the same, but {sorted(hashes)}"
    if len(set().union(*groups.values())) != len(groups):
        yield "two vectors that are not said to be the same have one hash"
    shown = by_hand(block(page, "text"))
    wanted = bytes.fromhex(next(v["encoding"] for v in vectors if v["name"] == "one file"))
    if shown != wanted:
        yield f"by hand: the page shows {shown.hex()}, computed {wanted.hex()}"
    if f"is these {len(wanted)} bytes" not in page:
        yield f"by hand: there are {len(wanted)} bytes, and the page says otherwise"


def main():
    beside = pathlib.Path(__file__).with_name("context-hash.md")
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else beside
    try:
        found = list(differences(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        print(f"{path}: cannot be understood: {error!r}", file=sys.stderr)
        return 2
    for difference in found:
        print(f"{path}: {difference}", file=sys.stderr)
    if not found:
        print(f"{path}: every vector holds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
