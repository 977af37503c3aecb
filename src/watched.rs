//! Files that somebody replaces while we run: certificates, credentials.
//!
//! It looks at what is in them, once a second, and so sees every way of replacing: a rename, a write in place, the symbolic link
//! that the kubelet swaps above a whole folder, a network file system that tells nobody. What it does not: understand what it
//! reads. It keeps no content, only a digest: what is in these files is secret.

use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often to look.
const LOOK: Duration = Duration::from_secs(1);

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {}: {source}", path.display())]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Some files, and what was in them when they were last looked at.
#[derive(Clone, Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    known: Known,
}

/// What is known of the files, without their content.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Content([u8; 32]),
    Unreadable(PathBuf, io::ErrorKind),
}

/// What is in each of the files.
pub type Contents = Vec<Vec<u8>>;

impl Watched {
    /// Reads them for the first time.
    pub fn open(paths: &[&Path]) -> Result<(Self, Contents), Unreadable> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
        let contents = read(&paths)?;
        Ok((Self { paths, known: Known::Content(digest(&contents)) }, contents))
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Waits until there is something else in them than what was last told, or until they cannot be read any more, and tells
    /// that once. Dropping the wait loses nothing.
    pub async fn changed(&mut self) -> Result<Contents, Unreadable> {
        loop {
            tokio::time::sleep(LOOK).await;
            let (known, _) = self.look().await;
            if known == self.known {
                continue;
            }
            // Between the reading of two files both may have been replaced: what is told was there twice.
            let (again, found) = self.look().await;
            if again == known {
                self.known = again;
                return found;
            }
        }
    }

    async fn look(&self) -> (Known, Result<Contents, Unreadable>) {
        let paths = self.paths.clone();
        // A thread for it: the files may be on a network.
        let found = tokio::task::spawn_blocking(move || read(&paths)).await.unwrap_or_else(|error| {
            Err(Unreadable { path: self.paths.first().cloned().unwrap_or_default(), source: io::Error::other(error) })
        });
        let known = match &found {
            Ok(contents) => Known::Content(digest(contents)),
            Err(Unreadable { path, source }) => Known::Unreadable(path.clone(), source.kind()),
        };
        (known, found)
    }
}

fn read(paths: &[PathBuf]) -> Result<Contents, Unreadable> {
    paths.iter().map(|path| fs::read(path).map_err(|source| Unreadable { path: path.clone(), source })).collect()
}

fn digest(contents: &Contents) -> [u8; 32] {
    let mut hash = Sha256::new();
    for content in contents {
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[tokio::test]
    async fn files_below_a_link_that_is_swapped_are_told_together_and_once() {
        let home = tempfile::tempdir().expect("a folder");
        let at = |name: &str| home.path().join(name);
        for (folder, text) in [("1", "one"), ("2", "two")] {
            fs::create_dir(at(folder)).expect("a folder");
            for file in ["crt", "key"] {
                fs::write(at(folder).join(file), text).expect("a file");
            }
        }
        symlink("1", at("..data")).expect("a link");
        let (crt, key) = (at("..data").join("crt"), at("..data").join("key"));
        let (mut watched, first) = Watched::open(&[&crt, &key]).expect("both are there");
        assert_eq!(first, [b"one", b"one"]);
        // As the kubelet does it.
        symlink("2", at("..data_tmp")).expect("a link");
        fs::rename(at("..data_tmp"), at("..data")).expect("the swap");
        assert_eq!(watched.changed().await.expect("both are there"), [b"two", b"two"]);
        fs::remove_file(&key).expect("it goes");
        let gone = watched.changed().await.expect_err("one is gone");
        assert_eq!((gone.path, gone.source.kind()), (key.clone(), io::ErrorKind::NotFound));
        // Not told again; what comes next is.
        fs::write(&key, "three").expect("it is there again");
        assert_eq!(watched.changed().await.expect("both are there"), [b"two".to_vec(), b"three".to_vec()]);
    }
}
