use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A number that no other part of this test run has.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A folder that is removed with everything in it when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ka{}-{}", std::process::id(), unique()));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("cannot make {}: {e}", path.display()));
        // Others may pass through, as one test runs the agent as nobody; what is secret has 0600 itself.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A small disk of its own put over a folder.
pub struct Disk(PathBuf);

impl Disk {
    pub fn over(folder: PathBuf) -> Self {
        mount(&["-t", "tmpfs", "-o", "size=256k", "disk"], &folder);
        Self(folder)
    }

    pub fn fill(&self) {
        let filled = fs::write(self.0.join("other"), vec![b'x'; 1 << 20]);
        assert!(filled.is_err(), "the disk is full");
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("other")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}

/// Runs `mount` with these words and a place.
pub fn mount(words: &[&str], at: &Path) {
    let status = Command::new("mount").args(words).arg(at).status().unwrap();
    assert!(status.success(), "mount {words:?}");
}
