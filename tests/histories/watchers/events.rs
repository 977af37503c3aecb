//! Follows the transitions by cursor.

use super::{LAST, Seen, Shared, Stretch, Transition, lines::Lines};
use crate::{
    histories::{log::Place, servers::Servers},
    support::proxy::Seeded,
};
use moorline::model::event::EventKind;
use serde_json::Value;
use std::time::Duration;

/// A rest before it comes back to servers of which none answers.
const BREATH: Duration = Duration::from_millis(50);

/// How a connection ended.
enum End {
    Cut,
    Expired,
    Complete,
}

/// Follows until it is told of the last chat's end.
pub async fn watch(watcher: String, number: u64, servers: Servers, mut random: Seeded, shared: Shared) -> Seen {
    let http = reqwest::Client::new();
    let mut seen = Seen { watcher, ..Seen::default() };
    let mut turn = number;
    let following = async {
        loop {
            turn += 1;
            let base = format!("{}/apis/moorline.dev/v1alpha1/contextevents", servers.of(turn));
            let (mut after, mut told) = match seen.stretches.pop() {
                Some(Stretch::Events { after, told }) => (after, told),
                Some(other @ Stretch::Objects { .. }) => unreachable!("{other:?}"),
                None => {
                    if let Some(now) = now(&http, &base).await {
                        (now, Vec::new())
                    } else {
                        tokio::time::sleep(BREATH).await;
                        continue;
                    }
                }
            };
            let cursor = told.last().map_or(after, |transition: &Transition| transition.place);
            let end = follow(&http, &base, cursor, (random.of(50..2_000), &shared), &mut told).await;
            if matches!(end, End::Expired) {
                seen.expired += 1;
                seen.stretches.push(Stretch::Events { after, told });
                let Some(now) = now(&http, &base).await else { continue };
                (after, told) = (now, Vec::new());
            }
            seen.stretches.push(Stretch::Events { after, told });
            if matches!(end, End::Complete) {
                seen.complete = true;
                return;
            }
            seen.cuts += 1;
        }
    };
    tokio::select! {
        () = following => {}
        () = shared.give_up.cancelled() => {}
    }
    seen
}

/// After everything that a list would tell now.
async fn now(http: &reqwest::Client, base: &str) -> Option<Place> {
    let list: Value = http.get(format!("{base}?limit=1")).send().await.ok()?.json().await.ok()?;
    let version: i64 = list["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    Some((version / 2, i32::MAX))
}

async fn follow(
    http: &reqwest::Client,
    base: &str,
    cursor: Place,
    (lines, shared): (u64, &Shared),
    told: &mut Vec<Transition>,
) -> End {
    let url = format!("{base}?watch=1&cursor={}-{}", cursor.0, cursor.1);
    let Some(mut open) = Lines::open(http, &url).await else {
        tokio::time::sleep(BREATH).await;
        return End::Cut;
    };
    for _ in 0..lines {
        let Some(line) = open.next().await else { return End::Cut };
        let (word, object) = (line["type"].as_str().unwrap_or_default(), &line["object"]);
        match word {
            "BOOKMARK" => {}
            "ERROR" if object["code"] == 410 => return End::Expired,
            "ERROR" => return End::Cut,
            _ => {
                let transition = transition(object);
                let last = transition.kind == EventKind::ChatDeleted && transition.name == LAST;
                told.push(transition);
                shared.is_told();
                if last {
                    return End::Complete;
                }
            }
        }
    }
    End::Cut
}

fn transition(object: &Value) -> Transition {
    let (rv, seq) = object["metadata"]["name"].as_str().unwrap().split_once('-').unwrap();
    let chat = &object["chat"];
    Transition {
        place: (rv.parse().unwrap(), seq.parse().unwrap()),
        kind: object["type"].as_str().unwrap().parse().unwrap(),
        chat: chat["uid"].as_str().map(|uid| (uid.parse().unwrap(), chat["seq"].as_i64().unwrap())),
        name: chat["name"].as_str().unwrap_or_default().to_owned(),
    }
}
