//! Names, labels, annotations, sizes, and bodies that are hardly objects.

use super::{
    chats::chat,
    row::{Of, Row, Sent, Verdict::Taken, refused},
};
use serde_json::{Map, Value, json};

const CHATS: Of = Of("chats");

const REQUESTS: &str = "**Moorline's annotations.** Rules of a custom resource definition cannot read annotations. The HTTP API \
                        refuses a request token of more than 64 characters and a `paused` that is neither `true` nor `false`; \
                        of a manifest such an annotation is passed over.";
const METADATA: &str = "**`ownerReferences`, `finalizers` and `managedFields`.** The HTTP API passes over them, good or bad: \
                        nothing in PostgreSQL is collected by Kubernetes' rules.";
const NUL: &str = "**U+0000 in annotations.** PostgreSQL has no text with it, so the HTTP API refuses it everywhere; a \
                   definition can say so of the fields in `spec` only.";
const LARGE: &str = "**Requests of more than 1.5 MiB.** The HTTP API refuses them, whatever is in them. A kube-apiserver takes \
                     3 MiB, drops what it does not know, and leaves the rest to etcd, whose limit is 1.5 MiB by default.";
const SURROGATES: &str = "**Half a surrogate pair (`\\ud800`).** A kube-apiserver puts U+FFFD in its place; the HTTP API refuses \
                          what is no Unicode text.";
const TYPES: &str = "**A wrong type in `metadata`.** Both answer 400; the HTTP API names the field.";
const NO_VERSION: &str =
    "**A `resourceVersion` that is no number.** A kube-apiserver answers 500; the HTTP API 422, and names it.";
const VERSIONS: &str = "**A `uid` that is another object's.** The HTTP API takes it for a precondition that does not hold: 409, \
                        no field.";

fn labelled(key: &str, value: Value) -> Value {
    let mut labels = Map::new();
    labels.insert(key.to_owned(), value);
    with(json!({"labels": labels}))
}

fn annotated(key: &str, value: Value) -> Value {
    let mut annotations = Map::new();
    annotations.insert(key.to_owned(), value);
    with(json!({"annotations": annotations}))
}

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in its place")]
fn with(metadata: Value) -> Value {
    json!({"metadata": metadata, "spec": {"owner": "alice"}})
}

fn named(name: &str) -> Value {
    with(json!({"name": name}))
}

fn generated(base: &str) -> Value {
    with(json!({"generateName": base}))
}

/// Labels of so many bytes, with keys as long as they may be.
fn many_labels(bytes: usize) -> Value {
    let prefix = "p".repeat(240);
    let one = |n: usize| (format!("{prefix}.p{n:04}/{}", "k".repeat(63)), json!("v".repeat(63)));
    let each = one(0).0.len() + 63 + 6;
    with(json!({"labels": (0..bytes / each).map(one).collect::<Map<_, _>>()}))
}

/// The table.
pub fn rows() -> Vec<Row> {
    [names(), labels(), annotations(), sizes(), bodies(), identity()].into_iter().flatten().collect()
}

fn names() -> Vec<Row> {
    let name = &["metadata.name"];
    vec![
        CHATS.create("a name of 253 bytes", named(&"n".repeat(253))),
        CHATS.create("a name of 254 bytes", named(&"n".repeat(254))).refused(name),
        CHATS.create("a name of dots", named("fix.the-login.1")),
        CHATS.create("a name of two dots", named("fix..login")).refused(name),
        CHATS.create("a name in capitals", named("Fix")).refused(name),
        CHATS.create("a name with a slash", named("a/b")).refused(name),
        CHATS.create("a name of another alphabet", named("ä")).refused(name),
        CHATS.create("an empty name", named("")).refused(name),
        CHATS.create("a generated name", generated("gen-")),
        CHATS.create("a generated name after a dot", generated("gen.")).refused(&["metadata.generateName"]),
        CHATS.create("a generated name of 200 bytes", generated(&"g".repeat(200))),
        CHATS.create("a generated name of 254 bytes", generated(&"g".repeat(254))).refused(&["metadata.generateName"]),
        CHATS.create("a generated name in capitals", generated("Gen-")).refused(&["metadata.generateName", "metadata.name"]),
        CHATS
            .create("a good name beside a bad one to generate", with(json!({"name": "good-name", "generateName": "Bad_"})))
            .refused(&["metadata.generateName"]),
        CHATS.create("a name that is a number", with(json!({"name": 7}))).differs(
            refused(&[]),
            refused(&["metadata.name"]),
            TYPES,
        ),
        CHATS.create("another namespace than the path's", with(json!({"namespace": "team-b"}))).refused(&[]),
        CHATS.create("the path's namespace", with(json!({"namespace": "team-a"}))),
    ]
}

