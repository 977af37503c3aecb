//! Lists the chats, and follows them by version.

use super::{
    Habit, LAST, Seen, Shared, Shown, Stretch, Told, Word,
    lines::{Lines, SILENCE},
};
use crate::{histories::servers::Servers, support::proxy::Seeded};
use serde_json::Value;
use std::{collections::HashMap, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// A rest before it comes back to servers of which none answers.
const BREATH: Duration = Duration::from_millis(50);

/// How a connection ended.
enum End {
    Cut,
    Expired,
    Complete,
}

/// What it knows since its list.
struct Known {
    selects: bool,
    version: i64,
    listed: HashMap<Uuid, (i64, Shown)>,
    told: Vec<Told>,
    resumed: Vec<i64>,
}

/// Follows until it is told of the last chat's end, or lists after it.
pub async fn watch(watcher: String, number: u64, habit: Habit, servers: Servers, mut random: Seeded, shared: Shared) -> Seen {
    let http = reqwest::Client::new();
    let mut seen = Seen { watcher, ..Seen::default() };
    let mut turn = number;
    let mut known: Option<Known> = None;
    let following = async {
        loop {
            turn += 1;
            let base = format!("{}/apis/moorline.dev/v1alpha1/chats", servers.of(turn));
            let anew = habit == Habit::ListsAnew && random.of(0..4) != 0;
            if anew && let Some(known) = known.take() {
                seen.stretches.push(known.stretch());
            }
            if known.is_none() {
                // Whoever lists before the last chat is made will be told of its end; whoever lists after it knows everything.
                let over = shared.over.read().await;
                known = timeout(SILENCE, list(&http, &base, habit == Habit::Selects)).await.ok().flatten();
                if *over && known.is_some() {
                    seen.complete = true;
                    return;
                }
            }
            let Some(follower) = &mut known else {
                tokio::time::sleep(BREATH).await;
                continue;
            };
            let most = match habit {
                Habit::ListsAnew => 400,
                Habit::Resumes => 2_000,
                Habit::Selects => 40,
            };
            match follower.follow(&http, &base, random.of(10..most), &shared).await {
                End::Cut => seen.cuts += 1,
                End::Expired => {
                    seen.expired += 1;
                    seen.stretches.extend(known.take().map(Known::stretch));
                }
                End::Complete => {
                    seen.complete = true;
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = shared.give_up.cancelled() => {}
    }
    seen.stretches.extend(known.map(Known::stretch));
    seen
}

/// The query that leaves out what is archived.
fn selector(selects: bool) -> &'static str {
    if selects { "fieldSelector=spec.archived%3Dfalse" } else { "" }
}

async fn list(http: &reqwest::Client, base: &str, selects: bool) -> Option<Known> {
    let list: Value = http.get(format!("{base}?{}", selector(selects))).send().await.ok()?.json().await.ok()?;
    let version: i64 = list["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    let mut listed = HashMap::new();
    for item in list["items"].as_array()? {
        let (id, _, rv) = identity(item);
        listed.insert(id, (rv, shown(item)));
    }
    Some(Known { selects, version, listed, told: Vec::new(), resumed: Vec::new() })
}

fn identity(object: &Value) -> (Uuid, &str, i64) {
    let metadata = &object["metadata"];
    let version: i64 = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
    (metadata["uid"].as_str().unwrap().parse().unwrap(), metadata["name"].as_str().unwrap(), version / 2)
}

fn shown(object: &Value) -> Shown {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let dirty = object.pointer("/status/dirty").and_then(Value::as_bool).unwrap_or_default();
    Shown { mark: text("/metadata/labels/op"), hash: text("/status/pinned/hash"), dirty }
}

impl Known {
    fn stretch(self) -> Stretch {
        let Self { selects, version, listed, told, resumed } = self;
        Stretch::Objects { selects, version: version / 2, listed, told, resumed }
    }

    async fn follow(&mut self, http: &reqwest::Client, base: &str, lines: u64, shared: &Shared) -> End {
        // An object's own version is even, and comes again; the list's is odd, and does not.
        let version = self.told.last().map_or(self.version, |told| told.rv * 2);
        let Some(mut open) =
            Lines::open(http, &format!("{base}?watch=1&resourceVersion={version}&{}", selector(self.selects))).await
        else {
            tokio::time::sleep(BREATH).await;
            return End::Cut;
        };
        let connection = u32::try_from(self.resumed.len()).unwrap();
        self.resumed.push(version);
        let mut left = lines;
        while left > 0 {
            let Some(line) = open.next().await else { return End::Cut };
            let object = &line["object"];
            let word = match line["type"].as_str().unwrap_or_default() {
                "ADDED" => Word::Added,
                "MODIFIED" => Word::Modified,
                "DELETED" => Word::Deleted,
                "ERROR" if object["code"] == 410 => return End::Expired,
                _ => return End::Cut,
            };
            let (id, name, rv) = identity(object);
            let over = word == Word::Deleted && name == LAST;
            // What came with the version that it went on from comes again, and may be more than it would listen to.
            if rv * 2 > version {
                left -= 1;
            }
            if self.told.last().is_none_or(|told| told.rv < rv) {
                shared.is_told();
            }
            self.told.push(Told { word, id, name: name.to_owned(), rv, connection, shown: shown(object) });
            if over {
                return End::Complete;
            }
        }
        End::Cut
    }
}
