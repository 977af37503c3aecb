//! A small disk that can be filled: a file system in memory of a fixed size, where this process may mount one (as root).

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted disk. It is unmounted with this.
pub struct Disk {
    at: PathBuf,
    ballast: Option<PathBuf>,
}

impl Disk {
    /// One of so many bytes at a folder that is there; none where that may not be.
    pub fn mount(at: &Path, bytes: u64) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "moorline-tests"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("no disk of our own: this process may not mount one at {}; it is not filled", at.display());
        }
        mounted.then(|| Self { at: at.to_owned(), ballast: None })
    }

    /// Takes all the room that is left.
    pub fn fill(&mut self) {
        let path = self.at.join("ballast");
        let (mut file, piece) = (File::create(&path).unwrap(), vec![0; 1 << 16]);
        while file.write(&piece).is_ok_and(|written| written > 0) {}
        self.ballast = Some(path);
    }

    /// Gives it back.
    pub fn make_room(&mut self) {
        if let Some(ballast) = self.ballast.take() {
            std::fs::remove_file(ballast).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also when something is still open there.
        Command::new("umount").arg("--lazy").arg(&self.at).output().ok();
    }
}
