//! What watching a workspace promises: every change comes to be reported, and many changes make few reports.

use moorline::{
    clock,
    model::{push::Phase, resource::ResourceStatus},
    workspace::{
        Report,
        watch::{Settings, watch},
    },
};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    sync::watch::{Receiver, channel},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; nothing waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const SKILL: &str = "---\nname: tdd\ndescription: Test first.\n---\n";

/// A workspace that is being watched, with no rescan that could hide a change that was missed.
struct Watched {
    dir: TempDir,
    reports: Receiver<Arc<Report>>,
    watching: JoinHandle<()>,
    shutdown: CancellationToken,
}

fn events_only() -> Settings {
    Settings { rescan: Duration::from_hours(1), rescan_blind: Duration::from_hours(1), ..Settings::default() }
}

impl Watched {
    async fn new(settings: Settings, prepare: impl FnOnce(&TempDir)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        prepare(&dir);
        let nothing = Report { phase: Phase::Pending, error: "not scanned yet".into(), resources: Vec::new() };
        let (sender, mut reports) = channel(Arc::new(nothing));
        let shutdown = CancellationToken::new();
        let watched = watch(dir.path().join("root"), settings, clock::system(), shutdown.clone(), sender);
        let watching = tokio::spawn(async { watched.await.unwrap() });
        timeout(PATIENCE, reports.changed()).await.expect("the first report comes at once").unwrap();
        reports.mark_unchanged();
        Self { dir, reports, watching, shutdown }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    fn body(report: &Report, source: &str) -> Option<String> {
        let resource = report.resources.iter().find(|r| r.meta.source == source)?;
        resource.body.as_ref().map(|body| String::from_utf8(body.clone()).unwrap())
    }

    /// Waits until the newest report shows `source` with `body`, or not at all.
    #[track_caller]
    fn shows(&mut self, source: &str, body: Option<&str>) -> impl Future<Output = ()> {
        let failed = format!("{source} is reported as {body:?}, expected at {}", std::panic::Location::caller());
        let shown = move |report: &Arc<Report>| Self::body(report, source).as_deref() == body;
        async move {
            timeout(PATIENCE, self.reports.wait_for(shown)).await.expect(&failed).expect("watching goes on");
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.watching).await.expect("watching stops when told to").unwrap();
    }
}

#[tokio::test]
async fn an_edit_is_reported() {
    let mut watched = Watched::new(events_only(), |_| {}).await;
    assert_eq!(watched.reports.borrow().phase, Phase::Complete);
    watched.write("AGENTS.md", "one");
    watched.shows("AGENTS.md", Some("one")).await;
    watched.write("AGENTS.md", "two");
    watched.shows("AGENTS.md", Some("two")).await;
    fs::remove_file(watched.path("AGENTS.md")).unwrap();
    watched.shows("AGENTS.md", None).await;
    watched.stop().await;
}

#[tokio::test]
async fn a_file_that_is_renamed_over_the_old_one_is_reported() {
    let mut watched = Watched::new(events_only(), |_| {}).await;
    for content in ["one", "two", "three"] {
        watched.write(".AGENTS.md.swp", content);
        fs::rename(watched.path(".AGENTS.md.swp"), watched.path("AGENTS.md")).unwrap();
        watched.shows("AGENTS.md", Some(content)).await;
    }
    // As vim does with backups: the old file is moved away first.
    fs::rename(watched.path("AGENTS.md"), watched.path("AGENTS.md~")).unwrap();
    watched.write("AGENTS.md", "four");
    watched.shows("AGENTS.md", Some("four")).await;
    watched.stop().await;
}

#[tokio::test]
async fn skill_folders_that_come_later_and_go_and_come_back_are_watched() {
    let mut watched = Watched::new(events_only(), |_| {}).await;
    for folder in ["skills/tdd", ".claude/skills/tdd", ".codex/skills/tdd"] {
        let file = format!("{folder}/SKILL.md");
        watched.write(&file, SKILL);
        watched.shows(folder, Some(SKILL)).await;
        let edited = format!("{SKILL}edited in {folder}");
        watched.write(&file, &edited);
        watched.shows(folder, Some(&edited)).await;
    }
    fs::remove_dir_all(watched.path("skills")).unwrap();
    watched.shows("skills/tdd", None).await;
    watched.write("skills/tdd/SKILL.md", SKILL);
    watched.shows("skills/tdd", Some(SKILL)).await;
    let edited = format!("{SKILL}edited after it came back");
    watched.write("skills/tdd/SKILL.md", &edited);
    watched.shows("skills/tdd", Some(&edited)).await;
    watched.stop().await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_at_once_is_still_watched() {
    let prepare = |dir: &TempDir| {
        for (folder, text) in [("root/skills/tdd", "old"), ("other/tdd", "new")] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("SKILL.md"), format!("{SKILL}{text}")).unwrap();
        }
    };
    let mut watched = Watched::new(events_only(), prepare).await;
    // Within one settling, so that no scan ever sees it missing.
    fs::rename(watched.path("skills"), watched.dir.path().join("old")).unwrap();
    fs::rename(watched.dir.path().join("other"), watched.path("skills")).unwrap();
    watched.shows("skills/tdd", Some(&format!("{SKILL}new"))).await;
    let edited = format!("{SKILL}edited");
    watched.write("skills/tdd/SKILL.md", &edited);
    watched.shows("skills/tdd", Some(&edited)).await;
    watched.stop().await;
}

