//! A file of tokens, in the format of kube-apiserver's `--token-auth-file`.

use super::{AuthError, Identity};
use crate::metrics::METRICS;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::SystemTime,
};

/// The word of this in the metric.
const WHAT: &str = "tokens";

/// A file of tokens, read again when it changes. Tokens are looked up by their sha256, so that no comparison of them takes a
/// time that tells anything.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: Arc<PathBuf>,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug)]
struct Known {
    modified: Option<SystemTime>,
    users: HashMap<[u8; 32], Identity>,
}

impl TokenFile {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, AuthError> {
        let known = Known { modified: modified(path), users: read(path)? };
        Ok(Self { path: Arc::new(path.to_owned()), known: Arc::new(RwLock::new(known)) })
    }

    /// Whose token this is.
    pub fn find(&self, token: &str) -> Option<Identity> {
        self.read_again();
        let known = self.known.read().expect("no holder of this lock panics");
        known.users.get(&<[u8; 32]>::from(Sha256::digest(token))).cloned()
    }

    /// A file that changed and cannot be read keeps what was known; that is logged once a change.
    fn read_again(&self) {
        let now = modified(&self.path);
        if self.known.read().expect("no holder of this lock panics").modified == now {
            return;
        }
        let mut known = self.known.write().expect("no holder of this lock panics");
        if known.modified == now {
            return;
        }
        known.modified = now;
        match read(&self.path) {
            Ok(users) => {
                METRICS.reloaded(WHAT, "ok");
                tracing::info!(users = users.len(), "the token file has changed and was read again");
                known.users = users;
            }
            Err(error) => {
                METRICS.reloaded(WHAT, "refused");
                tracing::error!(%error, "the token file has changed and cannot be read; the tokens known before stay");
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

pub(super) fn read(path: &Path) -> Result<HashMap<[u8; 32], Identity>, AuthError> {
    let text = fs::read_to_string(path).map_err(|source| AuthError::Read { path: path.to_owned(), source })?;
    let mut lines = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut users = HashMap::new();
    for record in lines.records() {
        let bad = |line: u64, message| AuthError::Line { path: path.to_owned(), line, message };
        let form = "must be token,user,uid and optionally \"group1,group2\" in quotes";
        let record = record.map_err(|error| bad(error.position().map_or(0, csv::Position::line), form))?;
        let bad = |message| bad(record.position().map_or(0, csv::Position::line), message);
        let (Some(token), Some(user), Some(_), 3 | 4) = (record.get(0), record.get(1), record.get(2), record.len()) else {
            return Err(bad(form));
        };
        if token.is_empty() || user.is_empty() {
            return Err(bad("token and user must not be empty"));
        }
        let groups = record.get(3).unwrap_or_default().split(',').map(str::trim).filter(|group| !group.is_empty());
        let identity = Identity::by_rules(user.to_owned(), groups.map(str::to_owned).collect());
        if users.insert(Sha256::digest(token).into(), identity).is_some() {
            return Err(bad("this token stands in the file twice"));
        }
    }
    Ok(users)
}
