//! Where the server's programs are, and how to install them where they are not.
//!
//! Looks in the directory that was given; otherwise on PATH, then where the packages of Debian, Red Hat, Alpine and Homebrew
//! put them, newest first. It installs nothing and downloads nothing.

use super::error::EmbeddedError;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The oldest major version that the schema works on.
pub(super) const OLDEST: u32 = 15;

/// Where packages put the programs, as (directory, what an entry's name begins with, where below the entry).
const PACKAGED: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
];

/// A server's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    /// The directory with `initdb` and `postgres`.
    pub(super) bin: PathBuf,
    /// The major version.
    pub(super) major: u32,
}

/// Where to look, in order.
#[derive(Debug)]
pub(super) struct Places {
    directories: Vec<PathBuf>,
    words: String,
    os_release: String,
}

impl Places {
    /// Only `given` when there is one, otherwise this system's usual places.
    pub(super) fn of_this_system(given: Option<&Path>) -> Self {
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if let Some(given) = given {
            return Self { directories: vec![given.to_owned()], words: given.display().to_string(), os_release };
        }
        let mut directories: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        for (parent, prefix, below) in PACKAGED {
            directories.extend(packaged(Path::new(parent), prefix, below));
        }
        let words = "PATH, /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, /usr/libexec/postgresql* and Homebrew's".to_owned();
        Self { directories, words, os_release }
    }

    /// The first server that will do: of exactly the version `written_by`, when there are data already.
    pub(super) fn find(&self, data: &Path, written_by: Option<&str>) -> Result<Programs, EmbeddedError> {
        let mut seen = BTreeMap::new();
        for directory in &self.directories {
            let Some(programs) = programs_in(directory) else { continue };
            let fits = match written_by {
                Some(major) => programs.major.to_string() == major,
                None => programs.major >= OLDEST,
            };
            if fits && programs.major >= OLDEST {
                return Ok(programs);
            }
            seen.insert(programs.bin, programs.major);
        }
        let found = seen.iter().map(|(bin, major)| format!("{major} in {}", bin.display())).collect::<Vec<_>>().join(", ");
        let install = install(&self.os_release);
        match written_by {
            _ if seen.is_empty() => Err(EmbeddedError::NotFound { searched: self.words.clone(), install }),
            Some(major) => Err(EmbeddedError::OtherMajor { data: data.to_owned(), major: major.to_owned(), found }),
            None => Err(EmbeddedError::TooOld { found, install }),
        }
    }
}

/// The directories of packages below `parent`, newest first.
fn packaged(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.trim_start_matches('@');
            Some((leading_number(version).unwrap_or(0), entry.path().join(below)))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The server in `directory`, if there is one that runs. Links are followed: `initdb` may be linked elsewhere or nowhere.
fn programs_in(directory: &Path) -> Option<Programs> {
    let postgres = directory.join("postgres").canonicalize().ok()?;
    let bin = postgres.parent()?.to_owned();
    if !bin.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(&postgres).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    let major = text.split_whitespace().find_map(leading_number)?;
    Some(Programs { bin, major })
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    text.get(..digits)?.parse().ok()
}

/// How to install a server on the system that this `os-release` describes.
fn install(os_release: &str) -> String {
    if cfg!(target_os = "macos") {
        return "Install it with `brew install postgresql@17`".to_owned();
    }
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
    let command = ids.split_whitespace().find_map(|id| match id {
        "debian" | "ubuntu" => Some("apt-get install -y postgresql"),
        "fedora" | "rhel" | "centos" => Some("dnf install -y postgresql-server"),
        "alpine" => Some("apk add postgresql"),
        "arch" => Some("pacman -S postgresql"),
        "suse" | "opensuse" | "sles" => Some("zypper install -y postgresql-server"),
        _ => None,
    });
    match command {
        Some(command) => format!("Install it with `{command}`"),
        None => format!("Install PostgreSQL {OLDEST} or newer with this system's package manager"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn fake(parent: &Path, name: &str, version: &str) -> PathBuf {
        let bin = parent.join(name);
        fs::create_dir_all(&bin).unwrap();
        for program in ["postgres", "initdb"] {
            let path = bin.join(program);
            fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin.canonicalize().unwrap()
    }

    fn places(directories: Vec<PathBuf>) -> Places {
        Places { directories, words: "here and there".to_owned(), os_release: "ID=debian\n".to_owned() }
    }

    #[test]
    fn the_first_server_that_is_new_enough_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let directories = vec![
            dir.path().join("absent"),
            fake(dir.path(), "a", "14.9"),
            fake(dir.path(), "b", "16beta1"),
            fake(dir.path(), "c", "18.6"),
        ];
        let found = places(directories.clone()).find(Path::new("/d"), None).unwrap();
        assert_eq!(found, Programs { bin: directories[2].clone(), major: 16 });
    }

    #[test]
    fn data_are_served_by_the_version_that_wrote_them_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(vec![fake(dir.path(), "b", "17.1"), fake(dir.path(), "c", "15.2 (Debian 15.2-1)")]);
        assert_eq!(places.find(Path::new("/d"), Some("15")).unwrap().major, 15);
        let refused = places.find(Path::new("/d"), Some("16")).unwrap_err().to_string();
        assert!(refused.contains("/d was written by PostgreSQL 16") && refused.contains("17 in "), "{refused}");
    }

    #[test]
    fn a_server_that_is_too_old_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let old = fake(dir.path(), "a", "14.9");
        let refused = places(vec![old.clone()]).find(Path::new("/d"), None).unwrap_err().to_string();
        assert!(refused.contains(&format!("15 or newer is needed, found only 14 in {}", old.display())), "{refused}");
    }

    #[test]
    fn a_system_without_a_server_is_told_how_to_get_one() {
        let nowhere = places(vec![PathBuf::from("/nowhere")]).find(Path::new("/d"), None).unwrap_err().to_string();
        assert!(nowhere.contains("here and there") && nowhere.contains("`apt-get install -y postgresql`"), "{nowhere}");
        for (os_release, command) in [
            ("NAME=x\nID=ubuntu\nID_LIKE=debian", "apt-get install -y postgresql"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", "dnf install -y postgresql-server"),
            ("ID=fedora", "dnf install -y postgresql-server"),
            ("ID=alpine", "apk add postgresql"),
            ("ID=manjaro\nID_LIKE=arch", "pacman -S postgresql"),
            ("ID=plan9", "package manager"),
        ] {
            assert!(install(os_release).contains(command), "{os_release}: {}", install(os_release));
        }
    }

    #[test]
    fn packages_come_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["postgresql@9", "postgresql@17", "postgresql@16", "redis"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let names: Vec<_> = packaged(dir.path(), "postgresql", "bin");
        let expected: Vec<_> = ["17", "16", "9"].iter().map(|v| dir.path().join(format!("postgresql@{v}/bin"))).collect();
        assert_eq!(names, expected);
    }
}