fn labels() -> Vec<Row> {
    let field = &["metadata.labels"];
    let key = format!("{}/{}", "p".repeat(253), "k".repeat(63));
    let long = format!("{}/{}", "p".repeat(254), "k".repeat(63));
    vec![
        CHATS.create("a label at its limits", labelled(&key, json!("v".repeat(63)))),
        CHATS.create("a label whose prefix is too long", labelled(&long, json!("v"))).refused(field),
        CHATS.create("a label whose name is too long", labelled(&"k".repeat(64), json!("v"))).refused(field),
        CHATS.create("a label whose value is too long", labelled("k", json!("v".repeat(64)))).refused(field),
        CHATS.create("a label without a value", labelled("k", json!(""))),
        CHATS.create("a label whose value is null", labelled("k", json!(null))),
        CHATS.create("a label of signs", labelled("example.dev/A_b.C-9", json!("A_b.C-9"))),
        CHATS.create("a label whose value is no word", labelled("k", json!("-v"))).refused(field),
        CHATS.create("a label whose key is no word", labelled("bad key", json!("v"))).refused(field),
        CHATS.create("a label whose prefix is in capitals", labelled("Example.DEV/k", json!("v"))).refused(field),
        CHATS.create("a label whose value is a number", labelled("k", json!(7))).differs(
            refused(&[]),
            refused(&["metadata.labels.k"]),
            TYPES,
        ),
        CHATS
            .change("a bad label, by patch", chat(json!({})), Sent::Merge(json!({"metadata": {"labels": {"a b": "c"}}})))
            .refused(field),
        CHATS.change(
            "other labels",
            labelled("k", json!("v")),
            Sent::Merge(json!({"metadata": {"labels": {"k": null, "l": "w"}}})),
        ),
        CHATS.change(
            "a label is no change of the spec",
            chat(json!({})),
            Sent::Merge(json!({"metadata": {"labels": {"k": "v"}}})),
        ),
    ]
}

fn annotations() -> Vec<Row> {
    let field = &["metadata.annotations"];
    let key = "example.dev/note";
    let token = "moorline.dev/refresh-requested-at";
    let most = 256 * 1024 - key.len();
    vec![
        CHATS.create("annotations of 256 KiB", annotated(key, json!("x".repeat(most)))),
        CHATS.create("annotations of a byte more", annotated(key, json!("x".repeat(most + 1)))).refused(field),
        CHATS.create("annotations of 256 KiB in other letters", annotated(key, json!("ä".repeat(most / 2)))),
        CHATS.create("an annotation with lines", annotated("note", json!("any text\nat \u{1f600} all"))),
        CHATS.create("an annotation whose prefix is in capitals", annotated("Example.DEV/note", json!("x"))),
        CHATS.create("an annotation whose key is no word", annotated("bad key", json!("x"))).refused(field),
        CHATS.create("an annotation without a name", annotated("example.dev/", json!("x"))).refused(field),
        CHATS.create("an annotation that is a flag", annotated("note", json!(true))).differs(
            refused(&[]),
            refused(&["metadata.annotations.note"]),
            TYPES,
        ),
        CHATS.create("an annotation with U+0000", annotated("note", json!("a\0b"))).differs(
            Taken,
            refused(&["metadata.annotations.note"]),
            NUL,
        ),
        CHATS.create("a request token of 64 characters", annotated(token, json!("ä".repeat(64)))),
        CHATS.create("a request token of 65 characters", annotated(token, json!("t".repeat(65)))).differs(
            Taken,
            refused(&["metadata.annotations[moorline.dev/refresh-requested-at]"]),
            REQUESTS,
        ),
        CHATS.create("paused by yes", annotated("moorline.dev/paused", json!("yes"))).differs(
            Taken,
            refused(&["metadata.annotations[moorline.dev/paused]"]),
            REQUESTS,
        ),
        CHATS.create("a finalizer", with(json!({"finalizers": ["example.dev/hold"]}))),
        CHATS.create("a finalizer that is no word", with(json!({"finalizers": ["bad finalizer"]}))).differs(
            refused(&["metadata.finalizers"]),
            Taken,
            METADATA,
        ),
    ]
}

