"""What OpenAPI has no words for, so that a request that is to be taken can be: loaded by schemathesis.toml.

Only requests that are made to be taken (positive ones) are mended, and only where a field's rule needs another field, another
object or a grammar. Requests that are made to be refused go as they are.
"""

import zlib

import schemathesis

#: Selectors have a grammar of their own (docs/lists.md).
LABELS = ["", "a=b", "a!=b,c in (d,e)", "!a", "a>5", "moorline.dev/agent=ws"]
FIELDS = ["", "metadata.name=fix", "metadata.namespace!=other"]
#: What tests/schemathesis.rs has made.
KNOWN = {"agents": "ws", "chats": "fix"}


def pick(of, value):
    return of[zlib.crc32(repr(value).encode()) % len(of)]


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query
    if query and str(query.get("watch", "")).lower() in ("true", "1", "t"):
        query["timeoutSeconds"] = "1"  # it would go on, as it should
    generation = getattr(case.meta, "generation", None)
    if generation is None or generation.mode.value != "positive":
        return
    if query:
        of_query(query)
    if case.path_parameters:
        of_path(case)
    if isinstance(case.body, dict):
        of_body(case)


def of_query(query):
    for name, known in (("labelSelector", LABELS), ("fieldSelector", FIELDS)):
        if name in query:
            query[name] = pick(known, query[name])
    for name in ("continue", "cursor", "resourceVersion"):
        query.pop(name, None)  # words of the server's own making
    watch = str(query.get("watch", "")).lower() == "true"
    if watch and str(query.get("sendInitialEvents", "")).lower() == "true":
        query["resourceVersionMatch"] = "NotOlderThan"  # the one goes with the other
    else:
        query.pop("resourceVersionMatch", None)
        query.pop("sendInitialEvents", None)
    if watch:
        query.pop("orderBy", None)  # for lists


def of_path(case):
    """Half of the requests are about what there is; but nothing that is needed is deleted."""
    path = case.operation.path
    case.path_parameters["namespace"] = pick(["team-a", case.path_parameters.get("namespace")], case.path_parameters)
    for plural, name in KNOWN.items():
        if f"/{plural}/{{name}}" in path and case.method.upper() != "DELETE" and not path.endswith("/snapshot"):
            case.path_parameters["name"] = pick([name, case.path_parameters["name"]], [case.path_parameters, case.query])


def of_body(case):
    body = case.body
    method, path = case.method.upper(), case.operation.path
    if method == "DELETE":
        # At most one of the two; what is known of the object is not known here.
        for name in ("orphanDependents", "preconditions", "dryRun"):
            body.pop(name, None)
        if body.get("propagationPolicy") not in ("Background", "Foreground", "Orphan"):
            body.pop("propagationPolicy", None)
        return
    if method == "PATCH":
        # Of what is to be merged OpenAPI says only that it is an object.
        body.clear()
        body.update({"status": {"state": "Running"}} if path.endswith("/status") else {"metadata": {"labels": {"a": "b"}}})
        return
    if path.endswith(("/agents", "/chats")) or path.endswith("/{name}"):
        # Names, labels and annotations have grammars, and the version and uid are the server's.
        name = case.path_parameters.get("name") or f"made-{zlib.crc32(repr(body).encode()):x}"
        body["metadata"] = {"name": name, "labels": {"a": "b"}}
        spec = body.get("spec")
        if isinstance(spec, dict):
            spec.pop("parentRef", None)  # names another chat, which must be there
            if "agentRef" in spec:
                spec.pop("workspaceRef", None)  # at most one of the two
            if method == "PUT":
                spec.pop("owner", None)  # immutable
