"""What OpenAPI has no words for, so that a request that is to be taken can be: SCHEMATHESIS_HOOKS names this file.

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
def filter_query(context, query):
    """0 and 1 are false and true in a query, as in Kubernetes; "boolean" does not say so."""
    flags = ("watch", "allowWatchBookmarks", "sendInitialEvents", "bodies")
    return not any(str((query or {}).get(flag)) in ("0", "1", "") for flag in flags)


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query
    if query and str(query.get("watch", "")).lower() in ("true", "t"):
        query["watch"] = "false"  # another answer, a stream of lines: an operation of OpenAPI has one. Watches have their own tests
    generation = getattr(case.meta, "generation", None)
    if generation is None or generation.mode.value != "positive":
        return
    if query:
        of_query(query)
    if case.path_parameters:
        of_path(case)
    if isinstance(case.body, dict):
        of_body(case)
    if isinstance(case.body, list) and case.method.upper() == "PATCH":
        # What can be done depends on the object that is patched.
        status = case.operation.path.endswith("/status")
        path, value = ("/status/state", "Running") if status else ("/metadata/labels", {"a": "b"})
        case.body[:] = [{"op": "add", "path": path, "value": value}]


def of_query(query):
    for name, known in (("labelSelector", LABELS), ("fieldSelector", FIELDS)):
        if name in query:
            query[name] = pick(known, query[name])
    for name in ("continue", "cursor", "resourceVersion"):
        query.pop(name, None)  # words of the server's own making
    for name in ("resourceVersionMatch", "sendInitialEvents"):
        query.pop(name, None)  # with a version, or of a watch
    if query.get("fieldValidation") == "Strict":
        query.pop("fieldValidation")  # it refuses more than the schemas do: that is what it is for


def of_path(case):
    """Half of the requests are about what there is; but nothing that is needed is deleted."""
    path = case.operation.path
    case.path_parameters["namespace"] = pick(["team-a", case.path_parameters.get("namespace")], case.path_parameters)
    for plural, name in KNOWN.items():
        if f"/{plural}/{{name}}" in path and case.method.upper() != "DELETE":
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
    if path.endswith("/snapshot"):
        # What one says of a resource must agree with the rest of it, and no two have one name.
        for n, resource in enumerate(body.get("resources") or []):
            for name in ("bodyBase64", "contentHash", "sizeBytes"):
                resource.pop(name, None)
            resource.update(kind="Skill" if resource.get("kind") == "McpConfig" else resource["kind"], source=f"s{n}", body="x")
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