fn sizes() -> Vec<Row> {
    let unknown = |bytes: usize| chat(json!({"notes": "x".repeat(bytes)}));
    let large = |row: Row, theirs| row.differs(theirs, refused(&[]), LARGE);
    vec![
        CHATS.create("labels of 600 KB", many_labels(600_000)),
        CHATS
            .create("an annotation of 1.4 MB", annotated("note", json!("x".repeat(1_400_000))))
            .refused(&["metadata.annotations"]),
        CHATS.create("1.4 MB that nobody knows", unknown(1_400_000)),
        large(CHATS.create("2 MB that nobody knows", unknown(2_000_000)), Taken),
        CHATS.create("4 MB that nobody knows", unknown(4_000_000)).refused(&[]),
        CHATS.create("labels of 1.4 MB", many_labels(1_400_000)),
    ]
}

fn bodies() -> Vec<Row> {
    let raw = |about, text: &str| CHATS.send(about, Sent::CreateRaw(text.to_owned()));
    let typed = r#""apiVersion":"moorline.dev/v1alpha1","kind":"Chat""#;
    let deep =
        format!("{{{typed},\"metadata\":{{\"name\":\"deep\"}},\"spec\":{}1{}}}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    vec![
        raw("no body", "").refused(&[]),
        raw("half an object", "{\"kind\":").refused(&[]),
        raw("a list", "[]").refused(&[]),
        raw("an object and more", &format!("{{{typed},\"metadata\":{{\"name\":\"more\"}},\"spec\":{{}}}} x")).refused(&[]),
        raw("20,000 objects within each other", &deep).refused(&[]),
        raw(
            "half a surrogate pair",
            &format!("{{{typed},\"metadata\":{{\"name\":\"half\"}},\"spec\":{{\"owner\":\"a\",\"title\":\"\\ud800\"}}}}"),
        )
        .differs(Taken, refused(&[]), SURROGATES),
        raw(
            "a title twice",
            &format!(
                "{{{typed},\"metadata\":{{\"name\":\"twice\"}},\"spec\":{{\"owner\":\"a\",\"title\":\"x\",\"title\":\"y\"}}}}"
            ),
        ),
        CHATS.create("another version", json!({"apiVersion": "moorline.dev/v2", "spec": {"owner": "a"}})).refused(&[]),
        CHATS.create("another kind", json!({"kind": "Agent", "spec": {}})).refused(&["kind"]),
    ]
}

fn identity() -> Vec<Row> {
    let there = || chat(json!({}));
    let with = |metadata: Value| json!({"metadata": metadata});
    let uid = "1b4db7eb-4057-4b1b-8b1b-2b1b1b1b1b1b";
    vec![
        CHATS.create("a version already", self::with(json!({"resourceVersion": "5"}))).refused(&[]),
        CHATS.create("a uid already", self::with(json!({"uid": uid}))),
        CHATS.create("a generation already", self::with(json!({"generation": 7}))),
        CHATS
            .change(
                "another name than the path's",
                there(),
                Sent::Put(json!({"metadata": {"name": "other"}, "spec": {"owner": "alice"}})),
            )
            .refused(&[]),
        CHATS.change("another generation", there(), Sent::Merge(with(json!({"generation": 9})))),
        CHATS.change("another uid", there(), Sent::Merge(with(json!({"uid": uid})))).differs(
            refused(&["metadata.uid"]),
            refused(&[]),
            VERSIONS,
        ),
        CHATS.change("another name, by patch", there(), Sent::Merge(with(json!({"name": "other"})))).refused(&[]),
        CHATS
            .change(
                "a version that is no number",
                there(),
                Sent::Put(json!({"metadata": {"resourceVersion": "x"}, "spec": {"owner": "alice"}})),
            )
            .differs(refused(&[]), refused(&["metadata.resourceVersion"]), NO_VERSION),
    ]
}
