//! Transactions of the store's own writes, held open by hand: an old version that is committed late, a savepoint that is
//! rolled back, a name that is deleted and made again. What is refused or fails is part of it; nobody tries again.

use super::{api::NAMESPACE, postgres::TestDb, proxy::Seeded, until::until_within};
use moorline::{
    clock,
    model::{
        access::Reach,
        chat::{ChatSpec, Reference, RefreshPolicy},
        object::{DeletionPolicy, Key, Source, TextMap},
    },
    store::{self, Write},
    writes::{
        Preconditions,
        chats::{CreateChat, DeleteChat, Propagation, UpdateChat, Wanted},
    },
};
use sqlx::{Acquire as _, PgConnection};
use std::{ops::Range, time::Duration};

/// One transaction after another.
pub async fn writes(db: &TestDb, seed: u64, rounds: Range<u64>) {
    let mut random = Seeded::new(1_000 * seed + rounds.start);
    for round in rounds {
        // A database that is away refuses; the next round asks again.
        let _ = one(db, &mut random, round).await;
    }
}

async fn one(db: &TestDb, random: &mut Seeded, round: u64) -> Result<(), sqlx::Error> {
    let mut tx = db.pool.begin().await?;
    if random.of(0..2) == 0 {
        // Its version is of now, and what it does comes later.
        sqlx::query("SELECT pg_current_xact_id()").execute(&mut *tx).await?;
        hold(random).await;
    }
    if random.of(0..3) == 0 {
        let mut savepoint = tx.begin().await?;
        change(&mut savepoint, random, round).await;
        hold(random).await;
        savepoint.rollback().await?;
    }
    if change(&mut tx, random, round).await {
        hold(random).await;
        tx.commit().await
    } else {
        tx.rollback().await
    }
}

/// Long enough for others to commit many times meanwhile.
async fn hold(random: &mut Seeded) {
    tokio::time::sleep(Duration::from_millis(random.of(0..250))).await;
}

/// One change of one of the chats that the API's writers change too; whether it was made.
async fn change(tx: &mut PgConnection, random: &mut Seeded, round: u64) -> bool {
    let clock = clock::system();
    let key = Key::new(NAMESPACE, format!("chat-{}-{}", random.of(1..3), random.of(0..12)));
    let known = Preconditions::default;
    let delete = DeleteChat { key: &key, known: known(), propagation: Propagation::Background, asks: Source::Api };
    let (spec, none) = (spec(&format!("hostile {round}")), TextMap::new());
    let create = CreateChat {
        clock: &clock,
        key: &key,
        spec: &spec,
        labels: &none,
        annotations: &none,
        created_by: "alice",
        reach: &Reach::Everything,
        source: Source::Api,
    };
    match random.of(0..4) {
        0 => delete.run(tx).await.is_ok(),
        1 => create.run(tx).await.is_ok(),
        // The same name, another chat, in one transaction.
        2 => delete.run(tx).await.is_ok() && create.run(tx).await.is_ok(),
        _ => {
            let Ok(Some(old)) = store::chats::get(tx, &key).await else { return false };
            let mut wanted = Wanted { spec: old.chat.spec, labels: old.chat.meta.labels, annotations: old.chat.meta.annotations };
            wanted.spec.title = format!("hostile {round}");
            let update = UpdateChat { clock: &clock, key: &key, known: known(), wanted: &wanted, asks: Source::Api };
            update.run(tx).await.is_ok()
        }
    }
}

fn spec(title: &str) -> ChatSpec {
    ChatSpec {
        owner: "alice".into(),
        title: title.into(),
        reference: Reference::Agent("one".into()),
        parent: None,
        refresh_policy: RefreshPolicy::Manual,
        suspend: false,
        archived: false,
        deletion_policy: DeletionPolicy::Delete,
    }
}

/// Waits until the log has grown by so many rows: until the writers are in the middle of it.
pub async fn some_commits(db: &TestDb, rows: i64) {
    let count = || async { sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&db.pool).await.ok() };
    let before: i64 = count().await.unwrap();
    until_within(Duration::from_mins(1), "the writers are in the middle of it", || async {
        count().await.filter(|now: &i64| *now >= before + rows).map(drop)
    })
    .await;
}
