//! Who runs the server, and whether they can get to its files.
//!
//! PostgreSQL refuses to run as root. A root process runs it as `postgres`, or else as `nobody`; data that exist already stay
//! with the user who owns them. Access lists are not looked at: the modes decide.

use super::error::{At as _, EmbeddedError};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, lchown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

/// The user that the server runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// For messages.
    pub(super) name: String,
    uid: u32,
    gid: u32,
    /// Whether this process has to become that user: it is root.
    switch: bool,
}

/// Whether this process is root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Account {
    /// Chooses who runs the server of the cluster `data`, which need not exist yet.
    pub(super) fn choose(data: &Path) -> Result<Self, EmbeddedError> {
        if !is_root() {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            return Ok(Self { name: format!("uid {uid}"), uid, gid, switch: false });
        }
        if let Ok(owned) = fs::symlink_metadata(data)
            && owned.uid() != 0
        {
            return Ok(Self { name: format!("uid {}", owned.uid()), uid: owned.uid(), gid: owned.gid(), switch: true });
        }
        let account = |name: &str| {
            let (uid, gid) = (id("-u", name)?, id("-g", name)?);
            Some(Self { name: name.to_owned(), uid, gid, switch: true }).filter(|account| account.uid != 0)
        };
        account("postgres").or_else(|| account("nobody")).ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this user, in `/`, with nothing in its environment that could lead it elsewhere.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        command.envs(["PATH", "LD_LIBRARY_PATH"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        if self.switch {
            // The standard library drops the supplementary groups of root with it.
            command.gid(self.gid).uid(self.uid);
        }
        command
    }

    /// Makes `path` this user's.
    pub(super) fn take(&self, path: &Path) -> Result<(), EmbeddedError> {
        if self.switch { lchown(path, Some(self.uid), Some(self.gid)).at("changing the owner of", path) } else { Ok(()) }
    }

    /// Whether `uid` is this user.
    pub(super) fn is(&self, uid: u32) -> bool {
        self.uid == uid
    }

    /// Makes the directory `path`, which only this user may enter, unless it is there. Its parent exists.
    pub(super) fn private_directory(&self, path: &Path) -> Result<(), EmbeddedError> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.at("creating", path)?,
        }
        let there = fs::symlink_metadata(path).at("looking at", path)?;
        let ours = there.is_dir() && (self.is(there.uid()) || (self.switch && there.uid() == 0));
        if !ours {
            let (owner, mode) = (there.uid(), there.mode() & 0o7777);
            return Err(EmbeddedError::NotPrivate { path: path.to_owned(), owner, mode, user: self.name.clone() });
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at("changing the mode of", path)?;
        self.take(path)
    }

    /// Refuses a `target` that this user cannot get to: a directory above it is closed to them. Links are resolved; what does
    /// not exist yet will be open.
    pub(super) fn must_reach(&self, target: &Path, remedy: &'static str) -> Result<(), EmbeddedError> {
        if !self.switch {
            return Ok(());
        }
        let mut ancestors: Vec<&Path> = target.ancestors().skip(1).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            let there = match fs::metadata(ancestor) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                there => there.at("looking at", ancestor)?,
            };
            let bit = match (there.uid() == self.uid, there.gid() == self.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if there.mode() & bit == 0 {
                return Err(EmbeddedError::Unreachable {
                    user: self.name.clone(),
                    target: target.to_owned(),
                    ancestor: ancestor.to_owned(),
                    mode: there.mode() & 0o7777,
                    owner: there.uid(),
                    remedy,
                });
            }
        }
        Ok(())
    }
}

/// A number of a user, from the system's own `id`, which knows directories other than /etc/passwd.
fn id(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