#[tokio::test]
async fn a_folder_that_is_empty_at_first_is_watched_for_its_skill_file() {
    let mut watched = Watched::new(events_only(), |dir| fs::create_dir_all(dir.path().join("root/skills/tdd")).unwrap()).await;
    watched.write("skills/tdd/SKILL.md", SKILL);
    watched.shows("skills/tdd", Some(SKILL)).await;
    watched.stop().await;
}

#[tokio::test]
async fn the_target_of_a_link_inside_is_watched() {
    let prepare = |dir: &TempDir| {
        fs::create_dir(dir.path().join("root/docs")).unwrap();
        fs::write(dir.path().join("root/docs/rules.md"), "one").unwrap();
        std::os::unix::fs::symlink("docs/rules.md", dir.path().join("root/AGENTS.md")).unwrap();
    };
    let mut watched = Watched::new(events_only(), prepare).await;
    watched.write("docs/rules.md", "two");
    watched.shows("AGENTS.md", Some("two")).await;
    watched.stop().await;
}

#[tokio::test]
async fn a_burst_of_edits_makes_few_reports_and_the_last_one_is_right() {
    let watched = Watched::new(events_only(), |_| {}).await;
    let mut counting = watched.reports.clone();
    let counted = tokio::spawn(async move {
        let mut reports = 0;
        loop {
            counting.changed().await.unwrap();
            reports += 1;
            if Watched::body(&counting.borrow_and_update(), "AGENTS.md").as_deref() == Some("edit 99") {
                return reports;
            }
        }
    });
    // A pace at which a scan would fit between any two edits, and a settled moment would not.
    for i in 0..100 {
        watched.write("AGENTS.md", &format!("edit {i}"));
        watched.write(&format!("skills/s{}/SKILL.md", i % 20), SKILL);
        sleep(Duration::from_millis(10)).await;
    }
    let reports = timeout(PATIENCE, counted).await.expect("the last edit is reported").unwrap();
    assert!(reports <= 10, "200 writes made {reports} reports");
    assert_eq!(watched.reports.borrow().resources.len(), 21);
    watched.stop().await;
}

#[tokio::test]
async fn changes_without_end_do_not_starve_a_report() {
    let mut watched = Watched::new(events_only(), |_| {}).await;
    let (noise, stop) = (watched.path("build.log"), CancellationToken::new());
    let stopping = stop.clone();
    // Never quiet for as long as the debounce, so only the longest wait can end it.
    let writing = tokio::spawn(async move {
        let mut n = 0_u64;
        while !stopping.is_cancelled() {
            fs::write(&noise, n.to_string()).unwrap();
            n += 1;
            sleep(Duration::from_millis(20)).await;
        }
    });
    watched.write("AGENTS.md", "in the noise");
    let begun = Instant::now();
    watched.shows("AGENTS.md", Some("in the noise")).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    stop.cancel();
    writing.await.unwrap();
    watched.stop().await;
}

#[tokio::test]
async fn scanning_does_not_wake_itself() {
    let settings = Settings { debounce: Duration::from_millis(5), ..events_only() };
    let prepare = |dir: &TempDir| {
        fs::create_dir_all(dir.path().join("root/skills/tdd")).unwrap();
        fs::write(dir.path().join("root/skills/tdd/SKILL.md"), SKILL).unwrap();
    };
    let mut watched = Watched::new(settings, prepare).await;
    assert!(timeout(Duration::from_secs(1), watched.reports.changed()).await.is_err(), "nothing changed, and a report came");
    watched.stop().await;
}

#[tokio::test]
async fn a_root_that_goes_away_is_an_error_and_not_an_empty_context() {
    let settings = Settings { rescan_blind: Duration::from_millis(50), ..events_only() };
    let mut watched = Watched::new(settings, |dir| fs::write(dir.path().join("root/AGENTS.md"), "a").unwrap()).await;
    let (root, away) = (watched.path(""), watched.dir.path().join("away"));
    fs::rename(&root, &away).unwrap();
    let gone = watched.reports.wait_for(|report| report.phase == Phase::Pending);
    let report = timeout(PATIENCE, gone).await.expect("it is reported").unwrap().clone();
    assert!(report.error.contains("cannot be read"), "{}", report.error);
    fs::rename(&away, &root).unwrap();
    watched.shows("AGENTS.md", Some("a")).await;
    assert_eq!(watched.reports.borrow().phase, Phase::Complete);
    watched.write("AGENTS.md", "b");
    watched.shows("AGENTS.md", Some("b")).await;
    watched.stop().await;
}

#[tokio::test]
async fn the_slow_rescan_finds_what_no_event_told() {
    let settings = Settings { rescan: Duration::from_millis(50), ..Settings::default() };
    let prepare = |dir: &TempDir| {
        fs::create_dir(dir.path().join("root/later")).unwrap();
        // Dangling: the folder of the target is not watched.
        std::os::unix::fs::symlink("later/rules.md", dir.path().join("root/AGENTS.md")).unwrap();
    };
    let mut watched = Watched::new(settings, prepare).await;
    assert_eq!(watched.reports.borrow().resources[0].meta.status, ResourceStatus::Unreadable);
    watched.write("later/rules.md", "at last");
    watched.shows("AGENTS.md", Some("at last")).await;
    watched.stop().await;
}
