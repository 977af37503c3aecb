//! Continue tokens, cursors of events and versions: what is written is read again as it was, and what nobody wrote is refused.

use moorline::{
    http::{
        page::{Continue, ListQuery, Place, Wanted, list_version, object_version, parse_object_version},
        status::Resource,
        watch::place,
    },
    model::object::Key,
    store::{events::Cursor, lists::Updated},
    v1alpha1::event::{cursor_text, read_cursor},
};
use serde_json::json;
use uuid::Uuid;

use super::tape::Tape;

/// The bytes are a token, a cursor and a version; and they say where a list is to go on, and what somebody changes in its token.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for list in &LISTS {
        anybodys_token(&text, list);
    }
    if let Some(cursor) = read_cursor(&text) {
        assert!(cursor.rv >= 0 && cursor.seq >= 0, "{cursor:?}");
        assert_eq!(cursor_text(cursor), text, "a cursor has one form");
    }
    anybodys_version(&text);
    let mut tape = Tape(data);
    own_token(&mut tape);
    own_numbers(&mut tape);
}

/// A list, by what tells it from others.
struct List {
    resource: Resource,
    namespace: Option<&'static str>,
    labels: &'static str,
    fields: &'static str,
    order: &'static str,
}

const fn list(resource: Resource, namespace: Option<&'static str>, [labels, fields, order]: [&'static str; 3]) -> List {
    List { resource, namespace, labels, fields, order }
}

/// No two of them are the same list.
const LISTS: [List; 8] = [
    list(Resource::Chats, Some("team-a"), ["", "", ""]),
    list(Resource::Chats, Some("team-a"), ["", "", "-updated"]),
    list(Resource::Chats, Some("team-b"), ["", "", ""]),
    list(Resource::Chats, None, ["", "", ""]),
    list(Resource::Agents, Some("team-a"), ["", "", ""]),
    list(Resource::AgentSnapshots, Some("team-a"), ["", "", ""]),
    list(Resource::Chats, Some("team-a"), ["a=b", "", ""]),
    list(Resource::Chats, Some("team-a"), ["", "status.state=Error", ""]),
];

impl List {
    /// What is asked for with this token; none when it is refused.
    fn page(&self, token: &str) -> Option<Wanted> {
        let query: ListQuery = serde_json::from_value(json!({
            "continue": token, "labelSelector": self.labels, "fieldSelector": self.fields, "orderBy": self.order,
        }))
        .expect("a query");
        match query.read(self.resource, self.namespace) {
            Ok(wanted) => Some(wanted),
            Err(error) => {
                assert_eq!(error.code().as_u16(), 400, "{}", error.message());
                None
            }
        }
    }
}

/// Reads a token that may be anybody's. One that is taken has one form, and names nothing that the database has no word for.
fn anybodys_token(text: &str, list: &List) {
    let Some(wanted) = list.page(text) else { return };
    let Some(token) = wanted.continued.clone() else {
        assert!(text.is_empty(), "a token that is not looked at: {text:?}");
        return;
    };
    assert!(token.rv >= 0, "a version that no list had: {token:?}");
    match &token.after {
        Place::Name(Key { namespace, name }) => assert!(!namespace.contains('\0') && !name.contains('\0'), "{token:?}"),
        Place::Updated(Updated { at, .. }) => {
            assert!(at.as_second() >= 0, "before there were computers: {token:?}");
            assert_eq!(at.subsec_nanosecond() % 1000, 0, "finer than the database has it: {token:?}");
        }
    }
    assert_eq!(Continue::after(token.after, token.rv, &wanted).encode(), text, "a token has one form");
}

fn anybodys_version(text: &str) {
    if let Ok(rv) = parse_object_version(text) {
        assert!(rv == -1 || object_version(rv) == text, "{rv} of {text:?}");
    }
    if let Ok(cursor) = place(text) {
        let back = [object_version(cursor.rv), list_version(cursor.rv)];
        assert!(cursor.rv >= 0 && back.iter().any(|form| form == text), "{cursor:?} of {text:?}");
    }
}

/// A token of ours leads to where it was made, in its own list and in no other; a change to it is found out, or leads to
/// another place of the same list.
fn own_token(tape: &mut Tape<'_>) {
    let of = usize::from(tape.byte()) % LISTS.len();
    let list = &LISTS[of];
    let rv = tape.number() & i64::MAX;
    let after = if list.order == "-updated" {
        let micros = tape.number() & ((1 << 52) - 1);
        let at = jiff::Timestamp::from_microsecond(micros).expect("within 143 years");
        Place::Updated(Updated { at, id: Uuid::from_u128(u128::from_be_bytes(std::array::from_fn(|_| tape.byte()))) })
    } else {
        Place::Name(Key::new(tape.text(63).replace('\0', ""), tape.text(253).replace('\0', "")))
    };
    let first = list.page("").expect("the first page");
    let token = Continue::after(after.clone(), rv, &first).encode();
    for (n, other) in LISTS.iter().enumerate() {
        match other.page(&token) {
            Some(wanted) => {
                let read = wanted.continued.expect("the token");
                assert_eq!((n, &read.after, read.rv), (of, &after, rv), "it leads to where it was made");
            }
            None => assert_ne!(n, of, "its own list takes it: {token}"),
        }
    }
    let mut bytes = token.into_bytes();
    let at = usize::from(tape.byte()) * 256 + usize::from(tape.byte());
    let at = at % bytes.len();
    bytes[at] = tape.byte() & 0x7f;
    for list in &LISTS {
        anybodys_token(str::from_utf8(&bytes).expect("ASCII"), list);
    }
}

fn own_numbers(tape: &mut Tape<'_>) {
    let cursor = Cursor { rv: tape.number() & i64::MAX, seq: i32::try_from(tape.number() & 0x7fff_ffff).expect("31 bits") };
    assert_eq!(read_cursor(&cursor_text(cursor)), Some(cursor));
    assert_eq!(parse_object_version(&object_version(cursor.rv)).ok(), Some(cursor.rv));
    let through = place(&list_version(cursor.rv)).expect("a version of a list");
    assert_eq!(through, Cursor::through(cursor.rv));
    let from = place(&object_version(cursor.rv));
    assert_eq!(from.ok(), (cursor.rv > 0).then_some(Cursor { rv: cursor.rv, seq: 0 }), "0 is no version");
}
