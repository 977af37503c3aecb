//! Notices changes of a workspace and scans it again: a level kept up to date, not a stream of changes.
//!
//! What it does: watches exactly the folders that the last scan named, each by itself and never below, so that a
//! `node_modules` costs nothing; waits until changes have settled ([`Settings::debounce`]), but never longer than
//! [`Settings::max_wait`], so that a file that is written for ever cannot starve the rest; and scans.
//!
//! What makes it correct: folders are registered before they are looked at. A scan that names a folder which was not
//! watched yet is repeated after registering it, so what changed in between is seen. Every scan registers its folders
//! anew, because a folder that was removed and made again has lost its watch. An event only says "look"; what it said
//! besides is ignored. The slow rescan covers what the system does not report: network file systems, links that are
//! retargeted outside the folders watched.
//!
//! What it does not: say what changed, or decide whether that matters. Equal scans are told apart by `push`.

use super::{Report, scan::scan};
use crate::{clock::Clock, telemetry::reasons};
use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch::Sender},
    task::JoinError,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How a workspace is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long nothing must change before a scan. 250 ms.
    pub debounce: Duration,
    /// How long a scan may be put off by more changes. 2 s.
    pub max_wait: Duration,
    /// How often to scan although nothing was reported; up to a quarter is taken off at random. 60 s.
    pub rescan: Duration,
    /// The same while watching does not work, or the root is not there. 2 s.
    pub rescan_blind: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(250),
            max_wait: Duration::from_secs(2),
            rescan: Duration::from_mins(1),
            rescan_blind: Duration::from_secs(2),
        }
    }
}

/// Scans `root`, sends the report, and does both again at every change, until `shutdown`. The first report is sent at once.
/// An error is a panic of the scan.
pub async fn watch(
    root: PathBuf,
    settings: Settings,
    clock: Clock,
    shutdown: CancellationToken,
    reports: Sender<Arc<Report>>,
) -> Result<(), JoinError> {
    let changed = Arc::new(Notify::new());
    let mut eyes = Eyes::new(changed.clone());
    loop {
        let folder = root.clone();
        let report;
        (eyes, report) = tokio::task::spawn_blocking(move || {
            let report = eyes.look(&folder);
            (eyes, report)
        })
        .await?;
        reports.send_replace(Arc::new(report));
        let pause = jittered(if eyes.blind.is_none() { settings.rescan } else { settings.rescan_blind }, clock.random());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = settled(&changed, settings) => {}
            () = sleep(pause) => {}
        }
    }
}

/// Waits for a change, and then until changes have settled.
async fn settled(changed: &Notify, settings: Settings) {
    changed.notified().await;
    let first = Instant::now();
    let mut last = first;
    loop {
        tokio::select! {
            biased; // at the deadline it is over, even if there is one more change to tell of
            () = sleep_until(quiet_at(first, last, settings)) => return,
            () = changed.notified() => last = Instant::now(),
        }
    }
}

/// When to stop waiting for more, the first change having come at `first` and the last so far at `last`.
fn quiet_at(first: Instant, last: Instant, settings: Settings) -> Instant {
    (last + settings.debounce).min(first + settings.max_wait)
}

/// `pause`, less up to a quarter: many agents started together do not scan together.
fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(1.0 - 0.25 * random.clamp(0.0, 1.0))
}

/// The watches held, and why they are not enough if they are not.
struct Eyes {
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    blind: Option<String>,
}

impl Eyes {
    fn new(changed: Arc<Notify>) -> Self {
        Self { changed, watcher: None, watched: BTreeSet::new(), blind: None }
    }

    /// Scans until a scan names no folder that was not watched before it began.
    fn look(&mut self, root: &Path) -> Report {
        const ATTEMPTS: usize = 4; // a workspace that grows folders faster than this is scanned again at its next event
        let mut trouble = self.register(&self.watched.clone()).err();
        let mut report = None;
        for _ in 0..ATTEMPTS {
            let scanned = match scan(root) {
                Ok(scanned) => scanned,
                Err(error) => {
                    self.see(Some(reasons(&error)));
                    return Report::failed(&error);
                }
            };
            let known = scanned.folders.is_subset(&self.watched);
            if scanned.folders != self.watched {
                trouble = self.register(&scanned.folders).err();
            }
            report = Some(Report::complete(scanned));
            if known || trouble.is_some() {
                break;
            }
        }
        self.see(trouble);
        report.expect("at least one attempt was made, and one that failed has returned")
    }

    /// Watches exactly `folders`, those it watches already anew.
    fn register(&mut self, folders: &BTreeSet<PathBuf>) -> Result<(), String> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => none.insert(new_watcher(self.changed.clone()).map_err(|error| in_words(&error))?),
        };
        for gone in self.watched.difference(folders) {
            watcher.unwatch(gone).ok(); // it may have ended with its folder
        }
        self.watched.retain(|folder| folders.contains(folder));
        for folder in folders {
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone());
                }
                // Its removal is an event of the folder above it.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {
                    self.watched.remove(folder);
                }
                Err(error) => {
                    self.watched.remove(folder);
                    return Err(in_words(&error));
                }
            }
        }
        Ok(())
    }

    /// Notes whether changes are seen, and says so when that has changed.
    fn see(&mut self, trouble: Option<String>) {
        match (&self.blind, &trouble) {
            (None, Some(trouble)) => {
                tracing::warn!("changes of the workspace are not reported, scanning every few seconds instead: {trouble}");
            }
            (Some(_), None) => tracing::info!("changes of the workspace are reported again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.blind = trouble;
    }
}

fn new_watcher(changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| match event {
        Ok(event) if !may_change_content(event.kind) => {}
        Ok(_) | Err(_) => changed.notify_one(), // one permit, however many events
    })
}

/// Whether to look after such an event. Reading is none: the scan itself opens files, and would never come to rest.
fn may_change_content(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

fn in_words(error: &notify::Error) -> String {
    const TOO_MANY_INSTANCES: i32 = 24; // EMFILE
    match &error.kind {
        ErrorKind::MaxFilesWatch => "the limit of inotify watches is reached; raise the sysctl fs.inotify.max_user_watches".into(),
        ErrorKind::Io(io) if io.raw_os_error() == Some(TOO_MANY_INSTANCES) => {
            "the limit of inotify instances or of open files is reached; raise the sysctl fs.inotify.max_user_instances or ulimit -n".into()
        }
        ErrorKind::Generic(_)
        | ErrorKind::Io(_)
        | ErrorKind::PathNotFound
        | ErrorKind::WatchNotFound
        | ErrorKind::InvalidConfig(_) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, ModifyKind, RemoveKind};

    #[tokio::test]
    async fn a_scan_waits_for_quiet_but_not_for_ever() {
        let settings = Settings::default();
        let start = Instant::now();
        let ms = |n| start + Duration::from_millis(n);
        assert_eq!(quiet_at(start, start, settings), ms(250));
        assert_eq!(quiet_at(start, ms(1000), settings), ms(1250));
        assert_eq!(quiet_at(start, ms(1750), settings), ms(2000));
        assert_eq!(quiet_at(start, ms(9000), settings), ms(2000), "the longest wait counts from the first change");
    }

    #[test]
    fn a_pause_is_jittered_downwards_only() {
        let minute = Duration::from_mins(1);
        assert_eq!(jittered(minute, 0.0), minute);
        assert_eq!(jittered(minute, 0.5), Duration::from_millis(52_500));
        assert_eq!(jittered(minute, 7.0), Duration::from_secs(45));
    }

    #[test]
    fn reading_a_file_is_no_change_of_it() {
        for read in [AccessKind::Open(AccessMode::Any), AccessKind::Read, AccessKind::Close(AccessMode::Read), AccessKind::Any] {
            assert!(!may_change_content(EventKind::Access(read)), "{read:?}");
        }
        for change in [
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            EventKind::Remove(RemoveKind::Folder),
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Other,
        ] {
            assert!(may_change_content(change), "{change:?}");
        }
    }

    #[test]
    fn limits_are_explained() {
        assert!(in_words(&notify::Error::new(ErrorKind::MaxFilesWatch)).contains("max_user_watches"));
        assert!(in_words(&notify::Error::io(std::io::Error::from_raw_os_error(24))).contains("max_user_instances"));
    }
}
